//! The cluster end to end: processes of the program on real servers, killed, stopped and crowded out
//! while clients go on. After each scenario the books balance and the clients' own list agrees.
//!
//! The servers are started for this test program (`deploy/local/up`, on ports and in a folder of their
//! own) and removed when it ends, however it ends. Every scenario has an installation of its own on
//! them. Needs `--features failpoints`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "fixtures are test code, though they stand outside of the test functions"
)]

mod aggregators;
mod alerts;
mod asking;
mod cluster;
mod dying_servers;
mod ingests;
mod load;
mod records;
mod servers;
mod settle;
mod stores;
mod waiting;

#[path = "../program/http.rs"]
#[allow(dead_code, reason = "the single node's tests call more")]
mod http;
#[path = "../program/receiver.rs"]
#[allow(dead_code, reason = "the single node's tests call more")]
mod receiver;
