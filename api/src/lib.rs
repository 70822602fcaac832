//! The service that people and dashboards talk to: accounts, subscriptions, preferences, usage and
//! analytics.
//!
//! Boundary: it reads usage and never records any; what is used comes from the quota counter (live)
//! and the ledger's reports. It names no store: `cli` puts the adapters in.

pub mod accounts;
pub mod changes;
mod cursor;
mod extract;
mod routes;
mod state;
mod usage;

pub use routes::{ROUTES, routes};
pub use state::{Api, Payments};

/// Help texts and units of this crate's metrics.
pub fn describe() {
    accounts::describe();
    changes::describe();
}
