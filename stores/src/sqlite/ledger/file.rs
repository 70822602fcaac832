//! The ledger's file: what can be read, sent and repaired beside the process that counts.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::time::{Period, Timestamp};
use metering::usage::{
    Alert, AlertBacklog, AlertId, AlertQuery, Alerts, Analytics, AnalyticsQuery, Attempt, Books,
    DeadLetters, Difference, HistoryQuery, HistoryRow, ListedAlert, ListedDeadLetter, MonthlyUsage,
    Offset, Partition, PartitionBook, RawBook, UsageReports,
};
use rusqlite::Connection;

use super::readers::Readers;
use super::row::unavailable;
use super::writer::Writer;
use super::{alerts, analytics, books, dead_letters, erasure, events, history, monthly};
use crate::sqlite::database::{Database, Durability, OpenError};

const DATABASE: Database = Database {
    migrations: &[
        include_str!("../../../../migrations/sqlite/ledger/0001_ledger.sql"),
        include_str!("../../../../migrations/sqlite/ledger/0002_void_and_ticks.sql"),
        include_str!("../../../../migrations/sqlite/ledger/0003_blocks.sql"),
        include_str!("../../../../migrations/sqlite/ledger/0004_alerts.sql"),
    ],
    durability: Durability::Rebuildable,
    busy_timeout: Duration::from_secs(5),
};

/// Reports, alerts, dead letters and books of one `ledger.db`. Cheap to clone; any process may have it open
/// while another one counts.
#[derive(Clone)]
pub struct LedgerFile {
    // Dropped first: a writer that is closed last leaves no write-ahead log behind.
    pub(super) readers: Readers,
    writer: Arc<Mutex<Writer>>,
}

impl LedgerFile {
    /// Opens `ledger.db` in `directory`; makes it when it is missing.
    ///
    /// # Errors
    /// [`OpenError`] when the file was written by a newer program or cannot be used.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join("ledger.db");
        let sqlite = |source| OpenError::sqlite(&path, source);
        let mut connection = DATABASE.open(&path)?;
        events::convert(&mut connection).map_err(sqlite)?;
        let writer = Writer::new(connection).map_err(sqlite)?;
        let readers = Readers::new(DATABASE, &path);
        Ok(Self { readers, writer: Arc::new(Mutex::new(writer)) })
    }

    /// The writing connection. Waits while another thread commits: not for async workers.
    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let file = self.clone();
        let writing = tokio::task::spawn_blocking(move || work(&mut file.writer().connection));
        writing.await.map_err(unavailable)?.map_err(unavailable)
    }
}

#[async_trait]
impl UsageReports for LedgerFile {
    async fn monthly(&self, user: UserId, period: Period) -> Result<MonthlyUsage, Unavailable> {
        self.readers.read(move |open| monthly::monthly(open, user, period)).await
    }

    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, Unavailable> {
        let query = query.clone();
        self.readers.read(move |open| history::history(open, &query)).await
    }

    async fn analytics(&self, query: &AnalyticsQuery) -> Result<Analytics, Unavailable> {
        let query = query.clone();
        self.readers.read(move |open| analytics::analytics(open, &query)).await
    }

    async fn erase_metadata(&self, user: UserId) -> Result<(), Unavailable> {
        self.write(move |open| erasure::begin(open, user)).await?;
        // In steps, so that commits go on in between.
        let mut below = None;
        loop {
            let erased = self.write(move |open| erasure::erase_some(open, user, below)).await?;
            below = erased;
            if below.is_none() {
                break;
            }
        }
        let letters = move |open: &mut _| dead_letters::erase_metadata(open, user);
        self.write(move |open| erasure::durably(open, letters)).await
    }
}

#[async_trait]
impl DeadLetters for LedgerFile {
    async fn list(&self) -> Result<Vec<ListedDeadLetter>, Unavailable> {
        self.readers.read(dead_letters::list).await
    }

    async fn replayed(
        &self,
        partition: Partition,
        offset: Offset,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        self.write(move |open| dead_letters::replayed(&*open, partition, offset, now)).await
    }
}

#[async_trait]
impl Alerts for LedgerFile {
    async fn alerts(&self, query: &AlertQuery) -> Result<Vec<ListedAlert>, Unavailable> {
        let query = *query;
        self.readers.read(move |open| alerts::list(open, query)).await
    }

    async fn take_due(
        &self,
        now: Timestamp,
        until: Timestamp,
        alerts_max: usize,
    ) -> Result<Vec<(Alert, u32)>, Unavailable> {
        self.write(move |open| alerts::take_due(open, now, until, alerts_max)).await
    }

    async fn note(&self, id: AlertId, attempt: &Attempt) -> Result<(), Unavailable> {
        let attempt = attempt.clone();
        self.write(move |open| alerts::note(open, id, &attempt)).await
    }

    async fn retry(&self, now: Timestamp) -> Result<u64, Unavailable> {
        self.write(move |open| alerts::retry(open, now)).await
    }

    async fn backlog(&self) -> Result<AlertBacklog, Unavailable> {
        self.readers.read(alerts::backlog).await
    }
}

#[async_trait]
impl Books for LedgerFile {
    async fn partitions(&self) -> Result<Vec<PartitionBook>, Unavailable> {
        self.readers.read(books::partitions).await
    }

    async fn raw(&self) -> Result<RawBook, Unavailable> {
        self.readers.read(books::raw).await
    }

    async fn summaries(&self) -> Result<(u64, Vec<Difference>), Unavailable> {
        self.readers.read(books::summaries).await
    }

    async fn statistics(&self) -> Result<(u64, Vec<Difference>), Unavailable> {
        self.readers.read(books::statistics).await
    }

    async fn repair(&self) -> Result<(), Unavailable> {
        self.write(books::repair).await
    }
}

/// The same through the process that counts.
macro_rules! delegate {
    ($port:ident { $(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)* }) => {
        #[async_trait]
        impl $port for super::SqliteLedger {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, Unavailable> {
                self.file().$name($($argument),*).await
            })*
        }
    };
}

delegate!(UsageReports {
    fn monthly(user: UserId, period: Period) -> MonthlyUsage;
    fn history(query: &HistoryQuery) -> Vec<HistoryRow>;
    fn analytics(query: &AnalyticsQuery) -> Analytics;
    fn erase_metadata(user: UserId) -> ();
});

delegate!(DeadLetters {
    fn list() -> Vec<ListedDeadLetter>;
    fn replayed(partition: Partition, offset: Offset, now: Timestamp) -> ();
});

delegate!(Alerts {
    fn alerts(query: &AlertQuery) -> Vec<ListedAlert>;
    fn take_due(now: Timestamp, until: Timestamp, alerts_max: usize) -> Vec<(Alert, u32)>;
    fn note(id: AlertId, attempt: &Attempt) -> ();
    fn retry(now: Timestamp) -> u64;
    fn backlog() -> AlertBacklog;
});

delegate!(Books {
    fn partitions() -> Vec<PartitionBook>;
    fn raw() -> RawBook;
    fn summaries() -> (u64, Vec<Difference>);
    fn statistics() -> (u64, Vec<Difference>);
    fn repair() -> ();
});
