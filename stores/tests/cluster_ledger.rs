//! The rule suites of the ledger on ClickHouse and Postgres, and what only the cluster promises.

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
    pub(crate) mod alerts;
    #[macro_use]
    pub(crate) mod books;
    #[allow(dead_code, reason = "the single node's own tests use more of it")]
    pub(crate) mod counting;
    #[macro_use]
    pub(crate) mod ledger_lookup;
    #[macro_use]
    pub(crate) mod usage_analytics;
    #[macro_use]
    pub(crate) mod usage_ledger;
    #[macro_use]
    pub(crate) mod usage_reports;
}

mod cluster;
mod servers;

use cluster::fresh;

usage_ledger_contract!(super::fresh().await);
ledger_lookup_contract!(super::fresh().await);
usage_reports_contract!(super::fresh().await);
usage_analytics_contract!(super::fresh().await);
books_contract!(super::fresh().await);
alerts_contract!(super::fresh().await);
