//! Everybody's usage, in one statement over a summary and the events at the edges of the span.

use std::collections::BTreeMap;

use clickhouse::Row;
use clickhouse::query::Query;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::Timestamp;
use metering::usage::{
    Analytics, AnalyticsQuery, ModelName, RequestType, SeriesRow, UsageTotals, UserTotal,
};
use serde::Deserialize;

use super::Shared;
use super::stored::{request_type, type_number, unavailable, user_id};
use crate::analytics::{DAY_MILLIS, Grouping, HOUR_MILLIS, Span, plus};

/// What stands before the rows that are summed, and behind them.
const SUMS: [&str; 2] = [include_str!("sql/sums.sql"), include_str!("sql/sums_by.sql")];
const TOP_USERS: [&str; 2] =
    [include_str!("sql/top_users.sql"), include_str!("sql/top_users_by.sql")];
const DAILY: &str = include_str!("sql/daily_rows.sql");
const HOURLY: &str = include_str!("sql/hourly_rows.sql");
const EVENTS: &str = include_str!("sql/event_rows.sql");

/// See `UsageReports::analytics`.
pub(super) async fn analytics(
    shared: &Shared,
    query: &AnalyticsQuery,
) -> Result<Analytics, Unavailable> {
    let span = Span::of(query);
    let (series, previous, top_users) = tokio::try_join!(
        sums(shared, span, query, Grouping::of(query)),
        sums(shared, span.before(), query, Grouping::default()),
        top_users(shared, span, query),
    )?;
    let mut totals = UsageTotals::default();
    for sum in series.values() {
        add(&mut totals, *sum)?;
    }
    let previous = previous.into_values().next().unwrap_or_default();
    let row = |((start, model, request_type, plan, user_id), totals)| SeriesRow {
        start,
        model,
        request_type,
        plan,
        user_id,
        totals,
    };
    let series = series.into_iter().map(row).collect();
    Ok(Analytics { totals, previous, series, top_users })
}

/// In the order of the answer.
type Key = (Timestamp, Option<ModelName>, Option<RequestType>, Option<PlanName>, Option<UserId>);

#[derive(Row, Deserialize)]
struct SumRow {
    bucket: i64,
    request_type: i8,
    model: String,
    plan: String,
    user_id: u128,
    events: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

async fn sums(
    shared: &Shared,
    span: Span,
    query: &AnalyticsQuery,
    by: Grouping,
) -> Result<BTreeMap<Key, UsageTotals>, Unavailable> {
    let of_users = by.user || query.user_id.is_some();
    let select = select(shared, SUMS, of_users, span, query)
        .param("width", by.width().unwrap_or(0))
        .param("by_type", u8::from(by.request_type))
        .param("by_model", u8::from(by.model))
        .param("by_plan", u8::from(by.plan))
        .param("by_user", u8::from(by.user));
    let mut sums = BTreeMap::new();
    for row in shared.ask(select.fetch_all::<SumRow>()).await? {
        let kind = by.request_type.then(|| request_type(row.request_type)).transpose()?;
        let key = (
            by.bucket(row.bucket),
            by.model.then(|| ModelName::new(&row.model)),
            kind,
            by.plan.then(|| PlanName::new(&row.plan)),
            by.user.then(|| user_id(row.user_id)),
        );
        let totals = UsageTotals {
            events: row.events,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
        };
        add(sums.entry(key).or_default(), totals)?;
    }
    Ok(sums)
}

/// A statement over the rows of the span, whole days or hours and what is left at the edges. Nothing
/// of the question is in its text but parameters.
fn select(
    shared: &Shared,
    [head, tail]: [&str; 2],
    of_users: bool,
    span: Span,
    query: &AnalyticsQuery,
) -> Query {
    let (unit, summary) = if of_users { (DAY_MILLIS, DAILY) } else { (HOUR_MILLIS, HOURLY) };
    let (whole, edges) = span.cut(unit);
    let events = if edges.iter().all(|edge| edge.is_empty()) { "" } else { EVENTS };
    let [before, after] = edges;
    shared
        .clickhouse
        .query(&[head, summary, events, tail].concat())
        .param("first", whole.from)
        .param("end", whole.to)
        .param("from_1", before.from)
        .param("to_1", before.to)
        .param("from_2", after.from)
        .param("to_2", after.to)
        .param("type", query.request_type.map_or(-1, type_number))
        .param("of_model", u8::from(query.model.is_some()))
        .param("model", query.model.as_ref().map_or("", ModelName::as_str))
        .param("of_plan", u8::from(query.plan.is_some()))
        .param("plan", query.plan.as_ref().map_or("", PlanName::as_str))
        .param("of_user", u8::from(query.user_id.is_some()))
        .param("user", query.user_id.unwrap_or(UserId::from_bytes([0; 16])).to_string())
}

fn add(into: &mut UsageTotals, more: UsageTotals) -> Result<(), Unavailable> {
    *into = plus(*into, more).ok_or_else(|| unavailable("a sum is too large"))?;
    Ok(())
}

#[derive(Row, Deserialize)]
struct TopRow {
    user_id: u128,
    total_tokens: u64,
}

async fn top_users(
    shared: &Shared,
    span: Span,
    query: &AnalyticsQuery,
) -> Result<Vec<UserTotal>, Unavailable> {
    if query.top == 0 {
        return Ok(Vec::new());
    }
    let select = select(shared, TOP_USERS, true, span, query).param("top", query.top);
    let rows = shared.ask(select.fetch_all::<TopRow>()).await?;
    let total =
        |TopRow { user_id: user, total_tokens }| UserTotal { user_id: user_id(user), total_tokens };
    Ok(rows.into_iter().map(total).collect())
}
