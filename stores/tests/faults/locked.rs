//! Files that another process holds.

use std::path::Path;
use std::time::{Duration, Instant};

use metering::accounts::{Accounts, CreateError};
use metering::usage::{CommitError, EventLog, LedgerLookup, UsageLedger, UsageReports};
use rusqlite::Connection;

use crate::contract::accounts::service_subject;
use crate::contract::counting::{Log, OCTOBER, PARTITION, event as usage, key, period, user};
use crate::contract::event_log::event;
use crate::{now, open_accounts, open_ledger, open_log};

/// Longer than any adapter waits for a lock, and well before a client gives up.
const BOUND: Duration = Duration::from_secs(10);

/// The write lock of a file, held by somebody else until it is dropped.
fn locked(file: &Path) -> Connection {
    let other = Connection::open(file).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    other
}

#[tokio::test]
async fn a_locked_ledger_commits_nothing_and_is_read_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open_ledger(directory.path()).unwrap();
    let mut log = Log::default();
    log.append(usage(user(1), "a"));
    log.count(&ledger).await.unwrap();
    log.append(usage(user(1), "b"));
    let flush = log.flush(&ledger).await;
    let other = locked(&directory.path().join("ledger.db"));
    let started = Instant::now();
    let committed = ledger.commit(flush);
    let read = async {
        let month = ledger.monthly(user(1), period(OCTOBER)).await.unwrap();
        assert_eq!(month.totals.requests, [1, 0, 0]);
        let ids = [key(&usage(user(1), "a")), key(&usage(user(1), "b"))];
        let known = ledger.known(&ids).await.unwrap().found;
        assert_eq!((known[0].is_some(), known[1]), (true, None));
        started.elapsed()
    };
    let (committed, read_after) = tokio::join!(committed, read);
    assert!(matches!(committed, Err(CommitError::Unavailable(_))), "{committed:?}");
    assert!(started.elapsed() < BOUND && read_after < Duration::from_secs(3), "{read_after:?}");
    drop(other);
    let committed = log.count(&ledger).await.unwrap();
    assert_eq!(committed.cursor.position, log.end());
    assert_eq!(ledger.take_over(PARTITION).await.unwrap(), committed.cursor);
}

#[tokio::test]
async fn locked_accounts_change_nothing_and_are_read_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let accounts = open_accounts(directory.path()).unwrap();
    let made = accounts.create(service_subject("a")).await.unwrap();
    let other = locked(&directory.path().join("accounts.db"));
    let started = Instant::now();
    let refused = accounts.create(service_subject("b"));
    let (refused, found) = tokio::join!(refused, accounts.find(made.id));
    assert!(matches!(refused, Err(CreateError::Unavailable(_))), "{refused:?}");
    assert!(started.elapsed() < BOUND);
    assert_eq!(found.unwrap(), Some(made));
    drop(other);
    accounts.create(service_subject("b")).await.unwrap();
}

#[tokio::test]
async fn files_that_somebody_keeps_to_themselves_are_not_waited_for_without_end() {
    let directory = tempfile::tempdir().unwrap();
    drop(open_log(directory.path()).unwrap());
    drop(open_ledger(directory.path()).unwrap());
    drop(open_accounts(directory.path()).unwrap());
    let keep = |file: &str| {
        let other = Connection::open(directory.path().join(file)).unwrap();
        other.pragma_update(None, "locking_mode", "exclusive").unwrap();
        other.execute_batch("BEGIN EXCLUSIVE; COMMIT").unwrap();
        other
    };
    let others = ["log.db", "ledger.db", "accounts.db"].map(keep);
    let started = Instant::now();
    let (log, ledger, accounts) = std::thread::scope(|scope| {
        let log = scope.spawn(|| open_log(directory.path()).map(drop));
        let ledger = scope.spawn(|| open_ledger(directory.path()).map(drop));
        let accounts = scope.spawn(|| open_accounts(directory.path()).map(drop));
        (log.join().unwrap(), ledger.join().unwrap(), accounts.join().unwrap())
    });
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    for (opened, file) in [(log, "log.db"), (ledger, "ledger.db"), (accounts, "accounts.db")] {
        let error = opened.unwrap_err();
        assert!(error.to_string().contains(file), "{error}");
    }
    drop(others);
    let log = open_log(directory.path()).unwrap();
    log.append(vec![event("a", now())], None).await.unwrap();
    open_ledger(directory.path()).unwrap();
    open_accounts(directory.path()).unwrap();
}
