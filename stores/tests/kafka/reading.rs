//! What Kafka promises to whoever reads.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use metering::usage::{
    EventLog, EventSource, Horizon, Offset, OffsetRange, Partition, Payload, Tick,
};
use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use stores::kafka::{KafkaEventLog, KafkaEventSource, KafkaSettings};

use crate::appending::of_user;
use crate::both::{Both, now};
use crate::contract::event_log::{
    NO_PATIENCE, PARTITION, PATIENCE, all, event, events, ids, offsets, stretch,
};
use crate::servers::kafka::{FreshTopic, config, made, unmade};

/// Appends as another program would, with a time of its own.
async fn append_raw(settings: &KafkaSettings, value: Option<&[u8]>) {
    let producer: FutureProducer = config(settings).create().unwrap();
    let mut record = FutureRecord::<(), [u8]>::to(&settings.topic).partition(0).timestamp(12_345);
    record.payload = value;
    producer.send(record, PATIENCE).await.unwrap();
}

/// As retention does when time has passed.
async fn delete_below(topic: &FreshTopic, below: i64) {
    let mut records = TopicPartitionList::new();
    records.add_partition_offset(&topic.settings.topic, 0, rdkafka::Offset::Offset(below)).unwrap();
    topic.client().delete_records(&records, &AdminOptions::new()).await.unwrap();
}

#[tokio::test]
async fn what_the_codec_does_not_read_is_a_record_that_says_so() {
    let topic = made(1).await;
    let both = Both::joined(&topic.settings).await;
    both.append(events(&["a"], now()), None).await.unwrap();
    let unknown_version = [8, 99];
    append_raw(&topic.settings, Some(&[0xff, 0xff])).await;
    append_raw(&topic.settings, Some(&unknown_version)).await;
    append_raw(&topic.settings, Some(&[])).await;
    append_raw(&topic.settings, None).await;
    both.append(events(&["z"], now()), None).await.unwrap();
    let records = all(&both).await;
    assert_eq!(offsets(&records), [0, 1, 2, 3, 4, 5]);
    let values = [&[0xff, 0xff][..], &unknown_version, &[], &[]];
    for (record, value) in records[1..5].iter().zip(values) {
        let Payload::Undecodable { bytes, reason } = &record.payload else {
            panic!("{record:?}");
        };
        assert_eq!(bytes, value);
        assert!(!reason.is_empty());
        assert!(now().since(record.log_time) < Duration::from_secs(60), "not the broker's time");
    }
    assert_eq!((ids(&records[..1]), ids(&records[5..])), (vec!["a".into()], vec!["z".into()]));
}

#[tokio::test]
async fn a_tick_is_a_record_with_a_time_and_a_horizon() {
    let topic = made(2).await;
    let both = Both::joined(&topic.settings).await;
    let ticked = Partition::new(1);
    let horizon = Horizon::Within(Duration::from_secs(3600));
    let before = now();
    both.tick(ticked, Tick { horizon }).await.unwrap();
    let records = stretch(&both, ticked, Offset::default(), 1).await;
    assert_eq!(records[0].payload, Payload::Tick(Tick { horizon }));
    assert!((before..=now()).contains(&records[0].log_time));
    assert_eq!(both.watermark(ticked).await.unwrap(), None);
    assert!(both.tick(Partition::new(2), Tick { horizon }).await.is_err());
}

#[tokio::test]
async fn records_that_retention_has_taken_are_refused_and_never_jumped_over() {
    let topic = made(1).await;
    let both = Both::joined(&topic.settings).await;
    let names: Vec<_> = (0..10).map(|number| event(&format!("e{number}"), now())).collect();
    both.append(names, None).await.unwrap();
    delete_below(&topic, 5).await;
    let error = both.read(PARTITION, Offset::new(3), 10, NO_PATIENCE).await.unwrap_err();
    assert!(error.reason.contains("does not hold the record at 3"), "{error}");
    let range = OffsetRange { start: Offset::new(3), end: Offset::new(8) };
    let error = both.read_again(PARTITION, range, 10).await.unwrap_err();
    assert!(error.reason.contains("does not hold the record at 3"), "{error}");
    assert_eq!(offsets(&stretch(&both, PARTITION, Offset::new(5), 5).await), [5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_partition_that_nobody_reads_holds_up_no_other_and_is_whole_later() {
    const MANY: usize = 30_000;
    let topic = made(2).await;
    let mut settings = topic.settings.clone();
    settings.prefetched_records_max = 1;
    let both = Both::joined(&settings).await;
    let partition = |user: u8| Partition::of(of_user(user, "a").event.user_id, settings.partitions);
    let crowded = (0..100).find(|user| partition(*user) == Partition::new(0)).unwrap();
    let quiet = (0..100).find(|user| partition(*user) == Partition::new(1)).unwrap();
    let many = |name| (0..MANY).map(move |number| of_user(crowded, &format!("{name}{number}")));
    both.append(many("first").collect(), None).await.unwrap();
    // Both stand at their start; from here on the one is not read.
    stretch(&both, Partition::new(0), Offset::default(), 1).await;
    for number in 0..20 {
        both.append(vec![of_user(quiet, &format!("q{number}"))], None).await.unwrap();
        let read = stretch(&both, Partition::new(1), Offset::new(number), 1).await;
        assert_eq!(ids(&read), [format!("q{number}")]);
    }
    both.append(many("second").collect(), None).await.unwrap();
    let records = stretch(&both, Partition::new(0), Offset::new(1), 2 * MANY - 1).await;
    assert!(records.iter().zip(1..).all(|(record, offset)| record.offset.number() == offset));
    assert_eq!(ids(&records[2 * MANY - 2..]), [format!("second{}", MANY - 1)]);
}

#[tokio::test]
async fn reading_again_goes_on_beside_reading() {
    let topic = made(1).await;
    let both = Arc::new(Both::joined(&topic.settings).await);
    let batch = (0..1_000).map(|number| event(&format!("e{number}"), now())).collect();
    both.append(batch, None).await.unwrap();
    let again = {
        let both = both.clone();
        tokio::spawn(async move {
            let mut records = Vec::new();
            while records.len() < 1_000 {
                let start = Offset::new(records.len().try_into().unwrap());
                let range = OffsetRange { start, end: Offset::new(1_000) };
                records.extend(both.read_again(PARTITION, range, 90).await.unwrap());
            }
            records
        })
    };
    let mut read = Vec::new();
    while read.len() < 1_000 {
        let from = Offset::new(read.len().try_into().unwrap());
        read.extend(both.read(PARTITION, from, 70, PATIENCE).await.unwrap());
    }
    assert_eq!(again.await.unwrap(), read);
}

#[tokio::test]
async fn reading_again_does_not_miss_a_broker_that_is_away() {
    let topic = made(1).await;
    let both = Both::open(&topic.settings);
    both.append(events(&["a", "b"], now()), None).await.unwrap();
    let mut settings = topic.settings.clone();
    // Nobody listens there. Which of the two a client asks first it leaves to chance.
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    settings.brokers = format!("{away},{}", settings.brokers);
    let range = OffsetRange { start: Offset::default(), end: Offset::new(2) };
    for _ in 0..10 {
        let source = KafkaEventSource::observe(&settings, both.log.clone(), None).unwrap();
        // Not to its end, and from its beginning once more.
        for _ in 0..2 {
            let read = source.read_again(PARTITION, range, 1).await.unwrap();
            assert_eq!(ids(&read), ["a"]);
        }
    }
}

#[tokio::test]
async fn many_who_ask_for_ends_at_once_are_all_answered() {
    let topic = made(4).await;
    let both = Arc::new(Both::open(&topic.settings));
    both.append((0..100).map(|user| of_user(user, "one")).collect(), None).await.unwrap();
    let asked: Vec<_> = (0..100)
        .map(|number| {
            let both = both.clone();
            tokio::spawn(async move { both.end(Partition::new(number % 4)).await })
        })
        .collect();
    let mut sum = 0;
    for one in asked {
        sum += one.await.unwrap().unwrap().number();
    }
    assert_eq!(sum, 100 * 25, "each of 4 ends was asked for 25 times");
}

#[tokio::test]
async fn offsets_hold_the_generation_and_those_of_another_are_refused() {
    let topic = made(1).await;
    let mut settings = topic.settings.clone();
    settings.generation = 2;
    let both = Both::joined(&settings).await;
    both.append(events(&["a", "b"], now()), None).await.unwrap();
    let start = Offset::new(2 << 48);
    let records = stretch(&both, PARTITION, start, 2).await;
    assert_eq!(offsets(&records), [start.number(), start.number() + 1]);
    assert_eq!(both.end(PARTITION).await.unwrap(), start.plus(2));
    let error = both.read(PARTITION, Offset::new(1), 1, NO_PATIENCE).await.unwrap_err();
    assert!(error.reason.contains("generation 0"), "{error}");
}

#[tokio::test]
async fn records_without_the_logs_time_are_refused() {
    let topic = unmade(1);
    let mark = [("message.timestamp.type", "CreateTime"), ("delete.retention.ms", "99999999999")];
    topic.make_by_hand(1, &mark).await;
    append_raw(&topic.settings, Some(b"x")).await;
    let both = Both::joined(&topic.settings).await;
    let error = both.read(PARTITION, Offset::default(), 1, PATIENCE).await.unwrap_err();
    assert!(error.reason.contains("LogAppendTime"), "{error}");
    let range = OffsetRange { start: Offset::default(), end: Offset::new(1) };
    let error = both.read_again(PARTITION, range, 1).await.unwrap_err();
    assert!(error.reason.contains("LogAppendTime"), "{error}");
}

#[tokio::test]
async fn a_topic_made_anew_under_its_name_is_another_log() {
    let topic = made(1).await;
    let expected = topic.admin().topic_id().await.unwrap();
    let first = Both::joined(&topic.settings).await;
    first.append(events(&["a"], now()), None).await.unwrap();
    assert_eq!(all(&first).await.len(), 1);
    drop(first);
    topic.delete().await;
    topic.admin().ensure_topic(crate::servers::kafka::SPEC).await.unwrap();
    let log = Arc::new(KafkaEventLog::open(&topic.settings).unwrap());
    let source = KafkaEventSource::open(&topic.settings, log.clone(), Some(expected)).unwrap();
    let both = Both { log, source };
    let error = both.read(PARTITION, Offset::default(), 1, NO_PATIENCE).await.unwrap_err();
    assert!(error.reason.contains("another log has taken its place"), "{error}");
}

#[tokio::test]
async fn trimming_notes_the_groups_offset_for_tools() {
    let topic = made(1).await;
    let both = Both::joined(&topic.settings).await;
    both.append(events(&["a", "b", "c"], now()), None).await.unwrap();
    assert_eq!(both.trim(PARTITION, Offset::new(2), now()).await.unwrap(), 0);
    let tool: BaseConsumer =
        config(&topic.settings).set("group.id", &topic.settings.group).create().unwrap();
    let noted = || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&topic.settings.topic, 0);
        tool.committed_offsets(asked, PATIENCE).unwrap().elements()[0].offset()
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while noted() != rdkafka::Offset::Offset(2) {
        assert!(std::time::Instant::now() < deadline, "{:?}", noted());
    }
    assert_eq!(all(&both).await.len(), 3, "Kafka lets go of records by itself");
}
