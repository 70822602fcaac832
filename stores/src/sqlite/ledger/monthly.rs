//! One user's month, from the daily summaries and the statistics.

use metering::accounts::UserId;
use metering::time::{Day, Period, Timestamp};
use metering::usage::{ModelName, MonthlyUsage, Partition, TypeTotals};
use rusqlite::{Connection, params};

use super::row::{count, request_type};
use super::writer::{read_cursor, totals_of};

/// See `UsageReports::monthly`. `open` must be in a transaction: so sums agree.
pub(super) fn monthly(
    open: &Connection,
    user: UserId,
    period: Period,
) -> rusqlite::Result<MonthlyUsage> {
    let cursor = read_cursor(open, Partition::SINGLE)?;
    let as_of = (cursor.log_time > Timestamp::MIN).then_some(cursor.log_time);
    let mut usage = MonthlyUsage {
        period,
        totals: totals_of(open, user, period)?,
        breakdown: [TypeTotals::default(); 3],
        models: Default::default(),
        daily: Vec::new(),
        as_of,
    };
    let mut select = open.prepare_cached(include_str!("sql/monthly.sql"))?;
    let (first, end) = (period.start().day().number(), period.end().day().number());
    let mut rows = select.query(params![user.as_bytes(), first, end])?;
    while let Some(row) = rows.next()? {
        let day = Day::from_number(row.get(0)?);
        let by_type = &mut usage.breakdown[request_type(row, 1)?.index()];
        let (prompt, completion) = (count(row, 3)?, count(row, 4)?);
        // Each is at most the statistics' total, whose sum was checked at every commit.
        let total = prompt.saturating_add(completion);
        by_type.prompt_tokens = by_type.prompt_tokens.saturating_add(prompt);
        by_type.completion_tokens = by_type.completion_tokens.saturating_add(completion);
        let model = usage.models.entry(ModelName::new(&row.get::<_, String>(2)?)).or_insert(0);
        *model = model.saturating_add(total);
        match usage.daily.last_mut() {
            Some((last, tokens)) if *last == day => *tokens = tokens.saturating_add(total),
            _ => usage.daily.push((day, total)),
        }
    }
    Ok(usage)
}
