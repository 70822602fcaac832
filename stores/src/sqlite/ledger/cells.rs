//! The stored events added up by hour, in a temporary table: what SQL compares the summaries with, and
//! makes them from again.

use std::collections::HashMap;

use metering::time::Timestamp;
use metering::usage::CountedEvent;
use rusqlite::{Connection, Error, params};

use super::events;
use super::numbers::Numbers;
use crate::analytics::HOUR_MILLIS;

/// Sums that are gathered in memory, some 10 MB, before they go into the table.
const GATHERED_MAX: usize = 100_000;

/// Hour, user, request type, model, plan.
type Place = (i64, i64, u8, i64, i64);

/// Events; prompt, completion, cached and reasoning tokens.
type Sums = [i64; 5];

/// Runs `work` while the tables of `sql/cells.sql` hold all stored events. `open` must be in a
/// transaction, which undoes them when this fails.
pub(super) fn with_cells<T>(
    open: &Connection,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    open.execute_batch(include_str!("sql/cells.sql"))?;
    gather(open)?;
    let done = work()?;
    open.execute_batch(include_str!("sql/drop_cells.sql"))?;
    Ok(done)
}

fn gather(open: &Connection) -> rusqlite::Result<()> {
    let mut numbers = Numbers::default();
    let mut cells: HashMap<Place, Sums> = HashMap::new();
    events::all(open, |CountedEvent { admitted, .. }| {
        numbers.trim();
        let (event, plan) = (&admitted.event, admitted.plan.as_str());
        let place = (
            hour(event.occurred_at),
            numbers.user(open, event.user_id)?,
            event.request_type.number(),
            numbers.name(open, event.model.as_str())?,
            numbers.name(open, plan)?,
        );
        let tokens = event.tokens;
        let one = [1, tokens.prompt, tokens.completion, tokens.cached, tokens.reasoning];
        let sums = cells.entry(place).or_default();
        for (sum, more) in sums.iter_mut().zip(one) {
            let more = i64::from(more);
            *sum = sum.checked_add(more).ok_or(Error::IntegralValueOutOfRange(0, more))?;
        }
        if cells.len() >= GATHERED_MAX { put_down(open, &mut cells) } else { Ok(()) }
    })?;
    put_down(open, &mut cells)
}

fn hour(time: Timestamp) -> i64 {
    time.as_millis().div_euclid(HOUR_MILLIS)
}

fn put_down(open: &Connection, cells: &mut HashMap<Place, Sums>) -> rusqlite::Result<()> {
    let mut insert =
        open.prepare("INSERT INTO temp.cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    for ((hour, user, request_type, model, plan), sums) in cells.drain() {
        let [events, prompt, completion, cached, reasoning] = sums;
        insert.execute(params![
            hour,
            user,
            request_type,
            model,
            plan,
            events,
            prompt,
            completion,
            cached,
            reasoning
        ])?;
    }
    Ok(())
}
