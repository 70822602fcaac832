//! Commits that are cut off, and owners that do not know that they are none any more.

use std::time::Duration;

use metering::time::Timestamp;
use metering::usage::{
    CommitError, HistoryQuery, LedgerLookup, Offset, Partition, UsageLedger, UsageReports,
};
use stores::cluster_ledger::LedgerSettings;

use super::{Cluster, Tape, fresh, fresh_with, settings, user_of};
use crate::contract::counting::{
    OCTOBER, PARTITION, Subject, chat, event, key, occurred, period, user, with_metadata,
};

const BREAK: &str = "ALTER TABLE usage_statistics RENAME TO away";
const MEND: &str = "ALTER TABLE away RENAME TO usage_statistics";

fn seven() -> Tape {
    let mut tape = Tape::new(PARTITION);
    for number in 0..7 {
        let one = event(user(number % 2), &format!("event {number}"));
        tape.append(occurred(
            one,
            ["2026-10-14T10:00:00Z", "2026-10-15T11:00:00Z"][usize::from(number / 2 % 2)],
        ));
    }
    tape
}

/// Two events in each of two partitions.
fn tapes_of_two() -> [Tape; 2] {
    [0, 1].map(|number| {
        let mut tape = Tape::new(Partition::new(number));
        for id in ["a", "b"] {
            tape.append(event(user_of(tape.partition, 2), id));
        }
        tape
    })
}

/// A commit of the records `0..to` whose rows are stored, but which does not reach its COMMIT.
async fn cut_off(cluster: &Cluster, tape: &Tape, to: usize) {
    let killed = cluster.another();
    let flush = tape.flush(&killed, 0, to).await;
    cluster.postgres(BREAK).await;
    let failed = killed.commit(flush).await.unwrap_err();
    assert!(matches!(failed, CommitError::Unavailable(_)), "{failed}");
    cluster.postgres(MEND).await;
}

fn history_of(number: u8) -> HistoryQuery {
    HistoryQuery {
        user_id: user(number),
        from: None,
        to: None,
        model: None,
        request_type: None,
        after: None,
        rows_max: 1000,
    }
}

#[tokio::test]
async fn what_was_stored_without_a_commit_is_not_counted() {
    let cluster = fresh().await.store;
    cut_off(&cluster, &seven(), 7).await;
    assert_eq!(cluster.clickhouse("SELECT count() FROM token_usage").await, 7);
    let ledger = cluster.ledger();
    let known = ledger.known(&[key(&event(user(0), "event 0"))]).await.unwrap();
    assert_eq!((known.cursor, known.found), (Offset::default(), vec![None]));
    assert_eq!(ledger.history(&history_of(0)).await.unwrap(), []);
    let totals = ledger.totals(&[(user(0), period(OCTOBER))]).await.unwrap()[0];
    assert_eq!(totals.totals, chat(0, 0));
}

#[tokio::test]
async fn a_commit_that_was_cut_off_is_made_again_with_any_other_cuts() {
    for cuts in [vec![7], vec![3, 7], vec![1, 2, 6, 7]] {
        for stored in [2, 5, 7] {
            let (cluster, tape) = (fresh().await.store, seven());
            cut_off(&cluster, &tape, stored).await;
            let (ledger, mut from) = (cluster.another(), 0);
            for to in &cuts {
                tape.count(&ledger, from, *to).await.unwrap();
                from = *to;
            }
            cluster.balances(7).await;
            let rows = ledger.history(&history_of(0)).await.unwrap();
            assert_eq!(rows.len(), 4, "{stored} stored, cuts {cuts:?}");
        }
    }
}

#[tokio::test]
async fn of_a_log_that_is_gone_what_a_commit_had_stored_before_it_was_cut_off_is_counted() {
    let slim = ["token_usage_log", "token_usage_ids"];
    let summaries = ["token_usage_summary", "token_usage_hourly"];
    // What was not stored yet, and how many events are left.
    let cases: [(Vec<&str>, u64); 4] = [
        (vec![], 7),
        (summaries.to_vec(), 7),
        ([slim, summaries].concat(), 7),
        ([vec!["token_usage"], summaries.to_vec()].concat(), 0),
    ];
    for (missing, left) in cases {
        let (cluster, mut tape) = (fresh().await.store, seven());
        cut_off(&cluster, &tape, 7).await;
        for table in &missing {
            cluster.clickhouse.execute(&format!("TRUNCATE TABLE {table}")).await;
        }
        let ledger = cluster.another_with(LedgerSettings { generation: 1, ..settings() });
        assert_eq!(ledger.start_generation().await.unwrap(), 1);
        cluster.balances(left).await;
        let known = ledger.known(&[key(&event(user(0), "event 0"))]).await.unwrap();
        assert_eq!(known.found[0].is_some(), left > 0, "{missing:?}");
        // Whoever sends them again is counted once.
        tape.move_to(1 << 48);
        let committed = tape.count(&ledger, 0, 7).await.unwrap();
        assert_eq!(committed.cursor.position, Offset::new((1 << 48) + 7));
        cluster.balances(7).await;
    }
}

#[tokio::test]
async fn a_commit_in_doubt_needs_a_take_over_and_then_goes_on() {
    let (cluster, tape) = (fresh().await.store, seven());
    let ledger = cluster.ledger();
    tape.count(&ledger, 0, 2).await.unwrap();
    let flush = tape.flush(&ledger, 2, 5).await;
    cluster.postgres(BREAK).await;
    ledger.commit(flush.clone()).await.unwrap_err();
    cluster.postgres(MEND).await;
    // Nobody knows where it stands until it is taken over.
    let refused = ledger.commit(flush).await.unwrap_err();
    assert!(matches!(refused, CommitError::Unavailable(_)), "{refused}");
    tape.count(&ledger, 2, 7).await.unwrap();
    cluster.balances(7).await;
}

#[tokio::test]
async fn an_owner_that_was_deposed_changes_nothing() {
    let (cluster, tape) = (fresh().await.store, seven());
    let (old, new) = (cluster.ledger(), cluster.another());
    tape.count(&old, 0, 1).await.unwrap();
    let late = tape.flush(&old, 1, 7).await;
    tape.count(&new, 1, 4).await.unwrap();
    let lost = old.commit(late).await.unwrap_err();
    let CommitError::Lost { found, .. } = lost else { panic!("{lost}") };
    assert_eq!(found, Offset::new(4));
    // Its rows lie above the cursor, its summaries run ahead: the same rows, written again.
    cluster.balances(4).await;
    tape.count(&new, 4, 6).await.unwrap();
    tape.count(&new, 6, 7).await.unwrap();
    cluster.balances(7).await;
}

#[tokio::test]
async fn partitions_commit_together_and_each_for_itself() {
    let four = LedgerSettings { partitions: 4.try_into().unwrap(), ..settings() };
    let cluster = fresh_with(four).await.store;
    let (ledger, other) = (cluster.ledger(), cluster.another());
    let tapes: Vec<_> = (0..4)
        .map(|number| {
            let mut tape = Tape::new(Partition::new(number));
            for id in ["a", "b", "c"] {
                tape.append(event(user_of(tape.partition, 4), id));
            }
            tape
        })
        .collect();
    let mut flushes = Vec::new();
    for tape in &tapes {
        flushes.push(tape.flush(&ledger, 0, 2).await);
    }
    // One of them is counted elsewhere meanwhile.
    tapes[1].count(&other, 0, 1).await.unwrap();
    let commits = flushes.into_iter().map(|flush| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.commit(flush).await })
    });
    let commits: Vec<_> = commits.collect();
    for (number, commit) in commits.into_iter().enumerate() {
        match commit.await.unwrap() {
            Ok(committed) => {
                assert_ne!(number, 1);
                assert_eq!(committed.cursor.position, Offset::new(2));
                assert_eq!(committed.totals[0].totals, chat(240, 2));
            }
            Err(lost) => {
                assert_eq!(number, 1, "{lost}");
                assert!(matches!(lost, CommitError::Lost { .. }), "{lost}");
            }
        }
    }
    cluster.balances(7).await;
    let asked: Vec<_> =
        tapes.iter().map(|tape| (user_of(tape.partition, 4), period(OCTOBER))).collect();
    let cursors: Vec<_> =
        ledger.totals(&asked).await.unwrap().iter().map(|at| at.cursor.number()).collect();
    assert_eq!(cursors, [2, 1, 2, 2]);
}

#[tokio::test]
async fn a_commit_waits_a_moment_for_those_that_are_under_way() {
    let two = LedgerSettings { partitions: 2.try_into().unwrap(), ..settings() };
    let cluster = fresh_with(two).await.store;
    let ledger = cluster.ledger();
    let tapes = tapes_of_two();
    let commit = |flush| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.commit(flush).await })
    };
    let flushes = [tapes[0].flush(&ledger, 0, 1).await, tapes[1].flush(&ledger, 0, 1).await];
    let [first, second] = flushes;
    let first = commit(first);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(!first.is_finished());
    for commit in [first, commit(second)] {
        commit.await.unwrap().unwrap();
    }
    // The other one never comes.
    let flushes = [tapes[0].flush(&ledger, 1, 2).await, tapes[1].flush(&ledger, 1, 2).await];
    let [alone, _] = flushes;
    commit(alone).await.unwrap().unwrap();
    cluster.balances(3).await;
}

#[tokio::test]
async fn one_partition_that_cannot_be_committed_does_not_hold_up_the_others() {
    let two = LedgerSettings { partitions: 2.try_into().unwrap(), ..settings() };
    let cluster = fresh_with(two).await.store;
    let ledger = cluster.ledger();
    let tapes = tapes_of_two();
    for tape in &tapes {
        tape.count(&ledger, 0, 1).await.unwrap();
    }
    let full = format!(
        "UPDATE usage_statistics SET tokens = 9223372036854775807 WHERE user_id = '{}'",
        user_of(tapes[0].partition, 2)
    );
    cluster.postgres(&full).await;
    let flushes = [tapes[0].flush(&ledger, 1, 2).await, tapes[1].flush(&ledger, 1, 2).await];
    let [bad, good] = flushes.map(|flush| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.commit(flush).await })
    });
    let refused = bad.await.unwrap().unwrap_err();
    assert!(matches!(refused, CommitError::Unavailable(_)), "{refused}");
    assert_eq!(good.await.unwrap().unwrap().totals[0].totals, chat(240, 2));
}

#[tokio::test]
async fn metadata_of_a_commit_that_was_cut_off_is_erased_too() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    tape.append(with_metadata(event(user(1), "a"), "{\"secret\":1}"));
    tape.append(with_metadata(event(user(2), "b"), "{\"secret\":2}"));
    // A row that a deposed owner wrote, and nobody has passed over since.
    let late = cluster.another();
    let flush = tape.flush(&late, 0, 2).await;
    cluster.postgres(BREAK).await;
    cluster.ledger().erase_metadata(user(1)).await.unwrap();
    late.commit(flush).await.unwrap_err();
    cluster.postgres(MEND).await;
    tape.count(&cluster.another(), 0, 2).await.unwrap();
    let told = "SELECT count() FROM token_usage WHERE metadata != ''";
    let secrets = "SELECT count() FROM token_usage WHERE metadata LIKE '%:1}'";
    assert_eq!(cluster.clickhouse(secrets).await, 0);
    assert!(cluster.clickhouse(told).await > 0);
    cluster.balances(2).await;
}

#[tokio::test]
async fn a_flush_above_the_limits_of_both_stores_is_cut() {
    let (cluster, mut tape) = (fresh().await.store, Tape::new(PARTITION));
    let events = 101_000_u32;
    for number in 0..events {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&(number % 11_000).to_be_bytes());
        let user = metering::accounts::UserId::from_bytes(bytes);
        tape.append_event_at(
            Timestamp::from_millis(1_792_000_000_000),
            event(user, &number.to_string()),
        );
    }
    let ledger = cluster.ledger();
    let committed = tape.count(&ledger, 0, tape.records.len()).await.unwrap();
    assert_eq!(committed.totals.len(), 11_000);
    cluster.balances(events.into()).await;
    let asked: Vec<_> = (0..events)
        .map(|number| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&(number % 11_000).to_be_bytes());
            key(&event(metering::accounts::UserId::from_bytes(bytes), &number.to_string()))
        })
        .take(8000)
        .collect();
    let known = ledger.known(&asked).await.unwrap();
    assert!(known.found.iter().all(Option::is_some));
}
