//! Whether the log takes records, as far as is known.

use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::Producer as _;

use super::deliveries::Producer;
use super::settings::LOOK_TIMEOUT;

/// What the last record has met, or the last look at the brokers. All producers of a log share it.
#[derive(Debug, Default)]
pub(super) struct Condition {
    /// A broker or leader was not reached.
    away: AtomicBool,
    /// The brokers did not take a record: a look at them would not tell.
    refusing: AtomicBool,
}

impl Condition {
    pub(super) fn is_failing(&self) -> bool {
        self.away.load(Ordering::Relaxed) || self.refusing.load(Ordering::Relaxed)
    }

    /// A record came through.
    pub(super) fn came_through(&self) {
        self.away.store(false, Ordering::Relaxed);
        self.refusing.store(false, Ordering::Relaxed);
    }

    /// The brokers are there, with a leader for each partition.
    pub(super) fn found(&self) {
        self.away.store(false, Ordering::Relaxed);
    }

    /// Nobody was reached; answers whether somebody was until now.
    pub(super) fn lost(&self) -> bool {
        !self.away.swap(true, Ordering::Relaxed)
    }

    /// The brokers did not take a record, whatever its reason.
    pub(super) fn refused(&self) {
        self.refusing.store(true, Ordering::Relaxed);
    }
}

/// Asks the brokers whether each of the topic's partitions has a leader. Blocks.
///
/// # Errors
/// Nobody answers.
pub(super) fn has_leaders(producer: &Producer, topic: &str) -> Result<bool, KafkaError> {
    let found = producer.client().fetch_metadata(Some(topic), LOOK_TIMEOUT)?;
    let Some(partitions) = found.topics().first().map(MetadataTopic::partitions) else {
        return Ok(false);
    };
    Ok(!partitions.is_empty() && partitions.iter().all(|one| one.leader() >= 0))
}
