//! A single node: files in the data directory, quota counters in the process.

use std::sync::Arc;

use ingest::LookUp;
use metering::quota::Seeds;
use stores::memory::MemoryQuotaCounter;
use stores::sqlite::{LedgerFile, SqliteAccounts, SqliteEventLog, SqliteLedger};

use super::{AccountStores, LedgerStores, Stores};
use crate::context::Context;
use crate::data_dir::{ACCOUNTS, DataDir, LOG};
use crate::serve::StoreHealth;

/// The stores of one data directory.
pub(crate) struct SingleNode;

impl SingleNode {
    /// Users and keys. They can be made before the first start of the server too.
    pub(crate) fn accounts(directory: &DataDir) -> anyhow::Result<AccountStores> {
        let accounts = Arc::new(SqliteAccounts::open(&directory.file(ACCOUNTS))?);
        Ok(AccountStores::of(&accounts))
    }

    /// The ledger's file, beside the process that counts.
    pub(crate) fn ledger(directory: &DataDir) -> anyhow::Result<LedgerFile> {
        Ok(LedgerFile::open(directory.path())?)
    }

    /// For the process that counts.
    pub(crate) fn open(context: &Context, directory: &DataDir) -> anyhow::Result<Stores> {
        let accounts = Self::accounts(directory)?;
        let ledger = Arc::new(SqliteLedger::open(directory.path())?);
        let clock = Arc::clone(&context.clock);
        let log = Arc::new(SqliteEventLog::open(&directory.file(LOG), Arc::clone(&clock))?);
        let seeds = Seeds {
            subscriptions: accounts.subscriptions.clone(),
            ledger: ledger.clone(),
            plans: Arc::clone(&context.settings.plans),
            clock: Arc::clone(&clock),
        };
        let file = Arc::new(ledger.file().clone());
        let failing = log.clone();
        let health = StoreHealth::new("event_log", move || {
            failing.is_failing().then_some("the last commit failed: tracking answers 503")
        });
        Ok(Stores {
            accounts,
            ledger: LedgerStores {
                ledger: ledger.clone(),
                lookup: ledger,
                reports: file.clone(),
                alerts: file.clone(),
                books: file.clone(),
            },
            counter: Arc::new(MemoryQuotaCounter::new(Arc::new(seeds), clock)),
            log: log.clone(),
            source: Some(log),
            look_up: LookUp::Every,
            letters: Some(file),
            health: vec![Arc::new(health)],
        })
    }
}
