//! The single node's stores: SQLite files in one data directory.

mod database;

pub use database::{Database, OpenError};
