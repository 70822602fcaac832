//! Summary rows: absolute totals, read back where this process does not know them.

use std::collections::HashMap;
use std::hash::Hash;

use clickhouse::Row;
use clickhouse::error::Error;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::PlanName;
use metering::time::{Day, Hour};
use metering::usage::{Breakdown, CountedEvent, Flush, ModelName, Offset, Partition, Sums};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Shared;
use super::commits::Pending;
use super::events::{CONFIRMED_WITHIN, INSERT_ROWS_MAX, Tries};
use super::running_totals::{Rows, Running, RunningTotals};
use super::stored::{request_type, type_number, unavailable, user_id, uuid};

/// Keys of one question: the server takes 128 KiB for a parameter.
const KEYS_MAX: usize = 2000;

type DayKey = (Day, UserId);

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

/// Rows that were read back: all of each user's day and of each hour that was asked for.
#[derive(Default)]
pub(super) struct Before {
    daily: HashMap<DayKey, Rows>,
    hourly: HashMap<(Partition, Hour), Rows>,
}

/// The rows of one flush as they are after it.
pub(super) struct NewRows {
    daily: Vec<Group<DayKey>>,
    hourly: Vec<Group<Hour>>,
}

/// All rows of a user's day or of an hour.
struct Group<K> {
    key: K,
    rows: Rows,
    /// Those that hold more than before, so that they must be written.
    changed: Vec<(Breakdown, Running)>,
}

impl NewRows {
    /// Remembers them, once they are committed.
    pub(super) fn keep(self, totals: &mut RunningTotals, rows_max: usize) {
        for group in self.daily {
            totals.daily.put(group.key, group.rows, rows_max);
        }
        for group in self.hourly {
            totals.hourly.put(group.key, group.rows, rows_max);
        }
    }
}

/// Reads the rows of the days and hours that these flushes change and this process does not know.
pub(super) async fn read_back(shared: &Shared, pending: &[Pending]) -> Result<Before, Unavailable> {
    let mut before = Before::default();
    for Pending { flush, totals, .. } in pending {
        let days = flush.daily.keys().map(|key| (key.day, key.user_id));
        let unknown = days.filter(|key| totals.daily.get(key).is_none());
        before.daily.extend(unknown.map(|key| (key, Rows::default())));
        let hours = flush.hourly.keys().map(|(hour, _)| *hour);
        let unknown = hours.filter(|hour| totals.hourly.get(hour).is_none());
        before.hourly.extend(unknown.map(|hour| ((flush.partition, hour), Rows::default())));
    }
    let days: Vec<_> = before.daily.keys().copied().collect();
    let hours: Vec<_> = before.hourly.keys().copied().collect();
    for keys in days.chunks(KEYS_MAX) {
        shared.ask(read_daily(shared, keys, &mut before)).await?;
    }
    for keys in hours.chunks(KEYS_MAX) {
        shared.ask(read_hourly(shared, keys, &mut before)).await?;
    }
    Ok(before)
}

async fn read_daily(shared: &Shared, keys: &[DayKey], before: &mut Before) -> Result<(), Error> {
    let days: Vec<_> = keys.iter().map(|(day, _)| day.number()).collect();
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
    keys: &[(Partition, Hour)],
    before: &mut Before,
) -> Result<(), Error> {
    let hours: Vec<_> = keys.iter().map(|(_, hour)| hour.number()).collect();
    let partitions: Vec<_> = keys.iter().map(|(partition, _)| partition.number()).collect();
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
        self.daily.entry((day, user_id)).or_default().set(breakdown, running);
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
        self.hourly.entry((partition, hour)).or_default().set(breakdown, running);
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
        let deltas = flush.daily.iter();
        let deltas = deltas.map(|(key, more)| ((key.day, key.user_id), &key.breakdown, *more));
        let known = |key: &DayKey| totals.daily.get(key).or_else(|| before.daily.get(key));
        let daily = added(flush, deltas, known, day_key)?;
        let deltas = flush.hourly.iter().map(|((hour, breakdown), more)| (*hour, breakdown, *more));
        let read = |hour: &Hour| before.hourly.get(&(flush.partition, *hour));
        let known = |hour: &Hour| totals.hourly.get(hour).or_else(|| read(hour));
        let hourly = added(flush, deltas, known, hour_key)?;
        Ok(NewRows { daily, hourly })
    });
    rows.collect()
}

/// Adds what a flush counted to its rows; those of one group come behind each other.
fn added<'a, K: Copy + Eq + Hash>(
    flush: &Flush,
    deltas: impl Iterator<Item = (K, &'a Breakdown, Sums)>,
    known: impl Fn(&K) -> Option<&'a Rows>,
    key_of: impl Fn(&CountedEvent) -> K,
) -> Result<Vec<Group<K>>, Unavailable> {
    let mut groups: Vec<Group<K>> = Vec::new();
    let mut ahead = HashMap::new();
    for (key, breakdown, more) in deltas {
        if groups.last().is_none_or(|group| group.key != key) {
            let rows =
                known(&key).cloned().ok_or_else(|| unavailable("a row was not read back"))?;
            groups.push(Group { key, rows, changed: Vec::new() });
        }
        let Some(group) = groups.last_mut() else { continue };
        let version = group.rows.get(breakdown).version;
        if version > flush.range.start {
            let place = groups.len() - 1;
            ahead.insert(
                (key, breakdown.clone()),
                Ahead { place, version, missing: Sums::default() },
            );
        } else {
            group.add(breakdown.clone(), more, flush.range.end)?;
        }
    }
    if ahead.is_empty() {
        return Ok(groups);
    }
    for event in &flush.counted {
        if let Some(row) = ahead.get_mut(&(key_of(event), breakdown_of(event)))
            && event.offset >= row.version
        {
            row.missing = plus(row.missing, Sums::of(&event.admitted))?;
        }
    }
    for ((_, breakdown), Ahead { place, missing, .. }) in ahead {
        groups[place].add(breakdown, missing, flush.range.end)?;
    }
    Ok(groups)
}

/// A row that stands above the start of the flush: it holds some of its events already, from a commit
/// that was cut off.
struct Ahead {
    /// Of its group.
    place: usize,
    version: Offset,
    /// The sums of the events from its version on.
    missing: Sums,
}

impl<K> Group<K> {
    fn add(&mut self, breakdown: Breakdown, more: Sums, end: Offset) -> Result<(), Unavailable> {
        if more == Sums::default() {
            return Ok(());
        }
        let before = self.rows.get(&breakdown);
        let version = before.version.max(end);
        let running = Running { sums: plus(before.sums, more)?, version };
        self.rows.set(breakdown.clone(), running);
        self.changed.push((breakdown, running));
        Ok(())
    }
}

fn plus(sums: Sums, more: Sums) -> Result<Sums, Unavailable> {
    sums.plus(more).ok_or_else(|| unavailable("a summary row does not fit 64 bits"))
}

fn day_key(event: &CountedEvent) -> DayKey {
    let event = &event.admitted.event;
    (event.occurred_at.day(), event.user_id)
}

fn hour_key(event: &CountedEvent) -> Hour {
    event.admitted.event.occurred_at.hour()
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
        daily.extend(rows.daily.iter().flat_map(Group::daily_rows));
        hourly.extend(rows.hourly.iter().flat_map(|group| group.hourly_rows(flush.partition)));
    }
    tokio::try_join!(
        insert_daily(shared, &daily, deadline),
        insert_hourly(shared, &hourly, deadline),
    )
    .map(drop)
}

async fn insert_daily(
    shared: &Shared,
    rows: &[DailyRow<'_>],
    deadline: Instant,
) -> Result<(), Unavailable> {
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        let mut tries = Tries::until(deadline);
        while !tries.confirmed(try_daily(shared, rows)).await? {}
    }
    Ok(())
}

async fn try_daily(shared: &Shared, rows: &[DailyRow<'_>]) -> Result<(), Error> {
    let insert = shared.clickhouse.insert::<DailyRow<'_>>("token_usage_summary", CONFIRMED_WITHIN);
    let mut insert = insert.await?;
    for row in rows {
        insert.write(row).await?;
    }
    insert.end().await
}

async fn insert_hourly(
    shared: &Shared,
    rows: &[HourlyRow<'_>],
    deadline: Instant,
) -> Result<(), Unavailable> {
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        let mut tries = Tries::until(deadline);
        while !tries.confirmed(try_hourly(shared, rows)).await? {}
    }
    Ok(())
}

async fn try_hourly(shared: &Shared, rows: &[HourlyRow<'_>]) -> Result<(), Error> {
    let insert = shared.clickhouse.insert::<HourlyRow<'_>>("token_usage_hourly", CONFIRMED_WITHIN);
    let mut insert = insert.await?;
    for row in rows {
        insert.write(row).await?;
    }
    insert.end().await
}

impl Group<DayKey> {
    fn daily_rows(&self) -> impl Iterator<Item = DailyRow<'_>> {
        let (day, user_id) = (self.key.0.number(), uuid(self.key.1));
        self.changed.iter().map(move |(breakdown, Running { sums, version })| DailyRow {
            day,
            user_id,
            request_type: type_number(breakdown.request_type),
            model: breakdown.model.as_str(),
            plan: breakdown.plan.as_str(),
            events: sums.events,
            prompt_tokens: sums.prompt_tokens,
            completion_tokens: sums.completion_tokens,
            cached_tokens: sums.cached_tokens,
            reasoning_tokens: sums.reasoning_tokens,
            version: version.number(),
        })
    }
}

impl Group<Hour> {
    fn hourly_rows(&self, partition: Partition) -> impl Iterator<Item = HourlyRow<'_>> {
        let (hour, log_partition) = (self.key.number(), partition.number());
        self.changed.iter().map(move |(breakdown, Running { sums, version })| HourlyRow {
            hour,
            log_partition,
            request_type: type_number(breakdown.request_type),
            model: breakdown.model.as_str(),
            plan: breakdown.plan.as_str(),
            events: sums.events,
            prompt_tokens: sums.prompt_tokens,
            completion_tokens: sums.completion_tokens,
            cached_tokens: sums.cached_tokens,
            reasoning_tokens: sums.reasoning_tokens,
            version: version.number(),
        })
    }
}
