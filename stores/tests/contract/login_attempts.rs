//! The rules of the port `LoginAttempts`.

use std::time::Duration;

use metering::accounts::{AddressKey, LoginAttempts};

use super::accounts::now;

macro_rules! login_attempts_contract {
    ($make:expr) => {
        rules!(
            login_attempts,
            login_attempts_rules,
            $make,
            [attempts_are_counted_from_an_instant_on, accounts_and_addresses_are_counted_apart,]
        );
    };
}

pub(crate) async fn attempts_are_counted_from_an_instant_on(store: &impl LoginAttempts) {
    let key = AddressKey::Account("ada@example.com".into());
    assert_eq!(store.count(&key, now()).await.unwrap(), (0, None));
    let minute = Duration::from_secs(60);
    let (first, second) = (now().plus(minute), now().plus(minute * 2));
    store.note(&key, first).await.unwrap();
    store.note(&key, second).await.unwrap();
    assert_eq!(store.count(&key, now()).await.unwrap(), (2, Some(first)));
    assert_eq!(store.count(&key, first).await.unwrap(), (2, Some(first)));
    let between = first.plus(Duration::from_millis(1));
    assert_eq!(store.count(&key, between).await.unwrap(), (1, Some(second)));
    assert_eq!(store.count(&key, second.plus(minute)).await.unwrap(), (0, None));
}

pub(crate) async fn accounts_and_addresses_are_counted_apart(store: &impl LoginAttempts) {
    let account = AddressKey::Account("127.0.0.1".into());
    let client = AddressKey::Client("127.0.0.1".into());
    store.note(&account, now()).await.unwrap();
    assert_eq!(store.count(&account, now()).await.unwrap().0, 1);
    assert_eq!(store.count(&client, now()).await.unwrap().0, 0);
}
