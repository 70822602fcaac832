//! How long a counted id is remembered, and what is found of those that are not.

use std::time::Duration;

use metering::time::Timestamp;
use metering::usage::{HORIZON_MAX, Horizon, Payload, Tick, UsageEvent, UsageLedger};
use stores::cluster_ledger::{ClusterLedger, LedgerSettings};

use super::{Cluster, Tape, fresh, settings};
use crate::contract::counting::{PARTITION, Subject, event, user};

const HOUR: Duration = Duration::from_secs(3600);

fn start() -> Timestamp {
    Timestamp::from_millis(1_792_000_000_000)
}

/// An event that says nothing about when it was made.
fn timeless(id: &str) -> UsageEvent {
    UsageEvent { occurred_at_given: false, ..event(user(1), id) }
}

fn tick(length: Duration) -> Payload {
    Payload::Tick(Tick { horizon: Horizon::Within(length) })
}

/// How many of the records `from..to` a process counts that has just started.
async fn counted(cluster: &Cluster, tape: &Tape, from: usize, to: usize) -> u64 {
    counted_by(&cluster.another(), tape, from, to).await
}

async fn counted_by(ledger: &ClusterLedger, tape: &Tape, from: usize, to: usize) -> u64 {
    let flush = tape.flush(ledger, from, to).await;
    let counted = flush.tallies.counted;
    ledger.commit(flush).await.unwrap();
    counted
}

#[tokio::test]
async fn a_retry_without_any_time_is_recognised_within_the_horizon() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    for (hours, id) in [(0, "a"), (0, "b"), (23, "a"), (25, "b"), (47, "b"), (50, "a")] {
        tape.append_event_at(start().plus(HOUR * hours), timeless(id));
    }
    assert_eq!(counted(&cluster, &tape, 0, 2).await, 2);
    assert_eq!(counted(&cluster, &tape, 2, 3).await, 0);
    // Each from what ClickHouse holds: the process is a new one.
    assert_eq!(counted(&cluster, &tape, 3, 4).await, 1);
    assert_eq!(counted(&cluster, &tape, 4, 5).await, 0);
    assert_eq!(counted(&cluster, &tape, 5, 6).await, 1);
    cluster.balances(4).await;
}

#[tokio::test]
async fn one_process_remembers_as_long_as_many_do() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    for hours in 0..60 {
        tape.append_event_at(
            start().plus(HOUR * hours),
            timeless(&format!("event {}", hours % 20)),
        );
    }
    // Every id comes again after 20 hours, within the horizon of the record before: three times.
    let ledger = cluster.ledger();
    let mut counted = 0;
    for from in (0..60).step_by(6) {
        counted += counted_by(&ledger, &tape, from, from + 6).await;
    }
    // The second time repeats the first; the third is 40 hours after it, and counts.
    assert_eq!(counted, 40);
    cluster.balances(40).await;
}

#[tokio::test]
async fn a_retry_that_repeats_its_time_is_recognised_for_ever() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    let mut told = event(user(1), "a");
    told.occurred_at = start();
    tape.append_event_at(start(), told.clone());
    tape.append_event_at(start().plus(HOUR * 1000), timeless("other"));
    tape.append_event_at(start().plus(HOUR * 2000), told.clone());
    let mut reused = told;
    reused.tokens.prompt += 1;
    tape.append_event_at(start().plus(HOUR * 3000), reused);
    assert_eq!(counted(&cluster, &tape, 0, 2).await, 2);
    let flush = tape.flush(&cluster.another(), 2, 4).await;
    let tallies = flush.tallies;
    assert_eq!((tallies.counted, tallies.duplicates, tallies.dead_letters), (0, 1, 1));
}

#[tokio::test]
async fn what_an_attempt_without_commit_stored_repeats_nothing() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    let mut told = event(user(1), "a");
    told.occurred_at = start().minus(HOUR * 100);
    tape.append_event_at(start(), told);
    let cut_off = cluster.another();
    let flush = tape.flush(&cut_off, 0, 1).await;
    cluster.postgres("ALTER TABLE usage_statistics RENAME TO away").await;
    cut_off.commit(flush).await.unwrap_err();
    cluster.postgres("ALTER TABLE away RENAME TO usage_statistics").await;
    assert_eq!(counted(&cluster, &tape, 0, 1).await, 1);
}

#[tokio::test]
async fn a_shorter_horizon_holds_from_its_tick_on_for_everybody() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    tape.append_event_at(start(), timeless("a"));
    tape.append_event_at(start().plus(HOUR * 2), timeless("a"));
    tape.append_at(start().plus(HOUR * 3), tick(HOUR));
    tape.append_event_at(start().plus(HOUR * 4), timeless("a"));
    assert_eq!(counted(&cluster, &tape, 0, 2).await, 1);
    assert_eq!(counted(&cluster, &tape, 2, 4).await, 1);
    let cursor = cluster.another().take_over(PARTITION).await.unwrap();
    assert_eq!(cursor.horizon, Horizon::Within(HOUR));
}

#[tokio::test]
async fn a_longer_horizon_is_loaded_before_it_holds() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    tape.append_event_at(start(), timeless("a"));
    tape.append_at(start().plus(HOUR), tick(HOUR));
    tape.append_event_at(start().plus(HOUR * 5), timeless("b"));
    tape.append_at(start().plus(HOUR * 6), tick(HOUR * 10));
    tape.append_event_at(start().plus(HOUR * 7), timeless("a"));
    assert_eq!(counted(&cluster, &tape, 0, 3).await, 2);
    // So little memory that a take-over loads no more than it must.
    let little = LedgerSettings { duplicate_memory_bytes: 1, ..settings() };
    assert_eq!(counted_by(&cluster.another_with(little), &tape, 3, 5).await, 0);
}

#[tokio::test]
async fn a_full_memory_bears_a_shorter_horizon_and_an_empty_one_the_longest() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    let minutes = 200;
    for minute in 0..minutes {
        let log_time = start().plus(Duration::from_secs(60) * minute);
        tape.append_event_at(log_time, timeless(&format!("event {minute}")));
    }
    // Room for 100 ids.
    let little = LedgerSettings { duplicate_memory_bytes: 100 * 40, ..settings() };
    let ledger = cluster.another_with(little);
    assert_eq!(counted_by(&ledger, &tape, 0, 50).await, 50);
    let longest = Horizon::Within(HORIZON_MAX);
    assert_eq!(ledger.horizon(PARTITION, longest), longest);
    assert_eq!(counted_by(&ledger, &tape, 50, 200).await, 150);
    let Horizon::Within(bearable) = ledger.horizon(PARTITION, longest) else { panic!() };
    // Three quarters of the 199 minutes that it reaches.
    assert_eq!(bearable, Duration::from_secs(199 * 60 * 3 / 4));
    let end = start().plus(Duration::from_secs(60) * minutes);
    tape.append_at(end, tick(HOUR / 2));
    tape.append_event_at(end, timeless("last"));
    tape.append_event_at(end, timeless("event 190"));
    assert_eq!(counted_by(&ledger, &tape, 200, 203).await, 1);
    // What is forgotten leaves room: this is bearable now.
    let half = Horizon::Within(HOUR / 2);
    assert_eq!(ledger.horizon(PARTITION, half), half);
    // A process with more memory loads more, and bears the longest one again.
    let rich = cluster.another();
    rich.take_over(PARTITION).await.unwrap();
    assert_eq!(rich.horizon(PARTITION, half), longest);
}

#[tokio::test]
async fn records_elsewhere_than_at_the_cursor_are_not_answered_for() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    tape.append(timeless("a"));
    tape.append(timeless("b"));
    let (ledger, longest) = (cluster.ledger(), Horizon::Within(HORIZON_MAX));
    // Never taken over.
    ledger.seen(PARTITION, longest, &tape.records).await.unwrap_err();
    ledger.take_over(PARTITION).await.unwrap();
    ledger.seen(PARTITION, longest, &tape.records[1..]).await.unwrap_err();
    assert!(ledger.seen(PARTITION, longest, &tape.records).await.unwrap().is_empty());
    ledger.release(PARTITION);
    ledger.seen(PARTITION, longest, &tape.records).await.unwrap_err();
}
