//! What is read from the ledger and from subscriptions, and what the ledger brings.

use metering::quota::{Admission, Refused, Terms, Totals, UserTotals, Verdict};
use metering::usage::Offset;

use super::{
    Fixture, admit, chats, event, event_id, granted, hold, hold_id, limit, october, refused,
    repeated, synced, tokens_only, user,
};

pub(crate) async fn users_are_read_many_at_a_time_and_once(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let of = |number: u8| Admission { user_id: user(number), ..event(&format!("{number}"), 1) };
    for number in 1..=50 {
        fixture.seeds.put(user(number), limit(100));
    }
    let asked: Vec<_> = (1..=50).chain(1..=50).map(of).collect();
    let verdicts = counter.admit(&asked).await.unwrap();
    assert!(verdicts[..50].iter().all(granted) && verdicts[50..].iter().all(repeated));
    counter.admit(&asked).await.unwrap();
    assert_eq!(fixture.seeds.terms_reads(), [50]);
    assert_eq!(fixture.seeds.totals_reads(), [50]);
}

pub(crate) async fn totals_of_the_ledger_count(fixture: &Fixture) {
    fixture.seeds.count(chats(90, 7), 0);
    let counter = fixture.serving(limit(100)).await;
    assert_eq!(refused(&admit(counter, event("a", 11)).await), Some(Refused::TokenLimit));
    assert!(granted(&admit(counter, event("b", 10)).await));
    assert_eq!(fixture.standing().await.used, chats(100, 8));
}

pub(crate) async fn who_does_not_exist_is_asked_for_again(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let of_nobody = Admission { user_id: user(9), ..event("a", 1) };
    for _ in 0..2 {
        let asked = [of_nobody.clone(), event("a", 1)];
        let verdicts = counter.admit(&asked).await.unwrap();
        assert_eq!(verdicts[0], Verdict::UnknownUser);
        assert!(granted(&verdicts[1]) || repeated(&verdicts[1]));
        assert_eq!(counter.usage(user(9), october()).await.unwrap(), None);
    }
    fixture.seeds.put(user(9), limit(100));
    assert!(granted(&admit(counter, of_nobody).await));
}

pub(crate) async fn new_terms_are_in_force_at_once(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    assert!(!granted(&admit(counter, event("a", 150)).await));
    counter.set_terms(user(1), Some(Terms { version: 2, ..limit(200) })).await.unwrap();
    assert!(granted(&admit(counter, event("a", 150)).await));
    counter.set_terms(user(1), Some(Terms { version: 3, ..limit(100) })).await.unwrap();
    let standing = fixture.standing().await;
    assert_eq!((standing.used.tokens, standing.token_limit), (150, Some(100)));
    assert!(!granted(&admit(counter, event("b", 1)).await));
    counter.set_terms(user(1), None).await.unwrap();
    assert_eq!(admit(counter, event("c", 0)).await, Verdict::UnknownUser);
    assert_eq!(counter.usage(user(1), october()).await.unwrap(), None);
}

pub(crate) async fn older_terms_change_nothing(fixture: &Fixture) {
    let counter = fixture.serving(Terms { version: 5, ..limit(100) }).await;
    assert_eq!(fixture.standing().await.token_limit, Some(100));
    counter.set_terms(user(1), Some(Terms { version: 4, ..limit(7) })).await.unwrap();
    assert_eq!(fixture.standing().await.token_limit, Some(100));
    // Also for who is met for the first time.
    counter.set_terms(user(2), Some(Terms { version: 9, ..limit(50) })).await.unwrap();
    fixture.seeds.put(user(2), Terms { version: 8, ..limit(7) });
    let standing = counter.usage(user(2), october()).await.unwrap().unwrap();
    assert_eq!(standing.token_limit, Some(50));
}

pub(crate) async fn a_slow_read_does_not_bring_back_older_terms(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let go_on = fixture.seeds.slow_terms();
    let upgrade = async {
        while fixture.seeds.terms_reads().is_empty() {
            tokio::task::yield_now().await;
        }
        counter.set_terms(user(1), Some(Terms { version: 2, ..limit(200) })).await.unwrap();
        go_on.send(()).unwrap();
    };
    let (verdict, ()) = tokio::join!(admit(counter, event("a", 150)), upgrade);
    assert!(granted(&verdict), "{verdict:?}");
    assert_eq!(fixture.standing().await.token_limit, Some(200));
}

pub(crate) async fn who_is_no_more_stays_so_after_a_slow_read(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let go_on = fixture.seeds.slow_terms();
    let deletion = async {
        while fixture.seeds.terms_reads().is_empty() {
            tokio::task::yield_now().await;
        }
        fixture.seeds.remove(user(1));
        counter.set_terms(user(1), None).await.unwrap();
        go_on.send(()).unwrap();
    };
    let (verdict, ()) = tokio::join!(admit(counter, event("a", 1)), deletion);
    assert_eq!(verdict, Verdict::UnknownUser);
    assert_eq!(admit(counter, event("b", 1)).await, Verdict::UnknownUser);
}

pub(crate) async fn seeds_that_fail_are_unavailable_and_take_nothing(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    fixture.seeds.set_broken(true);
    assert!(counter.admit(&[event("a", 1)]).await.is_err());
    assert!(counter.hold(&hold(fixture, "h", 1)).await.is_err());
    fixture.seeds.set_broken(false);
    assert_eq!(fixture.used().await, 0);
}

pub(crate) async fn a_sync_replaces_what_was_in_flight(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    admit(counter, event("b", 30)).await;
    counter.sync(&synced(1, chats(60, 1), &["a"])).await.unwrap();
    assert_eq!(fixture.standing().await.used, chats(90, 2));
    assert!(repeated(&admit(counter, event("b", 30)).await));
    assert_eq!(refused(&admit(counter, event("c", 11)).await), Some(Refused::TokenLimit));
    assert!(granted(&admit(counter, event("c", 10)).await));
}

pub(crate) async fn events_let_in_together_leave_one_by_one(fixture: &Fixture) {
    let counter = fixture.serving(tokens_only(100)).await;
    admit(counter, event("a", 10)).await;
    let together = counter.admit(&[event("b", 20), event("c", 30)]).await.unwrap();
    assert!(together.iter().all(granted));
    counter.sync(&synced(2, chats(30, 2), &["a", "b"])).await.unwrap();
    assert_eq!(fixture.standing().await.used, chats(60, 3));
    assert_eq!(refused(&admit(counter, event("d", 41)).await), Some(Refused::TokenLimit));
    assert!(granted(&admit(counter, event("d", 40)).await));
}

pub(crate) async fn an_event_and_its_duplicate_leave_once(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    admit(counter, event("b", 30)).await;
    counter.sync(&synced(2, chats(60, 1), &["a", "a"])).await.unwrap();
    assert_eq!(fixture.standing().await.used, chats(90, 2));
    assert!(repeated(&admit(counter, event("b", 30)).await));
}

pub(crate) async fn repeating_a_sync_changes_nothing(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    for _ in 0..3 {
        counter.sync(&synced(1, chats(60, 1), &["a"])).await.unwrap();
        assert_eq!(fixture.standing().await.used, chats(60, 1));
    }
}

pub(crate) async fn an_older_sync_changes_no_totals(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    counter.sync(&synced(2, chats(60, 1), &["a"])).await.unwrap();
    counter.sync(&synced(1, chats(10, 1), &[])).await.unwrap();
    assert_eq!(fixture.used().await, 60);
    let Verdict::Granted(grant) = admit(counter, event("b", 1)).await else { panic!("fits") };
    assert_eq!(grant.cursor, Offset::new(2));
}

pub(crate) async fn a_sync_makes_nobody_known(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.sync(&synced(5, chats(10, 1), &["x"])).await.unwrap();
    assert!(counter.audit().await.unwrap().is_empty());
    fixture.seeds.count(chats(70, 4), 5);
    assert_eq!(fixture.standing().await.used, chats(70, 4));
}

pub(crate) async fn totals_older_than_the_cursor_are_read_again(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let go_on = fixture.seeds.slow_totals();
    let progress = async {
        while fixture.seeds.totals_reads().is_empty() {
            tokio::task::yield_now().await;
        }
        fixture.seeds.count(chats(90, 1), 3);
        counter.sync(&synced(3, chats(90, 1), &[])).await.unwrap();
        go_on.send(()).unwrap();
    };
    let (verdict, ()) = tokio::join!(admit(counter, event("a", 50)), progress);
    assert_eq!(refused(&verdict), Some(Refused::TokenLimit));
    assert_eq!(fixture.used().await, 90);
}

pub(crate) async fn totals_that_stay_too_old_are_unavailable(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    counter.sync(&synced(3, chats(90, 1), &[])).await.unwrap();
    assert!(counter.admit(&[event("a", 1)]).await.is_err());
    fixture.seeds.count(chats(90, 1), 3);
    assert!(granted(&admit(counter, event("a", 1)).await));
}

pub(crate) async fn a_snapshot_beyond_the_cursor_is_not_set_back(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    fixture.seeds.answer_once(chats(80, 8), 8);
    assert_eq!(fixture.used().await, 80);
    counter.sync(&synced(5, chats(50, 5), &[])).await.unwrap();
    assert_eq!(fixture.used().await, 80);
    counter.sync(&synced(9, chats(85, 9), &[])).await.unwrap();
    assert_eq!(fixture.used().await, 85);
}

pub(crate) async fn a_withdrawn_entry_gives_back_its_room(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 100)).await;
    counter.withdraw(&synced(0, chats(0, 0), &["a"]).settled).await.unwrap();
    assert_eq!(fixture.standing().await.used, Totals::default());
    assert!(granted(&admit(counter, event("b", 100)).await));
}

pub(crate) async fn a_withdrawal_of_what_is_gone_is_passed_over(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    let mut entries = synced(0, chats(0, 0), &["a", "a", "b"]).settled;
    entries[2].user_id = user(9);
    counter.withdraw(&entries).await.unwrap();
    counter.withdraw(&entries).await.unwrap();
    assert_eq!(fixture.used().await, 0);
}

pub(crate) async fn a_grant_names_the_cursor_it_was_given_at(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    let cursor_of = |verdict: Verdict| match verdict {
        Verdict::Granted(grant) | Verdict::Repeated(grant) => grant.cursor,
        other => panic!("{other:?}"),
    };
    assert_eq!(cursor_of(admit(counter, event("a", 1)).await), Offset::new(0));
    counter.sync(&synced(4, chats(0, 0), &[])).await.unwrap();
    assert_eq!(cursor_of(admit(counter, event("a", 1)).await), Offset::new(4));
    assert_eq!(cursor_of(admit(counter, event("b", 1)).await), Offset::new(4));
}

pub(crate) async fn opening_forgets_everything(fixture: &Fixture) {
    let counter = fixture.serving(limit(100)).await;
    admit(counter, event("a", 60)).await;
    counter.hold(&hold(fixture, "h", 20)).await.unwrap();
    fixture.seeds.count(chats(30, 3), 7);
    fixture.open_at(7).await;
    assert_eq!(fixture.standing().await.used, chats(30, 3));
    let Verdict::Granted(grant) = admit(counter, event("a", 60)).await else { panic!("fits") };
    assert_eq!(grant.cursor, Offset::new(7));
}

pub(crate) async fn the_audit_shows_ledger_and_entries(fixture: &Fixture) {
    fixture.seeds.count(chats(5, 1), 0);
    let counter = fixture.serving(limit(100)).await;
    let Verdict::Granted(grant) = admit(counter, event("a", 60)).await else { panic!("fits") };
    let held = hold(fixture, "h", 20);
    counter.hold(&held).await.unwrap();
    let mut all = counter.audit().await.unwrap();
    assert_eq!(all.len(), 1);
    let mut found = all.remove(0);
    let ledger = UserTotals { user_id: user(1), period: october(), totals: chats(5, 1) };
    assert_eq!((found.ledger, found.cursor), (ledger, Offset::new(0)));
    found.in_flight.sort_by_key(|entry| entry.tokens);
    let ids: Vec<_> = found.in_flight.iter().map(|entry| (entry.id_digest, entry.tokens)).collect();
    assert_eq!(ids, [(hold_id("h"), 20), (event_id("a"), 60)]);
    assert_eq!(found.in_flight[0].hold_expires_at, Some(held.expires_at));
    assert_eq!(found.in_flight[1].hold_expires_at, None);
    assert_eq!(found.in_flight[1].admitted_at, grant.admitted_at);
}
