//! The single node's ledger: counted events, summaries, statistics and the cursor in one file.
//!
//! A flush is one transaction, so everything in the file stands at the cursor. The file is not
//! fsynced at every commit: after a loss of power it stands at an earlier cursor, and the log,
//! which keeps its records for days, is folded again from there.

mod alerts;
mod analytics;
mod books;
mod cells;
mod dead_letters;
mod erasure;
mod events;
mod file;
mod history;
mod ids;
mod monthly;
mod numbers;
mod readers;
mod row;
mod tiers;
mod writer;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::{Period, Timestamp};
use metering::usage::{
    CommitError, Committed, Cursor, Flush, Horizon, IdDigest, Known, KnownEvent, LedgerLookup,
    LogRecord, Partition, Payload, Seen, SeenIds, TotalsAt, UsageLedger,
};

pub use file::LedgerFile;
use ids::Ids;
use row::unavailable;
use writer::{read_cursor, totals_of};

use super::database::OpenError;

/// The ledger of the process that counts: everything of [`LedgerFile`], and the ids of all events.
///
/// Only one process may have it open; others open a [`LedgerFile`] beside it. Dropping it writes
/// the ids that are only in memory to their index, which makes the next start fast.
#[derive(Clone)]
pub struct SqliteLedger {
    // Dropped first: its thread reads the file too, and only a writer that is closed last leaves
    // no write-ahead log behind.
    ids: Arc<Ids>,
    file: LedgerFile,
}

impl SqliteLedger {
    /// Opens `ledger.db` and `ids.db` in `directory`; makes what is missing.
    ///
    /// # Errors
    /// [`OpenError`] when `ledger.db` cannot be used. A damaged `ids.db` is made anew: until that
    /// is done look-ups are [`Unavailable`].
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let file = LedgerFile::open(directory)?;
        let ids = Ids::open(&directory.join("ids.db"), &file.readers)?;
        Ok(Self { ids: Arc::new(ids), file })
    }

    /// Says what the metrics of the ledger mean.
    pub fn describe() {
        metrics::describe_gauge!(
            "tokenmeter_unindexed_ids",
            metrics::Unit::Count,
            "Ids of counted events that are in memory only until their index has them."
        );
        metrics::describe_counter!(
            "tokenmeter_id_index_lookups_total",
            metrics::Unit::Count,
            "Ids that memory could not answer for, so that their index was asked."
        );
        metrics::describe_counter!(
            "tokenmeter_id_index_errors_total",
            metrics::Unit::Count,
            "Failed tries to move ids into their index; they are tried again."
        );
    }

    /// What only needs the file: reports, dead letters, books.
    pub fn file(&self) -> &LedgerFile {
        &self.file
    }

    fn committed(&self, flush: &Flush) -> Result<Committed, CommitError> {
        self.ids.wait_for_room()?;
        let mut writer = self.file.writer();
        if self.ids.published() != flush.range.start {
            // Either the flush is not the next one, or the last commit is in doubt: only the file
            // knows, and no look-up may miss what it holds.
            self.ids.catch_up(&self.file.readers)?;
        }
        let committed = writer.commit(flush)?;
        self.ids.publish(&flush.counted, flush.range.end);
        Ok(committed)
    }
}

/// The single node has one partition; its offsets are the keys of the events.
fn only_one(partition: Partition) -> Result<(), Unavailable> {
    let single = partition == Partition::SINGLE;
    single.then_some(()).ok_or_else(|| unavailable("the single node has partition 0 only"))
}

#[async_trait]
impl UsageLedger for SqliteLedger {
    async fn take_over(&self, partition: Partition) -> Result<Cursor, Unavailable> {
        only_one(partition)?;
        let ledger = self.clone();
        let taking_over = tokio::task::spawn_blocking(move || {
            let mut writer = ledger.file.writer();
            let cursor = writer.take_over(partition).map_err(unavailable)?;
            ledger.ids.catch_up(&ledger.file.readers)?;
            Ok(cursor)
        });
        taking_over.await.map_err(unavailable)?
    }

    fn release(&self, _: Partition) {}

    async fn seen(
        &self,
        _: Partition,
        _: Horizon,
        records: &[LogRecord],
    ) -> Result<SeenIds, Unavailable> {
        let ids: Vec<_> = records
            .iter()
            .filter_map(|record| match &record.payload {
                Payload::Event(admitted) => Some(admitted.id_digest),
                Payload::Tick(_) | Payload::Undecodable { .. } => None,
            })
            .collect();
        let known = self.ids.known(&ids).await?;
        let found = ids.into_iter().zip(known.found);
        // Remembered for ever: when it was is never asked.
        let seen = |found: KnownEvent| Seen { content: found.content, log_time: Timestamp::MIN };
        Ok(found.filter_map(|(id, found)| Some((id, seen(found?)))).collect())
    }

    fn horizon(&self, _: Partition, _: Horizon) -> Horizon {
        Horizon::Ever
    }

    async fn commit(&self, flush: Flush) -> Result<Committed, CommitError> {
        only_one(flush.partition)?;
        let ledger = self.clone();
        let committing = tokio::task::spawn_blocking(move || ledger.committed(&flush));
        committing.await.map_err(unavailable)?
    }
}

#[async_trait]
impl LedgerLookup for SqliteLedger {
    async fn known(&self, ids: &[(UserId, IdDigest)]) -> Result<Known, Unavailable> {
        let digests: Vec<_> = ids.iter().map(|(_, digest)| *digest).collect();
        self.ids.known(&digests).await
    }

    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable> {
        let (users, ids) = (users.to_vec(), Arc::clone(&self.ids));
        let read = self.file.readers.read(move |open| {
            let cursor = read_cursor(open, Partition::SINGLE)?.position;
            let totals = users.iter().map(|(user, period)| totals_of(open, *user, *period));
            Ok((cursor, totals.collect::<Result<Vec<_>, _>>()?))
        });
        let (cursor, totals) = read.await?;
        // Whoever sees this cursor may rely on `known` for everything below it.
        if ids.published() < cursor {
            let waiting = tokio::task::spawn_blocking(move || ids.wait_for(cursor));
            waiting.await.map_err(unavailable)??;
        }
        Ok(totals.into_iter().map(|totals| TotalsAt { totals, cursor }).collect())
    }
}
