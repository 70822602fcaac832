//! Where usage is kept: the adapters of the ports in `metering`.
//!
//! - [`sqlite`]: the single node's event log, ledger and accounts, one file each;
//! - [`memory`]: the single node's quota counter;
//! - [`postgres`]: the cluster's accounts, and its schema in Postgres;
//! - [`kafka`]: the cluster's event log;
//! - [`redis`]: the cluster's quota counter;
//! - [`record`]: the Protobuf codec of the event log's records.
//!
//! An adapter decides nothing about usage: rules stand in `metering`, and each adapter passes the
//! rule suite of its port in `tests/contract`.

pub mod kafka;
pub mod memory;
pub mod postgres;
pub mod record;
pub mod redis;
pub mod sqlite;
