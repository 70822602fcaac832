//! A ledger of the cluster on databases of its own, and logs of several partitions.

mod duplicates;
mod operations;
mod redo;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use metering::accounts::UserId;
use metering::time::Timestamp;
use metering::usage::{
    Books, CommitError, Committed, Flush, Horizon, LogRecord, Offset, Partition, Payload,
    UsageEvent, UsageLedger, fold,
};
use sqlx::AssertSqlSafe;
use stores::cluster_ledger::{ClusterLedger, LedgerSettings};

use crate::contract::counting::{Log, Subject, admitted};
use crate::servers;

/// Dropped with its databases.
pub(crate) struct Fresh {
    pub(crate) store: Cluster,
}

pub(crate) struct Cluster {
    ledger: Mutex<Arc<ClusterLedger>>,
    settings: LedgerSettings,
    clickhouse: servers::clickhouse::FreshDatabase,
    postgres: servers::postgres::FreshDatabase,
}

fn settings() -> LedgerSettings {
    LedgerSettings { partitions: NonZeroU32::MIN, ..LedgerSettings::default() }
}

/// One partition, as the suites have it.
pub(crate) async fn fresh() -> Fresh {
    fresh_with(settings()).await
}

async fn fresh_with(settings: LedgerSettings) -> Fresh {
    let clickhouse = servers::clickhouse::migrated().await;
    let postgres = servers::postgres::migrated().await;
    let ledger = ClusterLedger::new(clickhouse.connect(), postgres.connect(), settings);
    let ledger = Mutex::new(Arc::new(ledger));
    Fresh { store: Cluster { ledger, settings, clickhouse, postgres } }
}

impl Cluster {
    /// As another process has it.
    fn another(&self) -> Arc<ClusterLedger> {
        self.another_with(self.settings)
    }

    fn another_with(&self, settings: LedgerSettings) -> Arc<ClusterLedger> {
        let (clickhouse, postgres) = (self.clickhouse.connect(), self.postgres.connect());
        Arc::new(ClusterLedger::new(clickhouse, postgres, settings))
    }

    /// Runs a statement in Postgres.
    async fn postgres(&self, statement: &str) {
        let database = self.postgres.connect();
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(database.pool()).await.unwrap();
        database.close().await;
    }

    /// Asks ClickHouse for a number.
    async fn clickhouse(&self, question: &str) -> u64 {
        self.clickhouse.client().query(question).fetch_one().await.unwrap()
    }

    /// R1 to R4, with this many counted events.
    async fn balances(&self, events: u64) {
        let ledger = self.another();
        let partitions = ledger.partitions().await.unwrap();
        for book in &partitions {
            assert_eq!(book.tallies.records(), Some(book.range.count()), "{book:?}");
        }
        let raw = ledger.raw().await.unwrap();
        assert_eq!((raw.events, raw.statistics_requests), (events, events));
        assert_eq!(raw.tokens, raw.statistics_tokens);
        assert_eq!(partitions.iter().map(|book| book.tallies.counted).sum::<u64>(), events);
        assert_eq!(ledger.summaries().await.unwrap().1, []);
        assert_eq!(ledger.statistics().await.unwrap().1, []);
    }
}

impl Subject for Cluster {
    type Ledger = ClusterLedger;

    fn ledger(&self) -> Arc<ClusterLedger> {
        Arc::clone(&self.ledger.lock().unwrap())
    }

    fn reopen(&self) {
        *self.ledger.lock().unwrap() = self.another();
    }
}

/// The log of one partition.
struct Tape {
    partition: Partition,
    first: u64,
    records: Vec<LogRecord>,
}

impl Tape {
    fn new(partition: Partition) -> Self {
        Self { partition, first: 0, records: Vec::new() }
    }

    /// The same records in another log.
    fn move_to(&mut self, first: u64) {
        self.first = first;
        for (place, record) in self.records.iter_mut().enumerate() {
            record.offset = Offset::new(first + place as u64);
        }
    }

    fn append_at(&mut self, log_time: Timestamp, payload: Payload) {
        let offset = Offset::new(self.first + self.records.len() as u64);
        self.records.push(LogRecord { offset, log_time, payload });
    }

    /// A second after the record before.
    fn append(&mut self, event: UsageEvent) {
        let log_time = Log::time(self.records.len() as u64);
        self.append_event_at(log_time, event);
    }

    fn append_event_at(&mut self, log_time: Timestamp, event: UsageEvent) {
        let mut admitted = admitted(event, "free");
        admitted.admitted_at = log_time;
        self.append_at(log_time, Payload::Event(Box::new(admitted)));
    }

    /// What a process makes of the records `from..to` that has just taken over.
    async fn flush(&self, ledger: &ClusterLedger, from: usize, to: usize) -> Flush {
        let cursor = ledger.take_over(self.partition).await.unwrap();
        self.flush_on(ledger, cursor.horizon, from, to).await
    }

    /// What the process makes of them that has counted those before.
    async fn flush_on(
        &self,
        ledger: &ClusterLedger,
        horizon: Horizon,
        from: usize,
        to: usize,
    ) -> Flush {
        let records = self.records[from..to].to_vec();
        let seen = ledger.seen(self.partition, horizon, &records).await.unwrap();
        fold(self.partition, horizon, records, &seen).unwrap()
    }

    async fn count(
        &self,
        ledger: &ClusterLedger,
        from: usize,
        to: usize,
    ) -> Result<Committed, CommitError> {
        let flush = self.flush(ledger, from, to).await;
        ledger.commit(flush).await
    }
}

/// A user of that partition among `partitions`.
fn user_of(partition: Partition, partitions: u32) -> UserId {
    let partitions = NonZeroU32::new(partitions).unwrap();
    let users = (0..=u8::MAX).map(|number| UserId::from_bytes([number; 16]));
    users.into_iter().find(|user| Partition::of(*user, partitions) == partition).unwrap()
}
