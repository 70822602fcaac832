//! The rule suites of the ledger on `ledger.db`, and what only SQLite promises.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "rules are test code, though they stand outside of the test functions"
)]

#[macro_use]
#[path = "contract/rules.rs"]
mod rules;

#[macro_use]
mod contract {
    #[macro_use]
    pub(crate) mod books;
    pub(crate) mod counting;
    #[macro_use]
    pub(crate) mod ledger_lookup;
    #[macro_use]
    pub(crate) mod usage_ledger;
    #[macro_use]
    pub(crate) mod usage_reports;
}

use std::path::Path;
use std::sync::{Arc, Mutex};

use contract::counting::Subject;
use stores::sqlite::SqliteLedger;
use tempfile::TempDir;

/// A fresh `ledger.db`, gone when dropped.
struct Fresh {
    store: Ledger,
}

struct Ledger {
    ledger: Mutex<Option<Arc<SqliteLedger>>>,
    directory: TempDir,
}

fn fresh() -> Fresh {
    let store = Ledger { ledger: Mutex::new(None), directory: tempfile::tempdir().unwrap() };
    store.reopen();
    Fresh { store }
}

impl Ledger {
    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Subject for Ledger {
    type Ledger = SqliteLedger;

    fn ledger(&self) -> Arc<SqliteLedger> {
        self.ledger.lock().unwrap().clone().unwrap()
    }

    fn reopen(&self) {
        let mut open = self.ledger.lock().unwrap();
        drop(open.take());
        *open = Some(Arc::new(SqliteLedger::open(self.path()).unwrap()));
    }
}

usage_ledger_contract!(super::fresh());
ledger_lookup_contract!(super::fresh());
usage_reports_contract!(super::fresh());
books_contract!(super::fresh());
