//! The figures that reconciliation compares, each read in one transaction.

use metering::time::{Day, Hour, Period};
use metering::usage::{
    Difference, Offset, OffsetRange, Partition, PartitionBook, RawBook, Tallies,
};
use rusqlite::{Connection, Error, Row, TransactionBehavior, params};

use super::cells::with_cells;
use super::events;
use super::row::{count, request_type, stored, user_id};
use super::writer::read_cursor;
use crate::compared::{self, DIFFERENCES_MAX};

/// See `Books::partitions`.
pub(super) fn partitions(open: &Connection) -> rusqlite::Result<Vec<PartitionBook>> {
    open.prepare_cached(
        "SELECT partition, start, position, counted, duplicates, dead_letters, void, ticks \
         FROM cursors ORDER BY partition",
    )?
    .query_map([], |row| {
        let (start, end) = (Offset::new(count(row, 1)?), Offset::new(count(row, 2)?));
        Ok(PartitionBook {
            partition: Partition::new(row.get(0)?),
            range: OffsetRange { start, end },
            tallies: Tallies {
                counted: count(row, 3)?,
                duplicates: count(row, 4)?,
                dead_letters: count(row, 5)?,
                void: count(row, 6)?,
                ticks: count(row, 7)?,
            },
        })
    })?
    .collect()
}

/// See `Books::raw`.
pub(super) fn raw(open: &Connection) -> rusqlite::Result<RawBook> {
    let position = read_cursor(open, Partition::SINGLE)?.position;
    let (mut events, mut tokens) = (0, 0_u64);
    events::between(open, Offset::default(), position, |counted| {
        events += 1;
        let sum = tokens.checked_add(counted.admitted.event.tokens.total());
        tokens = sum.ok_or(Error::IntegralValueOutOfRange(1, i64::MAX))?;
        Ok(())
    })?;
    let mut select = open.prepare_cached(include_str!("sql/raw_book.sql"))?;
    select.query_row([], |row| {
        let (statistics_tokens, statistics_requests) = (count(row, 0)?, count(row, 1)?);
        Ok(RawBook { events, tokens, statistics_tokens, statistics_requests })
    })
}

/// See `Books::summaries`. A flush writes events and summaries together, so every summary row must
/// be the sum of *all* its events: none may lie at or above its version. Histories are compared too.
pub(super) fn summaries(open: &Connection) -> rusqlite::Result<(u64, Vec<Difference>)> {
    let compared = open.query_row(
        "SELECT (SELECT count(*) FROM daily) + (SELECT count(*) FROM hourly)",
        [],
        |row| count(row, 0),
    )?;
    let mut differences = Vec::new();
    with_cells(open, || {
        compare(open, include_str!("sql/compare_daily.sql"), &mut differences, |row, into| {
            let (day, user) = (Day::from_number(row.get(0)?), user_id(row, 1)?);
            push(row, format!("daily {day} user {user} {}", breakdown(row)?), SUMS, into)
        })?;
        compare(open, include_str!("sql/compare_hourly.sql"), &mut differences, |row, into| {
            let hour = Hour::from_number(row.get(0)?).start();
            push(row, format!("hourly {hour} {}", breakdown(row)?), SUMS, into)
        })
    })?;
    differences.extend(events::compare_histories(open)?);
    Ok((compared, differences))
}

/// See `Books::statistics`.
pub(super) fn statistics(open: &Connection) -> rusqlite::Result<(u64, Vec<Difference>)> {
    let compared = open.query_row("SELECT count(*) FROM statistics", [], |row| count(row, 0))?;
    let mut differences = Vec::new();
    let select = include_str!("sql/compare_statistics.sql");
    with_cells(open, || {
        compare(open, select, &mut differences, |row, into| {
            let (user, period) = (user_id(row, 0)?, Period::from_number(row.get(1)?));
            push(row, format!("statistics {period} user {user}"), TOTALS, into)
        })
    })?;
    Ok((compared, differences))
}

/// See `Books::repair`.
pub(super) fn repair(open: &mut Connection) -> rusqlite::Result<()> {
    let repairing = open.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if events::compare_histories(&repairing)?.is_some() {
        events::make_histories(&repairing)?;
    }
    with_cells(&repairing, || repairing.execute_batch(include_str!("sql/repair.sql")))?;
    repairing.commit()
}

/// Columns that are compared, and where the first pair stands: expected ones, then found ones.
type Columns = (usize, &'static [&'static str]);

const SUMS: Columns = (5, &compared::SUMS);
const TOTALS: Columns = (2, &compared::TOTALS);

fn compare(
    open: &Connection,
    select: &str,
    differences: &mut Vec<Difference>,
    list: impl Fn(&Row<'_>, &mut Vec<Difference>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut select = open.prepare(select)?;
    let mut rows = select.query(params![stored(DIFFERENCES_MAX as u64)?])?;
    while let Some(row) = rows.next()? {
        list(row, differences)?;
    }
    differences.truncate(DIFFERENCES_MAX);
    Ok(())
}

fn breakdown(row: &Row<'_>) -> rusqlite::Result<String> {
    let (model, plan): (String, String) = (row.get(3)?, row.get(4)?);
    Ok(format!("{} {model} {plan}", request_type(row, 2)?))
}

fn push(
    row: &Row<'_>,
    subject: String,
    (first, names): Columns,
    into: &mut Vec<Difference>,
) -> rusqlite::Result<()> {
    for (place, name) in names.iter().enumerate() {
        let expected: i64 = row.get(first + place)?;
        let found: i64 = row.get(first + names.len() + place)?;
        if expected != found {
            let subject = format!("{subject}: {name}");
            into.push(Difference { subject, expected: expected.into(), found: found.into() });
        }
    }
    Ok(())
}
