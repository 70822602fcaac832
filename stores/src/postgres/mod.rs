//! The cluster's accounts, and what its ledger keeps in Postgres: one database for all processes.
//!
//! [`Database`] is the pool that every adapter shares. [`migrate`] brings the schema up to date,
//! [`check`] only looks; adapters expect a schema that was checked.

mod accounts;
mod database;
mod epochs;
pub mod log_generations;
mod migrations;
mod values;

pub use accounts::PostgresAccounts;
pub use database::{Database, OpenError, PoolSettings};
pub use epochs::PostgresEpochs;
pub use migrations::{SchemaError, check, migrate};
pub(crate) use values::{Id, word};
