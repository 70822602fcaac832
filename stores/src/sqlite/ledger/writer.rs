//! The one connection that writes: a flush is one transaction, cursor included.

use metering::accounts::UserId;
use metering::quota::{Totals, UserTotals};
use metering::time::{Period, Timestamp};
use metering::usage::{
    Breakdown, CommitError, Committed, Cursor, DeadLetter, Flush, Horizon, Offset, Partition, Sums,
};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::erasure::Erased;
use super::events::Events;
use super::numbers::Numbers;
use super::row::{count, stored, unavailable};
use super::{alerts, dead_letters};

/// The page cache, in KiB: the leaves of summaries and statistics that a flush touches at random.
const CACHE_KIB: i64 = 32 * 1024;

/// Pages in the write-ahead log at which a commit moves them into the file: the same summary pages
/// change with every flush, and are written there once instead of each time.
const CHECKPOINT_PAGES: i64 = 8192;

pub(super) struct Writer {
    pub(super) connection: Connection,
    numbers: Numbers,
    events: Events,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> rusqlite::Result<Self> {
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        Ok(Self { connection, numbers: Numbers::default(), events: Events::new()? })
    }

    /// Makes the cursor of a partition that was never seen, and reads it.
    pub(super) fn take_over(&mut self, partition: Partition) -> rusqlite::Result<Cursor> {
        self.numbers.forget();
        let number = partition.number();
        self.connection.execute(
            "INSERT OR IGNORE INTO cursors VALUES (?, 0, 0, ?, 0, 0, 0, 0, 0)",
            params![number, Timestamp::MIN.as_millis()],
        )?;
        read_cursor(&self.connection, partition)
    }

    /// See `UsageLedger::commit`. On an error the numbers of this transaction are forgotten.
    pub(super) fn commit(&mut self, flush: &Flush) -> Result<Committed, CommitError> {
        self.numbers.trim();
        let committed = self.try_commit(flush);
        if !matches!(committed, Ok(Ok(_))) {
            self.numbers.forget();
        }
        let lost = |found| CommitError::Lost {
            partition: flush.partition,
            expected: flush.range.start,
            found,
        };
        committed.map_err(unavailable)?.map_err(lost)
    }

    /// The inner error is where the cursor stands instead.
    fn try_commit(&mut self, flush: &Flush) -> rusqlite::Result<Result<Committed, Offset>> {
        let numbers = &mut self.numbers;
        let open = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Some(cursor) = move_cursor(&open, flush)? else {
            return Ok(Err(read_cursor(&open, flush.partition)?.position));
        };
        let mut erased = Erased::default();
        let counted = (flush.range.start, flush.counted.as_slice());
        self.events.insert(&open, numbers, &mut erased, counted)?;
        add_daily(&open, numbers, flush)?;
        add_hourly(&open, numbers, flush)?;
        let totals = add_statistics(&open, numbers, flush)?;
        insert_dead_letters(&open, &mut erased, flush.partition, &flush.dead_letters)?;
        let alerts = alerts::raise(&open, &flush.watched, &totals, flush.log_time)?;
        open.commit()?;
        Ok(Ok(Committed { cursor, totals, alerts }))
    }
}

/// Where a partition stands; at 0 when it was never seen.
pub(super) fn read_cursor(open: &Connection, partition: Partition) -> rusqlite::Result<Cursor> {
    let found = open
        .prepare_cached("SELECT position, log_time FROM cursors WHERE partition = ?")?
        .query_row([partition.number()], |row| {
            let log_time = Timestamp::from_millis(row.get(1)?);
            Ok(at(partition, Offset::new(count(row, 0)?), log_time))
        })
        .optional()?;
    Ok(found.unwrap_or(at(partition, Offset::default(), Timestamp::MIN)))
}

fn at(partition: Partition, position: Offset, log_time: Timestamp) -> Cursor {
    Cursor { partition, position, log_time, horizon: Horizon::Ever }
}

fn move_cursor(open: &Transaction<'_>, flush: &Flush) -> rusqlite::Result<Option<Cursor>> {
    let tallies = flush.tallies;
    let log_time = open
        .prepare_cached(include_str!("sql/move_cursor.sql"))?
        .query_row(
            params![
                flush.partition.number(),
                stored(flush.range.start.number())?,
                stored(flush.range.end.number())?,
                flush.log_time.as_millis(),
                stored(tallies.counted)?,
                stored(tallies.duplicates)?,
                stored(tallies.dead_letters)?,
                stored(tallies.void)?,
                stored(tallies.ticks)?,
            ],
            |row| row.get(0).map(Timestamp::from_millis),
        )
        .optional()?;
    let position = flush.range.end;
    Ok(log_time.map(|log_time| at(flush.partition, position, log_time)))
}

/// A row's place in a summary: day or hour, user or 0, request type, model, plan.
type Place = (i32, i64, u8, i64, i64);

fn place(
    open: &Transaction<'_>,
    numbers: &mut Numbers,
    (bucket, user): (i32, Option<UserId>),
    by: &Breakdown,
) -> rusqlite::Result<Place> {
    let user = user.map_or(Ok(0), |user| numbers.user(open, user))?;
    let model = numbers.name(open, by.model.as_str())?;
    let plan = numbers.name(open, by.plan.as_str())?;
    Ok((bucket, user, by.request_type.number(), model, plan))
}

fn add_daily(open: &Transaction<'_>, numbers: &mut Numbers, flush: &Flush) -> rusqlite::Result<()> {
    let mut rows = Vec::with_capacity(flush.daily.len());
    for (key, sums) in &flush.daily {
        let bucket = (key.day.number(), Some(key.user_id));
        rows.push((place(open, numbers, bucket, &key.breakdown)?, sums));
    }
    // In the order of the table, so that each page is visited once.
    rows.sort_unstable_by_key(|(place, _)| *place);
    let version = stored(flush.range.end.number())?;
    let mut add = open.prepare_cached(include_str!("sql/add_daily.sql"))?;
    for ((day, user, request_type, model, plan), sums) in rows {
        let [events, prompt, completion, cached, reasoning] = columns(sums)?;
        add.execute(params![
            day,
            user,
            request_type,
            model,
            plan,
            events,
            prompt,
            completion,
            cached,
            reasoning,
            version
        ])?;
    }
    Ok(())
}

fn add_hourly(
    open: &Transaction<'_>,
    numbers: &mut Numbers,
    flush: &Flush,
) -> rusqlite::Result<()> {
    let version = stored(flush.range.end.number())?;
    let mut add = open.prepare_cached(include_str!("sql/add_hourly.sql"))?;
    for ((hour, by), sums) in &flush.hourly {
        let (hour, _, request_type, model, plan) = place(open, numbers, (hour.number(), None), by)?;
        let [events, prompt, completion, cached, reasoning] = columns(sums)?;
        add.execute(params![
            hour,
            request_type,
            model,
            plan,
            events,
            prompt,
            completion,
            cached,
            reasoning,
            version
        ])?;
    }
    Ok(())
}

fn columns(sums: &Sums) -> rusqlite::Result<[i64; 5]> {
    Ok([
        stored(sums.events)?,
        stored(sums.prompt_tokens)?,
        stored(sums.completion_tokens)?,
        stored(sums.cached_tokens)?,
        stored(sums.reasoning_tokens)?,
    ])
}

fn add_statistics(
    open: &Transaction<'_>,
    numbers: &mut Numbers,
    flush: &Flush,
) -> rusqlite::Result<Vec<UserTotals>> {
    let mut add = open.prepare_cached(include_str!("sql/add_statistics.sql"))?;
    let mut new_totals = Vec::with_capacity(flush.statistics.len());
    for ((user_id, period), more) in &flush.statistics {
        let [chat, plagiarism, prompts] = more.requests;
        let row = params![
            numbers.user(open, *user_id)?,
            period.number(),
            stored(more.tokens)?,
            stored(chat)?,
            stored(plagiarism)?,
            stored(prompts)?,
        ];
        let totals = add.query_row(row, |row| read_totals(row, 0))?;
        new_totals.push(UserTotals { user_id: *user_id, period: *period, totals });
    }
    Ok(new_totals)
}

/// The columns tokens, chat, plagiarism, prompt_generation from `first` on.
pub(super) fn read_totals(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Totals> {
    let requests = [count(row, first + 1)?, count(row, first + 2)?, count(row, first + 3)?];
    Ok(Totals { tokens: count(row, first)?, requests })
}

/// One user's totals of a period; zero when there are none.
pub(super) fn totals_of(
    open: &Connection,
    user: UserId,
    period: Period,
) -> rusqlite::Result<Totals> {
    let totals = open
        .prepare_cached(include_str!("sql/totals.sql"))?
        .query_row(params![user.as_bytes(), period.number()], |row| read_totals(row, 0))
        .optional()?;
    Ok(totals.unwrap_or_default())
}

fn insert_dead_letters(
    open: &Transaction<'_>,
    erased: &mut Erased,
    partition: Partition,
    letters: &[DeadLetter],
) -> rusqlite::Result<()> {
    let mut insert = open.prepare_cached(
        "INSERT INTO dead_letters (partition, offset, log_time, reason, detail, bytes) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for letter in letters {
        let (detail, bytes) =
            dead_letters::content(&letter.reason, |user| erased.contains(open, user))?;
        insert.execute(params![
            partition.number(),
            stored(letter.offset.number())?,
            letter.log_time.as_millis(),
            letter.reason.code(),
            detail,
            bytes,
        ])?;
    }
    Ok(())
}
