//! Counted events on their way into ClickHouse, retried until it confirms them.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use clickhouse::Row;
use clickhouse::error::Error;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::usage::{CountedEvent, DeadLetterReason, Flush, Partition};
use serde::Serialize;
use tokio::time::Instant;

use super::stored::{millis, type_number, unavailable, uuid};
use super::{Shared, erasure};

/// Rows of one insert: more only fill the server's memory.
pub(super) const INSERT_ROWS_MAX: usize = 100_000;

/// The server confirms an insert within this, or it is made again.
pub(super) const CONFIRMED_WITHIN: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Row, Serialize)]
struct RawRow<'a> {
    user_id: u128,
    occurred_at: i64,
    log_offset: u64,
    log_partition: u32,
    log_time: i64,
    received_at: i64,
    event_id: &'a str,
    request_type: i8,
    model: &'a str,
    plan: &'a str,
    prompt_tokens: u32,
    completion_tokens: u32,
    cached_tokens: u32,
    reasoning_tokens: u32,
    flags: u8,
    over_hold: u64,
    id_digest: u128,
    content_digest: u64,
    metadata: &'a str,
}

#[derive(Row, Serialize)]
struct SlimRow {
    log_partition: u32,
    log_offset: u64,
    id_digest: u128,
    content_digest: u64,
    log_time: i64,
}

/// Users with metadata in a group of flushes.
pub(super) struct Told {
    /// All of them, in order.
    pub(super) users: Vec<UserId>,
    /// Those who were erased before anything was written.
    pub(super) erased: HashSet<UserId>,
}

/// Whose metadata these flushes hold.
pub(super) async fn told(shared: &Shared, flushes: &[&Flush]) -> Result<Told, Unavailable> {
    let counted = flushes.iter().flat_map(|flush| &flush.counted).map(|event| &event.admitted);
    let letters = flushes.iter().flat_map(|flush| &flush.dead_letters);
    let reused = letters.filter_map(|letter| match &letter.reason {
        DeadLetterReason::EventIdReused(admitted) => Some(admitted),
        DeadLetterReason::Undecodable { .. } => None,
    });
    let users: BTreeSet<_> = counted
        .chain(reused)
        .filter(|admitted| admitted.event.metadata.is_some())
        .map(|admitted| admitted.event.user_id)
        .collect();
    let users: Vec<_> = users.into_iter().collect();
    let erased = if users.is_empty() {
        HashSet::new()
    } else {
        let asking = async {
            let mut connection = shared.postgres.pool().acquire().await?;
            erasure::erased_among(&mut connection, &users).await
        };
        shared.postgres.within(super::stored::STORE, asking).await?
    };
    Ok(Told { users, erased })
}

/// Events with their partitions, of a whole group.
pub(super) type Counted<'a> = Vec<(Partition, &'a CountedEvent)>;

/// All of a group.
pub(super) fn counted<'a>(flushes: &[&'a Flush]) -> Counted<'a> {
    let of = |flush: &&'a Flush| {
        let partition = flush.partition;
        flush.counted.iter().map(move |event| (partition, event))
    };
    flushes.iter().flat_map(of).collect()
}

/// All columns of all events.
pub(super) async fn insert_raw(
    shared: &Shared,
    events: &[(Partition, &CountedEvent)],
    erased: &HashSet<UserId>,
    deadline: Instant,
) -> Result<(), Unavailable> {
    for rows in events.chunks(INSERT_ROWS_MAX) {
        let mut tries = Tries::until(deadline);
        while !tries.confirmed(try_raw(shared, rows, erased)).await? {}
    }
    Ok(())
}

async fn try_raw(
    shared: &Shared,
    events: &[(Partition, &CountedEvent)],
    erased: &HashSet<UserId>,
) -> Result<(), Error> {
    let insert = shared.clickhouse.insert::<RawRow<'_>>("token_usage", CONFIRMED_WITHIN);
    let mut insert = insert.await?;
    for (partition, event) in events {
        insert.write(&raw_row(*partition, event, erased)).await?;
    }
    insert.end().await
}

/// Digests and places, for take-over and look-up.
pub(super) async fn insert_slim(
    shared: &Shared,
    events: &[(Partition, &CountedEvent)],
    deadline: Instant,
) -> Result<(), Unavailable> {
    for rows in events.chunks(INSERT_ROWS_MAX) {
        let mut tries = Tries::until(deadline);
        while !tries.confirmed(try_slim(shared, rows)).await? {}
    }
    Ok(())
}

async fn try_slim(shared: &Shared, events: &[(Partition, &CountedEvent)]) -> Result<(), Error> {
    let insert = shared.clickhouse.insert::<SlimRow>("token_usage_log", CONFIRMED_WITHIN);
    let mut insert = insert.await?;
    for (partition, event) in events {
        insert.write(&slim_row(*partition, event)).await?;
    }
    insert.end().await
}

/// Tries of one insert. To write again what was not confirmed changes nothing if it was stored.
pub(super) struct Tries {
    deadline: Instant,
    pause: Duration,
}

impl Tries {
    pub(super) fn until(deadline: Instant) -> Self {
        Self { deadline, pause: FIRST_PAUSE }
    }

    /// Whether this try was confirmed; if not, after a pause for the next one.
    pub(super) async fn confirmed(
        &mut self,
        one: impl Future<Output = Result<(), Error>>,
    ) -> Result<bool, Unavailable> {
        let error = match tokio::time::timeout_at(self.deadline, one).await {
            Ok(Ok(())) => return Ok(true),
            Ok(Err(error)) => unavailable(error),
            Err(_) => return Err(unavailable("ClickHouse did not confirm in time")),
        };
        if Instant::now() + self.pause >= self.deadline {
            return Err(error);
        }
        metrics::counter!("tokenmeter_ledger_retries_total").increment(1);
        tracing::debug!(%error, "an insert is made again");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(false)
    }
}

fn raw_row<'a>(
    partition: Partition,
    CountedEvent { offset, log_time, admitted }: &'a CountedEvent,
    erased: &HashSet<UserId>,
) -> RawRow<'a> {
    let event = &admitted.event;
    let metadata = event.metadata.as_ref().filter(|_| !erased.contains(&event.user_id));
    RawRow {
        user_id: uuid(event.user_id),
        occurred_at: millis(event.occurred_at),
        log_offset: offset.number(),
        log_partition: partition.number(),
        log_time: millis(*log_time),
        received_at: millis(event.received_at),
        event_id: event.event_id.as_str(),
        request_type: type_number(event.request_type),
        model: event.model.as_str(),
        plan: admitted.plan.as_str(),
        prompt_tokens: event.tokens.prompt,
        completion_tokens: event.tokens.completion,
        cached_tokens: event.tokens.cached,
        reasoning_tokens: event.tokens.reasoning,
        flags: admitted.flags.bits(),
        over_hold: admitted.over_hold,
        // A number goes out as its bytes do, smallest first.
        id_digest: u128::from_le_bytes(admitted.id_digest.0),
        content_digest: u64::from_le_bytes(admitted.content_digest.0),
        metadata: metadata.map_or("", |metadata| metadata.as_str()),
    }
}

fn slim_row(
    partition: Partition,
    CountedEvent { offset, log_time, admitted }: &CountedEvent,
) -> SlimRow {
    SlimRow {
        log_partition: partition.number(),
        log_offset: offset.number(),
        id_digest: u128::from_le_bytes(admitted.id_digest.0),
        content_digest: u64::from_le_bytes(admitted.content_digest.0),
        log_time: millis(*log_time),
    }
}
