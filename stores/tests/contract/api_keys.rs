//! The rules of the port `ApiKeys`.

use metering::accounts::{ApiKey, ApiKeyId, ApiKeys, Scope, Scopes};
use metering::time::Timestamp;

use super::accounts::now;

macro_rules! api_keys_contract {
    ($make:expr) => {
        rules!(
            api_keys,
            api_keys_rules,
            $make,
            [
                a_key_is_found_as_made,
                an_id_never_given_is_no_key,
                keys_are_listed_oldest_first,
                a_key_is_revoked_once,
                an_id_is_given_once,
            ]
        );
    };
}

/// A key of that id.
pub(crate) fn key(id: &str) -> ApiKey {
    ApiKey {
        id: ApiKeyId(id.into()),
        name: "collector".into(),
        scopes: Scopes::default().with(Scope::Ingest).with(Scope::UsageRead),
        digest: [7; 32],
        created_at: now(),
        expires_at: Some(Timestamp::from_millis(now().as_millis() + 60_000)),
        revoked_at: None,
    }
}

pub(crate) async fn a_key_is_found_as_made(store: &impl ApiKeys) {
    store.create(key("00000000000000aa")).await.unwrap();
    let found = store.find(&ApiKeyId("00000000000000aa".into())).await.unwrap();
    assert_eq!(found, Some(key("00000000000000aa")));
}

pub(crate) async fn an_id_never_given_is_no_key(store: &impl ApiKeys) {
    let nothing = ApiKeyId("00000000000000ff".into());
    assert_eq!(store.find(&nothing).await.unwrap(), None);
    assert!(!store.revoke(&nothing, now()).await.unwrap());
}

pub(crate) async fn keys_are_listed_oldest_first(store: &impl ApiKeys) {
    let older = Timestamp::from_millis(now().as_millis() - 1);
    store.create(key("0000000000000001")).await.unwrap();
    store.create(ApiKey { created_at: older, ..key("0000000000000002") }).await.unwrap();
    let ids: Vec<_> = store.list().await.unwrap().into_iter().map(|key| key.id.0).collect();
    assert_eq!(ids, ["0000000000000002", "0000000000000001"]);
}

pub(crate) async fn a_key_is_revoked_once(store: &impl ApiKeys) {
    let made = key("00000000000000bb");
    store.create(made.clone()).await.unwrap();
    assert!(store.revoke(&made.id, now()).await.unwrap());
    let later = Timestamp::from_millis(now().as_millis() + 1);
    assert!(!store.revoke(&made.id, later).await.unwrap());
    let found = store.find(&made.id).await.unwrap().unwrap();
    assert_eq!(found.revoked_at, Some(now()));
}

pub(crate) async fn an_id_is_given_once(store: &impl ApiKeys) {
    let first = key("00000000000000cc");
    store.create(first.clone()).await.unwrap();
    let second = ApiKey { digest: [8; 32], ..first.clone() };
    assert!(store.create(second).await.is_err());
    assert_eq!(store.find(&first.id).await.unwrap(), Some(first));
}
