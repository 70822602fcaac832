//! What the topic must be, and what it is found to be.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use metering::Unavailable;
use metering::usage::{Offset, Partition};

/// How the topic is made, besides name and partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Copies of each partition: 3 where brokers may fail.
    pub replication: u16,
    /// How many copies must have a record before it is acknowledged: 2 of 3.
    pub min_insync: u16,
    /// How long records are kept: longer than the horizon of duplicates and any outage of the ledger.
    pub retention: Duration,
}

/// Which topic this is, for ever: one that is deleted and made anew under its name is another.
///
/// The cluster's id and a number drawn when the topic was made. The number stands in the topic's
/// option `delete.retention.ms`, which means nothing to a topic that is not compacted, is set in the
/// same step that makes the topic, and goes with it. Kafka's own topic id would serve, but the
/// client library does not tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicId {
    pub(super) cluster: String,
    pub(super) mark: u64,
}

/// The option that holds a topic's mark.
pub(super) const MARK: &str = "delete.retention.ms";

/// What the option is when nobody has set it: Kafka's default of a day.
const UNMARKED: u64 = 86_400_000;

impl TopicId {
    /// A number for a new topic. Kafka adds spans of time to the present: 52 bits leave room.
    pub(super) fn draw() -> u64 {
        UNMARKED + 1 + (rand::random::<u64>() >> 12)
    }

    pub(super) const fn is_mark(number: u64) -> bool {
        number > UNMARKED
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.cluster, self.mark)
    }
}

/// Not a topic id as [`TopicId`] is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a topic: CLUSTER/MARK is expected")]
pub struct NotATopicId;

impl FromStr for TopicId {
    type Err = NotATopicId;

    fn from_str(text: &str) -> Result<Self, NotATopicId> {
        let (cluster, mark) = text.rsplit_once('/').ok_or(NotATopicId)?;
        let mark = u64::from_str_radix(mark, 16).map_err(|_| NotATopicId)?;
        Ok(Self { cluster: cluster.to_owned(), mark })
    }
}

/// One property of the topic that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDifference {
    /// Which property.
    pub what: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
    /// What would mend it.
    pub mend: String,
}

impl fmt::Display for TopicDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, expected, found, mend } = self;
        write!(f, "{what} is {found} and must be {expected}: {mend}")
    }
}

/// The topic cannot be the event log as it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TopicError {
    /// The brokers did not answer as they should.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// There is no such topic.
    #[error("there is no Kafka topic {0}: `tokenmeter migrate` makes it")]
    Missing(String),
    /// It is there, and differs.
    #[error("the Kafka topic {topic} cannot be the event log{}", shown(differences))]
    Differs {
        /// Its name.
        topic: String,
        /// In what; at least one.
        differences: Vec<TopicDifference>,
    },
    /// It was made anew.
    #[error(
        "the topic {topic} is not the event log that was counted so far ({found}, not {expected}): it \
         was made anew, and what was in it and not counted is lost. `tokenmeter migrate --new-log` \
         begins to count the new one"
    )]
    Another {
        /// Its name.
        topic: String,
        /// Which it is.
        found: TopicId,
        /// Which was counted.
        expected: TopicId,
    },
    /// It lacks records that were counted.
    #[error(
        "partition {partition} of the Kafka topic {topic} ends at {end}, but it is counted up to \
         {counted}: its records are gone, or this is an older copy. `tokenmeter migrate --new-log \
         --kafka-topic ANOTHER` begins to count another topic"
    )]
    Shorter {
        /// Its name.
        topic: String,
        /// The first partition that ends too early.
        partition: Partition,
        /// Where it ends.
        end: Offset,
        /// Where counting stands.
        counted: Offset,
    },
}

impl TopicError {
    /// Whether the log that was counted has nothing to give any more: it is gone, or cut short.
    pub const fn is_over(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Another { .. } | Self::Shorter { .. })
    }
}

fn shown(differences: &[TopicDifference]) -> String {
    differences.iter().map(|difference| format!("\n  {difference}")).collect()
}

/// A broker as `tokenmeter doctor` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Its number.
    pub id: i32,
    /// `HOST:PORT`, as it tells clients.
    pub address: String,
}

/// A partition as `tokenmeter doctor` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: u32,
    /// The broker that serves it; none while one is elected.
    pub leader: Option<i32>,
    /// Brokers that keep a copy.
    pub replicas: Vec<i32>,
    /// Those of them that have everything.
    pub in_sync: Vec<i32>,
    /// The oldest record that is kept, as Kafka counts.
    pub first: i64,
    /// One past the last record, as Kafka counts.
    pub end: i64,
}

/// The log as `tokenmeter doctor` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// The cluster's id.
    pub cluster: Option<String>,
    /// All brokers that are up. Clients are not told which one is the controller.
    pub brokers: Vec<BrokerStatus>,
    /// Of the topic; empty when there is none.
    pub partitions: Vec<PartitionStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_is_read_as_it_is_shown() {
        let id = TopicId { cluster: "dG9r/ZXI".to_owned(), mark: TopicId::draw() };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("no mark".parse::<TopicId>(), Err(NotATopicId));
    }

    #[test]
    fn a_drawn_mark_is_never_an_option_that_people_set() {
        assert!((0..1_000).all(|_| TopicId::is_mark(TopicId::draw())));
        assert!(!TopicId::is_mark(UNMARKED));
    }

    #[test]
    fn an_error_names_every_difference_and_what_mends_it() {
        let difference = |what: &str| TopicDifference {
            what: what.to_owned(),
            expected: "a".to_owned(),
            found: "b".to_owned(),
            mend: "set it".to_owned(),
        };
        let differences = vec![difference("one"), difference("two")];
        let error = TopicError::Differs { topic: "log".to_owned(), differences };
        let text = error.to_string();
        assert!(text.contains("\n  one is b and must be a: set it\n  two is b"), "{text}");
    }

    #[test]
    fn a_log_is_over_when_it_is_gone_or_cut_short_and_not_when_it_differs_or_is_away() {
        let topic = || "log".to_owned();
        let id = |mark| TopicId { cluster: "a".to_owned(), mark };
        let (found, expected) = (id(1), id(2));
        let (partition, end, counted) = (Partition::SINGLE, Offset::new(1), Offset::new(2));
        let over = [
            TopicError::Missing(topic()),
            TopicError::Another { topic: topic(), found, expected },
            TopicError::Shorter { topic: topic(), partition, end, counted },
        ];
        assert!(over.iter().all(TopicError::is_over));
        let differs = TopicError::Differs { topic: topic(), differences: vec![] };
        let away = TopicError::Unavailable(Unavailable::new("event_log", "away"));
        assert!(!differs.is_over() && !away.is_over());
    }
}
