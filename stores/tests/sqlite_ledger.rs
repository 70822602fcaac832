//! The rule suites of the ledger on `ledger.db`, and what only SQLite promises.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "rules are test code, though they stand outside of the test functions"
)]

#[macro_use]
#[path = "contract/rules.rs"]
mod rules;

#[macro_use]
mod contract {
    #[macro_use]
    pub(crate) mod alerts;
    #[macro_use]
    pub(crate) mod books;
    pub(crate) mod counting;
    #[macro_use]
    pub(crate) mod ledger_lookup;
    #[macro_use]
    pub(crate) mod usage_analytics;
    #[macro_use]
    pub(crate) mod usage_ledger;
    #[macro_use]
    pub(crate) mod usage_reports;
}

#[path = "older_schemas/ledger_of_rows.rs"]
mod ledger_of_rows;
mod sqlite_ids;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contract::counting::{
    Log, OCTOBER, PARTITION, Subject, chat, counted, event, key, period, user,
};
use metering::usage::{
    Books, CommitError, HistoryQuery, KnownEvent, LedgerLookup, Offset, Payload, UsageEvent,
    UsageLedger, UsageReports,
};
use rusqlite::Connection;
use stores::sqlite::{LedgerFile, OpenError, SqliteLedger};
use tempfile::TempDir;

/// A fresh `ledger.db`, gone when dropped.
struct Fresh {
    store: Ledger,
}

struct Ledger {
    ledger: Mutex<Option<Arc<SqliteLedger>>>,
    directory: TempDir,
}

fn fresh() -> Fresh {
    let store = Ledger { ledger: Mutex::new(None), directory: tempfile::tempdir().unwrap() };
    store.reopen();
    Fresh { store }
}

impl Ledger {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// As another process has it open.
    fn other_process(&self) -> Connection {
        Connection::open(self.file("ledger.db")).unwrap()
    }

    fn close(&self) {
        drop(self.ledger.lock().unwrap().take());
    }

    async fn known(&self, event: &UsageEvent) -> Option<KnownEvent> {
        self.ledger().known(&[key(event)]).await.unwrap().found[0]
    }

    async fn tokens(&self) -> u64 {
        let found = self.ledger().totals(&[(user(1), period(OCTOBER))]).await.unwrap();
        found[0].totals.tokens
    }
}

impl Subject for Ledger {
    type Ledger = SqliteLedger;

    fn ledger(&self) -> Arc<SqliteLedger> {
        self.ledger.lock().unwrap().clone().unwrap()
    }

    fn reopen(&self) {
        let mut open = self.ledger.lock().unwrap();
        drop(open.take());
        *open = Some(Arc::new(SqliteLedger::open(self.path()).unwrap()));
    }
}

usage_ledger_contract!(super::fresh());
ledger_lookup_contract!(super::fresh());
usage_reports_contract!(super::fresh());
usage_analytics_contract!(super::fresh());
books_contract!(super::fresh());
alerts_contract!(super::fresh());

/// Asks until there is an answer that counts; a test that waits longer has failed.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "it takes too long");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn reports_and_lookups_go_on_while_a_commit_waits_for_a_lock() {
    let ledger = fresh().store;
    let mut log = counted(&*ledger.ledger(), [event(user(1), "a")]).await;
    let other = ledger.other_process();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    log.append(event(user(1), "b"));
    let flush = log.flush(&*ledger.ledger()).await;
    let committing = tokio::spawn({
        let ledger = ledger.ledger();
        async move { ledger.commit(flush).await }
    });
    let month = ledger.ledger().monthly(user(1), period(OCTOBER)).await.unwrap();
    assert_eq!(month.totals, chat(120, 1));
    assert!(ledger.known(&event(user(1), "a")).await.is_some());
    assert_eq!(ledger.known(&event(user(1), "b")).await, None);
    assert!(!committing.is_finished());
    other.execute_batch("COMMIT").unwrap();
    committing.await.unwrap().unwrap();
    assert_eq!(ledger.tokens().await, 240);
}

#[tokio::test]
async fn a_commit_that_fails_at_its_last_row_leaves_nothing_behind() {
    let ledger = fresh().store;
    let mut log = counted(&*ledger.ledger(), [event(user(1), "a")]).await;
    let other = ledger.other_process();
    other.execute_batch("ALTER TABLE dead_letters RENAME TO away").unwrap();
    log.append(event(user(1), "b"));
    log.append(event(user(2), "c"));
    log.append_payload(Payload::Undecodable { bytes: vec![1], reason: "odd".into() });
    let flush = log.flush(&*ledger.ledger()).await;
    let failed = ledger.ledger().commit(flush.clone()).await.unwrap_err();
    let CommitError::Unavailable(why) = failed else { panic!("{failed}") };
    assert_eq!(why.store, "ledger");
    assert_eq!(ledger.known(&event(user(1), "b")).await, None);
    assert_eq!(ledger.tokens().await, 120);
    other.execute_batch("ALTER TABLE away RENAME TO dead_letters").unwrap();
    let cursor = ledger.ledger().take_over(PARTITION).await.unwrap();
    assert_eq!(cursor.position, Offset::new(1));
    ledger.ledger().commit(flush).await.unwrap();
    assert_eq!(ledger.tokens().await, 240);
    assert!(ledger.known(&event(user(2), "c")).await.is_some());
}

#[tokio::test]
async fn a_total_that_leaves_64_bits_is_refused_by_the_file_itself() {
    let ledger = fresh().store;
    let mut log = counted(&*ledger.ledger(), [event(user(1), "a")]).await;
    let full = "UPDATE statistics SET tokens = 9223372036854775807 - 100";
    ledger.other_process().execute(full, []).unwrap();
    log.append(event(user(1), "b"));
    let failed = log.count(&*ledger.ledger()).await.unwrap_err();
    assert!(matches!(failed, CommitError::Unavailable(_)), "{failed}");
    assert_eq!(ledger.known(&event(user(1), "b")).await, None);
}

#[tokio::test]
async fn books_name_what_differs_and_repair_mends_it() {
    let ledger = fresh().store;
    let events = ["a", "b"].map(|id| event(user(1), id));
    counted(&*ledger.ledger(), events.into_iter().chain([event(user(2), "c")])).await;
    let other = ledger.other_process();
    other.execute("UPDATE daily SET prompt = prompt + 5 WHERE events = 2", []).unwrap();
    other.execute("DELETE FROM hourly", []).unwrap();
    other.execute("UPDATE statistics SET chat = 7 WHERE chat = 1", []).unwrap();
    let (_, summaries) = ledger.ledger().summaries().await.unwrap();
    let daily = &summaries[0];
    assert_eq!((daily.expected, daily.found), (200, 205));
    assert!(daily.subject.contains(&format!("2026-10-15 user {}", user(1))), "{}", daily.subject);
    assert!(daily.subject.ends_with("prompt_tokens"), "{}", daily.subject);
    assert!(summaries[1..].iter().all(|difference| difference.subject.starts_with("hourly")));
    assert_eq!(summaries[1..].len(), 5);
    let (compared, statistics) = ledger.ledger().statistics().await.unwrap();
    assert_eq!((compared, statistics.len()), (2, 1));
    assert_eq!((statistics[0].expected, statistics[0].found), (1, 7));
    ledger.ledger().repair().await.unwrap();
    assert_eq!(ledger.ledger().summaries().await.unwrap(), (3, vec![]));
    assert_eq!(ledger.ledger().statistics().await.unwrap(), (2, vec![]));
}

#[tokio::test]
async fn a_history_that_lacks_an_event_is_told_and_made_again() {
    let ledger = fresh().store;
    let mut log = Log::default();
    for number in 0..300_u32 {
        let who = user(u8::try_from(number % 3).unwrap());
        log.append(event(who, &format!("event {number}")));
        if number % 7 == 0 {
            log.count(&*ledger.ledger()).await.unwrap();
        }
    }
    log.count(&*ledger.ledger()).await.unwrap();
    let expected = ledger.ledger().history(&history_of(1, 1000)).await.unwrap();
    assert_eq!(expected.len(), 100);
    let other = ledger.other_process();
    let one = "(SELECT run, user, occurred_at, offset FROM stretches WHERE user = 2 LIMIT 1)";
    for damage in [
        format!("DELETE FROM stretches WHERE (run, user, occurred_at, offset) IN {one}"),
        "UPDATE stretches SET user = 3 - user WHERE user IN (1, 2)".to_owned(),
    ] {
        other.execute(&damage, []).unwrap();
        assert_ne!(ledger.ledger().history(&history_of(1, 1000)).await.unwrap(), expected);
        let (_, differences) = ledger.ledger().summaries().await.unwrap();
        assert_eq!(differences.len(), 1, "{damage}");
        assert!(differences[0].subject.starts_with("users' histories"), "{differences:?}");
        ledger.ledger().repair().await.unwrap();
        assert_eq!(ledger.ledger().summaries().await.unwrap().1, []);
        assert_eq!(ledger.ledger().history(&history_of(1, 1000)).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn another_process_reads_and_repairs_while_this_one_counts() {
    let ledger = fresh().store;
    let beside = LedgerFile::open(ledger.path()).unwrap();
    let mut log = counted(&*ledger.ledger(), [event(user(1), "a")]).await;
    assert_eq!(beside.raw().await.unwrap().tokens, 120);
    beside.repair().await.unwrap();
    log.append(event(user(1), "b"));
    log.count(&*ledger.ledger()).await.unwrap();
    let month = beside.monthly(user(1), period(OCTOBER)).await.unwrap();
    assert_eq!(month.totals, chat(240, 2));
}

fn history_of(number: u8, rows_max: usize) -> HistoryQuery {
    let (from, to, model, request_type, after) = (None, None, None, None, None);
    HistoryQuery { user_id: user(number), from, to, model, request_type, after, rows_max }
}

#[tokio::test]
async fn a_block_that_does_not_hold_what_it_should_is_told() {
    let ledger = fresh().store;
    counted(&*ledger.ledger(), [event(user(1), "a"), event(user(2), "b")]).await;
    let other = ledger.other_process();
    other.execute("UPDATE blocks SET body = x'0400010203'", []).unwrap();
    let refused = ledger.ledger().history(&history_of(1, 10)).await.unwrap_err();
    assert!(refused.to_string().contains("ledger"), "{refused}");
    ledger.ledger().raw().await.unwrap_err();
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused() {
    for name in ["ledger.db", "ids.db"] {
        let ledger = fresh().store;
        ledger.close();
        let newer = Connection::open(ledger.file(name)).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        drop(newer);
        let refused = SqliteLedger::open(ledger.path()).map(drop).unwrap_err();
        assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_partition_that_the_single_node_does_not_have_is_refused() {
    let ledger = fresh().store;
    ledger.ledger().take_over(metering::usage::Partition::new(1)).await.unwrap_err();
}
