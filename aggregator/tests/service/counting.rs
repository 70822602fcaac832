//! The aggregator on the single node's real stores: restarts, repeats, faults.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::portions::Portions;
use crate::rig::{PARTITION, Rig, numbered, until};
use aggregator::Stopped;
use edge::{Condition, HealthCheck};
use metering::quota::QuotaCounter;
use metering::usage::{AdmittedEvent, Books, DeadLetters, EventLog, EventSource, Offset, Tallies};

async fn tallies(rig: &Rig) -> Tallies {
    rig.ledger.file().partitions().await.unwrap()[0].tallies
}

#[tokio::test]
async fn what_is_tracked_is_counted_and_the_counter_is_told() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    for id in numbered("e", 0..25) {
        rig.track(&id).await;
    }
    rig.until_counted_to(25).await;
    assert_eq!(rig.counted().await, (25, Offset::new(25)));
    until("nothing is in flight", async || rig.counter_user().await.in_flight.is_empty()).await;
    let told = rig.counter_user().await;
    assert_eq!((told.ledger.totals.requests[0], told.ledger.totals.tokens), (25, 25 * 120));
    assert_eq!(rig.aggregator.progress.check().await, Condition::Good);
    rig.assert_books_balance().await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn admissions_begin_only_when_the_logs_tail_is_counted() {
    let rig = Rig::new();
    rig.append(numbered("before", 0..12_000)).await;
    assert!(matches!(rig.aggregator.progress.check().await, Condition::Failed(_)));
    let running = rig.start();
    rig.until_serving().await;
    assert_eq!(rig.counted().await, (12_000, Offset::new(12_000)));
    running.stop().await.unwrap();
}

/// What was read while a flush was committed is less than the next one takes, and is filled up.
#[tokio::test]
async fn a_backlog_is_counted_in_whole_flushes() {
    let mut rig = Rig::new();
    rig.aggregator.source = Arc::new(Portions { log: rig.log.clone(), records_max: 13_000 });
    let running = rig.start();
    rig.until_serving().await;
    rig.track("first").await;
    rig.until_counted_to(1).await;
    let before = rig.faults.commits.load(Ordering::SeqCst);
    rig.append(numbered("e", 0..50_000)).await;
    rig.until_counted_to(50_001).await;
    assert_eq!(rig.faults.commits.load(Ordering::SeqCst) - before, 2);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn killed_in_the_middle_it_goes_on_where_it_was() {
    let mut rig = Rig::new();
    for batch in 0..5 {
        rig.append(numbered(&format!("e{batch}"), 0..9_000)).await;
    }
    let mut restarts = 0;
    while rig.counted().await.1 < Offset::new(45_000) {
        let before = rig.counted().await.1;
        let running = rig.start();
        until("a flush", async || rig.counted().await.1 > before).await;
        running.kill().await;
        rig = rig.restart();
        restarts += 1;
    }
    assert!(restarts >= 2, "{restarts} restarts");
    assert_eq!(rig.counted().await, (45_000, Offset::new(45_000)));
    rig.assert_books_balance().await;
}

#[tokio::test]
async fn repeats_are_told_from_reused_ids_within_a_flush_and_across() {
    let rig = Rig::new();
    let other =
        AdmittedEvent { content_digest: metering::usage::ContentDigest([0; 8]), ..rig.event("a") };
    rig.append(["a", "b", "a"].map(String::from)).await;
    rig.log.append(vec![other.clone()], None).await.unwrap();
    let running = rig.start();
    rig.until_counted_to(4).await;
    rig.append(["b", "c"].map(String::from)).await;
    rig.log.append(vec![other], None).await.unwrap();
    rig.until_counted_to(7).await;
    running.stop().await.unwrap();
    assert_eq!(
        tallies(&rig).await,
        Tallies { counted: 3, duplicates: 2, dead_letters: 2, ..Tallies::default() }
    );
    assert_eq!(rig.counted().await.0, 3);
    rig.assert_books_balance().await;
}

#[tokio::test]
async fn an_unreadable_record_is_set_aside_and_the_next_one_counts() {
    let rig = Rig::new();
    rig.append(["a".to_owned()]).await;
    let insert = "INSERT INTO segments VALUES (1, 2, 1790000000000, X'030102030108')";
    rig.sql("log.db", insert);
    let rig = rig.restart();
    rig.append(["b".to_owned()]).await;
    let running = rig.start();
    rig.until_counted_to(4).await;
    running.stop().await.unwrap();
    assert_eq!(tallies(&rig).await, Tallies { counted: 2, dead_letters: 2, ..Tallies::default() });
    let letters = rig.ledger.file().list().await.unwrap();
    assert_eq!((letters[0].offset, letters[0].bytes), (Offset::new(1), 3));
    assert_eq!(letters[0].reason, "undecodable");
    assert_eq!((letters[1].offset, letters[1].bytes), (Offset::new(2), 1));
    rig.assert_books_balance().await;
}

#[tokio::test]
async fn a_commit_that_did_not_happen_is_made_again() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    rig.faults.commits_lost.store(3, Ordering::SeqCst);
    rig.track("a").await;
    rig.until_counted_to(1).await;
    until("the counter is told", async || rig.counter_user().await.in_flight.is_empty()).await;
    assert_eq!(rig.counted().await, (1, Offset::new(1)));
    assert_eq!(rig.faults.commits.load(Ordering::SeqCst), 4);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_counts_once_and_the_counter_is_told() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    rig.faults.answers_lost.store(1, Ordering::SeqCst);
    rig.track("a").await;
    rig.track("b").await;
    rig.until_counted_to(2).await;
    until("the counter is told", async || rig.counter_user().await.in_flight.is_empty()).await;
    assert_eq!(rig.counter_user().await.ledger.totals.requests[0], 2);
    assert_eq!(tallies(&rig).await, Tallies { counted: 2, ..Tallies::default() });
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_sync_that_failed_is_not_lost() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    rig.faults.syncs.store(2, Ordering::SeqCst);
    rig.track("a").await;
    until("the counter is told", async || rig.counter_user().await.in_flight.is_empty()).await;
    assert_eq!(rig.counter_user().await.ledger.totals.requests[0], 1);
    assert_eq!(rig.faults.syncs.load(Ordering::SeqCst), 0);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn only_one_flush_is_counted_ahead_of_a_counter_that_does_not_answer() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    rig.track("first").await;
    until("the counter is told", async || rig.counter_user().await.in_flight.is_empty()).await;
    let before = rig.faults.commits.load(Ordering::SeqCst);
    let commits = || rig.faults.commits.load(Ordering::SeqCst) - before;
    rig.faults.syncs_hang.store(true, Ordering::SeqCst);
    rig.append(numbered("e", 0..100_000)).await;
    until("two flushes are counted", async || commits() == 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(commits(), 2);
    rig.faults.syncs_hang.store(false, Ordering::SeqCst);
    let told = async || rig.counter_user().await.ledger.totals.requests[0];
    until("the counter is told of all", async || told().await == 100_001).await;
    assert_eq!(commits(), 4);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn counting_goes_on_without_a_counter_and_it_is_brought_up_to_date_from_the_log() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    rig.track("first").await;
    rig.until_counted_to(1).await;
    for fault in [&rig.faults.syncs, &rig.faults.take_overs] {
        fault.store(u32::MAX, Ordering::SeqCst);
    }
    rig.append(numbered("e", 0..100_000)).await;
    rig.until_counted_to(100_001).await;
    let told = async || rig.counter_user().await.ledger.totals.requests[0];
    assert!(told().await <= 1);
    rig.faults.syncs.store(0, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(told().await <= 1, "its cursor is not asked for");
    rig.faults.take_overs.store(0, Ordering::SeqCst);
    until("the counter is told of all", async || told().await == 100_001).await;
    assert!(rig.counter_user().await.in_flight.is_empty());
    running.stop().await.unwrap();
    rig.assert_books_balance().await;
}

#[tokio::test]
async fn what_another_process_counted_meanwhile_is_not_counted_again() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    rig.faults.stolen.store(1, Ordering::SeqCst);
    rig.track("a").await;
    rig.until_counted_to(1).await;
    until("the counter is told", async || rig.counter_user().await.in_flight.is_empty()).await;
    rig.track("b").await;
    rig.until_counted_to(2).await;
    assert_eq!(rig.counted().await.0, 2);
    running.stop().await.unwrap();
    rig.assert_books_balance().await;
}

#[tokio::test]
async fn a_log_shorter_than_the_cursor_is_refused() {
    let rig = Rig::new();
    rig.append(numbered("e", 0..10)).await;
    let running = rig.start();
    rig.until_counted_to(10).await;
    running.stop().await.unwrap();
    rig.sql("log.db", "DELETE FROM segments");
    let rig = rig.restart();
    let ended = rig.start().ended().await;
    assert!(matches!(ended, Err(Stopped::AnotherLog { .. })), "{ended:?}");
    assert!(rig.counter.audit().await.is_err(), "no admissions");
}

#[tokio::test]
async fn a_graceful_end_counts_what_is_in_the_log() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    rig.append(numbered("e", 0..20_000)).await;
    running.stop().await.unwrap();
    assert_eq!(rig.counted().await, (20_000, Offset::new(20_000)));
}

#[tokio::test]
async fn only_what_is_counted_and_old_leaves_the_log() {
    let rig = Rig::new();
    rig.append(["a".to_owned()]).await;
    rig.append(["b".to_owned()]).await;
    rig.clock.advance(Duration::from_secs(3601));
    rig.aggregator.trim().await;
    let all = rig.log.read(PARTITION, Offset::default(), 10, Duration::ZERO).await.unwrap();
    assert_eq!(all.len(), 2, "nothing is counted yet");
    let running = rig.start();
    rig.until_counted_to(2).await;
    rig.append(["c".to_owned()]).await;
    rig.until_counted_to(3).await;
    running.stop().await.unwrap();
    rig.aggregator.trim().await;
    assert!(rig.log.read(PARTITION, Offset::new(1), 10, Duration::ZERO).await.is_err());
    let kept = rig.log.read(PARTITION, Offset::new(2), 10, Duration::ZERO).await.unwrap();
    assert_eq!(kept.len(), 1);
}

#[tokio::test]
async fn an_idle_counter_hears_of_the_watermark() {
    let rig = Rig::new();
    let running = rig.start();
    rig.until_serving().await;
    let lost = rig.event("never reached the log");
    rig.admit(&lost).await;
    rig.clock.advance(Duration::from_secs(60));
    until("the entry is forgotten", async || {
        // Entries are looked for at an admission, once they may be old enough.
        rig.track(&format!("at {}", rig.counted().await.1)).await;
        let user = rig.counter_user().await;
        user.in_flight.iter().all(|entry| entry.id_digest != lost.id_digest)
    })
    .await;
    running.stop().await.unwrap();
}
