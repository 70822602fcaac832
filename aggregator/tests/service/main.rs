//! The aggregator on the single node's real stores.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the rig is test code, though it stands outside of the test functions"
)]

mod alerts;
mod counter_book;
mod counting;
mod portions;
mod rig;
