//! Brokers that are away: all of them, or those of some partitions.

use std::net::TcpListener;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use metering::usage::{EventSource, Horizon, Offset, Partition, Tick};
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

/// A cluster of one broker, and a log in it.
fn cluster_of_one(partitions: u32) -> (SmallBroker, KafkaSettings) {
    let mut settings = KafkaSettings::new("");
    settings.partitions = NonZeroU32::new(partitions).unwrap();
    let broker = SmallBroker::start(&settings.topic, i32::try_from(partitions).unwrap());
    settings.brokers = broker.address();
    (broker, settings)
}

#[tokio::test]
async fn a_cluster_that_named_no_broker_for_a_moment_is_found_again() {
    let (broker, mut settings) = cluster_of_one(1);
    // So that each client asks within the moment.
    settings
        .client_options
        .insert("topic.metadata.refresh.interval.ms".to_owned(), "500".to_owned());
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

#[tokio::test]
async fn a_log_without_records_tells_whether_its_brokers_are_there() {
    let (broker, settings) = cluster_of_one(1);
    let log = Arc::new(KafkaEventLog::open(&settings).unwrap());
    let source = KafkaEventSource::observe(&settings, log.clone(), None).unwrap();
    source.tick(PARTITION, Tick { horizon: Horizon::Ever }).await.unwrap();
    assert!(!log.is_failing());
    broker.fence(true);
    until(async || log.is_failing()).await;
    broker.fence(false);
    until(async || !log.is_failing()).await;
}

#[tokio::test]
async fn a_log_without_records_tells_of_a_partition_without_a_leader() {
    // The second partition has none.
    let (_broker, settings) = cluster_of_one(2);
    let log = KafkaEventLog::open(&settings).unwrap();
    until(async || log.is_failing()).await;
}

#[tokio::test]
async fn a_partition_without_a_leader_does_not_hide_the_end_of_another() {
    let (_broker, settings) = cluster_of_one(2);
    let log = Arc::new(KafkaEventLog::open(&settings).unwrap());
    let source = KafkaEventSource::observe(&settings, log, None).unwrap();
    for _ in 0..2 {
        // The first is asked for alone; the other two wait meanwhile, and are asked for together.
        let (_, leaderless, led) = tokio::join!(
            source.end(PARTITION),
            source.end(Partition::new(1)),
            source.end(PARTITION)
        );
        assert_eq!(led.unwrap(), Offset::new(7));
        assert!(leaderless.is_err());
    }
}

#[tokio::test]
async fn a_leader_out_of_reach_does_not_hide_the_end_of_another_partition() {
    let (broker, settings) = cluster_of_one(3);
    // Bound, so that nobody else is there; it never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    broker.others_are_led_by(silent.local_addr().unwrap());
    let log = Arc::new(KafkaEventLog::open(&settings).unwrap());
    let source = KafkaEventSource::observe(&settings, log, None).unwrap();
    for _ in 0..2 {
        let (_, silent, led, other) = tokio::join!(
            source.end(PARTITION),
            source.end(Partition::new(1)),
            source.end(PARTITION),
            source.end(Partition::new(2)),
        );
        assert_eq!(led.unwrap(), Offset::new(7));
        assert!(silent.is_err() && other.is_err());
    }
}
