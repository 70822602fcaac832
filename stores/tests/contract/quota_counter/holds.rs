//! Holds: made, told again, refused, released.

use metering::quota::{Hold, HoldOutcome, OverLimit, Refused, Terms, Tier, Totals};
use metering::usage::{ContentDigest, ModelName, RequestType};

use super::{
    Fixture, admit, chats, event, event_id, granted, held, hold, hold_id, limit, october, refused,
    synced, user,
};

pub(crate) async fn a_hold_takes_tokens_and_a_request(fixture: &Fixture) {
    let terms = Terms { request_limits: [Some(2), None, None], ..limit(100) };
    let counter = fixture.serving(terms).await;
    let asked = hold(fixture, "h", 70);
    let HoldOutcome::Held(stands) = counter.hold(&asked).await.unwrap() else { panic!("fits") };
    assert_eq!((stands.tokens, stands.expires_at), (70, asked.expires_at));
    assert_eq!(stands.standing.used, chats(70, 1));
    assert_eq!(refused(&admit(counter, event("a", 31)).await), Some(Refused::TokenLimit));
    assert!(granted(&admit(counter, event("b", 30)).await));
    assert_eq!(refused(&admit(counter, event("c", 0)).await), Some(Refused::RequestLimit));
}

pub(crate) async fn the_same_hold_again_is_the_first_one(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let first = hold(fixture, "h", 70);
    assert!(held(&counter.hold(&first).await.unwrap()));
    let later = first.expires_at.plus(std::time::Duration::from_secs(60));
    let again = counter.hold(&Hold { expires_at: later, ..first.clone() }).await.unwrap();
    let HoldOutcome::Repeated(stands) = again else { panic!("stands: {again:?}") };
    assert_eq!((stands.tokens, stands.expires_at), (70, first.expires_at));
    assert_eq!(stands.standing.used, chats(70, 1));
}

pub(crate) async fn another_hold_of_a_standing_id_is_a_conflict(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.hold(&hold(fixture, "h", 70)).await.unwrap();
    let other = counter.hold(&hold(fixture, "h", 1)).await.unwrap();
    assert_eq!(other, HoldOutcome::Conflict);
    let too_large = counter.hold(&hold(fixture, "h", 1_000)).await.unwrap();
    assert_eq!(too_large, HoldOutcome::Conflict);
    assert_eq!(fixture.used().await, 70);
}

pub(crate) async fn a_hold_must_fit(fixture: &Fixture) {
    let terms = Terms { request_limits: [Some(2), Some(0), None], ..limit(100) };
    let counter = fixture.serving(terms).await;
    let refusal = |asked: Hold| async move {
        match counter.hold(&asked).await.unwrap() {
            HoldOutcome::Refused(refused, standing) => (refused, standing.used),
            other => panic!("does not fit: {other:?}"),
        }
    };
    let nothing = Totals::default();
    let asked = Hold { tier: Tier(2), ..hold(fixture, "a", 101) };
    assert_eq!(refusal(asked).await, (Refused::ModelNotInPlan, nothing));
    let asked = Hold { request_type: RequestType::Plagiarism, ..hold(fixture, "b", 101) };
    assert_eq!(refusal(asked).await, (Refused::RequestLimit, nothing));
    assert_eq!(refusal(hold(fixture, "c", 101)).await, (Refused::TokenLimit, nothing));
    assert!(held(&counter.hold(&hold(fixture, "d", 100)).await.unwrap()));
}

pub(crate) async fn a_released_hold_gives_back_its_room_once(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    assert!(!counter.release(user(1), hold_id("h")).await.unwrap());
    counter.hold(&hold(fixture, "h", 70)).await.unwrap();
    assert!(!counter.release(user(2), hold_id("h")).await.unwrap());
    assert_eq!(fixture.used().await, 70);
    assert!(counter.release(user(1), hold_id("h")).await.unwrap());
    assert!(!counter.release(user(1), hold_id("h")).await.unwrap());
    assert_eq!(fixture.standing().await.used, Totals::default());
}

pub(crate) async fn a_hold_of_last_month_is_found_again(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let made = hold(fixture, "h", 70);
    counter.hold(&made).await.unwrap();
    let november = |one: Hold| Hold { period: october().next(), ..one };
    let again = counter.hold(&november(made)).await.unwrap();
    let HoldOutcome::Repeated(stands) = again else { panic!("stands: {again:?}") };
    assert_eq!(stands.standing.used, chats(70, 1));
    let other = counter.hold(&november(hold(fixture, "h", 1))).await.unwrap();
    assert_eq!(other, HoldOutcome::Conflict);
    assert!(counter.release(user(1), hold_id("h")).await.unwrap());
    assert_eq!(fixture.used().await, 0);
}

pub(crate) async fn holds_and_events_have_their_own_names(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.hold(&hold(fixture, "same", 40)).await.unwrap();
    assert!(granted(&admit(counter, event("same", 40)).await));
    assert!(!counter.release(user(1), event_id("same")).await.unwrap());
    assert_eq!(fixture.standing().await.used, chats(80, 2));
}

pub(crate) async fn a_plan_that_records_past_its_limit_holds_past_it(fixture: &Fixture) {
    let counter = fixture.serving(Terms { over_limit: OverLimit::Record, ..limit(100) }).await;
    assert!(held(&counter.hold(&hold(fixture, "h", 101)).await.unwrap()));
    let too_high = Hold { tier: Tier(2), ..hold(fixture, "i", 1) };
    let outcome = counter.hold(&too_high).await.unwrap();
    assert!(matches!(outcome, HoldOutcome::Refused(Refused::ModelNotInPlan, _)), "{outcome:?}");
}

pub(crate) async fn nobody_holds_for_who_does_not_exist(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let of_nobody = Hold { user_id: user(9), ..hold(fixture, "h", 1) };
    assert_eq!(counter.hold(&of_nobody).await.unwrap(), HoldOutcome::UnknownUser);
    counter.hold(&hold(fixture, "h", 1)).await.unwrap();
    counter.set_terms(user(1), None).await.unwrap();
    let asked = hold(fixture, "i", 1);
    assert_eq!(counter.hold(&asked).await.unwrap(), HoldOutcome::UnknownUser);
}

pub(crate) async fn a_sync_leaves_holds_alone(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.hold(&hold(fixture, "h", 40)).await.unwrap();
    let mut sync = synced(1, chats(10, 1), &["h"]);
    sync.settled[0].id_digest = hold_id("h");
    counter.sync(&sync).await.unwrap();
    counter.withdraw(&sync.settled).await.unwrap();
    assert_eq!(fixture.standing().await.used, chats(50, 2));
    let model = ModelName::new("gpt-4");
    let same = ContentDigest::of_hold(RequestType::Chat, &model, 40);
    assert_eq!(hold(fixture, "h", 40).content_digest, same);
}
