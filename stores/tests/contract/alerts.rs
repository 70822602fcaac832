//! The rules of the port `Alerts`, and of the commits that raise them.

use std::time::Duration;

use metering::accounts::UserId;
use metering::time::Timestamp;
use metering::usage::{
    Alert, AlertId, AlertQuery, Alerts, Attempt, CommitError, DeliveryState, ListedAlert, Meter,
    UsageLedger,
};

use super::counting::{Log, OCTOBER, PARTITION, Subject, event, occurred, period, tokens, user};

macro_rules! alerts_contract {
    ($make:expr) => {
        rules!(
            alerts,
            alerts_rules,
            $make,
            [
                a_commit_keeps_the_alerts_that_it_raises,
                an_alert_is_kept_once_and_as_it_was,
                a_flush_that_is_lost_raises_nothing,
                alerts_are_listed_newest_first_and_page_by_page,
                alerts_are_listed_by_user_and_by_state,
                what_is_taken_is_nobody_elses_until_then,
                of_two_who_take_at_once_each_gets_others,
                what_has_ended_is_not_sent_again,
                what_failed_is_due_again_when_it_was_said,
                only_what_was_given_up_is_retried,
                the_backlog_is_what_waits,
                everything_is_kept_when_the_ledger_is_opened_again,
            ]
        );
    };
}

/// A ledger with an outbox.
pub(crate) trait Kept: Alerts {}
impl<L: Alerts> Kept for L {}

/// All of them.
const ALL: AlertQuery = AlertQuery { user_id: None, state: None, after: None, rows_max: 1000 };

const MINUTE: Duration = Duration::from_secs(60);

async fn listed(subject: &impl Subject<Ledger: Kept>, query: AlertQuery) -> Vec<ListedAlert> {
    subject.ledger().alerts(&query).await.unwrap()
}

fn ids(alerts: &[ListedAlert]) -> Vec<AlertId> {
    alerts.iter().map(|listed| listed.alert.id()).collect()
}

/// One alert of 80 % for each of these users, on `free`, in a flush of their own each.
async fn raised(subject: &impl Subject<Ledger: Kept>, users: &[u8]) -> Log {
    let mut log = Log::with_alerts();
    for number in users {
        log.append(tokens(event(user(*number), "a"), 80_000, 0));
        assert_eq!(log.count(&*subject.ledger()).await.unwrap().alerts, 1);
    }
    log
}

/// Some time after the alerts of [`raised`].
fn later(minutes: u32) -> Timestamp {
    Log::time(1000).plus(MINUTE * minutes)
}

async fn take(
    subject: &impl Subject<Ledger: Kept>,
    now: Timestamp,
    alerts_max: usize,
) -> Vec<(UserId, u32)> {
    let taken = subject.ledger().take_due(now, now.plus(MINUTE), alerts_max).await.unwrap();
    taken.into_iter().map(|(alert, attempts)| (alert.user_id, attempts)).collect()
}

pub(crate) async fn a_commit_keeps_the_alerts_that_it_raises(subject: &impl Subject<Ledger: Kept>) {
    let (ledger, mut log) = (subject.ledger(), Log::with_alerts());
    log.append(tokens(event(user(1), "a"), 79_999, 0));
    log.append(tokens(event(user(2), "a"), 1, 0));
    assert_eq!(log.count(&*ledger).await.unwrap().alerts, 0);
    log.append(tokens(event(user(1), "b"), 1, 0));
    log.append(tokens(event(user(2), "b"), 99_999, 0));
    assert_eq!(log.count(&*ledger).await.unwrap().alerts, 4);
    let raised_at = Log::time(3);
    let expected = |of, percent, used| Alert {
        user_id: user(of),
        period: period(OCTOBER),
        plan: metering::quota::PlanName::new("free"),
        meter: Meter::Tokens,
        percent,
        limit: 100_000,
        used,
        raised_at,
    };
    let mut found = listed(subject, ALL).await;
    found.sort_by_key(|listed| (listed.alert.user_id, listed.alert.percent));
    let alerts: Vec<_> = found.iter().map(|listed| listed.alert.clone()).collect();
    let of_second = [80, 95, 100].map(|percent| expected(2, percent, 100_000));
    assert_eq!(alerts, [&[expected(1, 80, 80_000)], &of_second[..]].concat());
    for ListedAlert { delivery, .. } in found {
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Waiting, 0));
        assert_eq!((delivery.ended_at, delivery.last_error), (None, None));
    }
}

pub(crate) async fn an_alert_is_kept_once_and_as_it_was(subject: &impl Subject<Ledger: Kept>) {
    let mut log = raised(subject, &[1]).await;
    let before = listed(subject, ALL).await;
    log.append(tokens(event(user(1), "b"), 1000, 0));
    assert_eq!(log.count(&*subject.ledger()).await.unwrap().alerts, 0);
    assert_eq!(listed(subject, ALL).await, before);
    // Another month is another alert.
    let november = occurred(event(user(1), "c"), "2026-11-01T00:00:00Z");
    log.append(tokens(november, 80_000, 0));
    assert_eq!(log.count(&*subject.ledger()).await.unwrap().alerts, 1);
    assert_eq!(listed(subject, ALL).await.len(), 2);
}

pub(crate) async fn a_flush_that_is_lost_raises_nothing(subject: &impl Subject<Ledger: Kept>) {
    let mut log = raised(subject, &[1]).await;
    let ledger = subject.ledger();
    log.append(tokens(event(user(2), "a"), 80_000, 0));
    ledger.take_over(PARTITION).await.unwrap();
    let mut flush = log.flush(&*ledger).await;
    flush.range.start = flush.range.start.plus(1);
    flush.range.end = flush.range.end.plus(1);
    let lost = ledger.commit(flush).await.unwrap_err();
    assert!(matches!(lost, CommitError::Lost { .. }), "{lost}");
    assert_eq!(listed(subject, ALL).await.len(), 1);
}

pub(crate) async fn alerts_are_listed_newest_first_and_page_by_page(
    subject: &impl Subject<Ledger: Kept>,
) {
    let mut log = Log::with_alerts();
    for number in 1..=3 {
        // Two of the same time: the larger id stands first.
        log.append(tokens(event(user(number), "a"), 95_000, 0));
        log.count(&*subject.ledger()).await.unwrap();
    }
    let all = listed(subject, ALL).await;
    let position = |listed: &ListedAlert| (listed.alert.raised_at, listed.alert.id());
    assert_eq!(all.len(), 6);
    assert!(all.is_sorted_by(|one, next| position(one) > position(next)), "{all:?}");
    let (mut paged, mut query) = (Vec::new(), AlertQuery { rows_max: 2, ..ALL });
    for _ in 0..3 {
        paged.extend(listed(subject, query).await);
        query.after = paged.last().map(position);
    }
    assert_eq!(paged, all);
    assert_eq!(listed(subject, query).await, []);
}

pub(crate) async fn alerts_are_listed_by_user_and_by_state(subject: &impl Subject<Ledger: Kept>) {
    raised(subject, &[1, 2]).await;
    let all = listed(subject, ALL).await;
    let (second, first) = (all[0].alert.clone(), all[1].alert.clone());
    let sent = Attempt::Ended(DeliveryState::Sent, later(0), None);
    subject.ledger().note(first.id(), &sent).await.unwrap();
    let of = |user_id, state| listed(subject, AlertQuery { user_id, state, ..ALL });
    assert_eq!(ids(&of(Some(user(1)), None).await), [first.id()]);
    assert_eq!(ids(&of(Some(user(3)), None).await), []);
    assert_eq!(ids(&of(None, Some(DeliveryState::Sent)).await), [first.id()]);
    assert_eq!(ids(&of(None, Some(DeliveryState::Waiting)).await), [second.id()]);
    assert_eq!(ids(&of(Some(user(1)), Some(DeliveryState::Waiting)).await), []);
    assert_eq!(ids(&of(Some(user(1)), Some(DeliveryState::Sent)).await), [first.id()]);
}

pub(crate) async fn what_is_taken_is_nobody_elses_until_then(subject: &impl Subject<Ledger: Kept>) {
    raised(subject, &[1, 2]).await;
    // Not before they were raised.
    assert_eq!(take(subject, Log::time(0).minus(MINUTE), 9).await, []);
    assert_eq!(take(subject, later(0), 1).await, [(user(1), 1)]);
    assert_eq!(take(subject, later(0), 9).await, [(user(2), 1)]);
    assert_eq!(take(subject, later(0), 9).await, []);
    // Whoever took them has died.
    assert_eq!(take(subject, later(1), 9).await.len(), 2);
    assert_eq!(take(subject, later(2), 9).await.iter().map(|(_, n)| n).sum::<u32>(), 6);
}

pub(crate) async fn of_two_who_take_at_once_each_gets_others(subject: &impl Subject<Ledger: Kept>) {
    let users: Vec<u8> = (1..=20).collect();
    raised(subject, &users).await;
    let mut takers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let ledger = subject.ledger();
        takers.spawn(async move { ledger.take_due(later(0), later(1), 5).await.unwrap() });
    }
    let taken = takers.join_all().await.into_iter().flatten();
    let mut taken: Vec<_> = taken.map(|(alert, _)| alert.user_id).collect();
    // One that met another's row in the middle may have passed it over.
    let rest = subject.ledger().take_due(later(0), later(1), 99).await.unwrap();
    taken.extend(rest.into_iter().map(|(alert, _)| alert.user_id));
    taken.sort_unstable();
    assert_eq!(taken, users.into_iter().map(user).collect::<Vec<_>>());
}

pub(crate) async fn what_has_ended_is_not_sent_again(subject: &impl Subject<Ledger: Kept>) {
    raised(subject, &[1]).await;
    let (ledger, id) = (subject.ledger(), listed(subject, ALL).await[0].alert.id());
    assert_eq!(take(subject, later(0), 9).await.len(), 1);
    let odd = Some("it was slow".to_owned());
    ledger.note(id, &Attempt::Ended(DeliveryState::Sent, later(1), odd.clone())).await.unwrap();
    assert_eq!(take(subject, later(9), 9).await, []);
    // Who took it before comes late.
    ledger.note(id, &Attempt::Again("refused".to_owned(), later(2))).await.unwrap();
    ledger.note(id, &Attempt::Ended(DeliveryState::GivenUp, later(3), None)).await.unwrap();
    let delivery = listed(subject, ALL).await.remove(0).delivery;
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Sent, 1));
    assert_eq!((delivery.ended_at, delivery.last_error), (Some(later(1)), odd));
    assert_eq!(take(subject, later(9), 9).await, []);
}

pub(crate) async fn what_failed_is_due_again_when_it_was_said(
    subject: &impl Subject<Ledger: Kept>,
) {
    raised(subject, &[1]).await;
    let (ledger, id) = (subject.ledger(), listed(subject, ALL).await[0].alert.id());
    take(subject, later(0), 9).await;
    ledger.note(id, &Attempt::Again("it answered 500".to_owned(), later(30))).await.unwrap();
    let delivery = listed(subject, ALL).await.remove(0).delivery;
    assert_eq!((delivery.state, delivery.ended_at), (DeliveryState::Waiting, None));
    assert_eq!(delivery.last_error.as_deref(), Some("it answered 500"));
    assert_eq!(take(subject, later(29), 9).await, []);
    assert_eq!(take(subject, later(30), 9).await, [(user(1), 2)]);
}

pub(crate) async fn only_what_was_given_up_is_retried(subject: &impl Subject<Ledger: Kept>) {
    raised(subject, &[1, 2, 3, 4]).await;
    let ledger = subject.ledger();
    let all = listed(subject, ALL).await;
    let states = [DeliveryState::GivenUp, DeliveryState::Sent, DeliveryState::Muted];
    for (listed, state) in all.iter().zip(states) {
        let ended = Attempt::Ended(state, later(0), Some("why".to_owned()));
        ledger.note(listed.alert.id(), &ended).await.unwrap();
    }
    let waiting = all[3].alert.user_id;
    assert_eq!(take(subject, later(0), 9).await, [(waiting, 1)]);
    assert_eq!(ledger.retry(later(5)).await.unwrap(), 1);
    assert_eq!(ledger.retry(later(5)).await.unwrap(), 0);
    let retried = listed(subject, ALL).await.remove(0).delivery;
    assert_eq!((retried.state, retried.ended_at), (DeliveryState::Waiting, None));
    // Why it was given up stays to be seen until the next attempt.
    assert_eq!(retried.last_error.as_deref(), Some("why"));
    assert_eq!(ledger.take_due(later(4), later(9), 9).await.unwrap().len(), 1);
    let again = ledger.take_due(later(5), later(9), 9).await.unwrap();
    assert_eq!(again.iter().map(|(alert, _)| alert.id()).collect::<Vec<_>>(), [all[0].alert.id()]);
}

pub(crate) async fn the_backlog_is_what_waits(subject: &impl Subject<Ledger: Kept>) {
    let ledger = subject.ledger();
    let nothing = ledger.backlog().await.unwrap();
    assert_eq!((nothing.waiting, nothing.oldest), (0, None));
    raised(subject, &[1, 2]).await;
    let both = ledger.backlog().await.unwrap();
    assert_eq!((both.waiting, both.oldest), (2, Some(Log::time(0))));
    let oldest = listed(subject, ALL).await[1].alert.id();
    ledger.note(oldest, &Attempt::Ended(DeliveryState::Muted, later(0), None)).await.unwrap();
    let one = ledger.backlog().await.unwrap();
    assert_eq!((one.waiting, one.oldest), (1, Some(Log::time(1))));
}

pub(crate) async fn everything_is_kept_when_the_ledger_is_opened_again(
    subject: &impl Subject<Ledger: Kept>,
) {
    raised(subject, &[1]).await;
    take(subject, later(0), 9).await;
    let before = listed(subject, ALL).await;
    subject.reopen();
    assert_eq!(listed(subject, ALL).await, before);
    assert_eq!(take(subject, later(0), 9).await, []);
}
