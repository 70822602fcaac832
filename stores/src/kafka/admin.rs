//! Making the topic, checking it, and telling what it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metering::Unavailable;
use metering::usage::{Offset, Partition};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use super::bounds::bounds;
use super::client::{Listening, Plain};
use super::settings::{KafkaSettings, QUERY_TIMEOUT, SettingError};
use super::topic::{
    BrokerStatus, LogStatus, MARK, PartitionStatus, TopicDifference, TopicError, TopicId, TopicSpec,
};
use super::unavailable;

/// How long a new topic's leaders may take to be elected.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(20);
const LEADERS_PAUSE: Duration = Duration::from_millis(50);

/// How long a broker may take to say why it does not let us in.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);
const REASON_PAUSE: Duration = Duration::from_millis(20);

/// Asks and tells the brokers about the topic.
pub struct KafkaAdmin {
    client: Arc<AdminClient<Plain>>,
    settings: KafkaSettings,
}

type Options = HashMap<String, String>;

impl KafkaAdmin {
    /// A client; connects by itself.
    ///
    /// # Errors
    /// [`SettingError`]: an option is not the caller's, or the library refuses one.
    pub fn new(settings: &KafkaSettings) -> Result<Self, SettingError> {
        let client = Arc::new(settings.client()?.create_with_context(Plain)?);
        Ok(Self { client, settings: settings.clone() })
    }

    /// Makes the topic; when it is there already, checks it as it would have been made.
    ///
    /// # Errors
    /// [`TopicError::Differs`] names each difference and what would mend it; nothing was changed.
    pub async fn ensure_topic(&self, spec: TopicSpec) -> Result<TopicId, TopicError> {
        if self.partitions().await?.is_none() {
            self.create(spec).await?;
        }
        self.check(Some(spec)).await?;
        self.topic_id().await
    }

    /// Checks what every process relies on: the number of partitions, and the log's own time.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn check_topic(&self) -> Result<TopicId, TopicError> {
        self.check(None).await?;
        self.topic_id().await
    }

    /// Checks that the topic holds what was counted: up to these offsets, read before this is asked.
    ///
    /// # Errors
    /// [`TopicError::Shorter`]: it does not.
    pub async fn check_reaches(&self, cursors: &[(Partition, Offset)]) -> Result<(), TopicError> {
        let generation = self.settings.generation();
        for found in self.describe().await?.partitions {
            let partition = Partition::new(found.partition);
            let end = generation.offset(found.end)?;
            let cursor = cursors.iter().find(|(one, _)| *one == partition);
            if let Some((_, counted)) = cursor.copied().filter(|(_, counted)| *counted > end) {
                let topic = self.settings.topic.clone();
                return Err(TopicError::Shorter { topic, partition, end, counted });
            }
        }
        Ok(())
    }

    /// Which topic this is.
    ///
    /// # Errors
    /// [`TopicError::Differs`]: the topic was not made by `tokenmeter migrate`, so has no mark.
    pub async fn topic_id(&self) -> Result<TopicId, TopicError> {
        let options = self.options().await?;
        let found = options.get(MARK).cloned().unwrap_or_default();
        let mark = found.parse().ok().filter(|mark| TopicId::is_mark(*mark)).ok_or_else(|| {
            self.differs(vec![self.option_difference(MARK, &TopicId::draw().to_string(), &found)])
        })?;
        let client = self.client.clone();
        let cluster = blocking(move || Ok(client.inner().fetch_cluster_id(QUERY_TIMEOUT))).await?;
        let cluster = cluster.ok_or_else(|| unavailable("the cluster tells no id"))?;
        Ok(TopicId { cluster, mark })
    }

    /// The brokers, and each partition's copies and ends.
    ///
    /// # Errors
    /// [`Unavailable`]: the brokers did not answer.
    pub async fn describe(&self) -> Result<LogStatus, Unavailable> {
        // Only for this: the events of a client that nobody polls gather.
        let consumer = self.settings.client().and_then(|it| Ok(it.create_with_context(Plain)?));
        let (client, consumer) = (self.client.clone(), consumer.map_err(unavailable)?);
        let topic = self.settings.topic.clone();
        match blocking(move || describe(&client, &consumer, &topic)).await {
            Err(error) => Err(self.explained(error).await),
            found => found,
        }
    }

    async fn create(&self, spec: TopicSpec) -> Result<(), TopicError> {
        let partitions = i32::try_from(self.settings.partitions.get()).map_err(unavailable)?;
        let replication = TopicReplication::Fixed(spec.replication.into());
        let mark = TopicId::draw().to_string();
        let required = required(Some(spec));
        let mut topic =
            NewTopic::new(&self.settings.topic, partitions, replication).set(MARK, &mark);
        for (name, value) in &required {
            topic = topic.set(name, value);
        }
        let timeout = AdminOptions::new().operation_timeout(Some(QUERY_TIMEOUT));
        let created = self.client.create_topics([&topic], &timeout).await.map_err(unavailable)?;
        for outcome in created {
            match outcome {
                // Another process has just made it: it is checked like any other.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(unavailable(format!("topic {topic} was not made: {code}")).into());
                }
            }
        }
        self.wait_for_leaders().await
    }

    /// A topic that has just been made has no leaders for a moment, and then leaders that do not know
    /// it yet.
    async fn wait_for_leaders(&self) -> Result<(), TopicError> {
        let deadline = Instant::now() + LEADERS_TIMEOUT;
        let expected = usize::try_from(self.settings.partitions.get()).unwrap_or(usize::MAX);
        loop {
            // Every leader tells where its partitions begin and end.
            let described = self.describe().await;
            let partitions = described.map(|found| found.partitions);
            if partitions.as_ref().is_ok_and(|found| {
                found.len() >= expected && found.iter().all(|one| one.leader.is_some())
            }) {
                return Ok(());
            }
            if Instant::now() > deadline {
                partitions?;
                return Err(unavailable("the new topic's partitions have no leaders").into());
            }
            tokio::time::sleep(LEADERS_PAUSE).await;
        }
    }

    async fn check(&self, spec: Option<TopicSpec>) -> Result<(), TopicError> {
        let topic = &self.settings.topic;
        let found = self.partitions().await?.ok_or_else(|| TopicError::Missing(topic.clone()))?;
        let options = self.options().await?;
        let mut differences = Vec::new();
        let partitions = self.settings.partitions.to_string();
        if found.len().to_string() != partitions {
            differences.push(TopicDifference {
                what: "the number of partitions".to_owned(),
                expected: partitions,
                found: found.len().to_string(),
                mend: "it is fixed when the topic is made: set the same number in every process, \
                       or start a generation in a new topic with `tokenmeter migrate --new-log`"
                    .to_owned(),
            });
        }
        if let Some(spec) = spec
            && let Some(odd) =
                found.iter().find(|one| one.replicas.len() != usize::from(spec.replication))
        {
            differences.push(TopicDifference {
                what: format!("the number of replicas of partition {}", odd.partition),
                expected: spec.replication.to_string(),
                found: odd.replicas.len().to_string(),
                mend: format!(
                    "kafka-reassign-partitions.sh --bootstrap-server {} --execute \
                     --reassignment-json-file FILE",
                    self.settings.brokers
                ),
            });
        }
        for (name, expected) in required(spec) {
            let found = options.get(name).map_or("", String::as_str);
            if found != expected {
                differences.push(self.option_difference(name, &expected, found));
            }
        }
        if differences.is_empty() { Ok(()) } else { Err(self.differs(differences)) }
    }

    fn differs(&self, differences: Vec<TopicDifference>) -> TopicError {
        TopicError::Differs { topic: self.settings.topic.clone(), differences }
    }

    fn option_difference(&self, name: &str, expected: &str, found: &str) -> TopicDifference {
        let KafkaSettings { brokers, topic, .. } = &self.settings;
        let what = if name == MARK { format!("{name}, the log's mark,") } else { name.to_owned() };
        TopicDifference {
            what,
            expected: expected.to_owned(),
            found: found.to_owned(),
            mend: format!(
                "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics \
                 --entity-name {topic} --add-config {name}={expected}"
            ),
        }
    }

    /// `None`: there is no such topic.
    async fn partitions(&self) -> Result<Option<Vec<PartitionStatus>>, Unavailable> {
        let client = self.client.clone();
        let topic = self.settings.topic.clone();
        match blocking(move || partitions(&client, &topic)).await {
            Err(error) => Err(self.explained(error).await),
            found => found,
        }
    }

    /// With why the brokers are not reached. The events of this client's connections are shown to
    /// nobody, those of a consumer are.
    async fn explained(&self, error: Unavailable) -> Unavailable {
        let consumer = self.settings.client().and_then(|it| {
            Ok(it.create_with_context::<_, BaseConsumer<Listening>>(Listening::default())?)
        });
        let Ok(consumer) = consumer else { return error };
        let asking = move || {
            // Makes it connect. If it can, it has nothing to tell.
            if consumer.fetch_metadata(None, REASON_TIMEOUT).is_ok() {
                return Ok(None);
            }
            let deadline = Instant::now() + REASON_TIMEOUT;
            loop {
                let heard = consumer.context().heard();
                if heard.is_some() || Instant::now() > deadline {
                    return Ok(heard);
                }
                drop(consumer.poll(REASON_PAUSE));
            }
        };
        match blocking(asking).await {
            Ok(Some(reason)) => unavailable(format!("{}: {reason}", error.reason)),
            Ok(None) | Err(_) => error,
        }
    }

    async fn options(&self) -> Result<Options, TopicError> {
        let topic = &self.settings.topic;
        let asked = [ResourceSpecifier::Topic(topic)];
        let timeout = AdminOptions::new().request_timeout(Some(QUERY_TIMEOUT));
        let described =
            self.client.describe_configs(&asked, &timeout).await.map_err(unavailable)?;
        let mut options = Options::new();
        for resource in described {
            let resource = resource.map_err(|code| match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                    TopicError::Missing(topic.clone())
                }
                _ => unavailable(code).into(),
            })?;
            let entries = resource.entries.into_iter();
            options.extend(entries.filter_map(|entry| Some((entry.name, entry.value?))));
        }
        Ok(options)
    }
}

/// The options that the log rests on; without a spec, those that no operator may choose.
fn required(spec: Option<TopicSpec>) -> Vec<(&'static str, String)> {
    let mut required = vec![
        // Log time decides what is void and what is a duplicate.
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        // Offsets are dense, and the mark means nothing else.
        ("cleanup.policy", "delete".to_owned()),
    ];
    if let Some(spec) = spec {
        required.extend([
            ("retention.ms", spec.retention.as_millis().to_string()),
            // Records must not go before their time, however many there are.
            ("retention.bytes", "-1".to_owned()),
            ("min.insync.replicas", spec.min_insync.to_string()),
            // A replica that lags must not become the leader: acknowledged records would be gone.
            ("unclean.leader.election.enable", "false".to_owned()),
        ]);
    }
    required
}

fn describe(
    client: &AdminClient<Plain>,
    consumer: &BaseConsumer<Plain>,
    topic: &str,
) -> Result<LogStatus, Unavailable> {
    let metadata = client.inner().fetch_metadata(None, QUERY_TIMEOUT).map_err(unavailable)?;
    let brokers = metadata.brokers().iter().map(|broker| BrokerStatus {
        id: broker.id(),
        address: format!("{}:{}", broker.host(), broker.port()),
    });
    let brokers = brokers.collect();
    let mut partitions = partitions(client, topic)?.unwrap_or_default();
    for one in &mut partitions {
        let number = i32::try_from(one.partition).map_err(unavailable)?;
        (one.first, one.end) = bounds(consumer, topic, number)?;
    }
    let cluster = client.inner().fetch_cluster_id(QUERY_TIMEOUT);
    Ok(LogStatus { cluster, brokers, partitions })
}

fn partitions(
    client: &AdminClient<Plain>,
    topic: &str,
) -> Result<Option<Vec<PartitionStatus>>, Unavailable> {
    // Of all topics: to ask for one by its name may make it.
    let metadata = client.inner().fetch_metadata(None, QUERY_TIMEOUT).map_err(unavailable)?;
    Ok(metadata.topics().iter().find(|one| one.name() == topic).map(statuses))
}

fn statuses(topic: &MetadataTopic) -> Vec<PartitionStatus> {
    let status = |one: &rdkafka::metadata::MetadataPartition| {
        Some(PartitionStatus {
            partition: u32::try_from(one.id()).ok()?,
            leader: Some(one.leader()).filter(|leader| *leader >= 0),
            replicas: one.replicas().to_vec(),
            in_sync: one.isr().to_vec(),
            first: 0,
            end: 0,
        })
    };
    let mut statuses: Vec<_> = topic.partitions().iter().filter_map(status).collect();
    statuses.sort_by_key(|status| status.partition);
    statuses
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unavailable> + Send + 'static,
) -> Result<T, Unavailable> {
    tokio::task::spawn_blocking(work).await.map_err(unavailable)?
}

impl std::fmt::Debug for KafkaAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaAdmin").field("topic", &self.settings.topic).finish_non_exhaustive()
    }
}
