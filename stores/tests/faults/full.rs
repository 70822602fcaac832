//! A disk without space, made of the limit on the size of files: each test runs again in a process
//! of its own, where a write beyond the limit fails instead of ending the process.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use metering::accounts::Accounts;
use metering::usage::{
    AppendError, Books, CommitError, EventLog, LedgerLookup, Offset, UsageLedger,
};
use stores::sqlite::OpenError;
use tempfile::TempDir;

use crate::contract::accounts::service_subject;
use crate::contract::counting::{Log, PARTITION, event as usage, key, user, with_metadata};
use crate::contract::event_log::{all, event};
use crate::{dense_ids, now, open_accounts, open_ledger, open_log};

/// Set in the process that a test runs in.
const INSIDE: &str = "TOKENMETER_TEST_INSIDE";

/// Runs `test` in a process of its own; answers the directory to use when this is that process.
fn alone(test: &str) -> Option<TempDir> {
    if std::env::var_os(INSIDE).is_some() {
        return Some(tempfile::tempdir().unwrap());
    }
    // The shell ignores the signal for us, and so does what it turns into.
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("faults::full::{test}"), "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("1 passed"), "there is no test {test}: {told}");
    None
}

/// From now on no file of this process grows beyond so many bytes.
fn limit_files(bytes: &str) {
    let pid = std::process::id().to_string();
    let limit = format!("--fsize={bytes}:unlimited");
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

fn space_is_back() {
    limit_files("unlimited");
}

/// A part of what anybody writes, and more than an empty file takes.
const FULL: &str = "400000";

#[tokio::test]
async fn the_log_acknowledges_only_what_it_stored_and_goes_on() {
    let Some(directory) = alone("the_log_acknowledges_only_what_it_stored_and_goes_on") else {
        return;
    };
    let log = Arc::new(open_log(directory.path()).unwrap());
    limit_files(FULL);
    let mut acknowledged = BTreeSet::new();
    let mut failed = 0;
    for round in 0.. {
        let appends = (0..40).map(|number| {
            let (log, id) = (log.clone(), format!("{round}-{number}"));
            tokio::spawn(
                async move { (id.clone(), log.append(vec![event(&id, now())], None).await) },
            )
        });
        for append in appends.collect::<Vec<_>>() {
            match append.await.unwrap() {
                (id, Ok(_)) => assert!(acknowledged.insert(id)),
                (_, Err(AppendError::Unavailable(_))) => failed += 1,
                (id, Err(AppendError::Lapsed)) => panic!("{id} lapsed"),
            }
        }
        if failed > 400 {
            break;
        }
        assert!(round < 1000, "the disk never filled up");
    }
    assert!(acknowledged.len() > 100, "{} acknowledged", acknowledged.len());
    let stored = dense_ids(&all(&*log).await);
    assert!(acknowledged.is_subset(&stored.iter().cloned().collect()), "while it is full");

    space_is_back();
    log.append(vec![event("after", now())], None).await.unwrap();
    acknowledged.insert("after".to_owned());
    let stored = dense_ids(&all(&*log).await);
    drop(log);
    let again = open_log(directory.path()).unwrap();
    assert_eq!(dense_ids(&all(&again).await), stored);
    let once: BTreeSet<_> = stored.iter().cloned().collect();
    assert_eq!(once.len(), stored.len(), "something is stored twice");
    assert!(acknowledged.is_subset(&once));
}

#[tokio::test]
async fn the_ledger_counts_a_flush_whole_or_not_at_all_and_goes_on() {
    let Some(directory) = alone("the_ledger_counts_a_flush_whole_or_not_at_all_and_goes_on") else {
        return;
    };
    let ledger = open_ledger(directory.path()).unwrap();
    let mut log = Log::default();
    let note = format!("{{\"note\":\"{}\"}}", "x".repeat(500));
    let mut events = Vec::new();
    let mut more = |log: &mut Log| {
        for _ in 0..50 {
            let id = format!("event {}", events.len());
            let event =
                with_metadata(usage(user(u8::try_from(events.len() % 7).unwrap()), &id), &note);
            events.push(key(&event));
            log.append(event);
        }
        events.clone()
    };
    limit_files(FULL);
    let mut counted = 0;
    let found = loop {
        let events = more(&mut log);
        match log.count(&ledger).await {
            Ok(committed) => {
                counted = committed.cursor.position.number();
                assert_eq!(counted, events.len() as u64);
                assert!(counted < 1_000_000, "the disk never filled up");
            }
            Err(CommitError::Unavailable(_)) => break events,
            Err(lost) => panic!("{lost}"),
        }
    };
    assert!(counted > 0);
    // Again and again, as the aggregator asks; reading goes on.
    for _ in 0..5 {
        assert!(matches!(log.count(&ledger).await, Err(CommitError::Unavailable(_))));
        let known = ledger.known(&found).await.unwrap();
        assert_eq!(known.cursor, Offset::new(counted));
        assert_eq!(known.found.iter().flatten().count() as u64, counted);
        assert_eq!(ledger.raw().await.unwrap().events, counted);
    }

    space_is_back();
    log.count(&ledger).await.unwrap();
    let events = more(&mut log);
    log.count(&ledger).await.unwrap();
    drop(ledger);
    let again = open_ledger(directory.path()).unwrap();
    let end = again.take_over(PARTITION).await.unwrap().position;
    assert_eq!(end, log.end());
    assert_eq!(again.known(&events).await.unwrap().found.iter().flatten().count(), events.len());
    let raw = again.raw().await.unwrap();
    assert_eq!((raw.events, raw.statistics_requests), (end.number(), end.number()));
    assert_eq!(raw.tokens, raw.statistics_tokens);
    assert_eq!(again.summaries().await.unwrap().1, []);
    assert_eq!(again.statistics().await.unwrap().1, []);
}

#[tokio::test]
async fn accounts_are_made_or_not_and_go_on() {
    let Some(directory) = alone("accounts_are_made_or_not_and_go_on") else { return };
    let accounts = open_accounts(directory.path()).unwrap();
    limit_files(FULL);
    let mut made = Vec::new();
    let mut failed = 0;
    while failed < 5 {
        let name = format!("subject {}", made.len() + failed);
        match accounts.create(service_subject(&name)).await {
            Ok(user) => made.push(user),
            Err(metering::accounts::CreateError::Unavailable(_)) => failed += 1,
            Err(other) => panic!("{other}"),
        }
        assert!(made.len() < 10_000, "the disk never filled up");
    }
    assert!(!made.is_empty());
    space_is_back();
    made.push(accounts.create(service_subject("after")).await.unwrap());
    drop(accounts);
    let again = open_accounts(directory.path()).unwrap();
    for user in made {
        assert_eq!(again.find(user.id).await.unwrap(), Some(user));
    }
}

#[test]
fn a_directory_without_space_is_refused_and_then_taken() {
    let Some(directory) = alone("a_directory_without_space_is_refused_and_then_taken") else {
        return;
    };
    limit_files("4096");
    let refusals = [
        open_log(directory.path()).map(drop),
        open_ledger(directory.path()).map(drop),
        open_accounts(directory.path()).map(drop),
    ];
    for (refused, file) in refusals.into_iter().zip(["log.db", "ledger.db", "accounts.db"]) {
        let error = refused.unwrap_err();
        assert!(matches!(error, OpenError::Sqlite { .. }), "{error:?}");
        assert!(error.to_string().contains(file), "{error}");
    }
    space_is_back();
    open_log(directory.path()).unwrap();
    open_ledger(directory.path()).unwrap();
    open_accounts(directory.path()).unwrap();
}
