//! The rules of the port `Sessions`.

use std::time::Duration;

use metering::accounts::{Accounts, Rotation, Sessions, UserId};
use metering::time::Timestamp;

use super::accounts::{ada, now, service_subject};

macro_rules! sessions_contract {
    ($make:expr) => {
        rules!(
            sessions,
            sessions_rules,
            $make,
            [
                a_token_is_good_for_its_successor,
                a_token_used_twice_revokes_its_family,
                of_two_uses_at_once_one_is_reused,
                another_login_is_another_family,
                an_ended_family_is_invalid,
                an_expired_token_is_invalid,
                an_unknown_token_is_invalid,
                a_lock_ends_sessions_and_none_begins_while_it_lasts,
                erasure_ends_sessions,
                no_token_outlives_a_lock_of_the_same_moment,
                no_token_outlives_a_reuse_of_the_same_moment,
            ]
        );
    };
}

const A: [u8; 32] = [1; 32];
const B: [u8; 32] = [2; 32];
const C: [u8; 32] = [3; 32];

fn in_a_month() -> Timestamp {
    now().plus(Duration::from_secs(30 * 86_400))
}

async fn logged_in(store: &(impl Accounts + Sessions)) -> UserId {
    let user = store.create(ada()).await.unwrap().id;
    store.begin(user, A, in_a_month(), now()).await.unwrap();
    user
}

async fn rotate(store: &impl Sessions, digest: [u8; 32], successor: [u8; 32]) -> Rotation {
    store.rotate(digest, successor, in_a_month(), now()).await.unwrap()
}

pub(crate) async fn a_token_is_good_for_its_successor(store: &(impl Accounts + Sessions)) {
    let user = logged_in(store).await;
    assert_eq!(rotate(store, A, B).await, Rotation::Rotated(user));
    assert_eq!(rotate(store, B, C).await, Rotation::Rotated(user));
}

pub(crate) async fn a_token_used_twice_revokes_its_family(store: &(impl Accounts + Sessions)) {
    logged_in(store).await;
    rotate(store, A, B).await;
    assert_eq!(rotate(store, A, C).await, Rotation::Reused);
    assert_eq!(rotate(store, B, [9; 32]).await, Rotation::Invalid);
    assert_eq!(rotate(store, C, [9; 32]).await, Rotation::Invalid);
}

pub(crate) async fn of_two_uses_at_once_one_is_reused(store: &(impl Accounts + Sessions)) {
    let user = logged_in(store).await;
    let (one, other) = tokio::join!(rotate(store, A, B), rotate(store, A, C));
    let mut outcomes = [one, other];
    outcomes.sort_by_key(|outcome| *outcome == Rotation::Reused);
    assert_eq!(outcomes, [Rotation::Rotated(user), Rotation::Reused]);
}

pub(crate) async fn another_login_is_another_family(store: &(impl Accounts + Sessions)) {
    let user = logged_in(store).await;
    store.begin(user, B, in_a_month(), now()).await.unwrap();
    store.end(A, now()).await.unwrap();
    assert_eq!(rotate(store, B, C).await, Rotation::Rotated(user));
}

pub(crate) async fn an_ended_family_is_invalid(store: &(impl Accounts + Sessions)) {
    logged_in(store).await;
    rotate(store, A, B).await;
    store.end(B, now()).await.unwrap();
    assert_eq!(rotate(store, B, C).await, Rotation::Invalid);
    assert_eq!(rotate(store, A, C).await, Rotation::Invalid);
    store.end([9; 32], now()).await.unwrap();
}

pub(crate) async fn an_expired_token_is_invalid(store: &(impl Accounts + Sessions)) {
    let user = logged_in(store).await;
    let end = in_a_month();
    let just_before = end.minus(Duration::from_millis(1));
    let rotated = store.rotate(A, B, end, just_before).await.unwrap();
    assert_eq!(rotated, Rotation::Rotated(user));
    assert_eq!(store.rotate(B, C, end, end).await.unwrap(), Rotation::Invalid);
}

pub(crate) async fn an_unknown_token_is_invalid(store: &(impl Accounts + Sessions)) {
    logged_in(store).await;
    assert_eq!(rotate(store, B, C).await, Rotation::Invalid);
    assert_eq!(rotate(store, C, B).await, Rotation::Invalid);
}

pub(crate) async fn a_lock_ends_sessions_and_none_begins_while_it_lasts(
    store: &(impl Accounts + Sessions),
) {
    let user = logged_in(store).await;
    store.update(user, None, Some(true), now()).await.unwrap();
    assert_eq!(rotate(store, A, B).await, Rotation::Invalid);
    store.begin(user, C, in_a_month(), now()).await.unwrap();
    store.update(user, None, Some(false), now()).await.unwrap();
    assert_eq!(rotate(store, C, B).await, Rotation::Invalid);
    let other = store.create(service_subject("other")).await.unwrap().id;
    store.begin(other, B, in_a_month(), now()).await.unwrap();
    assert_eq!(rotate(store, B, [9; 32]).await, Rotation::Rotated(other));
}

pub(crate) async fn erasure_ends_sessions(store: &(impl Accounts + Sessions)) {
    let user = logged_in(store).await;
    store.erase(user, now()).await.unwrap();
    assert_eq!(rotate(store, A, B).await, Rotation::Invalid);
}

pub(crate) async fn no_token_outlives_a_lock_of_the_same_moment(
    store: &(impl Accounts + Sessions),
) {
    for round in 0..10 {
        let user = store.create(service_subject(&format!("user {round}"))).await.unwrap().id;
        let token = |number: u8| [round * 4 + number; 32];
        store.begin(user, token(1), in_a_month(), now()).await.unwrap();
        let (_, _, locked) = tokio::join!(
            rotate(store, token(1), token(2)),
            store.begin(user, token(3), in_a_month(), now()),
            store.update(user, None, Some(true), now()),
        );
        assert!(locked.unwrap().unwrap().locked);
        for number in 1..=3 {
            assert_eq!(rotate(store, token(number), [255; 32]).await, Rotation::Invalid);
        }
    }
}

pub(crate) async fn no_token_outlives_a_reuse_of_the_same_moment(
    store: &(impl Accounts + Sessions),
) {
    let user = logged_in(store).await;
    for round in 0..10 {
        let token = |number: u8| [100 + round * 4 + number; 32];
        store.begin(user, token(1), in_a_month(), now()).await.unwrap();
        rotate(store, token(1), token(2)).await;
        let (reuse, _) =
            tokio::join!(rotate(store, token(1), token(3)), rotate(store, token(2), token(4)));
        assert_eq!(reuse, Rotation::Reused);
        assert_eq!(rotate(store, token(4), [255; 32]).await, Rotation::Invalid);
    }
}
