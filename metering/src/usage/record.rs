//! Records of the event log, and where they stand in it.

use std::fmt;

use super::{ContentDigest, Flags, Horizon, IdDigest, UsageEvent};
use crate::accounts::UserId;
use crate::quota::PlanName;
use crate::time::Timestamp;

/// A partition of the event log. The single node has one, number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u32);

impl Partition {
    /// The only partition of the single node.
    pub const SINGLE: Self = Self(0);

    /// The partition of that number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The partition of a user among `partitions`: the first 8 bytes of BLAKE3(user id), big
    /// endian, modulo. Fixed for ever: there are test vectors.
    pub fn of(user: UserId, partitions: std::num::NonZeroU32) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(user.as_bytes()).as_bytes()[..8]);
        let place = u64::from_be_bytes(first) % u64::from(partitions.get());
        Self(u32::try_from(place).unwrap_or(0))
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// From here on the bits of an offset are its log's generation.
const GENERATION_BIT: u32 = 48;

/// A record's place in its partition. Dense: the next record has the next offset. The high 16 bits are
/// the log's generation: 0, and one more with each log that takes the place of the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// From its number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The first of a log.
    pub const fn first_of(generation: u16) -> Self {
        Self((generation as u64) << GENERATION_BIT)
    }

    /// Which log it is of.
    pub const fn generation(self) -> u64 {
        self.0 >> GENERATION_BIT
    }

    /// The place in its log alone.
    pub const fn within_generation(self) -> u64 {
        self.0 & ((1 << GENERATION_BIT) - 1)
    }

    /// `count` records further.
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The offsets `[start, end)` of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// The first one.
    pub start: Offset,
    /// One past the last.
    pub end: Offset,
}

impl OffsetRange {
    /// How many records.
    pub const fn count(self) -> u64 {
        self.end.number().saturating_sub(self.start.number())
    }
}

/// How far a partition is counted: everything below `position` is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of which partition.
    pub partition: Partition,
    /// The next record to count.
    pub position: Offset,
    /// The largest log time below `position`; the log's own time.
    pub log_time: Timestamp,
    /// How long counted ids are remembered from `position` on.
    pub horizon: Horizon,
}

/// A usage event that the quota counter let in: what the event log stores.
#[derive(Clone, Debug, PartialEq)]
pub struct AdmittedEvent {
    /// What was reported.
    pub event: UsageEvent,
    /// Computed once, at the door.
    pub id_digest: IdDigest,
    /// Computed once, at the door.
    pub content_digest: ContentDigest,
    /// The plan in force at admission.
    pub plan: PlanName,
    /// When the counter let it in, by the counter's clock.
    pub admitted_at: Timestamp,
    /// How it was let in.
    pub flags: Flags,
    /// Tokens above the hold that it settled; 0 unless flagged `over_hold`.
    pub over_hold: u64,
}

/// A record that holds no event: the partition's owner appends it, so that log time goes on
/// while nobody sends anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// How long counted ids are remembered from this record on.
    pub horizon: Horizon,
}

/// What a record of the log holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// An admitted event.
    Event(Box<AdmittedEvent>),
    /// Nothing but time.
    Tick(Tick),
    /// Bytes that no version of the codec reads: a dead letter.
    Undecodable {
        /// The record's value as it stands in the log.
        bytes: Vec<u8>,
        /// What the codec said.
        reason: String,
    },
}

/// One record of the event log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// Its place.
    pub offset: Offset,
    /// When the log took it, by the log's clock; never smaller than its predecessor's on the
    /// single node, at most `MARGIN` smaller in the cluster.
    pub log_time: Timestamp,
    /// What it holds.
    pub payload: Payload,
}
