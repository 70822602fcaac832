//! The single node's stores: SQLite files in one data directory.

mod accounts;
mod database;
mod event_log;
mod files;
mod ledger;

pub use accounts::SqliteAccounts;
pub use database::{Database, OpenError};
pub use event_log::SqliteEventLog;
pub use files::{Inspection, copy_online, inspect};
pub use ledger::{LedgerFile, SqliteLedger};
