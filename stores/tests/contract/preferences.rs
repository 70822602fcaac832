//! The rules of the port `PreferenceStore`.

use metering::accounts::{
    Accounts, PreferenceStore, Preferences, PreferencesChange, Theme, UserId,
};
use metering::time::Timestamp;

use super::accounts::{ada, now};

macro_rules! preferences_contract {
    ($make:expr) => {
        rules!(
            preferences,
            preferences_rules,
            $make,
            [
                they_are_made_with_defaults_at_first_sight,
                of_two_first_sights_both_see_the_same,
                a_change_keeps_what_it_does_not_name,
                they_can_be_changed_before_they_were_seen,
                who_does_not_exist_or_was_erased_has_no_preferences,
            ]
        );
    };
}

fn later() -> Timestamp {
    Timestamp::from_millis(now().as_millis() + 1000)
}

pub(crate) async fn they_are_made_with_defaults_at_first_sight(
    store: &(impl Accounts + PreferenceStore),
) {
    let user = store.create(ada()).await.unwrap().id;
    let made = store.of_user(user, now()).await.unwrap().unwrap();
    assert!(made.id.starts_with("pref_"), "{}", made.id);
    assert_eq!((made.user_id, made.theme, made.notifications), (user, Theme::System, true));
    assert_eq!(made.default_model, Preferences::DEFAULT_MODEL);
    assert_eq!(store.of_user(user, later()).await.unwrap(), Some(made));
}

pub(crate) async fn of_two_first_sights_both_see_the_same(
    store: &(impl Accounts + PreferenceStore),
) {
    let user = store.create(ada()).await.unwrap().id;
    let (one, other) = tokio::join!(store.of_user(user, now()), store.of_user(user, now()));
    assert_eq!(one.unwrap(), other.unwrap());
}

pub(crate) async fn a_change_keeps_what_it_does_not_name(
    store: &(impl Accounts + PreferenceStore),
) {
    let user = store.create(ada()).await.unwrap().id;
    let before = store.of_user(user, now()).await.unwrap().unwrap();
    let change = PreferencesChange { theme: Some(Theme::Dark), ..PreferencesChange::default() };
    let after = store.change(user, &change, later()).await.unwrap().unwrap();
    let expected = Preferences { theme: Theme::Dark, updated_at: later(), ..before };
    assert_eq!(after, expected);
    assert_eq!(store.of_user(user, later()).await.unwrap(), Some(expected));
}

pub(crate) async fn they_can_be_changed_before_they_were_seen(
    store: &(impl Accounts + PreferenceStore),
) {
    let user = store.create(ada()).await.unwrap().id;
    let change = PreferencesChange {
        theme: Some(Theme::Light),
        notifications: Some(false),
        default_model: Some("gpt-4o-mini".into()),
    };
    let after = store.change(user, &change, now()).await.unwrap().unwrap();
    assert_eq!((after.theme, after.notifications), (Theme::Light, false));
    assert_eq!(after.default_model, "gpt-4o-mini");
}

pub(crate) async fn who_does_not_exist_or_was_erased_has_no_preferences(
    store: &(impl Accounts + PreferenceStore),
) {
    let erased = store.create(ada()).await.unwrap().id;
    store.of_user(erased, now()).await.unwrap();
    store.erase(erased, now()).await.unwrap();
    for user in [erased, UserId::generate(now())] {
        assert_eq!(store.of_user(user, now()).await.unwrap(), None);
        let change = PreferencesChange::default();
        assert_eq!(store.change(user, &change, now()).await.unwrap(), None);
    }
}
