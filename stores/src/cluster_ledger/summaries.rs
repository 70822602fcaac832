//! Summary rows: absolute totals, read back where this process does not know them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use clickhouse::Row;
use clickhouse::error::Error;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::{Day, Hour};
use metering::usage::{
    Breakdown, CountedEvent, Flush, ModelName, Offset, Partition, SummaryKey, Sums,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Shared;
use super::commits::Pending;
use super::events::{CONFIRMED_WITHIN, INSERT_ROWS_MAX, Tries};
use super::running_totals::{Ages, Running, RunningTotals};
use super::stored::{request_type, type_number, unavailable, user_id, uuid};

/// Keys of one question: the server takes 128 KiB for a parameter.
const KEYS_MAX: usize = 2000;

type HourKey = (Hour, Breakdown);

#[derive(Row, Serialize, Deserialize)]
struct DailyRow<'a> {
    day: i32,
    user_id: u128,
    request_type: i8,
    model: &'a str,
    plan: &'a str,
    events: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: u64,
    reasoning_tokens: u64,
    version: u64,
}

#[derive(Row, Serialize, Deserialize)]
struct HourlyRow<'a> {
    hour: i32,
    log_partition: u32,
    request_type: i8,
    model: &'a str,
    plan: &'a str,
    events: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: u64,
    reasoning_tokens: u64,
    version: u64,
}

/// Rows that were read back. What is not here was never written.
#[derive(Default)]
pub(super) struct Before {
    daily: HashMap<SummaryKey, Running>,
    hourly: HashMap<(Partition, HourKey), Running>,
}

/// The rows of one flush as they are after it.
pub(super) struct NewRows {
    daily: Vec<NewRow<SummaryKey>>,
    hourly: Vec<NewRow<HourKey>>,
}

struct NewRow<K> {
    key: K,
    running: Running,
    /// It holds more than before, so it must be written.
    changed: bool,
}

impl NewRows {
    /// Remembers them, once they are committed.
    pub(super) fn keep(self, totals: &mut RunningTotals, entries_max: usize) {
        for row in self.daily {
            totals.daily.insert(row.key, row.running, entries_max);
        }
        for row in self.hourly {
            totals.hourly.insert(row.key, row.running, entries_max);
        }
    }
}

/// Reads the rows that these flushes change and this process does not know.
pub(super) async fn read_back(shared: &Shared, pending: &[Pending]) -> Result<Before, Unavailable> {
    let (mut days, mut hours) = (BTreeSet::new(), BTreeSet::new());
    for Pending { flush, totals, .. } in pending {
        let daily = flush.daily.keys().filter(|key| totals.daily.get(key).is_none());
        days.extend(daily.map(|key| (key.day.number(), key.user_id)));
        let hourly = flush.hourly.keys().filter(|key| totals.hourly.get(key).is_none());
        hours.extend(hourly.map(|(hour, _)| (hour.number(), flush.partition.number())));
    }
    let mut before = Before::default();
    let (days, hours): (Vec<_>, Vec<_>) = (days.into_iter().collect(), hours.into_iter().collect());
    for keys in days.chunks(KEYS_MAX) {
        shared.ask(read_daily(shared, keys, &mut before)).await?;
    }
    for keys in hours.chunks(KEYS_MAX) {
        shared.ask(read_hourly(shared, keys, &mut before)).await?;
    }
    Ok(before)
}

async fn read_daily(
    shared: &Shared,
    keys: &[(i32, UserId)],
    before: &mut Before,
) -> Result<(), Error> {
    let days: Vec<_> = keys.iter().map(|(day, _)| *day).collect();
    let users: Vec<_> = keys.iter().map(|(_, user)| user.to_string()).collect();
    let select = shared.clickhouse.query(include_str!("sql/read_daily.sql"));
    let select = select.param("days", days).param("users", users);
    let mut rows = select.fetch::<DailyRow<'_>>()?;
    while let Some(row) = rows.next().await? {
        before.take_daily(&row);
    }
    Ok(())
}

async fn read_hourly(
    shared: &Shared,
    keys: &[(i32, u32)],
    before: &mut Before,
) -> Result<(), Error> {
    let (hours, partitions): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
    let select = shared.clickhouse.query(include_str!("sql/read_hourly.sql"));
    let select = select.param("hours", hours).param("partitions", partitions);
    let mut rows = select.fetch::<HourlyRow<'_>>()?;
    while let Some(row) = rows.next().await? {
        before.take_hourly(&row);
    }
    Ok(())
}

impl Before {
    fn take_daily(&mut self, row: &DailyRow<'_>) {
        let Some(breakdown) = breakdown(row.request_type, row.model, row.plan) else { return };
        let (user_id, day) = (user_id(row.user_id), Day::from_number(row.day));
        let sums = Sums {
            events: row.events,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
            cached_tokens: row.cached_tokens,
            reasoning_tokens: row.reasoning_tokens,
        };
        let running = Running { sums, version: Offset::new(row.version) };
        self.daily.insert(SummaryKey { user_id, day, breakdown }, running);
    }

    fn take_hourly(&mut self, row: &HourlyRow<'_>) {
        let Some(breakdown) = breakdown(row.request_type, row.model, row.plan) else { return };
        let (partition, hour) = (Partition::new(row.log_partition), Hour::from_number(row.hour));
        let sums = Sums {
            events: row.events,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
            cached_tokens: row.cached_tokens,
            reasoning_tokens: row.reasoning_tokens,
        };
        let running = Running { sums, version: Offset::new(row.version) };
        self.hourly.insert((partition, (hour, breakdown)), running);
    }
}

/// The enumeration of the column holds no other number.
fn breakdown(number: i8, model: &str, plan: &str) -> Option<Breakdown> {
    let request_type = request_type(number).ok()?;
    Some(Breakdown { request_type, model: ModelName::new(model), plan: PlanName::new(plan) })
}

/// What the rows are after these flushes.
pub(super) fn new_rows(pending: &[Pending], before: &Before) -> Result<Vec<NewRows>, Unavailable> {
    let rows = pending.iter().map(|Pending { flush, totals, .. }| {
        let known = |key: &SummaryKey| known(&totals.daily, key, before.daily.get(key));
        let daily = added(flush, &flush.daily, known, day_key)?;
        let partition = flush.partition;
        let known = |key: &HourKey| match totals.hourly.get(key) {
            Some(running) => running,
            None => before.hourly.get(&(partition, key.clone())).copied().unwrap_or_default(),
        };
        let hourly = added(flush, &flush.hourly, known, hour_key)?;
        Ok(NewRows { daily, hourly })
    });
    rows.collect()
}

fn known<K: Eq + Hash>(ages: &Ages<K>, key: &K, read: Option<&Running>) -> Running {
    ages.get(key).or(read.copied()).unwrap_or_default()
}

/// Adds what a flush counted to its rows. A row that stands above the start of the flush holds some
/// of its events already, from a commit that was cut off: only those above its version are added.
fn added<K: Clone + Ord + Hash>(
    flush: &Flush,
    deltas: &BTreeMap<K, Sums>,
    known: impl Fn(&K) -> Running,
    key_of: impl Fn(&CountedEvent) -> K,
) -> Result<Vec<NewRow<K>>, Unavailable> {
    let before: Vec<_> = deltas.iter().map(|(key, more)| (key, *more, known(key))).collect();
    let ahead: HashMap<&K, Offset> = before
        .iter()
        .filter(|(_, _, running)| running.version > flush.range.start)
        .map(|(key, _, running)| (*key, running.version))
        .collect();
    let mut missing: HashMap<K, Sums> = HashMap::new();
    if !ahead.is_empty() {
        for event in &flush.counted {
            let key = key_of(event);
            if ahead.get(&key).is_some_and(|version| event.offset >= *version) {
                let sums = missing.entry(key).or_default();
                *sums = plus(*sums, Sums::of(&event.admitted))?;
            }
        }
    }
    let rows = before.into_iter().map(|(key, more, running)| {
        let more = match ahead.get(key) {
            Some(_) => missing.get(key).copied().unwrap_or_default(),
            None => more,
        };
        let changed = more != Sums::default();
        let version = running.version.max(flush.range.end);
        let after = Running { sums: plus(running.sums, more)?, version };
        let running = if changed { after } else { running };
        Ok(NewRow { key: key.clone(), running, changed })
    });
    rows.collect()
}

fn plus(sums: Sums, more: Sums) -> Result<Sums, Unavailable> {
    sums.plus(more).ok_or_else(|| unavailable("a summary row does not fit 64 bits"))
}

fn day_key(event: &CountedEvent) -> SummaryKey {
    let occurred = &event.admitted.event;
    let breakdown = breakdown_of(event);
    SummaryKey { user_id: occurred.user_id, day: occurred.occurred_at.day(), breakdown }
}

fn hour_key(event: &CountedEvent) -> HourKey {
    (event.admitted.event.occurred_at.hour(), breakdown_of(event))
}

fn breakdown_of(event: &CountedEvent) -> Breakdown {
    let (plan, event) = (event.admitted.plan.clone(), &event.admitted.event);
    Breakdown { request_type: event.request_type, model: event.model.clone(), plan }
}

/// Writes the rows that have changed.
pub(super) async fn insert(
    shared: &Shared,
    flushes: &[&Flush],
    rows: &[NewRows],
    deadline: Instant,
) -> Result<(), Unavailable> {
    let (mut daily, mut hourly) = (Vec::new(), Vec::new());
    for (flush, rows) in flushes.iter().zip(rows) {
        daily.extend(rows.daily.iter().filter(|row| row.changed));
        let changed = rows.hourly.iter().filter(|row| row.changed);
        hourly.extend(changed.map(|row| (flush.partition, row)));
    }
    tokio::try_join!(
        insert_daily(shared, &daily, deadline),
        insert_hourly(shared, &hourly, deadline),
    )
    .map(drop)
}

async fn insert_daily(
    shared: &Shared,
    rows: &[&NewRow<SummaryKey>],
    deadline: Instant,
) -> Result<(), Unavailable> {
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        let mut tries = Tries::until(deadline);
        while !tries.confirmed(try_daily(shared, rows)).await? {}
    }
    Ok(())
}

async fn try_daily(shared: &Shared, rows: &[&NewRow<SummaryKey>]) -> Result<(), Error> {
    let insert = shared.clickhouse.insert::<DailyRow<'_>>("token_usage_summary", CONFIRMED_WITHIN);
    let mut insert = insert.await?;
    for row in rows {
        insert.write(&daily_row(row)).await?;
    }
    insert.end().await
}

async fn insert_hourly(
    shared: &Shared,
    rows: &[(Partition, &NewRow<HourKey>)],
    deadline: Instant,
) -> Result<(), Unavailable> {
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        let mut tries = Tries::until(deadline);
        while !tries.confirmed(try_hourly(shared, rows)).await? {}
    }
    Ok(())
}

async fn try_hourly(shared: &Shared, rows: &[(Partition, &NewRow<HourKey>)]) -> Result<(), Error> {
    let insert = shared.clickhouse.insert::<HourlyRow<'_>>("token_usage_hourly", CONFIRMED_WITHIN);
    let mut insert = insert.await?;
    for (partition, row) in rows {
        insert.write(&hourly_row(*partition, row)).await?;
    }
    insert.end().await
}

fn daily_row(NewRow { key, running, .. }: &NewRow<SummaryKey>) -> DailyRow<'_> {
    let Running { sums, version } = running;
    DailyRow {
        day: key.day.number(),
        user_id: uuid(key.user_id),
        request_type: type_number(key.breakdown.request_type),
        model: key.breakdown.model.as_str(),
        plan: key.breakdown.plan.as_str(),
        events: sums.events,
        prompt_tokens: sums.prompt_tokens,
        completion_tokens: sums.completion_tokens,
        cached_tokens: sums.cached_tokens,
        reasoning_tokens: sums.reasoning_tokens,
        version: version.number(),
    }
}

fn hourly_row(partition: Partition, row: &NewRow<HourKey>) -> HourlyRow<'_> {
    let ((hour, breakdown), Running { sums, version }) = (&row.key, row.running);
    HourlyRow {
        hour: hour.number(),
        log_partition: partition.number(),
        request_type: type_number(breakdown.request_type),
        model: breakdown.model.as_str(),
        plan: breakdown.plan.as_str(),
        events: sums.events,
        prompt_tokens: sums.prompt_tokens,
        completion_tokens: sums.completion_tokens,
        cached_tokens: sums.cached_tokens,
        reasoning_tokens: sums.reasoning_tokens,
        version: version.number(),
    }
}
