//! R3 and R4: summaries and statistics against the events they stand for. Both sides are read once,
//! in the same order where they meet here, so that memory does not grow with the ledger.

use std::collections::{HashSet, VecDeque};

use clickhouse::Row;
use clickhouse::query::RowCursor;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::{Day, Hour, Period};
use metering::usage::Difference;
use serde::Deserialize;
use sqlx::{PgConnection, Row as _};

use super::applying::read_totals;
use super::books::{BOOK_TIMEOUT, Cursors, SNAPSHOT, patient};
use super::stored::{Id, STORE, request_type, unavailable, user_id};
use super::{Shared, ask_within};
use crate::compared::{DIFFERENCES_MAX, SUMS, TOTALS};

/// Rows of statistics read at a time.
const PAGE_ROWS: usize = 5000;

/// See `Books::summaries`. Events and summaries are not read in the same instant: while a partition is
/// counted a row may seem to differ, so only what differs a second time is told.
pub(super) async fn summaries(shared: &Shared) -> Result<(u64, Vec<Difference>), Unavailable> {
    let (compared, mut differences) = compare_summaries(shared).await?;
    if !differences.is_empty() {
        let (_, again) = compare_summaries(shared).await?;
        let still: HashSet<_> = again.into_iter().map(|difference| difference.subject).collect();
        differences.retain(|difference| still.contains(&difference.subject));
    }
    Ok((compared, differences))
}

#[derive(Row, Deserialize)]
struct ComparedRow {
    bucket: i32,
    user_id: u128,
    request_type: i8,
    model: String,
    plan: String,
    expected: [u64; 5],
    found: [u64; 5],
}

async fn compare_summaries(shared: &Shared) -> Result<(u64, Vec<Difference>), Unavailable> {
    let reading = async {
        let mut open = shared.postgres.pool().acquire().await?;
        Cursors::read(&mut open, false).await
    };
    let cursors = shared.postgres.within(STORE, reading).await?;
    let rows = shared.clickhouse.query(include_str!("sql/count_summaries.sql"));
    let compared = ask_within(BOOK_TIMEOUT, rows.fetch_one::<u64>()).await?;
    let mut differences = Vec::new();
    for (statement, is_daily) in [
        (include_str!("sql/compare_daily.sql"), true),
        (include_str!("sql/compare_hourly.sql"), false),
    ] {
        let select = shared
            .clickhouse
            .query(statement)
            .param("partitions", &cursors.partitions)
            .param("positions", &cursors.positions)
            .param("rows", DIFFERENCES_MAX);
        for row in ask_within(BOOK_TIMEOUT, select.fetch_all::<ComparedRow>()).await? {
            let subject = subject(&row, is_daily)?;
            push(&subject, &SUMS, row.expected, row.found, &mut differences);
        }
        differences.truncate(DIFFERENCES_MAX);
    }
    Ok((compared, differences))
}

fn subject(row: &ComparedRow, is_daily: bool) -> Result<String, Unavailable> {
    let ComparedRow { bucket, model, plan, .. } = row;
    let kind = request_type(row.request_type)?;
    Ok(if is_daily {
        let (day, user) = (Day::from_number(*bucket), user_id(row.user_id));
        format!("daily {day} user {user} {kind} {model} {plan}")
    } else {
        format!("hourly {} {kind} {model} {plan}", Hour::from_number(*bucket).start())
    })
}

fn push<const N: usize>(
    subject: &str,
    names: &[&str; N],
    expected: [u64; N],
    found: [u64; N],
    into: &mut Vec<Difference>,
) {
    for ((name, expected), found) in names.iter().zip(expected).zip(found) {
        if expected != found && into.len() < DIFFERENCES_MAX {
            let (expected, found) = (expected.into(), found.into());
            into.push(Difference { subject: format!("{subject}: {name}"), expected, found });
        }
    }
}

/// A user's month: tokens, then requests by type.
#[derive(Clone, Copy)]
pub(super) struct Month {
    pub(super) user: UserId,
    pub(super) period: i32,
    pub(super) sums: [u64; 4],
}

impl Month {
    const fn key(&self) -> (UserId, i32) {
        (self.user, self.period)
    }
}

#[derive(Row, Deserialize)]
struct MonthRow {
    user_id: u128,
    period: i32,
    tokens: u64,
    chat: u64,
    plagiarism: u64,
    prompts: u64,
}

/// The months of all events below the cursors, in the order of users as Postgres has it.
pub(super) struct Months(RowCursor<MonthRow>);

impl Months {
    pub(super) fn read(shared: &Shared, cursors: &Cursors) -> Result<Self, Unavailable> {
        let select = shared
            .clickhouse
            .query(include_str!("sql/months.sql"))
            .param("partitions", &cursors.partitions)
            .param("positions", &cursors.positions);
        select.fetch().map(Self).map_err(unavailable)
    }

    pub(super) async fn next(&mut self) -> Result<Option<Month>, Unavailable> {
        let row = ask_within(BOOK_TIMEOUT, self.0.next()).await?;
        Ok(row.map(|row| Month {
            user: user_id(row.user_id),
            period: row.period,
            sums: [row.tokens, row.chat, row.plagiarism, row.prompts],
        }))
    }
}

/// Statistics, page by page.
struct Kept {
    page: VecDeque<Month>,
    after: (UserId, i32),
    ended: bool,
}

impl Kept {
    async fn next(&mut self, open: &mut PgConnection) -> Result<Option<Month>, sqlx::Error> {
        if self.page.is_empty() && !self.ended {
            let rows = sqlx::query(include_str!("sql/statistics_page.sql"))
                .bind(Id(self.after.0))
                .bind(self.after.1)
                .bind(i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX))
                .fetch_all(open)
                .await?;
            self.ended = rows.len() < PAGE_ROWS;
            for row in &rows {
                let (Id(user), period) = (row.try_get("user_id")?, row.try_get("period")?);
                let totals = read_totals(row)?;
                let [chat, plagiarism, prompts] = totals.requests;
                let sums = [totals.tokens, chat, plagiarism, prompts];
                self.page.push_back(Month { user, period, sums });
            }
            if let Some(last) = self.page.back() {
                self.after = last.key();
            }
        }
        Ok(self.page.pop_front())
    }
}

/// See `Books::statistics`. Statistics and cursors are of one instant.
pub(super) async fn statistics(shared: &Shared) -> Result<(u64, Vec<Difference>), Unavailable> {
    let mut open = patient(shared, SNAPSHOT).await?;
    let cursors = Cursors::read(&mut open, false).await.map_err(unavailable)?;
    let mut events = Months::read(shared, &cursors)?;
    let start = (UserId::from_bytes([0; 16]), i32::MIN);
    let mut kept = Kept { page: VecDeque::new(), after: start, ended: false };
    let (mut compared, mut differences) = (0, Vec::new());
    let mut expected = events.next().await?;
    let mut found = kept.next(&mut open).await.map_err(unavailable)?;
    loop {
        let key = match (&expected, &found) {
            (None, None) => break,
            (Some(one), None) | (None, Some(one)) => one.key(),
            (Some(expected), Some(found)) => expected.key().min(found.key()),
        };
        let (mut pair, subject) =
            ([[0; 4]; 2], format!("statistics {} user {}", Period::from_number(key.1), key.0));
        if let Some(month) = expected.filter(|month| month.key() == key) {
            pair[0] = month.sums;
            expected = events.next().await?;
        }
        if let Some(month) = found.filter(|month| month.key() == key) {
            pair[1] = month.sums;
            compared += 1;
            found = kept.next(&mut open).await.map_err(unavailable)?;
        }
        push(&subject, &TOTALS, pair[0], pair[1], &mut differences);
    }
    Ok((compared, differences))
}
