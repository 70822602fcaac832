//! What time does: forgetting, expiry.

use std::time::Duration;

use metering::quota::{
    ADMISSION_WINDOW, HoldOutcome, MARGIN, Refused, Synced, Terms, Trust, Verdict,
};
use metering::time::Timestamp;

use super::{
    Fixture, admit, chats, event, granted, held, hold, hold_id, limit, refused, repeated, settling,
    synced, tokens_only, user,
};

const TICK: Duration = Duration::from_millis(1);

/// A sync that only says how far the log is counted.
fn watermark(at: Timestamp) -> Synced {
    Synced { watermark: at, totals: vec![], ..synced(0, chats(0, 0), &[]) }
}

pub(crate) async fn an_entry_without_a_record_is_forgotten_in_the_end(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    (fixture.pass)(ADMISSION_WINDOW + MARGIN + TICK);
    counter.sync(&watermark((fixture.now)())).await.unwrap();
    assert!(granted(&admit(counter, event("b", 100)).await));
    assert_eq!(fixture.standing().await.used, chats(100, 1));
}

pub(crate) async fn an_event_beside_a_hold_is_forgotten_too(fixture: &Fixture) {
    let counter = fixture.serving(tokens_only(100)).await;
    assert!(held(&counter.hold(&hold(fixture, "h", 10)).await.unwrap()));
    assert!(granted(&admit(counter, event("a", 60)).await));
    (fixture.pass)(ADMISSION_WINDOW + MARGIN + TICK);
    counter.sync(&watermark((fixture.now)())).await.unwrap();
    assert!(granted(&admit(counter, event("b", 90)).await));
}

pub(crate) async fn an_entry_is_not_forgotten_within_its_margin(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    (fixture.pass)(ADMISSION_WINDOW + MARGIN);
    counter.sync(&watermark((fixture.now)())).await.unwrap();
    assert!(repeated(&admit(counter, event("a", 60)).await));
    assert_eq!(refused(&admit(counter, event("b", 50)).await), Some(Refused::TokenLimit));
}

pub(crate) async fn an_entry_is_not_forgotten_by_the_clock_alone(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    let opened_at = (fixture.now)();
    (fixture.pass)(Duration::from_secs(3600));
    assert_eq!(refused(&admit(counter, event("b", 50)).await), Some(Refused::TokenLimit));
    // Nor by a watermark that goes back.
    counter.sync(&watermark(opened_at.minus(Duration::from_secs(1)))).await.unwrap();
    assert_eq!(fixture.used().await, 60);
}

pub(crate) async fn a_repeat_makes_an_entry_young_again(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    (fixture.pass)(ADMISSION_WINDOW);
    let Verdict::Repeated(again) = admit(counter, event("a", 60)).await else { panic!("there") };
    assert_eq!(again.admitted_at, (fixture.now)());
    (fixture.pass)(ADMISSION_WINDOW + MARGIN);
    counter.sync(&watermark((fixture.now)())).await.unwrap();
    assert_eq!(refused(&admit(counter, event("b", 50)).await), Some(Refused::TokenLimit));
    (fixture.pass)(TICK);
    counter.sync(&watermark((fixture.now)())).await.unwrap();
    assert!(granted(&admit(counter, event("b", 50)).await));
}

pub(crate) async fn a_forgotten_event_is_no_conflict(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    (fixture.pass)(ADMISSION_WINDOW + MARGIN + TICK);
    counter.sync(&watermark((fixture.now)())).await.unwrap();
    assert!(granted(&admit(counter, event("a", 61)).await));
}

pub(crate) async fn a_hold_ends_by_itself(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    assert!(held(&counter.hold(&hold(fixture, "h", 60)).await.unwrap()));
    (fixture.pass)(Duration::from_secs(600) - TICK);
    assert_eq!(fixture.used().await, 60);
    // Without any word from the ledger.
    (fixture.pass)(TICK);
    assert_eq!(fixture.used().await, 0);
    assert!(!counter.release(user(1), hold_id("h")).await.unwrap());
}

pub(crate) async fn an_expired_hold_is_no_hold(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.hold(&hold(fixture, "h", 60)).await.unwrap();
    counter.hold(&hold(fixture, "i", 40)).await.unwrap();
    (fixture.pass)(Duration::from_secs(600));
    assert!(!counter.release(user(1), hold_id("i")).await.unwrap());
    admit(counter, event("rest", 100)).await;
    let settle = metering::quota::Admission { trust: Trust::Service, ..settling("a", 60, "h") };
    assert_eq!(refused(&admit(counter, settle).await), Some(Refused::TokenLimit));
    let anew = counter.hold(&hold(fixture, "h", 1)).await.unwrap();
    assert!(matches!(anew, HoldOutcome::Refused(Refused::TokenLimit, _)), "{anew:?}");
}

pub(crate) async fn terms_past_their_end_are_read_again(fixture: &Fixture) {
    let end = (fixture.now)().plus(Duration::from_secs(60));
    let counter = fixture.serving(Terms { valid_until: Some(end), ..limit(200) }).await;
    assert!(granted(&admit(counter, event("a", 150)).await));
    // The same version: an expiry is no change of the subscription.
    fixture.seeds.put(user(1), limit(100));
    (fixture.pass)(Duration::from_secs(60) - TICK);
    assert!(granted(&admit(counter, event("b", 1)).await));
    (fixture.pass)(TICK);
    assert_eq!(refused(&admit(counter, event("c", 1)).await), Some(Refused::TokenLimit));
    let standing = fixture.standing().await;
    assert_eq!((standing.token_limit, standing.used.tokens), (Some(100), 151));
}

pub(crate) async fn an_admission_is_never_before_the_watermark(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let ahead = (fixture.now)().plus(Duration::from_secs(3600));
    counter.sync(&watermark(ahead)).await.unwrap();
    let Verdict::Granted(grant) = admit(counter, event("a", 60)).await else { panic!("fits") };
    assert_eq!(grant.admitted_at, ahead);
    // It would be forgotten at once otherwise, with its record still to come.
    assert!(repeated(&admit(counter, event("a", 60)).await));
    assert_eq!(fixture.used().await, 60);
}
