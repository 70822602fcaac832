//! Commits of several partitions that wait at the same time are taken together.

use std::sync::Arc;
use std::time::Duration;

use metering::Unavailable;
use metering::usage::{CommitError, Committed, Flush, Offset, Partition};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::applying::{self, Applied, Change};
use super::running_totals::RunningTotals;
use super::stored::unavailable;
use super::{Shared, events, summaries, take_over};
use crate::failpoints::reached;

/// Events of one group. More would keep the partitions of small flushes waiting.
const GROUP_EVENTS_MAX: usize = 300_000;

/// A commit that waits for its turn.
pub(super) struct Waiting {
    pub(super) flush: Flush,
    pub(super) answer: oneshot::Sender<Result<Committed, CommitError>>,
}

/// A commit whose turn it is.
pub(super) struct Pending {
    pub(super) flush: Flush,
    /// What goes to Postgres.
    pub(super) change: Change,
    /// The summary rows as they were before.
    pub(super) totals: RunningTotals,
    answer: oneshot::Sender<Result<Committed, CommitError>>,
}

/// Partitions flush at the same beat, and this is how long the first of their commits waits for the
/// others: each commit takes the servers some ten milliseconds of their processors, however little is
/// in it.
const GATHERING: Duration = Duration::from_millis(60);

/// And so long for those that are known to come: four flushes of 25 000 events in one insert cost
/// ClickHouse half of what they do in four.
const GATHERING_KNOWN: Duration = Duration::from_millis(500);

/// So many wait for no more (<https://clickhouse.com/docs/optimize/bulk-inserts> asks for 10 000 to
/// 100 000 rows).
const WORTHWHILE_EVENTS: usize = 40_000;

/// Commits what comes in, as much at a time as waits. Ends when nobody can commit any more.
pub(super) async fn group_and_commit(shared: Arc<Shared>, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() {
            let Some(first) = queue.recv().await else { return };
            take(&shared, first, &mut waiting);
        }
        gather(&shared, &mut queue, &mut waiting).await;
        let group = next_group(&mut waiting);
        commit(&shared, group).await;
    }
}

/// Waits for those that are worth waiting for.
async fn gather(shared: &Shared, queue: &mut mpsc::Receiver<Waiting>, waiting: &mut Vec<Waiting>) {
    let started = Instant::now();
    while waiting.len() < shared.partitions.count() && events_of(waiting) < WORTHWHILE_EVENTS {
        let patience = if shared.partitions.is_any_folding() { GATHERING_KNOWN } else { GATHERING };
        // Whoever has nothing to commit does not come.
        match tokio::time::timeout_at(started + patience, queue.recv()).await {
            Ok(Some(another)) => take(shared, another, waiting),
            Ok(None) | Err(_) => break,
        }
    }
    while let Ok(another) = queue.try_recv() {
        take(shared, another, waiting);
    }
}

fn take(shared: &Shared, one: Waiting, waiting: &mut Vec<Waiting>) {
    shared.partitions.folded(one.flush.partition);
    waiting.push(one);
}

fn events_of(waiting: &[Waiting]) -> usize {
    waiting.iter().map(|one| one.flush.counted.len()).sum()
}

/// At least the first one; of each partition one only.
fn next_group(waiting: &mut Vec<Waiting>) -> Vec<Waiting> {
    let (mut group, mut events): (Vec<Waiting>, usize) = (Vec::new(), 0);
    let mut place = 0;
    while let Some(next) = waiting.get(place) {
        let more = next.flush.counted.len();
        let fits = group.is_empty() || events.saturating_add(more) <= GROUP_EVENTS_MAX;
        if fits && group.iter().all(|one| one.flush.partition != next.flush.partition) {
            events = events.saturating_add(more);
            group.push(waiting.remove(place));
        } else {
            place += 1;
        }
    }
    group
}

async fn commit(shared: &Shared, group: Vec<Waiting>) {
    reached("ledger::begin").await;
    let mut pending = Vec::with_capacity(group.len());
    for Waiting { flush, answer } in group {
        match begin(shared, &flush).await {
            Ok((change, totals)) => pending.push(Pending { flush, change, totals, answer }),
            Err(error) => reply(answer, Err(error)),
        }
    }
    if pending.is_empty() {
        return;
    }
    metrics::histogram!("tokenmeter_commit_group_flushes")
        .record(u32::try_from(pending.len()).unwrap_or(u32::MAX));
    let started = Instant::now();
    let stored = store(shared, &pending).await;
    timed("clickhouse", started);
    let (new_totals, told) = match stored {
        Ok(stored) => stored,
        Err(error) => {
            for one in pending {
                shared.partitions.doubt(one.flush.partition);
                reply(one.answer, Err(error.clone().into()));
            }
            return;
        }
    };
    let started = Instant::now();
    let changes: Vec<_> = pending.iter().map(|one| &one.change).collect();
    let applied = applying::apply(shared, &changes, &told).await;
    timed("postgres", started);
    reached("ledger::after_commit").await;
    for ((one, outcome), totals) in pending.into_iter().zip(applied).zip(new_totals) {
        finish(shared, one, outcome, totals);
    }
}

fn timed(step: &'static str, started: Instant) {
    metrics::histogram!("tokenmeter_commit_step_seconds", "step" => step).record(started.elapsed());
}

/// Whether the flush begins where the partition is known to stand; takes its running totals.
async fn begin(shared: &Shared, flush: &Flush) -> Result<(Change, RunningTotals), CommitError> {
    let change = Change::of(flush)?;
    let (partition, expected) = (flush.partition, flush.range.start);
    let known = shared.partitions.with(partition, |owned| {
        let here = owned.cursor.position == expected;
        here.then(|| std::mem::take(&mut owned.totals))
    });
    if let Ok(Some(totals)) = known {
        return Ok((change, totals));
    }
    // Not ours, or not there: nothing is written. Postgres knows whose it is.
    let found = take_over::position(shared, partition).await?;
    if found == expected {
        return Err(unavailable(format!("partition {partition} must be taken over first")).into());
    }
    shared.partitions.drop_one(partition);
    Err(CommitError::Lost { partition, expected, found })
}

/// The first half: everything that ClickHouse keeps, confirmed. Answers the summary rows as they are
/// now, and whose metadata was written.
async fn store(
    shared: &Shared,
    pending: &[Pending],
) -> Result<(Vec<summaries::NewRows>, events::Told), Unavailable> {
    let deadline = Instant::now() + shared.settings.commit_deadline;
    let flushes: Vec<_> = pending.iter().map(|one| &one.flush).collect();
    let told = events::told(shared, &flushes).await?;
    let counted = events::counted(&flushes);
    let raw = async {
        events::insert_raw(shared, &counted, &told.erased, deadline).await?;
        reached("ledger::raw").await;
        Ok(())
    };
    let slim = async {
        events::insert_slim(shared, &counted, deadline).await?;
        reached("ledger::slim").await;
        Ok(())
    };
    // Summaries last: each of their rows stands for events that are stored.
    let ((), (), before) = tokio::try_join!(raw, slim, summaries::read_back(shared, pending))?;
    let rows = summaries::new_rows(pending, &before)?;
    summaries::insert(shared, &flushes, &rows, deadline).await?;
    reached("ledger::summary").await;
    Ok((rows, told))
}

fn finish(
    shared: &Shared,
    one: Pending,
    outcome: Result<Applied, Unavailable>,
    rows: summaries::NewRows,
) {
    let Pending { flush, mut totals, answer, .. } = one;
    let (partition, expected) = (flush.partition, flush.range.start);
    match outcome {
        Ok(Applied::Won(committed)) => {
            let owned = shared.partitions.count().max(1);
            rows.keep(&mut totals, shared.settings.running_totals_max / owned);
            // It was taken over anew meanwhile: then that knows all this from the ledger.
            if let Err(error) =
                shared.partitions.committed(committed.cursor, &flush.counted, totals)
            {
                tracing::debug!(%partition, %error, "a commit was not remembered");
            }
            reply(answer, Ok(committed));
        }
        Ok(Applied::Lost(found)) => {
            shared.partitions.drop_one(partition);
            reply(answer, Err(lost(partition, expected, found)));
        }
        Err(error) => {
            shared.partitions.doubt(partition);
            reply(answer, Err(error.into()));
        }
    }
}

const fn lost(partition: Partition, expected: Offset, found: Offset) -> CommitError {
    CommitError::Lost { partition, expected, found }
}

/// Who asked may have gone: then nobody needs the answer.
fn reply(
    answer: oneshot::Sender<Result<Committed, CommitError>>,
    outcome: Result<Committed, CommitError>,
) {
    drop(answer.send(outcome));
}
