//! The rules of the port `SigningKeys`.

use metering::accounts::{SigningKey, SigningKeys};

use super::accounts::now;

macro_rules! signing_keys_contract {
    ($make:expr) => {
        rules!(
            signing_keys,
            signing_keys_rules,
            $make,
            [the_first_candidate_stays, of_two_first_starts_both_get_the_same_key,]
        );
    };
}

fn candidate(id: &str) -> SigningKey {
    let id = id.to_owned();
    SigningKey { id, pkcs8: vec![1, 2, 3], public: [4; 32], created_at: now() }
}

pub(crate) async fn the_first_candidate_stays(store: &impl SigningKeys) {
    assert_eq!(store.load(candidate("first")).await.unwrap(), [candidate("first")]);
    assert_eq!(store.load(candidate("second")).await.unwrap(), [candidate("first")]);
}

pub(crate) async fn of_two_first_starts_both_get_the_same_key(store: &impl SigningKeys) {
    let (one, other) = tokio::join!(store.load(candidate("one")), store.load(candidate("other")));
    assert_eq!(one.unwrap(), other.unwrap());
}
