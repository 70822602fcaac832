//! The program itself, end to end: built, started on free ports and a directory of its own, spoken
//! to over HTTP and by its command line, killed and started again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "fixtures are test code, though they stand outside of the test functions"
)]

mod alerts;
mod callers;
mod commands;
mod dead_letters;
mod faults;
mod http;
mod kill;
mod limits;
mod operations;
mod receiver;
mod replay;
mod server;
mod tour;
