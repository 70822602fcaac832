//! When a record repeats an event that was counted before.

use std::time::Duration;

use super::{AdmittedEvent, ContentDigest, IdDigest};
use crate::quota::MARGIN;
use crate::time::Timestamp;

/// How far ahead of its receipt an event may say that it was made; a UUIDv7 dated further ahead is
/// refused at the door.
pub const STAMP_AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// The longest memory of counted ids. A retry without any time in it is recognised that long.
pub const HORIZON_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long counted ids are remembered, in the time of the log. It changes only by a tick record,
/// from that record's offset on: so every aggregator that reads the log decides alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Horizon {
    /// For so long; at most [`HORIZON_MAX`].
    Within(Duration),
    /// For ever: the single node.
    Ever,
}

/// An event as it was counted, the latest time that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it was counted with.
    pub content: ContentDigest,
    /// When the log took it. Not looked at where ids are remembered for ever.
    pub log_time: Timestamp,
}

/// Events by their ids. Its hash is quick, and seeded anew in each process: clients choose ids.
pub type SeenIds = hashbrown::HashMap<IdDigest, Seen>;

impl Horizon {
    /// Whether a record that the log took at `log_time` repeats an event with the same id that was
    /// counted at `seen`: within the horizon, or at any time when it carries a stamp older than that.
    pub fn recognises(
        self,
        seen: Timestamp,
        log_time: Timestamp,
        admitted: &AdmittedEvent,
    ) -> bool {
        match self {
            Self::Ever => true,
            Self::Within(horizon) => {
                log_time.minus(horizon) <= seen || self.outlived_by(admitted, log_time)
            }
        }
    }

    /// Whether the event says itself that it may be a repeat of one that is remembered no more: then
    /// the ledger is asked. The allowances are those of the door and of the log's time.
    pub fn outlived_by(self, admitted: &AdmittedEvent, log_time: Timestamp) -> bool {
        match self {
            Self::Ever => false,
            Self::Within(horizon) => admitted.stamp().is_some_and(|stamp| {
                stamp < log_time.minus(horizon).plus(STAMP_AHEAD_MAX + MARGIN)
            }),
        }
    }
}

impl AdmittedEvent {
    /// The time that a retry repeats with it: that of a UUIDv7, or the client's `occurred_at`; the
    /// older one. `None`: it carries neither.
    pub fn stamp(&self) -> Option<Timestamp> {
        let occurred = self.event.occurred_at_given.then_some(self.event.occurred_at);
        self.event.event_id.uuid_time().into_iter().chain(occurred).min()
    }
}
