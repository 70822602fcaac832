//! The head of an `Authorization` header: any text is a token of ours or none, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metering::accounts::SigningKey;
use metering::time::Timestamp;

#[allow(dead_code, unreachable_pub, reason = "the service uses all of it")]
#[path = "../../edge/src/auth/access_token.rs"]
mod access_token;

fuzz_target!(|text: &str| {
    let keys = [SigningKey {
        id: "k".to_owned(),
        pkcs8: Vec::new(),
        public: [7; 32],
        created_at: Timestamp::default(),
    }];
    // Nobody has the private key of that public one.
    assert!(keys_of(&keys).claims(text).is_none());
});

fn keys_of(keys: &[SigningKey]) -> access_token::TrustedKeys {
    access_token::TrustedKeys::new(keys)
}
