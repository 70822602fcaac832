//! Counted events on their way into ClickHouse, retried until it confirms them.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use clickhouse::error::Error;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::Timestamp;
use metering::usage::{
    AdmittedEvent, CountedEvent, DeadLetterReason, Flush, Partition, TokenCounts,
};
use tokio::time::Instant;

use super::stored::{millis, type_number, unavailable, uuid};
use super::{Shared, erasure};
use crate::clickhouse::columns::Block;

/// Rows of one insert: more only fill the server's memory.
pub(super) const INSERT_ROWS_MAX: usize = 100_000;

/// Rows of one block: all columns are gathered while its events are in the processor's cache. The
/// server puts the blocks of an insert together again.
const BLOCK_ROWS: usize = 4000;

/// The server confirms an insert within this, or it is made again.
pub(super) const CONFIRMED_WITHIN: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

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
    let mut insert = shared.clickhouse.insert_blocks("token_usage", CONFIRMED_WITHIN);
    for rows in events.chunks(BLOCK_ROWS) {
        insert.write(raw_block(rows, erased)).await?;
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
    let mut insert = shared.clickhouse.insert_blocks("token_usage_log", CONFIRMED_WITHIN);
    for rows in events.chunks(BLOCK_ROWS) {
        insert.write(places(rows)).await?;
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

type Rows<'a, 'e> = Block<'a, (Partition, &'e CountedEvent)>;

/// All columns.
fn raw_block<'a, 'e>(
    rows: &'a [(Partition, &'e CountedEvent)],
    erased: &HashSet<UserId>,
) -> Rows<'a, 'e> {
    let metadata = |admitted: &'e AdmittedEvent| {
        let metadata = admitted.event.metadata.as_ref();
        let metadata = metadata.filter(|_| !erased.contains(&admitted.event.user_id));
        metadata.map_or("", |metadata| metadata.as_str())
    };
    places(rows)
        .fixed("user_id", "UUID", |(_, one)| uuid(one.admitted.event.user_id).to_le_bytes())
        .fixed("occurred_at", TIME, |(_, one)| time(one.admitted.event.occurred_at))
        .fixed("received_at", TIME, |(_, one)| time(one.admitted.event.received_at))
        .text("event_id", |(_, one)| one.admitted.event.event_id.as_str())
        .fixed("request_type", "Int8", |(_, one)| {
            type_number(one.admitted.event.request_type).to_le_bytes()
        })
        .text("model", |(_, one)| one.admitted.event.model.as_str())
        .text("plan", |(_, one)| one.admitted.plan.as_str())
        .fixed("prompt_tokens", "UInt32", |(_, one)| tokens(one).prompt.to_le_bytes())
        .fixed("completion_tokens", "UInt32", |(_, one)| tokens(one).completion.to_le_bytes())
        .fixed("cached_tokens", "UInt32", |(_, one)| tokens(one).cached.to_le_bytes())
        .fixed("reasoning_tokens", "UInt32", |(_, one)| tokens(one).reasoning.to_le_bytes())
        .fixed("flags", "UInt8", |(_, one)| [one.admitted.flags.bits()])
        .fixed("over_hold", "UInt64", |(_, one)| one.admitted.over_hold.to_le_bytes())
        .text("metadata", |(_, one)| metadata(&one.admitted))
}

/// What both tables have of an event.
fn places<'a, 'e>(rows: &'a [(Partition, &'e CountedEvent)]) -> Rows<'a, 'e> {
    Block::of(rows)
        .fixed("log_partition", "UInt32", |(partition, _)| partition.number().to_le_bytes())
        .fixed("log_offset", "UInt64", |(_, one)| one.offset.number().to_le_bytes())
        .fixed("log_time", TIME, |(_, one)| time(one.log_time))
        .fixed("id_digest", "FixedString(16)", |(_, one)| one.admitted.id_digest.0)
        .fixed("content_digest", "FixedString(8)", |(_, one)| one.admitted.content_digest.0)
}

fn tokens(one: &CountedEvent) -> TokenCounts {
    one.admitted.event.tokens
}

const TIME: &str = "DateTime64(3, 'UTC')";

fn time(time: Timestamp) -> [u8; 8] {
    millis(time).to_le_bytes()
}
