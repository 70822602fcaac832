//! A ledger of the cluster on databases of its own.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use stores::cluster_ledger::{ClusterLedger, LedgerSettings};

use crate::contract::counting::Subject;
use crate::servers;

/// Dropped with its databases.
pub(crate) struct Fresh {
    pub(crate) store: Cluster,
}

pub(crate) struct Cluster {
    ledger: Mutex<Arc<ClusterLedger>>,
    pub(crate) settings: LedgerSettings,
    pub(crate) clickhouse: servers::clickhouse::FreshDatabase,
    pub(crate) postgres: servers::postgres::FreshDatabase,
}

/// One partition, as the suites have it.
pub(crate) async fn fresh() -> Fresh {
    fresh_with(LedgerSettings { partitions: NonZeroU32::MIN, ..LedgerSettings::default() }).await
}

pub(crate) async fn fresh_with(settings: LedgerSettings) -> Fresh {
    let clickhouse = servers::clickhouse::migrated().await;
    let postgres = servers::postgres::migrated().await;
    let ledger = ClusterLedger::new(clickhouse.connect(), postgres.connect(), settings);
    let ledger = Mutex::new(Arc::new(ledger));
    Fresh { store: Cluster { ledger, settings, clickhouse, postgres } }
}

impl Cluster {
    /// As another process has it.
    pub(crate) fn another(&self) -> Arc<ClusterLedger> {
        self.another_with(self.settings)
    }

    pub(crate) fn another_with(&self, settings: LedgerSettings) -> Arc<ClusterLedger> {
        let (clickhouse, postgres) = (self.clickhouse.connect(), self.postgres.connect());
        Arc::new(ClusterLedger::new(clickhouse, postgres, settings))
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
