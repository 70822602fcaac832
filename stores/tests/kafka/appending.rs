//! What Kafka promises to whoever appends.

use std::time::{Duration, Instant};

use metering::accounts::UserId;
use metering::trace::TraceParent;
use metering::usage::{AdmittedEvent, AppendError, EventLog, EventSource, Partition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use stores::kafka::{KafkaEventLog, KafkaSettings};

use crate::both::{Both, now};
use crate::contract::event_log::{PARTITION, PATIENCE, all, event, events, stretch, trace};
use crate::servers::kafka::{config, made, unmade};

fn unavailable<T: std::fmt::Debug>(result: Result<T, AppendError>) -> String {
    match result {
        Err(AppendError::Unavailable(error)) => error.reason,
        other => panic!("not unavailable: {other:?}"),
    }
}

pub(crate) fn of_user(number: u8, id: &str) -> AdmittedEvent {
    let mut admitted = event(id, now());
    admitted.event.user_id = UserId::from_bytes([number; 16]);
    admitted.id_digest = admitted.event.id_digest();
    admitted
}

#[tokio::test]
async fn log_time_is_the_brokers_and_each_record_has_its_own() {
    let topic = made(1).await;
    let both = Both::joined(&topic.settings).await;
    // No clock here runs a minute behind the broker's.
    let mut early = events(&["a"], now());
    early[0].event.received_at = now().minus(Duration::from_secs(60));
    let before = now();
    let answered = both.append(early, None).await.unwrap();
    let after = now();
    assert!((before..=after).contains(&answered[0].log_time), "{answered:?}");
    assert_eq!(all(&both).await[0].log_time, answered[0].log_time);
}

#[tokio::test]
async fn a_users_events_are_in_the_users_partition() {
    let topic = made(8).await;
    let both = Both::joined(&topic.settings).await;
    let users = 0..40;
    both.append(users.clone().map(|user| of_user(user, "one")).collect(), None).await.unwrap();
    let mut found = 0;
    for number in 0..8 {
        let partition = Partition::new(number);
        let expected: Vec<_> = users
            .clone()
            .map(|user| UserId::from_bytes([user; 16]))
            .filter(|user| Partition::of(*user, topic.settings.partitions) == partition)
            .collect();
        let end = both.end(partition).await.unwrap();
        assert_eq!(end.number(), u64::try_from(expected.len()).unwrap());
        found += expected.len();
        let records = stretch(&both, partition, Default::default(), expected.len()).await;
        let users = records.into_iter().map(|record| match record.payload {
            metering::usage::Payload::Event(admitted) => admitted.event.user_id,
            other => panic!("{other:?}"),
        });
        assert_eq!(users.collect::<Vec<_>>(), expected);
    }
    assert_eq!(found, 40);
}

#[tokio::test]
async fn what_is_acknowledged_is_before_the_end_that_is_asked_for_next() {
    let topic = made(2).await;
    let both = Both::open(&topic.settings);
    for appended in 1..=50 {
        let event = event(&format!("e{appended}"), now());
        let partition = Partition::of(event.event.user_id, topic.settings.partitions);
        both.append(vec![event], None).await.unwrap();
        assert_eq!(both.end(partition).await.unwrap().number(), appended);
    }
}

/// The headers of the log's first records, as any consumer sees them.
fn headers(settings: &KafkaSettings, count: usize) -> Vec<Vec<(String, String)>> {
    let mut config = config(settings);
    config.set("group.id", "another-reader").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(&settings.topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&start).unwrap();
    let header = |header: Header<'_, &[u8]>| {
        let value = header.value.unwrap().to_vec();
        (header.key.to_owned(), String::from_utf8(value).unwrap())
    };
    let read = (0..count).map(|_| {
        let record = consumer.poll(PATIENCE).unwrap().unwrap();
        record.headers().map(|headers| headers.iter().map(header).collect()).unwrap_or_default()
    });
    read.collect()
}

#[tokio::test]
async fn a_requests_trace_is_in_the_header_of_each_of_its_records() {
    let topic = made(1).await;
    let log = KafkaEventLog::open(&topic.settings).unwrap();
    let other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let other_trace = TraceParent::parse(other.as_bytes());
    log.append(events(&["a", "b"], now()), Some(trace())).await.unwrap();
    log.append(events(&["c"], now()), None).await.unwrap();
    log.append(events(&["d"], now()), other_trace).await.unwrap();
    let with = |trace: &str| vec![("traceparent".to_owned(), trace.to_owned())];
    let traced = with("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let expected = [traced.clone(), traced, vec![], with(other)];
    assert_eq!(headers(&topic.settings, 4), expected);
}

#[tokio::test]
async fn a_topic_without_the_logs_time_confirms_nothing() {
    let topic = unmade(1);
    topic.make_by_hand(1, &[("message.timestamp.type", "CreateTime")]).await;
    let log = KafkaEventLog::open(&topic.settings).unwrap();
    let reason = unavailable(log.append(events(&["a"], now()), None).await);
    assert!(reason.contains("message.timestamp.type must be LogAppendTime"), "{reason}");
}

#[tokio::test]
async fn a_partition_that_the_topic_lacks_is_unavailable() {
    let topic = made(1).await;
    let mut settings = topic.settings.clone();
    settings.partitions = 64.try_into().unwrap();
    let log = KafkaEventLog::open(&settings).unwrap();
    assert_ne!(
        Partition::of(events(&["a"], now())[0].event.user_id, settings.partitions),
        PARTITION
    );
    unavailable(log.append(events(&["a"], now()), None).await);
    assert!(log.is_failing());
}

#[tokio::test]
async fn an_append_without_a_broker_is_unavailable_in_time() {
    // Bound, so that nobody else is there; never accepting.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let log = KafkaEventLog::open(&KafkaSettings::new(silent.local_addr().unwrap().to_string()));
    let log = log.unwrap();
    let started = Instant::now();
    let append = async |id| {
        unavailable(log.append(events(&[id], now()), None).await);
        started.elapsed()
    };
    // The second waits for the first, and does not wait as long once more.
    let (first, second) = tokio::join!(append("a"), append("b"));
    assert!(first < Duration::from_secs(9), "{first:?}");
    assert!(second.abs_diff(first) < Duration::from_secs(2), "{first:?} {second:?}");
    assert!(log.is_failing());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_whole_requests() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let log = KafkaEventLog::open(&KafkaSettings::new(silent.local_addr().unwrap().to_string()));
    let log = std::sync::Arc::new(log.unwrap());
    let large: Vec<_> = (0..200_000).map(|number| event(&format!("e{number}"), now())).collect();
    let first = {
        let (log, large) = (log.clone(), large.clone());
        tokio::spawn(async move { log.append(large, None).await })
    };
    tokio::task::yield_now().await;
    let started = Instant::now();
    let reason = unavailable(log.append(large, None).await);
    assert!(reason.contains("queue is full"), "{reason}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    unavailable(first.await.unwrap());
}
