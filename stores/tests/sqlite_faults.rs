//! What the SQLite adapters do when the disk is full, a file is locked by another process, or a
//! file is damaged: a clear error in bounded time, nothing acknowledged that is not stored, and on
//! with the work once the fault is gone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "fixtures are test code, though they stand outside of the test functions"
)]

mod contract {
    #![allow(dead_code, reason = "rules and helpers of other suites")]
    #![allow(unused_macros, reason = "the suites themselves run elsewhere")]
    pub(crate) mod accounts;
    pub(crate) mod counting;
    pub(crate) mod event_log;
}

mod faults {
    mod damaged;
    mod full;
    mod locked;
}

use std::path::Path;
use std::sync::Arc;

use metering::time::{ManualClock, Timestamp};
use metering::usage::{LogRecord, Payload};
use stores::sqlite::{OpenError, SqliteAccounts, SqliteEventLog, SqliteLedger};

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

/// The log of a directory, at a time that stands still: nothing lapses.
fn open_log(directory: &Path) -> Result<SqliteEventLog, OpenError> {
    SqliteEventLog::open(&directory.join("log.db"), Arc::new(ManualClock::at(now())))
}

fn open_ledger(directory: &Path) -> Result<SqliteLedger, OpenError> {
    SqliteLedger::open(directory)
}

fn open_accounts(directory: &Path) -> Result<SqliteAccounts, OpenError> {
    SqliteAccounts::open(&directory.join("accounts.db"))
}

/// The ids of records that must all be events, at dense offsets.
fn dense_ids(records: &[LogRecord]) -> Vec<String> {
    let dense = records.iter().zip(0..).all(|(record, offset)| record.offset.number() == offset);
    assert!(dense, "offsets have a gap");
    let id = |record: &LogRecord| match &record.payload {
        Payload::Event(admitted) => admitted.event.event_id.as_str().to_owned(),
        Payload::Undecodable { reason, .. } => panic!("undecodable: {reason}"),
        Payload::Tick(_) => panic!("a tick"),
    };
    records.iter().map(id).collect()
}
