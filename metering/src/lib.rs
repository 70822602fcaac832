//! What usage is: the domain of tokenmeter.
//!
//! Types, pure rules and ports, in three modules:
//! - [`usage`]: usage events, how they are read, the fold of the event log into the ledger;
//! - [`quota`]: plans, models, and the admission of an event against what is left of a plan;
//! - [`accounts`]: users, credentials, subscriptions and preferences.
//!
//! Ports are traits; their documentation is the contract that every adapter is tested against.
//! Nothing here knows a network, a framework or a database, and nothing reads a clock by itself:
//! time comes in as a [`time::Timestamp`] or through [`time::Clock`].

pub mod accounts;
pub mod quota;
pub mod time;
pub mod trace;
pub mod usage;

/// The store or server behind a port did not answer as it should.
///
/// What was asked may have happened or not; asking again with the same ids is always safe.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{store} is unavailable: {reason}")]
pub struct Unavailable {
    /// Which store: a closed set, also the label of the metric `tokenmeter_store_errors_total`.
    pub store: &'static str,
    /// What it said, for the log. Never shown to a client.
    pub reason: String,
}

impl Unavailable {
    /// Wraps what a store said.
    pub fn new(store: &'static str, reason: impl std::fmt::Display) -> Self {
        Self { store, reason: reason.to_string() }
    }
}
