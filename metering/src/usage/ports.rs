//! The ports of usage: the event log, the ledger, and what is read from them.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    AdmittedEvent, Analytics, AnalyticsQuery, ContentDigest, Cursor, Flush, HistoryQuery,
    HistoryRow, Horizon, IdDigest, LogRecord, MonthlyUsage, Offset, OffsetRange, Partition,
    SeenIds, Tallies, Tick,
};
use crate::Unavailable;
use crate::accounts::UserId;
use crate::quota::{Totals, UserTotals};
use crate::time::{Period, Timestamp};
use crate::trace::TraceParent;

/// A record that the log holds for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// When the log took it, by the log's clock. At most `ADMISSION_WINDOW` after `admitted_at`.
    pub log_time: Timestamp,
}

/// Why an append was not confirmed. None of it may be acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Perhaps stored, perhaps not: ask again with the same ids.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The log took a record, or would have, later than `ADMISSION_WINDOW` after its admission:
    /// it is not counted. Ask again with the same ids.
    #[error("the event log was too slow: the admission has lapsed")]
    Lapsed,
}

/// Where admitted events are made durable.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends all events of one request, in order, and answers when every one is durable.
    ///
    /// On success each is stored exactly once by this call, at a log time at most
    /// `ADMISSION_WINDOW` after its `admitted_at`. On an error any of them may be stored, but
    /// none that the log took later than that is ever counted. Calls of many requests are grouped: an
    /// idle log adds no delay.
    ///
    /// `trace` is the request's place in its caller's trace. It stands beside each record, for other
    /// readers of the log: it is no part of the event, and an [`EventSource`] does not see it. A log
    /// that nobody else reads (the single node's) drops it.
    async fn append(
        &self,
        events: Vec<AdmittedEvent>,
        trace: Option<TraceParent>,
    ) -> Result<Vec<Appended>, AppendError>;

    /// Where this user's events go. Those of one partition are durable together; to append those of
    /// several at once makes each wait, and fail, for the others.
    fn partition_of(&self, _user: UserId) -> Partition {
        Partition::SINGLE
    }

    /// Whether events should be let in for it at all. To be asked before the quota counter is, which
    /// keeps what it lets in until it is counted.
    ///
    /// # Errors
    /// [`Unavailable`] while so many records wait to be counted that to count them after a crash, with
    /// all admissions waiting, would take too long.
    fn has_room(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}

/// The event log as the aggregator reads it.
#[async_trait]
pub trait EventSource: Send + Sync {
    /// The partitions that this process owns, as soon as they are others than `unlike`. The
    /// single node always owns 0.
    async fn assigned(&self, unlike: &BTreeSet<Partition>) -> BTreeSet<Partition>;

    /// The records of `partition` from `from` on, dense and in order, at most `records_max`. Waits up
    /// to `patience` for the first one; empty when none came. Meant to be asked for one stretch after
    /// the other: to go elsewhere costs.
    ///
    /// # Errors
    /// [`Unavailable`] also when the log does not reach back to `from` or ends before it: never
    /// a silent jump.
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        patience: Duration,
    ) -> Result<Vec<LogRecord>, Unavailable>;

    /// The records `range` of `partition` once more, at most `records_max` of them, beside those who
    /// [`Self::read`]. Its end must have been reached before.
    ///
    /// # Errors
    /// [`Unavailable`] also when the log does not reach back to the start of the range.
    async fn read_again(
        &self,
        partition: Partition,
        range: OffsetRange,
        records_max: usize,
    ) -> Result<Vec<LogRecord>, Unavailable>;

    /// One past the last record of `partition`.
    async fn end(&self, partition: Partition) -> Result<Offset, Unavailable>;

    /// A time that no record which is still to come will have been admitted `ADMISSION_WINDOW +
    /// MARGIN` before: by it the counter forgets what never reached the log. Only meaningful
    /// when everything up to [`Self::end`] has been counted.
    ///
    /// It binds the log: later records are stamped no earlier than `MARGIN` before it, even when
    /// the machine's clock is set back. Ask before the read that reaches the end; a flush that does
    /// not reach it carries its own largest log time instead. `None`: this log knows the time by
    /// its records alone; when none come, append a [`Self::tick`].
    async fn watermark(&self, partition: Partition) -> Result<Option<Timestamp>, Unavailable>;

    /// Appends a record that holds nothing but time and the horizon from there on. A log that has a
    /// watermark of its own needs none and does nothing.
    async fn tick(&self, partition: Partition, tick: Tick) -> Result<(), Unavailable>;

    /// Lets go of records below `below` that the log took before `before`; answers how many went.
    /// Kafka does this by itself: its adapter notes `below` as the consumer group's offset, for tools
    /// that show the lag.
    async fn trim(
        &self,
        partition: Partition,
        below: Offset,
        before: Timestamp,
    ) -> Result<u64, Unavailable>;
}

/// What a commit made of one flush.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Where the partition stands now.
    pub cursor: Cursor,
    /// The new totals of every user and period in the flush.
    pub totals: Vec<UserTotals>,
    /// How many alerts it raised.
    pub alerts: u64,
}

/// Why a commit did not happen, or is not known to have happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// In doubt: take over anew, then go on from the cursor.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The cursor is not where the flush starts: another process owns the partition.
    #[error(
        "partition {partition} stands at {found}, not at {expected}: another process counts it"
    )]
    Lost {
        /// Which partition.
        partition: Partition,
        /// Where the flush starts.
        expected: Offset,
        /// Where the cursor stands.
        found: Offset,
    },
}

/// The ledger as the aggregator writes it: each record's effect once, whatever happens.
#[async_trait]
pub trait UsageLedger: Send + Sync {
    /// Starts (or starts again) to count `partition`: where it stands. A partition never seen
    /// starts at the first offset of the log.
    async fn take_over(&self, partition: Partition) -> Result<Cursor, Unavailable>;

    /// Forgets what was kept in memory of a partition that this process counts no more.
    fn release(&self, partition: Partition);

    /// What [`fold`](super::fold) must know before it folds `records`, which begin at the cursor with
    /// `horizon` in force.
    async fn seen(
        &self,
        partition: Partition,
        horizon: Horizon,
        records: &[LogRecord],
    ) -> Result<SeenIds, Unavailable>;

    /// The horizon that the ledger can bear: shorter than `now_in_force` when its memory of counted
    /// ids is full, longer when there is room again and the memory reaches back that far.
    fn horizon(&self, partition: Partition, now_in_force: Horizon) -> Horizon;

    /// Commits a flush, whole or not at all, with the alerts that it raises. Repeating one that was
    /// committed is `Lost` and changes nothing.
    async fn commit(&self, flush: Flush) -> Result<Committed, CommitError>;
}

/// An event that the ledger has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownEvent {
    /// Its place in the log.
    pub offset: Offset,
    /// What it was counted with.
    pub content: ContentDigest,
}

/// Which of the ids asked for are counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Everything below this offset was looked at; of several partitions, the smallest of theirs.
    pub cursor: Offset,
    /// In the order asked.
    pub found: Vec<Option<KnownEvent>>,
}

/// A user's totals in one period, and where they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalsAt {
    /// Zero for who has none.
    pub totals: Totals,
    /// Everything below this offset of the user's partition is in the totals.
    pub cursor: Offset,
}

/// What the door asks the ledger.
#[async_trait]
pub trait LedgerLookup: Send + Sync {
    /// Which of these events are counted. Never wrong about what was committed before the call.
    async fn known(&self, ids: &[(UserId, IdDigest)]) -> Result<Known, Unavailable>;

    /// The totals of these users and periods and the cursors they stand at, all read in one
    /// snapshot, in the order asked.
    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable>;
}

/// What the usage endpoints read. Never waits for a commit.
#[async_trait]
pub trait UsageReports: Send + Sync {
    /// One user's month.
    async fn monthly(&self, user: UserId, period: Period) -> Result<MonthlyUsage, Unavailable>;

    /// Rows of one user's history, newest `occurred_at` first.
    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, Unavailable>;

    /// Everybody's usage.
    async fn analytics(&self, query: &AnalyticsQuery) -> Result<Analytics, Unavailable>;

    /// Erases the metadata of a user's events, for ever: those that are counted later are stored
    /// without. Their counts stay. On an error ask again.
    async fn erase_metadata(&self, user: UserId) -> Result<(), Unavailable>;
}

/// A dead letter as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedDeadLetter {
    /// Of which partition.
    pub partition: Partition,
    /// Its place in the log.
    pub offset: Offset,
    /// When the log took it.
    pub log_time: Timestamp,
    /// See `DeadLetterReason::code`.
    pub reason: String,
    /// What the codec said, if it did.
    pub detail: String,
    /// The event, when the codec of today reads it.
    pub event: Option<Box<AdmittedEvent>>,
    /// How many bytes the record has.
    pub bytes: usize,
    /// When it was appended again, if it was.
    pub replayed_at: Option<Timestamp>,
}

/// Records that were set aside.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// All of them, in the order of the log.
    async fn list(&self) -> Result<Vec<ListedDeadLetter>, Unavailable>;

    /// Notes that one was appended again.
    async fn replayed(
        &self,
        partition: Partition,
        offset: Offset,
        now: Timestamp,
    ) -> Result<(), Unavailable>;
}

/// The counts of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionBook {
    /// Which.
    pub partition: Partition,
    /// From where it was counted to where it stands.
    pub range: OffsetRange,
    /// What became of these records.
    pub tallies: Tallies,
}

/// The events below the cursor, and the statistics beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawBook {
    /// How many events are stored.
    pub events: u64,
    /// Their tokens.
    pub tokens: u64,
    /// The tokens of all statistics.
    pub statistics_tokens: u64,
    /// The requests of all statistics.
    pub statistics_requests: u64,
}

/// Two figures that should be equal and are not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// Which row: user, day, type, …
    pub subject: String,
    /// What it should be.
    pub expected: i128,
    /// What it is.
    pub found: i128,
}

/// The figures that reconciliation compares, and their repair.
#[async_trait]
pub trait Books: Send + Sync {
    /// R1: the tallies of each partition.
    async fn partitions(&self) -> Result<Vec<PartitionBook>, Unavailable>;

    /// R2: stored events against counted ones.
    async fn raw(&self) -> Result<RawBook, Unavailable>;

    /// R3: summary rows (daily and hourly) that differ from the events below their version, and
    /// histories that differ from the events where they are kept apart from them; and how many rows
    /// of summaries were compared. Some 100 differences at most.
    async fn summaries(&self) -> Result<(u64, Vec<Difference>), Unavailable>;

    /// R4: statistics that differ from the events; and how many were compared. At most 100.
    async fn statistics(&self) -> Result<(u64, Vec<Difference>), Unavailable>;

    /// Rebuilds statistics, summaries and histories from the events.
    async fn repair(&self) -> Result<(), Unavailable>;
}
