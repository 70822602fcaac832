//! The single node's stores: SQLite files in one data directory.

mod accounts;
mod database;
mod event_log;
mod ledger;

pub use accounts::SqliteAccounts;
pub use database::{Database, OpenError};
pub use event_log::SqliteEventLog;
pub use ledger::{LedgerFile, SqliteLedger};
