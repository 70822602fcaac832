//! Where usage is kept: the adapters of the ports in `metering`.
//!
//! - [`sqlite`]: the single node's event log, ledger and accounts, one file each;
//! - [`memory`]: the single node's quota counter;
//! - [`postgres`]: the cluster's accounts, and its schema in Postgres;
//! - [`clickhouse`]: how the cluster reaches ClickHouse, and its schema there;
//! - [`cluster_ledger`]: the cluster's ledger, in ClickHouse and Postgres;
//! - [`cluster_status`]: what the cluster's servers say of themselves;
//! - [`kafka`]: the cluster's event log;
//! - [`redis`]: the cluster's quota counter;
//! - [`record`]: the Protobuf codec of the event log's records.
//!
//! An adapter decides nothing about usage: rules stand in `metering`, and each adapter passes the
//! rule suite of its port in `tests/contract`.

mod analytics;
pub mod clickhouse;
pub mod cluster_ledger;
pub mod cluster_status;
mod compared;
#[cfg(feature = "failpoints")]
pub mod failpoints;
#[cfg(not(feature = "failpoints"))]
mod failpoints;
pub mod kafka;
pub mod memory;
pub mod postgres;
pub mod record;
pub mod redis;
pub mod sqlite;
mod together;
