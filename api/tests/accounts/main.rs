//! The accounts endpoints on the real SQLite adapter and the quota counter in memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what tests share stands outside of the test functions"
)]

mod administration;
mod callers;
mod changes;
mod login;
mod me;
mod registration;
mod service;
mod subscriptions;
