//! The rules of the port `ChangeFeed`: who announces what.

use std::time::Duration;

use metering::accounts::{
    Accounts, ApiKeys, ChangeFeed, ChangeKind, PreferenceStore, Role, SubscriptionChange,
    Subscriptions,
};
use metering::quota::PlanName;

use super::accounts::{ada, now, service_subject};
use super::api_keys::key;

macro_rules! change_feed_contract {
    ($make:expr) => {
        rules!(
            change_feed,
            change_feed_rules,
            $make,
            [
                an_empty_feed_stands_at_its_beginning,
                what_others_must_hear_of_is_announced_in_order,
                what_changes_nothing_is_not_announced,
                a_reader_goes_on_after_the_last_it_saw,
                it_is_asked_often_enough_for_a_second,
            ]
        );
    };
}

async fn kinds(store: &impl ChangeFeed, after: u64) -> Vec<ChangeKind> {
    store.after(after).await.unwrap().into_iter().map(|change| change.kind).collect()
}

pub(crate) async fn an_empty_feed_stands_at_its_beginning(store: &impl ChangeFeed) {
    let latest = store.latest().await.unwrap();
    assert_eq!(store.after(latest).await.unwrap(), []);
}

pub(crate) async fn what_others_must_hear_of_is_announced_in_order(
    store: &(impl Accounts + ApiKeys + ChangeFeed + Subscriptions),
) {
    let start = store.latest().await.unwrap();
    let user = Accounts::create(store, ada()).await.unwrap().id;
    store.update(user, Some(Role::Admin), None, now()).await.unwrap();
    store.update(user, None, Some(true), now()).await.unwrap();
    let plan = Some(PlanName::new("basic"));
    let change = SubscriptionChange { plan, ..SubscriptionChange::default() };
    Subscriptions::change(store, user, &change, now()).await.unwrap();
    let made = key("0000000000000001");
    ApiKeys::create(store, made.clone()).await.unwrap();
    store.revoke(&made.id, now()).await.unwrap();
    store.erase(user, now()).await.unwrap();
    assert_eq!(
        kinds(store, start).await,
        [
            ChangeKind::Terms(user),
            ChangeKind::User(user),
            ChangeKind::User(user),
            ChangeKind::Terms(user),
            ChangeKind::ApiKey(made.id),
            ChangeKind::User(user),
        ]
    );
}

pub(crate) async fn what_changes_nothing_is_not_announced(
    store: &(impl Accounts + ApiKeys + ChangeFeed + PreferenceStore + Subscriptions),
) {
    let user = Accounts::create(store, ada()).await.unwrap().id;
    let start = store.latest().await.unwrap();
    store.update(user, Some(Role::User), Some(false), now()).await.unwrap();
    let change = SubscriptionChange::default();
    Subscriptions::change(store, user, &change, now()).await.unwrap();
    store.of_user(user, now()).await.unwrap();
    assert!(Accounts::create(store, ada()).await.is_err());
    assert_eq!(store.latest().await.unwrap(), start);
}

pub(crate) async fn a_reader_goes_on_after_the_last_it_saw(store: &(impl Accounts + ChangeFeed)) {
    let one = store.create(service_subject("one")).await.unwrap().id;
    let seen = store.after(0).await.unwrap();
    let two = store.create(service_subject("two")).await.unwrap().id;
    assert_eq!(kinds(store, seen.last().unwrap().number).await, [ChangeKind::Terms(two)]);
    let all = store.after(0).await.unwrap();
    assert_eq!(kinds(store, 0).await, [ChangeKind::Terms(one), ChangeKind::Terms(two)]);
    assert!(all[0].number < all[1].number);
    assert_eq!(store.latest().await.unwrap(), all[1].number);
}

pub(crate) async fn it_is_asked_often_enough_for_a_second(store: &impl ChangeFeed) {
    assert!(store.poll_interval() <= Duration::from_millis(500));
}
