//! The cluster's ClickHouse: how it is reached, and its schema.
//!
//! [`Database`] is what every reader and writer shares. [`migrate`] brings the schema up to date,
//! [`check`] only looks; adapters expect a schema that was checked.

pub(crate) mod columns;
mod database;
mod migrations;

pub use database::{Database, OpenError};
pub use migrations::{SchemaError, check, migrate};
