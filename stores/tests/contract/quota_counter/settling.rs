//! Events that settle a hold.

use metering::quota::{
    Admission, Hold, OverLimit, QuotaCounter, Refused, Terms, Tier, Trust, Verdict,
};
use metering::usage::{Flag, IdDigest, RequestType, ReservationId};

use super::{
    Fixture, admit, chats, event, granted, held, hold, hold_id, limit, october, refused, repeated,
    settling, user,
};

/// A counter of limit 100 with a hold `h` of that many tokens and the rest used up.
async fn full_with_hold(fixture: &Fixture, tokens: u32) -> &dyn QuotaCounter {
    let counter = fixture.serving(limit(100)).await;
    assert!(held(&counter.hold(&hold(fixture, "h", tokens.into())).await.unwrap()));
    assert!(granted(&admit(counter, event("rest", 100 - tokens)).await));
    counter
}

fn by_service(one: Admission) -> Admission {
    Admission { trust: Trust::Service, ..one }
}

pub(crate) async fn up_to_the_hold_an_event_always_fits(fixture: &Fixture) {
    let counter = full_with_hold(fixture, 40).await;
    // Even when the plan has shrunk meanwhile.
    let smaller = Terms { version: 2, request_limits: [Some(0); 3], ..limit(10) };
    counter.set_terms(user(1), Some(smaller)).await.unwrap();
    let Verdict::Granted(grant) = admit(counter, settling("a", 40, "h")).await else {
        panic!("was held")
    };
    assert_eq!((grant.flags.bits(), grant.over_hold), (0, 0));
    assert_eq!(grant.standing.used, chats(100, 2));
}

pub(crate) async fn what_was_not_used_of_a_hold_is_free(fixture: &Fixture) {
    let counter = full_with_hold(fixture, 40).await;
    assert!(granted(&admit(counter, settling("a", 15, "h")).await));
    assert_eq!(fixture.standing().await.used, chats(75, 2));
    assert!(granted(&admit(counter, event("b", 25)).await));
}

pub(crate) async fn a_hold_ends_once(fixture: &Fixture) {
    let counter = full_with_hold(fixture, 40).await;
    assert!(granted(&admit(counter, settling("a", 40, "h")).await));
    assert!(!counter.release(user(1), hold_id("h")).await.unwrap());
    let second = admit(counter, by_service(settling("b", 40, "h"))).await;
    assert_eq!(refused(&second), Some(Refused::TokenLimit));
}

pub(crate) async fn the_event_is_looked_for_before_the_hold(fixture: &Fixture) {
    let counter = full_with_hold(fixture, 40).await;
    assert!(repeated(&admit(counter, settling("rest", 60, "h")).await));
    assert!(matches!(admit(counter, settling("rest", 1, "h")).await, Verdict::Conflict(_)));
    assert_eq!(fixture.used().await, 100);
    assert!(granted(&admit(counter, settling("a", 40, "h")).await));
    assert!(repeated(&admit(counter, settling("a", 40, "h")).await));
}

pub(crate) async fn a_service_is_let_in_above_its_hold(fixture: &Fixture) {
    let counter = full_with_hold(fixture, 40).await;
    for _ in 0..2 {
        let (Verdict::Granted(grant) | Verdict::Repeated(grant)) =
            admit(counter, by_service(settling("a", 65, "h"))).await
        else {
            panic!("was consumed")
        };
        assert!(grant.flags.has(Flag::OverHold) && !grant.flags.has(Flag::OverLimit));
        assert_eq!(grant.over_hold, 25);
        assert_eq!(grant.standing.used, chats(125, 2));
    }
    assert_eq!(refused(&admit(counter, event("b", 0)).await), Some(Refused::TokenLimit));
}

pub(crate) async fn a_user_above_its_hold_must_fit(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.hold(&hold(fixture, "h", 40)).await.unwrap();
    admit(counter, event("rest", 50)).await;
    let above = admit(counter, settling("a", 51, "h")).await;
    assert_eq!(refused(&above), Some(Refused::TokenLimit));
    let Verdict::Granted(grant) = admit(counter, settling("b", 50, "h")).await else {
        panic!("fits")
    };
    assert_eq!((grant.flags.bits(), grant.over_hold), (0, 0));
    assert_eq!(grant.standing.used, chats(100, 2));
}

pub(crate) async fn a_refused_settle_leaves_the_hold(fixture: &Fixture) {
    let counter = full_with_hold(fixture, 40).await;
    assert!(!granted(&admit(counter, settling("a", 41, "h")).await));
    assert_eq!(fixture.standing().await.used, chats(100, 2));
    assert!(granted(&admit(counter, settling("a", 40, "h")).await));
}

pub(crate) async fn a_barred_settle_leaves_the_hold(fixture: &Fixture) {
    let counter = full_with_hold(fixture, 40).await;
    let barred = Admission { barred: true, ..by_service(settling("a", 40, "h")) };
    assert_eq!(refused(&admit(counter, barred).await), Some(Refused::Barred));
    assert!(counter.release(user(1), hold_id("h")).await.unwrap());
}

pub(crate) async fn a_hold_of_the_month_before_is_ended_but_makes_no_room(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.hold(&hold(fixture, "h", 40)).await.unwrap();
    let november = |one: Admission| Admission { period: october().next(), ..one };
    admit(counter, november(event("rest", 70))).await;
    let too_much = admit(counter, november(settling("a", 31, "h"))).await;
    assert_eq!(refused(&too_much), Some(Refused::TokenLimit));
    assert_eq!(fixture.used().await, 40);
    assert!(granted(&admit(counter, november(settling("a", 30, "h"))).await));
    assert_eq!(fixture.used().await, 0);
}

pub(crate) async fn a_hold_of_the_month_after_is_found_too(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let period = october().next();
    counter.hold(&Hold { period, ..hold(fixture, "h", 40) }).await.unwrap();
    assert!(granted(&admit(counter, settling("a", 10, "h")).await));
    let standing = counter.usage(user(1), period).await.unwrap().unwrap();
    assert_eq!((fixture.used().await, standing.used.tokens), (10, 0));
}

pub(crate) async fn a_service_settles_across_months_whatever_the_limit(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.hold(&hold(fixture, "h", 40)).await.unwrap();
    let november = |one: Admission| Admission { period: october().next(), ..one };
    admit(counter, november(event("rest", 100))).await;
    let Verdict::Granted(grant) =
        admit(counter, by_service(november(settling("a", 30, "h")))).await
    else {
        panic!("was consumed")
    };
    assert!(grant.flags.has(Flag::OverHold));
    assert_eq!((grant.over_hold, grant.standing.used), (30, chats(130, 2)));
    assert_eq!(fixture.used().await, 0);
}

pub(crate) async fn a_hold_of_another_request_type_helps_nothing(fixture: &Fixture) {
    let counter = full_with_hold(fixture, 40).await;
    let other = by_service(settling("a", 40, "h"));
    let other = Admission { request_type: RequestType::Plagiarism, ..other };
    assert_eq!(refused(&admit(counter, other).await), Some(Refused::TokenLimit));
    assert!(counter.release(user(1), hold_id("h")).await.unwrap());
}

pub(crate) async fn an_invented_or_foreign_hold_helps_nothing(fixture: &Fixture) {
    let counter = full_with_hold(fixture, 40).await;
    let invented = admit(counter, by_service(settling("a", 1, "invented"))).await;
    assert_eq!(refused(&invented), Some(Refused::TokenLimit));
    fixture.seeds.put(user(2), limit(0));
    let theirs = IdDigest::of_hold(user(2), &ReservationId::new("h").unwrap());
    for id in [theirs, hold_id("h")] {
        let asked = Admission { user_id: user(2), settles: Some(id), ..event("b", 1) };
        assert_eq!(refused(&admit(counter, by_service(asked)).await), Some(Refused::TokenLimit));
    }
    assert!(counter.release(user(1), hold_id("h")).await.unwrap());
}

pub(crate) async fn a_hold_promises_its_tier(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.hold(&Hold { tier: Tier(1), ..hold(fixture, "h", 40) }).await.unwrap();
    counter.hold(&Hold { tier: Tier(1), ..hold(fixture, "i", 40) }).await.unwrap();
    counter
        .set_terms(user(1), Some(Terms { version: 2, tier: Tier(0), ..limit(100) }))
        .await
        .unwrap();
    let of_tier = |tier, one: Admission| Admission { tier, ..one };
    let higher = admit(counter, of_tier(Tier(2), settling("a", 1, "h"))).await;
    assert_eq!(refused(&higher), Some(Refused::ModelNotInPlan));
    assert!(granted(&admit(counter, of_tier(Tier(1), settling("a", 1, "h"))).await));
    let consumed = by_service(of_tier(Tier(2), settling("b", 1, "i")));
    assert!(granted(&admit(counter, consumed).await));
}

pub(crate) async fn above_a_hold_a_recording_plan_flags_the_limit(fixture: &Fixture) {
    let counter = fixture.serving(Terms { over_limit: OverLimit::Record, ..limit(100) }).await;
    counter.hold(&hold(fixture, "h", 40)).await.unwrap();
    counter.hold(&hold(fixture, "i", 40)).await.unwrap();
    let Verdict::Granted(own) = admit(counter, settling("a", 70, "h")).await else {
        panic!("is recorded")
    };
    assert!(own.flags.has(Flag::OverLimit) && !own.flags.has(Flag::OverHold));
    let Verdict::Granted(service) = admit(counter, by_service(settling("b", 41, "i"))).await else {
        panic!("is recorded")
    };
    assert!(service.flags.has(Flag::OverLimit) && service.flags.has(Flag::OverHold));
    assert_eq!((service.over_hold, fixture.used().await), (1, 111));
}
