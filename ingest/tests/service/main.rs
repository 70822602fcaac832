//! The service over HTTP, on the single node's own stores.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "these are tests, though some of it stands outside of the test functions"
)]

mod batch;
mod faults;
mod house;
mod metrics;
mod reservations;
mod single;
mod together;
mod trace;
mod watched;
