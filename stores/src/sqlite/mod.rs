//! The single node's stores: SQLite files in one data directory.

mod accounts;
mod database;

pub use accounts::SqliteAccounts;
pub use database::{Database, OpenError};
