//! What is let in.

use metering::quota::{Admission, OverLimit, Refused, Terms, Tier, Trust, Verdict};
use metering::usage::{Flag, Partition, RequestType};

use super::{
    Fixture, admit, chats, event, event_id, granted, hold, limit, october, refused, repeated,
    synced, tokens_only, user,
};

pub(crate) async fn nothing_is_answered_before_it_is_open(fixture: &Fixture) {
    let counter = &fixture.counter;
    fixture.seeds.put(user(1), limit(100));
    assert!(counter.admit(&[event("a", 1)]).await.is_err());
    assert!(counter.hold(&hold(fixture, "h", 1)).await.is_err());
    assert!(counter.release(user(1), event_id("h")).await.is_err());
    assert!(counter.usage(user(1), october()).await.is_err());
    assert!(counter.set_terms(user(1), Some(limit(1))).await.is_err());
    assert!(!counter.sync(&synced(1, chats(1, 1), &[])).await.unwrap());
    assert!(counter.withdraw(&synced(1, chats(1, 1), &["a"]).settled).await.is_err());
    assert!(counter.audit().await.is_err());
    fixture.open_at(0).await;
    assert!(granted(&admit(counter.as_ref(), event("a", 1)).await));
}

pub(crate) async fn what_fits_is_granted_and_stands_in_the_answer(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let before = (fixture.now)();
    let Verdict::Granted(grant) = admit(counter, event("a", 30)).await else { panic!("fits") };
    assert!(before <= grant.admitted_at && grant.admitted_at <= (fixture.now)());
    assert_eq!((grant.flags.bits(), grant.over_hold), (0, 0));
    assert_eq!(grant.standing.used, chats(30, 1));
    assert_eq!(grant.standing.plan, limit(100).plan);
    assert_eq!(grant.standing.token_limit, Some(100));
    assert_eq!(grant.standing.request_limits, [Some(100); 3]);
    assert_eq!(fixture.standing().await, grant.standing);
}

pub(crate) async fn a_plan_can_be_used_up_exactly(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    assert!(granted(&admit(counter, event("a", 60)).await));
    assert!(granted(&admit(counter, event("b", 40)).await));
    assert_eq!(refused(&admit(counter, event("c", 1)).await), Some(Refused::TokenLimit));
    assert!(granted(&admit(counter, event("d", 0)).await));
}

pub(crate) async fn what_does_not_fit_takes_nothing(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    assert!(granted(&admit(counter, event("a", 60)).await));
    let Verdict::Refused(_, standing) = admit(counter, event("b", 41)).await else {
        panic!("does not fit")
    };
    assert_eq!(standing.used, chats(60, 1));
    assert!(granted(&admit(counter, event("c", 40)).await));
}

pub(crate) async fn the_same_event_again_takes_nothing(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let Verdict::Granted(first) = admit(counter, event("a", 60)).await else { panic!("fits") };
    for _ in 0..3 {
        let Verdict::Repeated(again) = admit(counter, event("a", 60)).await else {
            panic!("in flight")
        };
        assert!(again.admitted_at >= first.admitted_at);
        assert_eq!(again.standing, first.standing);
    }
    assert!(granted(&admit(counter, event("b", 40)).await));
}

pub(crate) async fn another_event_of_an_id_in_flight_is_a_conflict(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    let Verdict::Conflict(standing) = admit(counter, event("a", 61)).await else {
        panic!("another event")
    };
    assert_eq!(standing.used, chats(60, 1));
    // Told before any refusal.
    assert!(matches!(admit(counter, event("a", 1_000)).await, Verdict::Conflict(_)));
    assert!(repeated(&admit(counter, event("a", 60)).await));
}

pub(crate) async fn an_id_in_flight_in_another_month_is_seen_there(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let november = |one: Admission| Admission { period: october().next(), ..one };
    admit(counter, event("a", 60)).await;
    assert!(granted(&admit(counter, november(event("b", 30))).await));
    assert!(matches!(admit(counter, november(event("a", 61))).await, Verdict::Conflict(_)));
    // The same event takes its room there too: whichever record is first counts, in its month.
    assert!(granted(&admit(counter, november(event("a", 60))).await));
    let standing = counter.usage(user(1), october().next()).await.unwrap().unwrap();
    assert_eq!((standing.used.tokens, fixture.used().await), (90, 60));
}

pub(crate) async fn what_is_in_flight_in_another_month_is_not_refused(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let november = |one: Admission| Admission { period: october().next(), ..one };
    admit(counter, event("a", 60)).await;
    admit(counter, november(event("rest", 50))).await;
    // Perhaps it is a duplicate: nobody knows before the first one is counted or forgotten.
    assert!(counter.admit(&[november(event("a", 60))]).await.is_err());
    let barred = Admission { barred: true, ..november(event("a", 60)) };
    assert!(counter.admit(std::slice::from_ref(&barred)).await.is_err());
    counter.withdraw(&synced(0, chats(0, 0), &["a"]).settled).await.unwrap();
    let verdict = admit(counter, november(event("a", 60))).await;
    assert_eq!(refused(&verdict), Some(Refused::TokenLimit));
    assert_eq!(refused(&admit(counter, barred).await), Some(Refused::Barred));
}

pub(crate) async fn other_terms_hold_after_many_events_alike(fixture: &Fixture) {
    let counter = fixture.serving(tokens_only(100)).await;
    for name in ["a", "b", "c"] {
        assert!(granted(&admit(counter, event(name, 10)).await));
    }
    counter.set_terms(user(1), Some(Terms { version: 2, ..tokens_only(35) })).await.unwrap();
    let verdict = admit(counter, event("d", 10)).await;
    assert_eq!(refused(&verdict), Some(Refused::TokenLimit));
    counter.set_terms(user(1), Some(Terms { version: 3, ..tokens_only(100) })).await.unwrap();
    for name in ["d", "e", "f"] {
        assert!(granted(&admit(counter, event(name, 10)).await));
    }
    counter.set_terms(user(1), None).await.unwrap();
    assert_eq!(admit(counter, event("g", 10)).await, Verdict::UnknownUser);
}

pub(crate) async fn another_month_is_seen_after_many_events_alike(fixture: &Fixture) {
    let counter = fixture.serving(tokens_only(100)).await;
    let november = |one: Admission| Admission { period: october().next(), ..one };
    for name in ["a", "b", "c"] {
        assert!(granted(&admit(counter, event(name, 10)).await));
    }
    assert!(granted(&admit(counter, november(event("d", 10))).await));
    assert!(matches!(admit(counter, event("d", 11)).await, Verdict::Conflict(_)));
}

pub(crate) async fn refusals_have_an_order(fixture: &Fixture) {
    let terms = Terms { request_limits: [Some(0); 3], ..limit(0) };
    let counter = fixture.serving(terms).await;
    let asked = Admission { tier: Tier(2), barred: true, ..event("a", 1) };
    let ask = |asked: Admission| async move { refused(&admit(counter, asked).await) };
    assert_eq!(ask(asked.clone()).await, Some(Refused::Barred));
    let asked = Admission { barred: false, ..asked };
    assert_eq!(ask(asked.clone()).await, Some(Refused::ModelNotInPlan));
    let asked = Admission { tier: Tier(1), ..asked };
    assert_eq!(ask(asked.clone()).await, Some(Refused::RequestLimit));
    counter
        .set_terms(user(1), Some(Terms { version: 2, request_limits: [Some(1); 3], ..limit(0) }))
        .await
        .unwrap();
    assert_eq!(ask(asked).await, Some(Refused::TokenLimit));
}

pub(crate) async fn each_request_type_has_its_own_limit(fixture: &Fixture) {
    let terms = Terms { request_limits: [Some(1), Some(2), None], ..limit(100) };
    let counter = fixture.serving(terms).await;
    for (request_type, fit) in
        [(RequestType::Chat, 1), (RequestType::Plagiarism, 2), (RequestType::PromptGeneration, 5)]
    {
        for number in 0..5 {
            let asked = Admission { request_type, ..event(&format!("{request_type}-{number}"), 1) };
            let verdict = admit(counter, asked).await;
            let expected = (number >= fit).then_some(Refused::RequestLimit);
            assert_eq!(refused(&verdict), expected, "{request_type} {number}");
        }
    }
    assert_eq!(fixture.standing().await.used.requests, [1, 2, 5]);
}

pub(crate) async fn a_barred_event_is_only_compared(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let barred = |one: Admission| Admission { barred: true, ..one };
    assert_eq!(refused(&admit(counter, barred(event("a", 1))).await), Some(Refused::Barred));
    assert_eq!(fixture.used().await, 0);
    admit(counter, event("a", 1)).await;
    assert!(repeated(&admit(counter, barred(event("a", 1))).await));
    assert!(matches!(admit(counter, barred(event("a", 2))).await, Verdict::Conflict(_)));
}

pub(crate) async fn users_and_months_do_not_share_limits(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    fixture.seeds.put(user(2), limit(100));
    assert!(granted(&admit(counter, event("a", 100)).await));
    let of_another = Admission { user_id: user(2), ..event("b", 100) };
    assert!(granted(&admit(counter, of_another).await));
    for period in [october().next(), october().previous()] {
        let name = format!("in {period}");
        assert!(granted(&admit(counter, Admission { period, ..event(&name, 100) }).await));
    }
    assert!(!granted(&admit(counter, event("c", 1)).await));
}

pub(crate) async fn a_batch_is_let_in_in_order(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let asked = [event("a", 60), event("b", 60), event("a", 60), event("a", 6), event("c", 40)];
    let verdicts = counter.admit(&asked).await.unwrap();
    assert!(granted(&verdicts[0]));
    assert_eq!(refused(&verdicts[1]), Some(Refused::TokenLimit));
    assert!(repeated(&verdicts[2]));
    assert!(matches!(verdicts[3], Verdict::Conflict(_)));
    assert!(granted(&verdicts[4]));
    assert_eq!(counter.admit(&[]).await.unwrap(), vec![]);
    let many: Vec<_> = (0..1000).map(|number| event(&format!("{number}"), 0)).collect();
    let verdicts = counter.admit(&many).await.unwrap();
    assert_eq!(verdicts.iter().filter(|one| granted(one)).count(), 98);
    assert!(verdicts[..98].iter().all(granted));
}

pub(crate) async fn what_is_known_is_decided_at_once(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    fixture.seeds.put(user(2), limit(100));
    let of_another = || Admission { user_id: user(2), ..event("x", 1) };
    let all = [event("a", 60), of_another(), event("b", 50), event("a", 60), event("a", 61)];
    assert_eq!(counter.admit_at_once(&all).await, [const { None }; 5], "who is not known yet");
    fixture.standing().await;
    let reads = fixture.seeds.terms_reads();
    let told = counter.admit_at_once(&all).await;
    assert!(granted(told[0].as_ref().unwrap()));
    assert_eq!(told[1], None);
    assert_eq!(refused(told[2].as_ref().unwrap()), Some(Refused::TokenLimit));
    assert!(repeated(told[3].as_ref().unwrap()));
    assert!(matches!(told[4], Some(Verdict::Conflict(_))));
    assert_eq!(fixture.seeds.terms_reads(), reads, "nothing is read for it");
    assert_eq!(fixture.used().await, 60);
    counter.close(Partition::SINGLE).await.unwrap();
    assert_eq!(counter.admit_at_once(&all).await, [const { None }; 5], "it is closed");
}

pub(crate) async fn concurrent_admissions_stop_at_the_limit(fixture: &Fixture) {
    fixture.serving(limit(95)).await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..50 {
        let counter = fixture.counter.clone();
        asking.spawn(async move { counter.admit(&[event(&format!("{number}"), 10)]).await });
    }
    let verdicts = asking.join_all().await;
    let count = verdicts.iter().filter(|one| granted(&one.as_ref().unwrap()[0])).count();
    assert_eq!(count, 9);
    assert_eq!(fixture.used().await, 90);
}

pub(crate) async fn an_unlimited_plan_has_no_limits(fixture: &Fixture) {
    let terms = Terms { token_limit: None, request_limits: [None; 3], ..limit(0) };
    let counter = fixture.serving(terms).await;
    let asked: Vec<_> = (0..300).map(|number| event(&format!("{number}"), u32::MAX)).collect();
    assert!(counter.admit(&asked).await.unwrap().iter().all(granted));
    let standing = fixture.standing().await;
    assert_eq!(standing.used, chats(300 * u64::from(u32::MAX), 300));
    assert_eq!((standing.token_limit, standing.request_limits), (None, [None; 3]));
}

pub(crate) async fn a_plan_that_records_past_its_limit_flags_it(fixture: &Fixture) {
    let terms = Terms {
        over_limit: OverLimit::Record,
        request_limits: [Some(3), Some(0), None],
        ..limit(100)
    };
    let counter = fixture.serving(terms).await;
    let flagged = |verdict: Verdict| match verdict {
        Verdict::Granted(grant) | Verdict::Repeated(grant) => grant.flags.has(Flag::OverLimit),
        other => panic!("{other:?}"),
    };
    assert!(!flagged(admit(counter, event("a", 100)).await));
    assert!(flagged(admit(counter, event("b", 1)).await));
    assert!(flagged(admit(counter, event("b", 1)).await));
    let asked = Admission { request_type: RequestType::Plagiarism, ..event("c", 0) };
    assert!(flagged(admit(counter, asked).await));
    let too_high = Admission { tier: Tier(2), ..event("d", 0) };
    assert_eq!(refused(&admit(counter, too_high).await), Some(Refused::ModelNotInPlan));
    assert_eq!(fixture.used().await, 101);
}

pub(crate) async fn an_absurd_sum_is_refused(fixture: &Fixture) {
    let terms = Terms { token_limit: None, over_limit: OverLimit::Record, ..limit(0) };
    let counter = fixture.serving(terms).await;
    let huge = |name| Admission { tokens: u64::MAX - 5, trust: Trust::Service, ..event(name, 0) };
    assert!(granted(&admit(counter, huge("a")).await));
    assert_eq!(refused(&admit(counter, huge("b")).await), Some(Refused::TokenLimit));
    assert!(granted(&admit(counter, event("c", 5)).await));
    assert_eq!(fixture.used().await, u64::MAX);
}
