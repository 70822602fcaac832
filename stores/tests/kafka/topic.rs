//! The topic is what the log rests on, or it is refused.

use std::time::Duration;

use stores::kafka::{SettingError, TopicDifference, TopicError, TopicId, TopicSpec};

use crate::servers::kafka::{FreshTopic, SPEC, made, unmade};

fn differences(result: Result<TopicId, TopicError>) -> Vec<TopicDifference> {
    match result {
        Err(TopicError::Differs { differences, .. }) => differences,
        other => panic!("{other:?}"),
    }
}

fn named(differences: &[TopicDifference]) -> Vec<&str> {
    differences.iter().map(|difference| difference.what.as_str()).collect()
}

/// The options of [`SPEC`], each of which a test may change.
const OPTIONS: [(&str, &str); 7] = [
    ("message.timestamp.type", "LogAppendTime"),
    ("cleanup.policy", "delete"),
    ("retention.ms", "604800000"),
    ("retention.bytes", "-1"),
    ("min.insync.replicas", "1"),
    ("unclean.leader.election.enable", "false"),
    ("delete.retention.ms", "99999999999"),
];

#[tokio::test]
async fn a_topic_is_made_once_and_keeps_its_id() {
    let topic = unmade(3);
    assert!(matches!(topic.admin().check_topic().await, Err(TopicError::Missing(_))));
    let id = topic.admin().ensure_topic(SPEC).await.unwrap();
    assert_eq!(topic.admin().ensure_topic(SPEC).await.unwrap(), id);
    assert_eq!(topic.admin().check_topic().await.unwrap(), id);
    assert_eq!(id.to_string().parse(), Ok(id.clone()));
    topic.delete().await;
    assert_ne!(topic.admin().ensure_topic(SPEC).await.unwrap(), id, "made anew, it is another");
}

#[tokio::test]
async fn each_option_that_differs_is_named_with_what_mends_it() {
    let others = [
        ("message.timestamp.type", "CreateTime"),
        ("cleanup.policy", "compact"),
        ("retention.ms", "1000"),
        ("retention.bytes", "1000000"),
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "true"),
    ];
    for (name, value) in others {
        let topic = unmade(2);
        let options = OPTIONS.map(|option| if option.0 == name { (name, value) } else { option });
        topic.make_by_hand(2, &options).await;
        let differences = differences(topic.admin().ensure_topic(SPEC).await);
        assert_eq!(named(&differences), [name]);
        assert_eq!(differences[0].found, value);
        let command = format!("--add-config {name}={}", differences[0].expected);
        assert!(differences[0].mend.contains(&command), "{}", differences[0].mend);
    }
}

#[tokio::test]
async fn another_number_of_partitions_or_replicas_is_refused() {
    let topic = made(2).await;
    let mut settings = topic.settings.clone();
    settings.partitions = 3.try_into().unwrap();
    let other = stores::kafka::KafkaAdmin::new(&settings).unwrap();
    let found = differences(other.check_topic().await);
    assert_eq!(named(&found), ["the number of partitions"]);
    assert_eq!((&*found[0].expected, &*found[0].found), ("3", "2"));
    let spec = TopicSpec { replication: 3, ..SPEC };
    let found = differences(topic.admin().ensure_topic(spec).await);
    assert_eq!(named(&found), ["the number of replicas of partition 0"]);
}

#[tokio::test]
async fn a_process_only_insists_on_what_nobody_may_choose() {
    let topic = made(1).await;
    let spec = TopicSpec { retention: Duration::from_secs(60), ..SPEC };
    assert_eq!(named(&differences(topic.admin().ensure_topic(spec).await)), ["retention.ms"]);
    topic.admin().check_topic().await.unwrap();
}

#[tokio::test]
async fn a_topic_without_a_mark_has_no_id() {
    let topic = unmade(1);
    topic.make_by_hand(1, &OPTIONS[..6]).await;
    let found = differences(topic.admin().ensure_topic(SPEC).await);
    assert_eq!(named(&found), ["delete.retention.ms, the log's mark,"]);
    assert_eq!(found[0].found, "86400000");
}

#[tokio::test]
async fn the_brokers_and_every_partitions_copies_and_ends_are_told() {
    let topic = made(2).await;
    let status = topic.admin().describe().await.unwrap();
    assert!(status.cluster.is_some());
    assert!(!status.brokers.is_empty());
    let numbers: Vec<_> = status.partitions.iter().map(|one| one.partition).collect();
    assert_eq!(numbers, [0, 1]);
    for one in &status.partitions {
        assert!(status.brokers.iter().any(|broker| Some(broker.id) == one.leader));
        assert_eq!((one.replicas.len(), one.in_sync.len()), (1, 1));
        assert_eq!((one.first, one.end), (0, 0));
    }
}

#[tokio::test]
async fn an_option_that_the_library_does_not_know_is_refused_at_once() {
    let FreshTopic { settings } = &unmade(1);
    let mut settings = settings.clone();
    settings.client_options.insert("no.such.option".to_owned(), "1".to_owned());
    let refused = stores::kafka::KafkaEventLog::open(&settings).unwrap_err();
    assert!(matches!(refused, SettingError::Refused(_)), "{refused}");
}
