//! The rules of the port `LedgerLookup`.

use std::collections::HashSet;

use metering::usage::{LedgerLookup, Offset, Payload, UsageLedger};

use super::counting::{
    Log, OCTOBER, Subject, chat, counted, event, key, occurred, period, tokens, user,
};

macro_rules! ledger_lookup_contract {
    ($make:expr) => {
        rules!(
            ledger_lookup,
            ledger_lookup_rules,
            $make,
            [
                nothing_is_known_of_an_empty_ledger,
                a_counted_event_is_known_with_its_place_and_content,
                the_same_id_of_another_user_is_another_event,
                answers_come_in_the_order_asked,
                a_question_may_be_as_large_as_many_requests,
                a_reused_id_is_known_with_the_first_content,
                a_retry_is_known_at_its_first_place,
                whatever_was_committed_is_known_at_once,
                known_says_how_far_it_looked,
                whoever_sees_a_cursor_in_totals_finds_what_lies_below_it,
                who_has_nothing_has_zero,
                totals_of_many_users_stand_at_one_cursor,
            ]
        );
    };
}

pub(crate) async fn nothing_is_known_of_an_empty_ledger(subject: &impl Subject) {
    let ledger = subject.ledger();
    let known = ledger.known(&[key(&event(user(1), "a"))]).await.unwrap();
    assert_eq!((known.cursor, known.found), (Offset::default(), vec![None]));
    let known = ledger.known(&[]).await.unwrap();
    assert_eq!(known.found, []);
}

pub(crate) async fn a_counted_event_is_known_with_its_place_and_content(subject: &impl Subject) {
    let (ledger, first) = (subject.ledger(), event(user(1), "a"));
    counted(&*ledger, [event(user(2), "b"), first.clone()]).await;
    let known = ledger.known(&[key(&first)]).await.unwrap().found[0].unwrap();
    assert_eq!(known.offset, Offset::new(1));
    assert_eq!(known.content, first.content_digest());
}

pub(crate) async fn the_same_id_of_another_user_is_another_event(subject: &impl Subject) {
    let ledger = subject.ledger();
    counted(&*ledger, [event(user(1), "a")]).await;
    assert_eq!(ledger.known(&[key(&event(user(2), "a"))]).await.unwrap().found, [None]);
}

pub(crate) async fn answers_come_in_the_order_asked(subject: &impl Subject) {
    let ledger = subject.ledger();
    let events: Vec<_> = (0..20).map(|n| event(user(n % 3), &format!("event {n}"))).collect();
    counted(&*ledger, events.clone()).await;
    let mut asked: Vec<_> = events.iter().rev().map(key).collect();
    asked.insert(7, key(&event(user(1), "never")));
    let found = ledger.known(&asked).await.unwrap().found;
    let offsets: Vec<_> = found.iter().map(|known| known.map(|k| k.offset.number())).collect();
    let mut expected: Vec<_> = (0..20).rev().map(Some).collect();
    expected.insert(7, None);
    assert_eq!(offsets, expected);
}

pub(crate) async fn a_question_may_be_as_large_as_many_requests(subject: &impl Subject) {
    let ledger = subject.ledger();
    let events: Vec<_> = (0..10_000).map(|n| event(user(1), &format!("event {n}"))).collect();
    // Every 999th, and so from all over the question.
    counted(&*ledger, events.iter().step_by(999).cloned()).await;
    let asked: Vec<_> = events.iter().map(key).collect();
    let found = ledger.known(&asked).await.unwrap().found;
    let known: Vec<_> = (0..10_000).filter(|n| found[*n].is_some()).collect();
    assert_eq!(known, (0..10_000).step_by(999).collect::<Vec<_>>());
}

pub(crate) async fn a_reused_id_is_known_with_the_first_content(subject: &impl Subject) {
    let (ledger, first) = (subject.ledger(), event(user(1), "a"));
    let mut log = counted(&*ledger, [first.clone()]).await;
    log.append(tokens(first.clone(), 5, 5));
    log.count(&*ledger).await.unwrap();
    let known = ledger.known(&[key(&first)]).await.unwrap();
    assert_eq!(known.found[0].unwrap().content, first.content_digest());
    assert_eq!(known.cursor, Offset::new(2));
}

pub(crate) async fn a_retry_is_known_at_its_first_place(subject: &impl Subject) {
    let ledger = subject.ledger();
    let mut log = counted(&*ledger, [event(user(1), "a")]).await;
    log.append(occurred(event(user(1), "a"), "2026-10-20T00:00:00Z"));
    log.count(&*ledger).await.unwrap();
    let known = ledger.known(&[key(&event(user(1), "a"))]).await.unwrap();
    assert_eq!(known.found[0].unwrap().offset, Offset::default());
}

pub(crate) async fn whatever_was_committed_is_known_at_once(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    for flush in 0..30 {
        let events: Vec<_> =
            (0..40).map(|n| event(user(1), &format!("event {flush} {n}"))).collect();
        for event in &events {
            log.append(event.clone());
        }
        let committed = log.count(&*ledger).await.unwrap();
        let asked: Vec<_> = events.iter().map(key).collect();
        let known = ledger.known(&asked).await.unwrap();
        assert!(known.found.iter().all(Option::is_some), "flush {flush}");
        assert!(known.cursor >= committed.cursor.position);
    }
}

pub(crate) async fn known_says_how_far_it_looked(subject: &impl Subject) {
    let ledger = subject.ledger();
    let mut log = counted(&*ledger, [event(user(1), "a")]).await;
    log.append_payload(Payload::Undecodable { bytes: vec![1], reason: "no record".into() });
    log.count(&*ledger).await.unwrap();
    let known = ledger.known(&[key(&event(user(1), "b"))]).await.unwrap();
    assert_eq!(known.cursor, Offset::new(2));
}

/// The door relies on it: an event admitted at the cursor of `totals` was looked up below it.
pub(crate) async fn whoever_sees_a_cursor_in_totals_finds_what_lies_below_it(
    subject: &impl Subject,
) {
    let ledger = subject.ledger();
    let writing = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            let mut log = Log::default();
            for number in 0..60 {
                log.append(event(user(1), &format!("event {number}")));
                log.count(&*ledger).await.unwrap();
            }
        }
    });
    let mut seen = HashSet::new();
    while seen.insert(writing.is_finished()) || !writing.is_finished() {
        let at = ledger.totals(&[(user(1), period(OCTOBER))]).await.unwrap()[0];
        let counted = at.cursor.number();
        assert_eq!(at.totals, chat(120 * counted, counted));
        let asked: Vec<_> =
            (0..counted).map(|n| key(&event(user(1), &format!("event {n}")))).collect();
        let known = ledger.known(&asked).await.unwrap();
        assert!(known.cursor >= at.cursor);
        assert!(known.found.iter().all(Option::is_some));
    }
    writing.await.unwrap();
}

pub(crate) async fn who_has_nothing_has_zero(subject: &impl Subject) {
    let ledger = subject.ledger();
    counted(&*ledger, [event(user(1), "a")]).await;
    let asked = [(user(2), period(OCTOBER)), (user(1), period("2026-11"))];
    let found = ledger.totals(&asked).await.unwrap();
    assert_eq!([found[0].totals, found[1].totals], [chat(0, 0), chat(0, 0)]);
}

pub(crate) async fn totals_of_many_users_stand_at_one_cursor(subject: &impl Subject) {
    let (ledger, mut log) = (subject.ledger(), Log::default());
    for number in 0..200 {
        log.append(event(user(number), "a"));
    }
    log.count(&*ledger).await.unwrap();
    let asked: Vec<_> = (0..=200).map(|number| (user(number), period(OCTOBER))).collect();
    let found = ledger.totals(&asked).await.unwrap();
    assert!(found.iter().all(|at| at.cursor == log.end()));
    assert!(found[..200].iter().all(|at| at.totals == chat(120, 1)));
    assert_eq!(found[200].totals, chat(0, 0));
    assert_eq!(ledger.take_over(super::counting::PARTITION).await.unwrap().position, log.end());
}
