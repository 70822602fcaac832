//! The cluster's ledger: events and summaries in ClickHouse, cursors and statistics in Postgres.
//!
//! A commit writes to ClickHouse first, rows that replace themselves when they are written again,
//! and then to Postgres in one transaction that moves the cursor: that COMMIT is the commit. What
//! ClickHouse holds at or above the cursor is not counted yet, and is written again by whoever counts
//! it. So a crash anywhere, and an old owner that still writes, change nothing.

mod alerts;
mod analytics;
mod applying;
mod books;
mod commits;
mod comparing;
mod counted_ids;
mod dead_letters;
mod erasure;
mod events;
mod generations;
mod history;
mod known_ids;
mod lookup;
mod monthly;
mod owned;
mod repair;
mod running_totals;
mod stored;
mod summaries;
mod take_over;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::Period;
use metering::usage::{
    CommitError, Committed, Cursor, Flush, Horizon, IdDigest, Known, LedgerLookup, LogRecord,
    Partition, SeenIds, TotalsAt, UsageLedger,
};
use tokio::sync::{mpsc, oneshot};

use self::commits::Waiting;
use self::known_ids::KnownIds;
use self::owned::Partitions;
use self::stored::unavailable;
use crate::{clickhouse, postgres};

/// Commits that may wait for their turn; one more waits outside. Each partition has one at most.
const WAITING_MAX: usize = 256;

/// How the ledger works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerSettings {
    /// Partitions of the event log. Another number than the log has finds users in wrong ones. It
    /// changes with a new generation only, and then a retry without any time in it that crosses the
    /// change is not recognised when its user has moved.
    pub partitions: NonZeroU32,
    /// Which log this is, from 0: `migrate --new-log` counts up.
    pub generation: u16,
    /// Memory for ids that were counted lately, of all partitions together. When it is full, retries
    /// without any time in them are recognised for a shorter while than a day.
    pub duplicate_memory_bytes: usize,
    /// Rows of summaries whose totals are kept in memory, some 100 bytes each. Those of other users'
    /// days and of other hours are read back when they change.
    pub running_totals_max: usize,
    /// How long a commit tries to store its rows before it is given up.
    pub commit_deadline: Duration,
    /// How long a question may take, but for the books.
    pub query_timeout: Duration,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            partitions: NonZeroU32::MIN.saturating_add(63),
            generation: 0,
            duplicate_memory_bytes: 96 << 20,
            running_totals_max: 100_000,
            commit_deadline: Duration::from_secs(30),
            query_timeout: Duration::from_secs(20),
        }
    }
}

/// The ledger of every process of the cluster. Cheap to clone.
///
/// Of one partition only its owner commits; look-ups and reports are for everybody.
#[derive(Clone)]
pub struct ClusterLedger {
    shared: Arc<Shared>,
    commits: mpsc::Sender<Waiting>,
    known_ids: KnownIds,
}

/// What every part of the ledger works with.
struct Shared {
    clickhouse: clickhouse::Database,
    postgres: postgres::Database,
    settings: LedgerSettings,
    partitions: Partitions,
}

impl Shared {
    /// Gives a question to ClickHouse up when it takes too long.
    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, ::clickhouse::error::Error>>,
    ) -> Result<T, Unavailable> {
        ask_within(self.settings.query_timeout, question).await
    }
}

/// Gives a question to ClickHouse up after `limit`.
async fn ask_within<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, ::clickhouse::error::Error>>,
) -> Result<T, Unavailable> {
    match tokio::time::timeout(limit, question).await {
        Ok(answer) => answer.map_err(unavailable),
        Err(_) => {
            let waited = limit.as_secs();
            Err(unavailable(format!("ClickHouse did not answer within {waited} s")))
        }
    }
}

impl ClusterLedger {
    /// Both databases must have the schema of today. Connects when first asked. Call it within a
    /// runtime: tasks of its own group commits and look-ups; they end with the last clone.
    pub fn new(
        clickhouse: clickhouse::Database,
        postgres: postgres::Database,
        settings: LedgerSettings,
    ) -> Self {
        let partitions = Partitions::new(settings.duplicate_memory_bytes);
        let shared = Arc::new(Shared { clickhouse, postgres, settings, partitions });
        let (commits, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(commits::group_and_commit(Arc::clone(&shared), waiting));
        let known_ids = KnownIds::start(Arc::clone(&shared));
        Self { shared, commits, known_ids }
    }

    /// Says what the metrics of the ledger mean.
    pub fn describe() {
        use metrics::Unit::{Count, Seconds};
        metrics::describe_gauge!(
            "tokenmeter_remembered_ids",
            Count,
            "Ids of counted events in memory, so that repeats are recognised without a question."
        );
        metrics::describe_gauge!(
            "tokenmeter_duplicate_horizon_seconds",
            Seconds,
            "How long a retry is recognised that carries no time, by partition: less than a day while \
             memory is full."
        );
        metrics::describe_counter!(
            "tokenmeter_id_index_lookups_total",
            Count,
            "Ids that memory could not answer for, so that their index was asked."
        );
        metrics::describe_counter!(
            "tokenmeter_ledger_retries_total",
            Count,
            "Inserts that ClickHouse did not confirm, so that they were made again."
        );
        metrics::describe_histogram!(
            "tokenmeter_commit_group_flushes",
            Count,
            "Flushes of how many partitions one commit took together."
        );
        metrics::describe_histogram!(
            "tokenmeter_commit_step_seconds",
            Seconds,
            "What a commit took in ClickHouse and in Postgres."
        );
    }

    /// Starts the generation of the settings: every partition goes on at the first offset of a new
    /// log. What was counted stays; what a commit that was cut off has stored is counted. Nobody else
    /// may count meanwhile. Answers how many partitions moved.
    ///
    /// # Errors
    /// [`Unavailable`]: it is not started; call it again.
    pub async fn start_generation(&self) -> Result<u64, Unavailable> {
        generations::start_generation(&self.shared).await
    }
}

#[async_trait]
impl UsageLedger for ClusterLedger {
    async fn take_over(&self, partition: Partition) -> Result<Cursor, Unavailable> {
        take_over::take_over(&self.shared, partition).await
    }

    fn release(&self, partition: Partition) {
        self.shared.partitions.drop_one(partition);
    }

    async fn seen(
        &self,
        partition: Partition,
        horizon: Horizon,
        records: &[LogRecord],
    ) -> Result<SeenIds, Unavailable> {
        take_over::seen(&self.shared, partition, horizon, records).await
    }

    fn horizon(&self, partition: Partition, now_in_force: Horizon) -> Horizon {
        self.shared.partitions.horizon(partition, now_in_force)
    }

    async fn commit(&self, flush: Flush) -> Result<Committed, CommitError> {
        let (answer, answered) = oneshot::channel();
        let ended = |_| unavailable("commits have ended");
        self.commits.send(Waiting { flush, answer }).await.map_err(|_| ended(()))?;
        answered.await.map_err(|_| ended(()))?
    }
}

#[async_trait]
impl LedgerLookup for ClusterLedger {
    async fn known(&self, ids: &[(UserId, IdDigest)]) -> Result<Known, Unavailable> {
        self.known_ids.known(ids).await
    }

    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable> {
        lookup::totals(&self.shared, users).await
    }
}
