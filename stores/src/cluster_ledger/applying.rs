//! The second half of a commit: one transaction in Postgres for all partitions of a group.

use std::collections::{BTreeMap, HashMap, HashSet};

use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{Totals, UserTotals};
use metering::time::{Period, Timestamp};
use metering::usage::{
    Alert, Committed, Cursor, DeadLetter, Flush, Horizon, Offset, Partition, Watched,
};
use sqlx::{PgConnection, Postgres, Row as _, Transaction};

use super::events::Told;
use super::owned::length;
use super::stored::{Id, STORE, count, partition, partition_number, stored, unavailable};
use super::{Shared, alerts, dead_letters, erasure};
use crate::failpoints::reached;

/// Rows of one statement.
const ROWS_MAX: usize = 10_000;

type MonthKey = (UserId, Period);

/// What one flush changes in Postgres, in its numbers.
pub(super) struct Change {
    partition: Partition,
    number: i32,
    from: i64,
    to: i64,
    log_time: i64,
    horizon: i64,
    /// Counted, duplicates, dead letters, void, ticks.
    tallies: [i64; 5],
    statistics: BTreeMap<MonthKey, [i64; 4]>,
    letters: Vec<DeadLetter>,
    watched: Vec<Watched>,
}

/// What became of it.
pub(super) enum Applied {
    Won(Committed),
    /// Where the cursor stands instead.
    Lost(Offset),
}

impl Change {
    /// An error when a number does not fit: nothing of the flush is written then.
    pub(super) fn of(flush: &Flush) -> Result<Self, Unavailable> {
        let tallies = flush.tallies;
        let mut statistics = BTreeMap::new();
        for (key, totals) in &flush.statistics {
            let [chat, plagiarism, prompts] = totals.requests;
            let [tokens, chat] = [stored(totals.tokens)?, stored(chat)?];
            statistics.insert(*key, [tokens, chat, stored(plagiarism)?, stored(prompts)?]);
        }
        let horizon = length(flush.horizon).as_millis();
        Ok(Self {
            partition: flush.partition,
            number: partition_number(flush.partition)?,
            from: stored(flush.range.start.number())?,
            to: stored(flush.range.end.number())?,
            log_time: flush.log_time.as_millis(),
            horizon: i64::try_from(horizon).map_err(unavailable)?,
            tallies: [
                stored(tallies.counted)?,
                stored(tallies.duplicates)?,
                stored(tallies.dead_letters)?,
                stored(tallies.void)?,
                stored(tallies.ticks)?,
            ],
            statistics,
            letters: flush.dead_letters.clone(),
            watched: flush.watched.clone(),
        })
    }
}

/// Moves the cursors of a group and applies what belongs to those that moved. When one change makes
/// the transaction fail, the others are committed without it.
pub(super) async fn apply(
    shared: &Shared,
    changes: &[&Change],
    told: &Told,
) -> Vec<Result<Applied, Unavailable>> {
    match transaction(shared, changes, told).await {
        Ok(applied) => applied.into_iter().map(Ok).collect(),
        // Rolled back for certain, but perhaps for one partition's sake.
        Err(Failed::Before(_)) if changes.len() > 1 => {
            let mut outcomes = Vec::with_capacity(changes.len());
            for one in changes {
                let alone = transaction(shared, std::slice::from_ref(one), told).await;
                let alone = alone.map_err(|failed| failed.into_unavailable());
                outcomes.push(alone.map(|mut applied| applied.remove(0)));
            }
            outcomes
        }
        Err(failed) => {
            let error = failed.into_unavailable();
            changes.iter().map(|_| Err(error.clone())).collect()
        }
    }
}

enum Failed {
    /// Nothing was committed.
    Before(Unavailable),
    /// Perhaps everything was.
    InDoubt(Unavailable),
}

impl Failed {
    fn into_unavailable(self) -> Unavailable {
        match self {
            Self::Before(error) => error,
            Self::InDoubt(error) => {
                unavailable(format!("perhaps committed, perhaps not: {}", error.reason))
            }
        }
    }
}

async fn transaction(
    shared: &Shared,
    changes: &[&Change],
    told: &Told,
) -> Result<Vec<Applied>, Failed> {
    let prepared = shared.postgres.within(STORE, prepare(shared, changes, told)).await;
    let (open, applied, erased) = prepared.map_err(Failed::Before)?;
    // An erasure that began meanwhile may have passed before these rows were stored, and rows of an
    // earlier try may hold what this one left out.
    for user in erased {
        erasure::erase_events(shared, user).await.map_err(Failed::Before)?;
    }
    reached("ledger::before_commit").await;
    shared.postgres.within(STORE, open.commit()).await.map_err(Failed::InDoubt)?;
    Ok(applied)
}

type Prepared = (Transaction<'static, Postgres>, Vec<Applied>, HashSet<UserId>);

/// Everything but the COMMIT.
async fn prepare(
    shared: &Shared,
    changes: &[&Change],
    told: &Told,
) -> Result<Prepared, sqlx::Error> {
    let mut open = shared.postgres.pool().begin().await?;
    let found = lock_cursors(&mut open, changes).await?;
    let won = |change: &&&Change| found.get(&change.partition) == Some(&change.from);
    let winners: Vec<_> = changes.iter().filter(won).copied().collect();
    let cursors = move_cursors(&mut open, &winners).await?;
    let totals = add_statistics(&mut open, &winners).await?;
    let reached: Vec<_> = winners.iter().flat_map(|change| change.reached(&totals)).collect();
    let alerts = alerts::raise(&mut open, &reached).await?;
    // Before it is asked who is erased: an erasure that is not seen waits for these letters.
    let letters: Vec<_> = winners.iter().map(|one| (one.partition, &*one.letters)).collect();
    let any_letters = letters.iter().any(|(_, letters)| !letters.is_empty());
    if any_letters {
        dead_letters::announce(&mut open).await?;
    }
    let erased = if told.users.is_empty() {
        HashSet::new()
    } else {
        erasure::erased_among(&mut open, &told.users).await?
    };
    if any_letters {
        dead_letters::insert(&mut open, &letters, &erased).await?;
    }
    let applied = changes.iter().map(|change| match cursors.get(&change.partition) {
        Some(cursor) => Applied::Won(Committed {
            cursor: *cursor,
            totals: change.new_totals(&totals),
            alerts: change.statistics.keys().filter_map(|month| alerts.get(month)).sum(),
        }),
        None => {
            let found = found.get(&change.partition).copied().unwrap_or_default();
            Applied::Lost(Offset::new(u64::try_from(found).unwrap_or_default()))
        }
    });
    let applied = applied.collect();
    Ok((open, applied, erased))
}

impl Change {
    /// The alerts that stand to these totals, those raised before among them.
    fn reached(&self, totals: &HashMap<MonthKey, Totals>) -> Vec<Alert> {
        let raised_at = Timestamp::from_millis(self.log_time);
        let reached = self.watched.iter().filter_map(|watched| {
            let totals = totals.get(&(watched.user_id, watched.period))?;
            Some(watched.reached(*totals, raised_at))
        });
        reached.flatten().collect()
    }

    fn new_totals(&self, totals: &HashMap<MonthKey, Totals>) -> Vec<UserTotals> {
        let keys = self.statistics.keys();
        let new = keys.filter_map(|key| {
            let (user_id, period) = *key;
            Some(UserTotals { user_id, period, totals: *totals.get(key)? })
        });
        new.collect()
    }
}

/// Where the partitions stand, until the transaction ends. In the order of their numbers, so that two
/// groups never wait for each other.
async fn lock_cursors(
    open: &mut PgConnection,
    changes: &[&Change],
) -> Result<HashMap<Partition, i64>, sqlx::Error> {
    let numbers: Vec<_> = changes.iter().map(|change| change.number).collect();
    let rows = sqlx::query(include_str!("sql/lock_cursors.sql")).bind(numbers);
    let rows = rows.fetch_all(open).await?;
    rows.iter().map(|row| Ok((partition(row)?, row.try_get("position")?))).collect()
}

/// Compare and set: only what still stands where the flush begins moves, and is answered.
async fn move_cursors(
    open: &mut PgConnection,
    winners: &[&Change],
) -> Result<HashMap<Partition, Cursor>, sqlx::Error> {
    let column = |value: fn(&Change) -> i64| -> Vec<i64> {
        winners.iter().map(|change| value(change)).collect()
    };
    let numbers: Vec<_> = winners.iter().map(|change| change.number).collect();
    let rows = sqlx::query(include_str!("sql/move_cursors.sql"))
        .bind(numbers)
        .bind(column(|change| change.from))
        .bind(column(|change| change.to))
        .bind(column(|change| change.log_time))
        .bind(column(|change| change.horizon))
        .bind(column(|change| change.tallies[0]))
        .bind(column(|change| change.tallies[1]))
        .bind(column(|change| change.tallies[2]))
        .bind(column(|change| change.tallies[3]))
        .bind(column(|change| change.tallies[4]))
        .fetch_all(open)
        .await?;
    rows.iter().map(|row| read_cursor(row).map(|cursor| (cursor.partition, cursor))).collect()
}

/// The columns log_partition, position, log_time and horizon.
pub(super) fn read_cursor(row: &sqlx::postgres::PgRow) -> Result<Cursor, sqlx::Error> {
    let horizon = std::time::Duration::from_millis(count(row, "horizon")?);
    Ok(Cursor {
        partition: partition(row)?,
        position: Offset::new(count(row, "position")?),
        log_time: Timestamp::from_millis(row.try_get("log_time")?),
        horizon: Horizon::Within(horizon),
    })
}

/// Answers the new totals.
async fn add_statistics(
    open: &mut PgConnection,
    winners: &[&Change],
) -> Result<HashMap<MonthKey, Totals>, sqlx::Error> {
    // In order, and each once: a user's events are all in one partition.
    let all: BTreeMap<_, _> = winners.iter().flat_map(|change| &change.statistics).collect();
    let all: Vec<_> = all.into_iter().collect();
    let mut new = HashMap::with_capacity(all.len());
    for rows in all.chunks(ROWS_MAX) {
        let column =
            |place: usize| -> Vec<i64> { rows.iter().map(|(_, more)| more[place]).collect() };
        let users: Vec<_> = rows.iter().map(|((user, _), _)| Id(*user)).collect();
        let periods: Vec<_> = rows.iter().map(|((_, period), _)| period.number()).collect();
        let answered = sqlx::query(include_str!("sql/add_statistics.sql"))
            .bind(users)
            .bind(periods)
            .bind(column(0))
            .bind(column(1))
            .bind(column(2))
            .bind(column(3))
            .fetch_all(&mut *open)
            .await?;
        for row in &answered {
            let Id(user) = row.try_get("user_id")?;
            let period = Period::from_number(row.try_get("period")?);
            new.insert((user, period), read_totals(row)?);
        }
    }
    Ok(new)
}

/// The columns tokens, chat, plagiarism and prompt_generation.
pub(super) fn read_totals(row: &sqlx::postgres::PgRow) -> Result<Totals, sqlx::Error> {
    let requests =
        [count(row, "chat")?, count(row, "plagiarism")?, count(row, "prompt_generation")?];
    Ok(Totals { tokens: count(row, "tokens")?, requests })
}
