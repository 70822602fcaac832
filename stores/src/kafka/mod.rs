//! The cluster's event log: one Kafka topic, `usage-events.v1` unless the settings name another.
//!
//! - [`KafkaEventLog`] appends: an idempotent producer, acknowledged by all replicas in sync;
//! - [`KafkaEventSource`] reads: a consumer group says who reads which partition, positions come
//!   from the caller alone;
//! - [`KafkaAdmin`] makes the topic, checks it and tells its identity.
//!
//! Values are those of [`crate::record`]. There is no key: the partition is
//! [`Partition::of`](metering::usage::Partition::of) the user, and the value names the user. The topic stamps records with its own
//! time (`LogAppendTime`), because log time decides what is void and what is a duplicate.

mod accounting;
mod admin;
mod bounds;
mod client;
mod condition;
mod deliveries;
mod ends;
mod event_log;
mod lanes;
mod member;
mod membership;
mod offsets;
mod reader;
mod rereader;
mod settings;
mod source;
mod topic;

pub use admin::KafkaAdmin;
pub use event_log::KafkaEventLog;
pub use settings::{KafkaSettings, SettingError};
pub use source::KafkaEventSource;
pub use topic::{
    BrokerStatus, LogStatus, PartitionStatus, TopicDifference, TopicError, TopicId, TopicSpec,
};

use metering::Unavailable;

fn unavailable(reason: impl std::fmt::Display) -> Unavailable {
    Unavailable::new("event_log", reason)
}

/// What is said of a record that bears a client's time, or none.
const NOT_LOG_TIME: &str = "the topic does not stamp records with the log's time: its \
     message.timestamp.type must be LogAppendTime";
