//! What the usage endpoints show, as the ledger answers it.

use std::collections::BTreeMap;

use super::{EventId, Flags, Metadata, ModelName, Offset, RequestType, TokenCounts};
use crate::accounts::UserId;
use crate::quota::{PlanName, Totals};
use crate::time::{Day, Period, Timestamp};

/// Prompt and completion tokens of one request type in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeTotals {
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of completions.
    pub completion_tokens: u64,
}

/// One user's month, all read in one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct MonthlyUsage {
    /// Which month.
    pub period: Period,
    /// Tokens and requests, as limits count them.
    pub totals: Totals,
    /// By request type, indexed by [`RequestType::index`].
    pub breakdown: [TypeTotals; 3],
    /// Total tokens by model.
    pub models: BTreeMap<ModelName, u64>,
    /// Total tokens by day, ascending; days without usage are left out.
    pub daily: Vec<(Day, u64)>,
    /// Everything logged up to this instant is in these figures; the log's time at the ledger's
    /// cursor. `None` when nothing was ever counted.
    pub as_of: Option<Timestamp>,
}

/// A place in a user's history, newest first: the last row already shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPosition {
    /// Its time.
    pub occurred_at: Timestamp,
    /// Its place in the log, which breaks ties.
    pub offset: Offset,
}

/// Which rows of a user's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Whose.
    pub user_id: UserId,
    /// Inclusive.
    pub from: Option<Timestamp>,
    /// Exclusive.
    pub to: Option<Timestamp>,
    /// Only this model.
    pub model: Option<ModelName>,
    /// Only this request type.
    pub request_type: Option<RequestType>,
    /// Only rows older than this one.
    pub after: Option<HistoryPosition>,
    /// At most so many rows.
    pub rows_max: usize,
}

/// One counted event.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRow {
    /// Where to go on after this row.
    pub position: HistoryPosition,
    /// The client's id.
    pub event_id: EventId,
    /// Which counter it went to.
    pub request_type: RequestType,
    /// The model called.
    pub model: ModelName,
    /// What it used.
    pub tokens: TokenCounts,
    /// When we received it.
    pub received_at: Timestamp,
    /// How it was admitted.
    pub flags: Flags,
    /// The client's notes; `None` also after the user was erased.
    pub metadata: Option<Metadata>,
}

/// The width of a bucket of analytics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// UTC hours. Not with [`Dimension::User`] nor with a filter on a user.
    Hour,
    /// UTC days.
    Day,
    /// UTC calendar months.
    Month,
}

/// What analytics can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// The model's name.
    Model,
    /// The request type.
    RequestType,
    /// The plan at admission.
    Plan,
    /// The user.
    User,
}

/// A question about everybody's usage.
///
/// The summaries behind it have days, or hours for [`Granularity::Hour`]: `from` and `to` that
/// are not at the edge of one are answered from the events themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnalyticsQuery {
    /// Inclusive.
    pub from: Timestamp,
    /// Exclusive.
    pub to: Timestamp,
    /// Bucket width.
    pub granularity: Granularity,
    /// Sorted, without repeats.
    pub group_by: Vec<Dimension>,
    /// Only this model.
    pub model: Option<ModelName>,
    /// Only this plan.
    pub plan: Option<PlanName>,
    /// Only this request type.
    pub request_type: Option<RequestType>,
    /// Only this user.
    pub user_id: Option<UserId>,
    /// How many of the largest users, 0 for none.
    pub top: usize,
}

/// Sums over events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// How many events.
    pub events: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of completions.
    pub completion_tokens: u64,
}

impl UsageTotals {
    /// Prompt and completion tokens.
    pub const fn total_tokens(self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}

/// One bucket of analytics; the dimensions not grouped by are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesRow {
    /// The bucket's first instant.
    pub start: Timestamp,
    /// When grouped by model.
    pub model: Option<ModelName>,
    /// When grouped by request type.
    pub request_type: Option<RequestType>,
    /// When grouped by plan.
    pub plan: Option<PlanName>,
    /// When grouped by user.
    pub user_id: Option<UserId>,
    /// Its sums.
    pub totals: UsageTotals,
}

/// A user and what they used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserTotal {
    /// Who.
    pub user_id: UserId,
    /// Prompt and completion tokens.
    pub total_tokens: u64,
}

/// The answer to an [`AnalyticsQuery`], all read in one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analytics {
    /// Over `[from, to)`.
    pub totals: UsageTotals,
    /// Over the span of the same length before `from`.
    pub previous: UsageTotals,
    /// Buckets with usage, by start, then by the dimensions.
    pub series: Vec<SeriesRow>,
    /// The largest users, largest first.
    pub top_users: Vec<UserTotal>,
}
