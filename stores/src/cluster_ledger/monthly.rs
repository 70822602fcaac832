//! One user's month, from the daily summaries.

use std::collections::BTreeMap;

use async_trait::async_trait;
use clickhouse::Row;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::Totals;
use metering::time::{Day, Period, Timestamp};
use metering::usage::{
    Analytics, AnalyticsQuery, HistoryQuery, HistoryRow, ModelName, MonthlyUsage, Partition,
    TypeTotals, UsageReports,
};
use serde::Deserialize;

use super::applying::read_cursor;
use super::stored::{STORE, partition_number, request_type};
use super::{ClusterLedger, Shared, analytics, erasure, history};

#[async_trait]
impl UsageReports for ClusterLedger {
    async fn monthly(&self, user: UserId, period: Period) -> Result<MonthlyUsage, Unavailable> {
        monthly(&self.shared, user, period).await
    }

    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, Unavailable> {
        history::history(&self.shared, query).await
    }

    async fn analytics(&self, query: &AnalyticsQuery) -> Result<Analytics, Unavailable> {
        analytics::analytics(&self.shared, query).await
    }

    async fn erase_metadata(&self, user: UserId) -> Result<(), Unavailable> {
        erasure::erase_metadata(&self.shared, user).await
    }
}

#[derive(Row, Deserialize)]
struct DayRow {
    day: i32,
    request_type: i8,
    model: String,
    events: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// See `UsageReports::monthly`. All sums come from one snapshot of the summaries, which may be a
/// commit ahead of the cursor, never behind it: the cursor is read first.
async fn monthly(
    shared: &Shared,
    user: UserId,
    period: Period,
) -> Result<MonthlyUsage, Unavailable> {
    let as_of = log_time(shared, user).await?;
    let select = shared
        .clickhouse
        .query(include_str!("sql/monthly.sql"))
        .param("user", user.to_string())
        .param("first", period.start().day().number())
        .param("end", period.end().day().number());
    let mut usage = MonthlyUsage {
        period,
        totals: Totals::default(),
        breakdown: [TypeTotals::default(); 3],
        models: BTreeMap::new(),
        daily: Vec::new(),
        as_of,
    };
    for row in shared.ask(select.fetch_all::<DayRow>()).await? {
        add(&mut usage, &row)?;
    }
    Ok(usage)
}

/// Sums stay below the statistics' total, whose sum is checked at every commit.
fn add(usage: &mut MonthlyUsage, row: &DayRow) -> Result<(), Unavailable> {
    let (kind, day) = (request_type(row.request_type)?.index(), Day::from_number(row.day));
    let total = row.prompt_tokens.saturating_add(row.completion_tokens);
    usage.totals.tokens = usage.totals.tokens.saturating_add(total);
    usage.totals.requests[kind] = usage.totals.requests[kind].saturating_add(row.events);
    let by_type = &mut usage.breakdown[kind];
    by_type.prompt_tokens = by_type.prompt_tokens.saturating_add(row.prompt_tokens);
    by_type.completion_tokens = by_type.completion_tokens.saturating_add(row.completion_tokens);
    let model = usage.models.entry(ModelName::new(&row.model)).or_insert(0);
    *model = model.saturating_add(total);
    match usage.daily.last_mut() {
        Some((last, tokens)) if *last == day => *tokens = tokens.saturating_add(total),
        _ => usage.daily.push((day, total)),
    }
    Ok(())
}

/// The log time at the cursor of the user's partition; `None` when it never counted anything.
async fn log_time(shared: &Shared, user: UserId) -> Result<Option<Timestamp>, Unavailable> {
    let partition = Partition::of(user, shared.settings.partitions);
    let number = partition_number(partition)?;
    let reading = async {
        let select = "SELECT log_partition, position, log_time, horizon FROM cursors \
                      WHERE log_partition = $1";
        let select = sqlx::query(select).bind(number);
        let row = select.fetch_optional(shared.postgres.pool()).await?;
        row.as_ref().map(read_cursor).transpose()
    };
    let cursor = shared.postgres.within(STORE, reading).await?;
    Ok(cursor.map(|cursor| cursor.log_time).filter(|log_time| *log_time > Timestamp::MIN))
}
