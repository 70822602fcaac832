//! The rules of the ports `Books` and `DeadLetters`.

use metering::usage::{
    Books, DeadLetters, Offset, OffsetRange, PartitionBook, Payload, RawBook, Tallies, UsageReports,
};

use super::counting::{
    Log, PARTITION, Subject, admitted, at, event, occurred, tokens, user, with_metadata,
};

/// A ledger that can be asked everything reconciliation asks.
pub(crate) trait Kept: Books + DeadLetters + UsageReports {}
impl<L: Books + DeadLetters + UsageReports> Kept for L {}

macro_rules! books_contract {
    ($make:expr) => {
        rules!(
            books,
            books_rules,
            $make,
            [
                the_books_of_nothing_balance,
                every_record_of_the_range_is_in_one_tally,
                stored_events_and_statistics_agree,
                summaries_and_statistics_agree_with_the_events,
                repair_of_what_is_right_changes_nothing,
                dead_letters_are_listed_in_the_order_of_the_log,
                a_replayed_letter_says_when,
                erasing_a_user_reaches_their_dead_letters,
            ]
        );
    };
}

pub(crate) async fn the_books_of_nothing_balance(subject: &impl Subject<Ledger: Kept>) {
    let ledger = subject.ledger();
    assert_eq!(ledger.raw().await.unwrap(), RawBook::default());
    assert_eq!(ledger.summaries().await.unwrap(), (0, vec![]));
    assert_eq!(ledger.statistics().await.unwrap(), (0, vec![]));
    assert_eq!(ledger.list().await.unwrap(), []);
}

/// Four counted events, two duplicates, a reused id and an undecodable record, in two flushes.
async fn mixed(subject: &impl Subject<Ledger: Kept>) {
    let mut log = Log::default();
    log.append(event(user(1), "a"));
    log.append(event(user(1), "a"));
    log.append(occurred(event(user(2), "b"), "2026-09-30T23:59:59Z"));
    log.append_payload(Payload::Undecodable { bytes: vec![1, 2, 3], reason: "odd".into() });
    log.count(&*subject.ledger()).await.unwrap();
    log.append(tokens(with_metadata(event(user(1), "a"), "{\"secret\":1}"), 9, 9));
    log.append(event(user(1), "c"));
    log.append(event(user(1), "a"));
    log.append(event(user(3), "d"));
    log.count(&*subject.ledger()).await.unwrap();
}

pub(crate) async fn every_record_of_the_range_is_in_one_tally(
    subject: &impl Subject<Ledger: Kept>,
) {
    mixed(subject).await;
    let book = PartitionBook {
        partition: PARTITION,
        range: OffsetRange { start: Offset::new(0), end: Offset::new(8) },
        tallies: Tallies { counted: 4, duplicates: 2, dead_letters: 2, ..Tallies::default() },
    };
    assert_eq!(subject.ledger().partitions().await.unwrap(), [book]);
}

pub(crate) async fn stored_events_and_statistics_agree(subject: &impl Subject<Ledger: Kept>) {
    mixed(subject).await;
    let raw = subject.ledger().raw().await.unwrap();
    let tokens = 4 * 120;
    let balanced = RawBook { events: 4, tokens, statistics_tokens: tokens, statistics_requests: 4 };
    assert_eq!(raw, balanced);
}

pub(crate) async fn summaries_and_statistics_agree_with_the_events(
    subject: &impl Subject<Ledger: Kept>,
) {
    mixed(subject).await;
    // Daily: a and c are one row, b and d one each; hourly: b has an hour of its own.
    assert_eq!(subject.ledger().summaries().await.unwrap(), (3 + 2, vec![]));
    assert_eq!(subject.ledger().statistics().await.unwrap(), (3, vec![]));
}

pub(crate) async fn repair_of_what_is_right_changes_nothing(subject: &impl Subject<Ledger: Kept>) {
    mixed(subject).await;
    let ledger = subject.ledger();
    let month = at("2026-10-01T00:00:00Z");
    let before = ledger.monthly(user(1), metering::time::Period::of(month)).await.unwrap();
    ledger.repair().await.unwrap();
    assert_eq!(ledger.summaries().await.unwrap(), (5, vec![]));
    assert_eq!(ledger.statistics().await.unwrap(), (3, vec![]));
    let after = ledger.monthly(user(1), metering::time::Period::of(month)).await.unwrap();
    assert_eq!(after, before);
}

pub(crate) async fn dead_letters_are_listed_in_the_order_of_the_log(
    subject: &impl Subject<Ledger: Kept>,
) {
    mixed(subject).await;
    let letters = subject.ledger().list().await.unwrap();
    let [odd, reused] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(
        (odd.partition, odd.offset, odd.log_time),
        (PARTITION, Offset::new(3), Log::time(3))
    );
    assert_eq!((&*odd.reason, &*odd.detail, odd.bytes), ("undecodable", "odd", 3));
    assert_eq!((&odd.event, odd.replayed_at), (&None, None));
    assert_eq!((reused.offset, &*reused.reason), (Offset::new(4), "event_id_reused"));
    let told = with_metadata(event(user(1), "a"), "{\"secret\":1}");
    let mut entry = admitted(tokens(told, 9, 9), "free");
    entry.admitted_at = Log::time(4);
    assert_eq!(reused.event.as_deref(), Some(&entry));
}

pub(crate) async fn a_replayed_letter_says_when(subject: &impl Subject<Ledger: Kept>) {
    mixed(subject).await;
    let (ledger, now) = (subject.ledger(), at("2026-11-01T00:00:00Z"));
    ledger.replayed(PARTITION, Offset::new(4), now).await.unwrap();
    // One that is not there is passed over.
    ledger.replayed(PARTITION, Offset::new(5), now).await.unwrap();
    let times: Vec<_> =
        ledger.list().await.unwrap().iter().map(|letter| letter.replayed_at).collect();
    assert_eq!(times, [None, Some(now)]);
}

pub(crate) async fn erasing_a_user_reaches_their_dead_letters(
    subject: &impl Subject<Ledger: Kept>,
) {
    mixed(subject).await;
    let ledger = subject.ledger();
    let kept = |letters: Vec<metering::usage::ListedDeadLetter>| {
        letters[1].event.as_ref().unwrap().event.metadata.is_some()
    };
    ledger.erase_metadata(user(2)).await.unwrap();
    assert!(kept(ledger.list().await.unwrap()));
    ledger.erase_metadata(user(1)).await.unwrap();
    assert!(!kept(ledger.list().await.unwrap()));
}
