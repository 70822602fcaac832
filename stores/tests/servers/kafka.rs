//! A topic and a consumer group of their own for each test.

use std::num::NonZeroU32;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use stores::kafka::{KafkaAdmin, KafkaSettings, TopicSpec};

/// How the tests' topics are made: one broker is enough.
pub(crate) const SPEC: TopicSpec =
    TopicSpec { replication: 1, min_insync: 1, retention: Duration::from_secs(7 * 24 * 3600) };

const TIMEOUT: Duration = Duration::from_secs(20);

/// A topic, gone when dropped.
pub(crate) struct FreshTopic {
    /// How it is reached.
    pub(crate) settings: KafkaSettings,
}

/// A name that no topic has yet.
pub(crate) fn unmade(partitions: u32) -> FreshTopic {
    let name = format!("tokenmeter-test-{:016x}", rand::random::<u64>());
    let mut settings = KafkaSettings::new(super::url("KAFKA_BROKERS"));
    settings.partitions = NonZeroU32::new(partitions).unwrap();
    settings.group.clone_from(&name);
    settings.topic = name;
    settings.session_timeout = Duration::from_secs(6);
    FreshTopic { settings }
}

/// A topic as `tokenmeter migrate` makes it.
pub(crate) async fn made(partitions: u32) -> FreshTopic {
    let topic = unmade(partitions);
    topic.admin().ensure_topic(SPEC).await.unwrap();
    topic
}

impl FreshTopic {
    pub(crate) fn admin(&self) -> KafkaAdmin {
        KafkaAdmin::new(&self.settings).unwrap()
    }

    /// As somebody else makes it.
    pub(crate) async fn make_by_hand(&self, partitions: i32, options: &[(&str, &str)]) {
        let mut topic = NewTopic::new(&self.settings.topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in options {
            topic = topic.set(name, value);
        }
        let made = self.client().create_topics([&topic], &waiting()).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        self.until(async |admin| !admin.describe().await.unwrap().partitions.is_empty()).await;
    }

    /// Deletes it now, and waits until it is gone.
    pub(crate) async fn delete(&self) {
        delete(self.client(), self.settings.topic.clone()).await;
        self.until(async |admin| admin.describe().await.unwrap().partitions.is_empty()).await;
    }

    async fn until(&self, holds: impl AsyncFn(&KafkaAdmin) -> bool) {
        let admin = self.admin();
        let held = async {
            while !holds(&admin).await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, held).await.unwrap();
    }

    pub(crate) fn client(&self) -> AdminClient<DefaultClientContext> {
        config(&self.settings).create().unwrap()
    }
}

/// A client that knows nothing of the log.
pub(crate) fn config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers);
    config
}

fn waiting() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT))
}

async fn delete(client: AdminClient<DefaultClientContext>, topic: String) {
    // Those that were never made are not there.
    drop(client.delete_topics(&[&topic], &waiting()).await.unwrap());
}

impl Drop for FreshTopic {
    fn drop(&mut self) {
        let deleted = delete(self.client(), self.settings.topic.clone());
        // The test's own runtime cannot be waited for from within.
        let deleted = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(deleted);
        });
        assert!(deleted.join().is_ok() || std::thread::panicking());
    }
}
