//! The rule suite of the event log on `log.db`, and what only SQLite promises.

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
    pub(crate) mod event_log;
    #[macro_use]
    pub(crate) mod single_node_log;
}

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contract::event_log::{Subject, all, event, ids};
use metering::quota::ADMISSION_WINDOW;
use metering::time::{Clock, ManualClock, Timestamp};
use metering::usage::{AppendError, EventLog, EventSource, Offset, Partition, Payload};
use rusqlite::Connection;
use stores::sqlite::{OpenError, SqliteEventLog};
use tempfile::TempDir;

/// A fresh `log.db`, gone when dropped.
struct Fresh {
    store: Log,
}

struct Log {
    log: Mutex<Option<Arc<SqliteEventLog>>>,
    clock: Arc<ManualClock>,
    directory: TempDir,
}

fn fresh() -> Fresh {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_790_000_000_000)));
    let store = Log { log: Mutex::new(None), clock, directory: tempfile::tempdir().unwrap() };
    store.reopen();
    Fresh { store }
}

impl Log {
    fn file(&self) -> PathBuf {
        self.directory.path().join("log.db")
    }

    fn other_process(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }

    fn segments(&self) -> u64 {
        let count = "SELECT count(*) FROM segments";
        self.other_process().query_row(count, [], |row| row.get(0)).unwrap()
    }

    async fn append(&self, id: &str) -> Result<(), AppendError> {
        self.log().append(vec![event(id, self.now())], None).await.map(|_| ())
    }
}

impl Subject for Log {
    type Log = SqliteEventLog;

    fn log(&self) -> Arc<SqliteEventLog> {
        self.log.lock().unwrap().clone().unwrap()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn reopen(&self) {
        let mut log = self.log.lock().unwrap();
        drop(log.take());
        *log = Some(Arc::new(SqliteEventLog::open(&self.file(), self.clock.clone()).unwrap()));
    }

    async fn second(&self) {
        self.clock.advance(Duration::from_secs(1));
    }
}

event_log_contract!(super::fresh());
single_node_log_contract!(super::fresh());

fn assert_unavailable(result: &Result<(), AppendError>, reason: &str) {
    match result {
        Err(AppendError::Unavailable(error)) => assert!(error.reason.contains(reason), "{error}"),
        other => panic!("not unavailable: {other:?}"),
    }
}

#[tokio::test]
async fn a_request_lapses_only_after_the_whole_window() {
    let Fresh { store } = fresh();
    let admitted_at = store.now();
    store.clock.advance(ADMISSION_WINDOW);
    store.log().append(vec![event("in time", admitted_at)], None).await.unwrap();
    store.clock.advance(Duration::from_millis(1));
    let late = store.log().append(vec![event("too late", admitted_at)], None).await;
    assert!(matches!(late, Err(AppendError::Lapsed)));
    assert_eq!(ids(&all(&*store.log()).await), ["in time"]);
}

#[tokio::test]
async fn log_time_and_watermark_never_step_back() {
    let Fresh { store } = fresh();
    let start = store.now();
    store.append("a").await.unwrap();
    store.clock.set(start.plus(Duration::from_secs(5)));
    let watermark = store.log().watermark(Partition::SINGLE).await.unwrap().unwrap();
    store.clock.set(start);
    store.append("b").await.unwrap();
    store.reopen();
    store.append("c").await.unwrap();
    let times: Vec<_> = all(&*store.log()).await.iter().map(|one| one.log_time).collect();
    assert_eq!(times, [start, watermark, watermark]);
    assert_eq!(store.log().watermark(Partition::SINGLE).await.unwrap(), Some(watermark));
}

#[tokio::test]
async fn requests_that_wait_together_share_a_commit() {
    let Fresh { store } = fresh();
    let other = store.other_process();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let now = store.now();
    let appends: Vec<_> = (0..200)
        .map(|number| {
            let log = store.log();
            tokio::spawn(
                async move { log.append(vec![event(&format!("e{number}"), now)], None).await },
            )
        })
        .collect();
    tokio::task::yield_now().await;
    other.execute_batch("COMMIT").unwrap();
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert!(store.segments() < 10, "{} segments", store.segments());
    assert_eq!(all(&*store.log()).await.len(), 200);
}

#[tokio::test]
async fn a_large_request_is_one_segment_between_others() {
    let Fresh { store } = fresh();
    let now = store.now();
    let batch =
        |name: &str| (0..5_000).map(|number| event(&format!("{name}{number}"), now)).collect();
    store.append("before").await.unwrap();
    let large: Vec<_> = batch("large-");
    assert_eq!(store.log().append(large, None).await.unwrap().len(), 5_000);
    store.append("after").await.unwrap();
    let records = all(&*store.log()).await;
    assert_eq!(records.len(), 5_002);
    assert!(records.iter().zip(0..).all(|(record, offset)| record.offset.number() == offset));
    assert_eq!(store.segments(), 3);
}

#[tokio::test]
async fn a_locked_file_is_unavailable_and_then_goes_on() {
    let Fresh { store } = fresh();
    store.append("a").await.unwrap();
    let other = store.other_process();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let started = Instant::now();
    assert_unavailable(&store.append("b").await, "locked");
    assert!(started.elapsed() < Duration::from_secs(5));
    other.execute_batch("ROLLBACK").unwrap();
    store.append("c").await.unwrap();
    assert_eq!(ids(&all(&*store.log()).await), ["a", "c"]);
}

#[tokio::test]
async fn a_store_error_is_unavailable_for_the_whole_group_and_leaves_no_gap() {
    let Fresh { store } = fresh();
    store.append("a").await.unwrap();
    let other = store.other_process();
    let fault = "CREATE TRIGGER fault BEFORE INSERT ON segments \
                 BEGIN SELECT RAISE(ABORT, 'the disk is gone'); END";
    other.execute_batch(fault).unwrap();
    for id in ["b", "c"] {
        assert_unavailable(&store.append(id).await, "the disk is gone");
    }
    other.execute_batch("DROP TRIGGER fault").unwrap();
    store.append("d").await.unwrap();
    let records = all(&*store.log()).await;
    assert_eq!(ids(&records), ["a", "d"]);
    assert_eq!(records[1].offset, Offset::new(1));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let Fresh { store } = fresh();
    let other = store.other_process();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let now = store.now();
    let appends: Vec<_> = (0..5_000)
        .map(|number| {
            let log = store.log();
            tokio::spawn(
                async move { log.append(vec![event(&format!("e{number}"), now)], None).await },
            )
        })
        .collect();
    let (mut stored, mut refused) = (0, 0);
    let mut appends = appends.into_iter();
    // The last ones were asked last, so they met a full queue; their answer needs no commit.
    while let Some(append) = appends.next_back() {
        match append.await.unwrap() {
            Ok(_) => stored += 1,
            Err(AppendError::Unavailable(error)) => {
                assert!(error.reason.contains("queue is full"), "{error}");
                refused += 1;
                if refused == 1 {
                    other.execute_batch("COMMIT").unwrap();
                }
            }
            Err(AppendError::Lapsed) => panic!("lapsed"),
        }
    }
    assert_eq!((stored, refused), (4_096, 904));
    assert_eq!(all(&*store.log()).await.len(), stored);
}

#[tokio::test]
async fn what_the_codec_does_not_read_is_a_record_that_says_so() {
    let Fresh { store } = fresh();
    store.append("a").await.unwrap();
    let insert =
        "INSERT INTO segments SELECT 1, 3, log_time, CAST(X'02FFFF' || body AS BLOB) FROM segments";
    store.other_process().execute_batch(insert).unwrap();
    store.reopen();
    store.append("z").await.unwrap();
    let records = all(&*store.log()).await;
    assert_eq!(records.len(), 5);
    let Payload::Undecodable { bytes, reason } = &records[1].payload else { panic!("an event") };
    assert_eq!(*bytes, [0xff, 0xff]);
    assert!(!reason.is_empty());
    assert_eq!(ids(&records[2..3]), ["a"]);
    // The segment says three, and holds two.
    let Payload::Undecodable { bytes, .. } = &records[3].payload else { panic!("an event") };
    assert!(bytes.is_empty());
    assert_eq!(ids(&records[4..]), ["z"]);
    let from_the_middle =
        store.log().read(Partition::SINGLE, Offset::new(3), 10, Duration::ZERO).await.unwrap();
    assert_eq!(from_the_middle, records[3..]);
}

#[tokio::test]
async fn a_gap_in_the_file_is_an_error_and_never_jumped_over() {
    let Fresh { store } = fresh();
    for id in ["a", "b", "c"] {
        store.append(id).await.unwrap();
    }
    store.other_process().execute_batch("DELETE FROM segments WHERE first_offset = 1").unwrap();
    let read = async |from| {
        store.log().read(Partition::SINGLE, Offset::new(from), 10, Duration::ZERO).await
    };
    assert!(read(0).await.unwrap_err().reason.contains("gap at 1"));
    assert!(read(1).await.is_err());
    assert_eq!(ids(&read(2).await.unwrap()), ["c"]);
}

#[tokio::test]
async fn a_trim_of_many_segments_goes_in_steps() {
    let Fresh { store } = fresh();
    let rows = "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000) \
                INSERT INTO segments SELECT n, 1, n, X'00' FROM numbers";
    store.other_process().execute_batch(rows).unwrap();
    store.reopen();
    let gone =
        store.log().trim(Partition::SINGLE, Offset::new(1001), Timestamp::MAX).await.unwrap();
    assert_eq!((gone, store.segments()), (1000, 1));
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_refused_and_left_alone() {
    let Fresh { store } = fresh();
    store.other_process().pragma_update(None, "user_version", 99).unwrap();
    let opened = SqliteEventLog::open(&store.file(), store.clock.clone());
    assert!(matches!(opened, Err(OpenError::Newer { found: 99, .. })));
}
