//! A client whose library has forgotten every broker.

use std::sync::Arc;
use std::time::Duration;

use metering::usage::{EventSource, Horizon, Offset, Tick};
use stores::kafka::{KafkaEventLog, KafkaEventSource, KafkaSettings};

use crate::contract::event_log::PARTITION;
use crate::small_broker::SmallBroker;

/// Ten seconds without a broker, and what it takes to notice.
const PATIENCE: Duration = Duration::from_secs(60);

async fn until(holds: impl AsyncFn() -> bool) {
    let held = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, held).await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_named_no_broker_for_a_moment_is_found_again() {
    let mut settings = KafkaSettings::new("");
    settings.partitions = std::num::NonZeroU32::MIN;
    // So that each client asks within the moment.
    settings
        .client_options
        .insert("topic.metadata.refresh.interval.ms".to_owned(), "500".to_owned());
    let broker = SmallBroker::start(&settings.topic);
    settings.brokers = broker.address();
    let log = Arc::new(KafkaEventLog::open(&settings).unwrap());
    let source = KafkaEventSource::observe(&settings, log, None).unwrap();
    let tick = Tick { horizon: Horizon::Ever };
    source.tick(PARTITION, tick).await.unwrap();
    assert_eq!(source.end(PARTITION).await.unwrap(), Offset::new(7));

    broker.fence(true);
    until(async || broker.connections() == 0).await;
    broker.fence(false);
    until(async || source.end(PARTITION).await.is_ok()).await;
    until(async || source.tick(PARTITION, tick).await.is_ok()).await;
}
