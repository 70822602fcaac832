//! Usage events: what they are, how they are read and kept, and how the log folds into the ledger.

mod alerts;
mod digest;
mod duplicates;
mod event;
mod fold;
mod intake;
mod plain_json;
mod ports;
mod record;
mod reports;
#[cfg(test)]
mod tests;

pub use alerts::{
    Alert, AlertBacklog, AlertId, AlertQuery, AlertRules, Alerts, Attempt, Delivery, DeliveryState,
    ListedAlert, Meter, Watched,
};
pub use digest::{ContentDigest, IdDigest};
pub use duplicates::{HORIZON_MAX, Horizon, STAMP_AHEAD_MAX, Seen, SeenIds};
pub use event::{
    EventId, Flag, Flags, IdOrigin, Metadata, ModelName, NotAnId, RequestType, ReservationId,
    TokenCounts, UsageEvent,
};
pub use fold::{
    Breakdown, CountedEvent, DeadLetter, DeadLetterReason, Flush, Settled, SumOverflow, SummaryKey,
    Sums, Tallies, fold, is_void,
};
pub use intake::{
    EVENT_ID_BYTES_MAX, EventInput, FieldError, METADATA_BYTES_MAX, Rejection, TOKENS_MAX,
    TimeWindow, UserRef, read_event, read_event_value,
};
pub use ports::{
    AppendError, Appended, Books, CommitError, Committed, DeadLetters, Difference, EventLog,
    EventSource, Known, KnownEvent, LedgerLookup, ListedDeadLetter, PartitionBook, RawBook,
    TotalsAt, UsageLedger, UsageReports,
};
pub use record::{AdmittedEvent, Cursor, LogRecord, Offset, OffsetRange, Partition, Payload, Tick};
pub use reports::{
    Analytics, AnalyticsQuery, Dimension, Granularity, HistoryPosition, HistoryQuery, HistoryRow,
    MonthlyUsage, SeriesRow, TypeTotals, UsageTotals, UserTotal,
};
