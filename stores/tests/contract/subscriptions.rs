//! The rules of the port `Subscriptions`.

use metering::accounts::{
    Accounts, NewUser, SubscriptionChange, SubscriptionStatus, Subscriptions, UserId,
};
use metering::quota::PlanName;
use metering::time::Timestamp;

use super::accounts::{ada, now, service_subject};

macro_rules! subscriptions_contract {
    ($make:expr) => {
        rules!(
            subscriptions,
            subscriptions_rules,
            $make,
            [
                every_user_is_made_with_a_subscription,
                a_plan_begins_when_it_is_changed,
                each_change_has_a_greater_version,
                what_is_not_named_stays,
                the_same_plan_again_changes_nothing,
                who_does_not_exist_or_was_erased_has_none,
            ]
        );
    };
}

fn to_plan(plan: &str) -> SubscriptionChange {
    SubscriptionChange { plan: Some(PlanName::new(plan)), ..SubscriptionChange::default() }
}

fn later() -> Timestamp {
    Timestamp::from_millis(now().as_millis() + 1000)
}

pub(crate) async fn every_user_is_made_with_a_subscription(
    store: &(impl Accounts + Subscriptions),
) {
    let payment_method_id = Some("pm_1".to_owned());
    let user = NewUser { plan: PlanName::new("basic"), payment_method_id, ..ada() };
    let user = store.create(user).await.unwrap();
    let found = store.of_users(&[user.id]).await.unwrap().remove(0).unwrap();
    assert!(found.id.starts_with("sub_"), "{}", found.id);
    assert_eq!((found.user_id, found.plan.as_str()), (user.id, "basic"));
    assert_eq!(found.status, SubscriptionStatus::Active);
    assert_eq!((found.start_date, found.expires_at), (now(), None));
    assert_eq!(found.payment_method_id.as_deref(), Some("pm_1"));
    assert!(found.auto_renew, "whoever gave a way to pay wants it to go on");
}

pub(crate) async fn a_plan_begins_when_it_is_changed(store: &(impl Accounts + Subscriptions)) {
    let user = store.create(ada()).await.unwrap().id;
    let changed = store.change(user, &to_plan("professional"), later()).await.unwrap().unwrap();
    assert_eq!((changed.plan.as_str(), changed.start_date), ("professional", later()));
    assert_eq!((changed.created_at, changed.updated_at), (now(), later()));
    assert_eq!(store.of_users(&[user]).await.unwrap(), [Some(changed)]);
}

pub(crate) async fn each_change_has_a_greater_version(store: &(impl Accounts + Subscriptions)) {
    let user = store.create(ada()).await.unwrap().id;
    let mut version = 0;
    for plan in ["basic", "free", "professional", "free"] {
        let changed = store.change(user, &to_plan(plan), later()).await.unwrap().unwrap();
        assert!(changed.version > version, "{plan}");
        version = changed.version;
    }
}

pub(crate) async fn what_is_not_named_stays(store: &(impl Accounts + Subscriptions)) {
    let user = store.create(ada()).await.unwrap().id;
    let first = SubscriptionChange {
        plan: Some(PlanName::new("basic")),
        payment_method_id: Some("pm_2".into()),
        auto_renew: Some(true),
    };
    let before = store.change(user, &first, later()).await.unwrap().unwrap();
    let only = SubscriptionChange { auto_renew: Some(false), ..SubscriptionChange::default() };
    let after = store.change(user, &only, later()).await.unwrap().unwrap();
    assert!(!after.auto_renew);
    assert_eq!((&after.plan, after.start_date), (&before.plan, before.start_date));
    assert_eq!(after.payment_method_id.as_deref(), Some("pm_2"));
}

pub(crate) async fn the_same_plan_again_changes_nothing(store: &(impl Accounts + Subscriptions)) {
    let user = store.create(ada()).await.unwrap().id;
    let before = store.change(user, &to_plan("basic"), now()).await.unwrap();
    assert_eq!(store.change(user, &to_plan("basic"), later()).await.unwrap(), before);
}

pub(crate) async fn who_does_not_exist_or_was_erased_has_none(
    store: &(impl Accounts + Subscriptions),
) {
    let here = store.create(service_subject("here")).await.unwrap().id;
    let gone = store.create(service_subject("gone")).await.unwrap().id;
    let nobody = UserId::generate(now());
    store.erase(gone, now()).await.unwrap();
    let found = store.of_users(&[gone, here, nobody]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    for user in [gone, nobody] {
        assert_eq!(store.change(user, &to_plan("basic"), later()).await.unwrap(), None);
    }
}
