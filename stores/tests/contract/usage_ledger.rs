//! The rules of the port `UsageLedger`.

use metering::quota::UserTotals;
use metering::time::Timestamp;
use metering::usage::{CommitError, LedgerLookup, Offset, Payload, RequestType, UsageLedger};

use super::counting::{
    Log, OCTOBER, PARTITION, Subject, chat, event, key, occurred, of, period, tokens, user,
};

macro_rules! usage_ledger_contract {
    ($make:expr) => {
        rules!(
            usage_ledger,
            usage_ledger_rules,
            $make,
            [
                a_partition_never_seen_starts_at_zero,
                a_commit_moves_the_cursor_to_the_end_of_its_range,
                a_commit_answers_the_new_totals_of_its_users,
                totals_are_kept_by_month_and_request_type,
                a_repeated_flush_is_lost_and_changes_nothing,
                a_flush_with_a_gap_before_it_is_lost,
                of_two_commits_of_one_range_one_wins,
                a_duplicate_moves_the_cursor_and_no_total,
                a_flush_of_duplicates_alone_keeps_all_totals,
                the_log_time_never_steps_back,
                a_sum_that_leaves_64_bits_is_refused_whole,
                everything_is_there_when_the_ledger_is_opened_again,
                taking_over_again_changes_nothing,
            ]
        );
    };
}

pub(crate) async fn a_partition_never_seen_starts_at_zero(subject: &impl Subject) {
    let cursor = subject.ledger().take_over(PARTITION).await.unwrap();
    assert_eq!(cursor.partition, PARTITION);
    assert_eq!(cursor.position, Offset::default());
    assert_eq!(cursor.log_time, Timestamp::MIN);
}

pub(crate) async fn a_commit_moves_the_cursor_to_the_end_of_its_range(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    log.append(event(user(1), "a"));
    log.append(event(user(1), "b"));
    let committed = log.count(&*ledger).await.unwrap();
    assert_eq!(committed.cursor.position, Offset::new(2));
    assert_eq!(committed.cursor.log_time, Log::time(1));
    assert_eq!(ledger.take_over(PARTITION).await.unwrap(), committed.cursor);
}

pub(crate) async fn a_commit_answers_the_new_totals_of_its_users(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    log.append(event(user(1), "a"));
    log.append(event(user(2), "a"));
    log.count(&*ledger).await.unwrap();
    log.append(event(user(1), "b"));
    log.append(event(user(1), "c"));
    let committed = log.count(&*ledger).await.unwrap();
    let new = UserTotals { user_id: user(1), period: period(OCTOBER), totals: chat(360, 3) };
    assert_eq!(committed.totals, [new]);
}

pub(crate) async fn totals_are_kept_by_month_and_request_type(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    let checked = of(event(user(1), "b"), RequestType::Plagiarism, "gpt-4");
    log.append(occurred(event(user(1), "a"), "2026-09-30T23:59:59.999Z"));
    log.append(occurred(checked, "2026-10-01T00:00:00Z"));
    log.count(&*ledger).await.unwrap();
    let months = ["2026-09", "2026-10", "2026-11"].map(|month| (user(1), period(month)));
    let totals = ledger.totals(&months).await.unwrap();
    let totals: Vec<_> = totals.into_iter().map(|at| at.totals).collect();
    assert_eq!(totals[0], chat(120, 1));
    assert_eq!((totals[1].tokens, totals[1].requests), (120, [0, 1, 0]));
    assert_eq!(totals[2], chat(0, 0));
}

pub(crate) async fn a_repeated_flush_is_lost_and_changes_nothing(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    log.append(event(user(1), "a"));
    ledger.take_over(PARTITION).await.unwrap();
    let flush = log.flush(&*ledger).await;
    ledger.commit(flush.clone()).await.unwrap();
    let again = ledger.commit(flush).await.unwrap_err();
    let CommitError::Lost { partition, expected, found } = again else { panic!("{again}") };
    assert_eq!((partition, expected, found), (PARTITION, Offset::default(), Offset::new(1)));
    let at = ledger.totals(&[(user(1), period(OCTOBER))]).await.unwrap()[0];
    assert_eq!((at.cursor, at.totals), (Offset::new(1), chat(120, 1)));
}

pub(crate) async fn a_flush_with_a_gap_before_it_is_lost(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    log.append(event(user(1), "a"));
    log.count(&*ledger).await.unwrap();
    log.append(event(user(1), "b"));
    let mut flush = log.flush(&*ledger).await;
    flush.range.start = flush.range.start.plus(1);
    flush.range.end = flush.range.end.plus(1);
    let lost = ledger.commit(flush).await.unwrap_err();
    assert!(matches!(lost, CommitError::Lost { .. }), "{lost}");
    let known = ledger.known(&[key(&event(user(1), "b"))]).await.unwrap();
    assert_eq!((known.cursor, known.found), (Offset::new(1), vec![None]));
}

pub(crate) async fn of_two_commits_of_one_range_one_wins(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    for number in 0..50 {
        log.append(event(user(1), &format!("event {number}")));
    }
    ledger.take_over(PARTITION).await.unwrap();
    let flush = log.flush(&*ledger).await;
    let mut commits = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (ledger, flush) = (ledger.clone(), flush.clone());
        commits.spawn(async move { ledger.commit(flush).await });
    }
    let won = commits.join_all().await.iter().filter(|commit| commit.is_ok()).count();
    assert_eq!(won, 1);
    let at = ledger.totals(&[(user(1), period(OCTOBER))]).await.unwrap()[0];
    assert_eq!(at.totals, chat(50 * 120, 50));
}

pub(crate) async fn a_duplicate_moves_the_cursor_and_no_total(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    log.append(event(user(1), "a"));
    log.append(event(user(1), "a"));
    let committed = log.count(&*ledger).await.unwrap();
    assert_eq!(committed.cursor.position, Offset::new(2));
    assert_eq!(committed.totals[0].totals, chat(120, 1));
}

pub(crate) async fn a_flush_of_duplicates_alone_keeps_all_totals(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    log.append(event(user(1), "a"));
    log.count(&*ledger).await.unwrap();
    log.append(event(user(1), "a"));
    let committed = log.count(&*ledger).await.unwrap();
    assert_eq!(committed.cursor.position, Offset::new(2));
    assert_eq!(committed.totals, []);
    let at = ledger.totals(&[(user(1), period(OCTOBER))]).await.unwrap()[0];
    assert_eq!(at.totals, chat(120, 1));
}

pub(crate) async fn the_log_time_never_steps_back(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    log.append(event(user(1), "a"));
    let first = log.count(&*ledger).await.unwrap();
    log.append_payload(Payload::Undecodable { bytes: vec![0xff], reason: "no record".into() });
    let mut flush = log.flush(&*ledger).await;
    flush.log_time = Timestamp::from_millis(first.cursor.log_time.as_millis() - 4000);
    let second = ledger.commit(flush).await.unwrap();
    assert_eq!(second.cursor.log_time, first.cursor.log_time);
}

pub(crate) async fn a_sum_that_leaves_64_bits_is_refused_whole(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    log.append(tokens(event(user(1), "a"), 1_000_000_000, 0));
    log.count(&*ledger).await.unwrap();
    log.append(event(user(1), "b"));
    let mut flush = log.flush(&*ledger).await;
    flush.statistics.values_mut().for_each(|totals| totals.tokens = u64::MAX - 5);
    let refused = ledger.commit(flush).await.unwrap_err();
    assert!(matches!(refused, CommitError::Unavailable(_)), "{refused}");
    let cursor = ledger.take_over(PARTITION).await.unwrap();
    assert_eq!(cursor.position, Offset::new(1));
    let known = ledger.known(&[key(&event(user(1), "b"))]).await.unwrap();
    assert_eq!(known.found, [None]);
    // Nothing of it stands in the way of the true flush.
    let committed = log.count(&*ledger).await.unwrap();
    assert_eq!(committed.totals[0].totals, chat(1_000_000_120, 2));
}

pub(crate) async fn everything_is_there_when_the_ledger_is_opened_again(subject: &impl Subject) {
    let mut log = Log::default();
    log.append(event(user(1), "a"));
    let committed = log.count(&*subject.ledger()).await.unwrap();
    subject.reopen();
    let ledger = subject.ledger();
    assert_eq!(ledger.take_over(PARTITION).await.unwrap(), committed.cursor);
    let at = ledger.totals(&[(user(1), period(OCTOBER))]).await.unwrap()[0];
    assert_eq!((at.cursor, at.totals), (Offset::new(1), chat(120, 1)));
    let known = ledger.known(&[key(&event(user(1), "a"))]).await.unwrap();
    assert_eq!(known.found[0].map(|event| event.offset), Some(Offset::default()));
}

pub(crate) async fn taking_over_again_changes_nothing(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    log.append(event(user(1), "a"));
    let committed = log.count(&*ledger).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ledger.take_over(PARTITION).await.unwrap(), committed.cursor);
    }
}
