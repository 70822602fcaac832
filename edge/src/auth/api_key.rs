//! API keys as text: `tm_<id>_<secret><crc>`.
//!
//! The id is public (16 hexadecimal digits), the secret has 32 random bytes in base64url, and the
//! CRC-32 of all before it lets secret scanners and this door tell typing errors from keys without
//! asking a store.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use metering::accounts::ApiKeyId;
use sha2::{Digest, Sha256};

const PREFIX: &str = "tm_";
const ID_LEN: usize = 16;
const SECRET_LEN: usize = 43;
const CRC_LEN: usize = 8;
const TEXT_LEN: usize = PREFIX.len() + ID_LEN + 1 + SECRET_LEN + CRC_LEN;

/// A new key from random bytes: its id, the text to show once, and the digest to store.
pub fn issue(id: [u8; 8], secret: [u8; 32]) -> (ApiKeyId, String, [u8; 32]) {
    let id = format!("{:016x}", u64::from_be_bytes(id));
    let mut text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("{crc:08x}"));
    let digest = digest(&text);
    (ApiKeyId(id), text, digest)
}

/// The id of what looks like a key and has the right checksum; whether such a key exists is
/// the store's question.
pub fn parse(text: &str) -> Option<ApiKeyId> {
    if text.len() != TEXT_LEN || !text.is_ascii() {
        return None;
    }
    let (body, crc) = text.split_at(TEXT_LEN - CRC_LEN);
    if format!("{:08x}", crc32fast::hash(body.as_bytes())) != crc {
        return None;
    }
    let (id, secret) = body.strip_prefix(PREFIX)?.split_at(ID_LEN);
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let secret = secret.strip_prefix('_')?;
    (id.bytes().all(lower_hex) && URL_SAFE_NO_PAD.decode(secret).is_ok())
        .then(|| ApiKeyId(id.to_owned()))
}

/// SHA-256 of a whole key. The secret is random, so no slow hash is needed.
pub fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_form_is_fixed() {
        let (id, text, _) = issue([0, 0, 0, 0, 0, 0, 0, 255], [7; 32]);
        assert_eq!(id.0, "00000000000000ff");
        assert_eq!(
            text,
            "tm_00000000000000ff_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc".to_owned()
                + &format!("{:08x}", crc32fast::hash(&text.as_bytes()[..63]))
        );
    }

    proptest! {
        #[test]
        fn what_was_issued_is_parsed_and_one_wrong_byte_is_not(
            id: [u8; 8], secret: [u8; 32], place in 0..TEXT_LEN,
        ) {
            let (id, text, stored) = issue(id, secret);
            prop_assert_eq!(parse(&text), Some(id));
            prop_assert_eq!(stored, digest(&text));
            let mut bytes = text.into_bytes();
            bytes[place] = if bytes[place] == b'a' { b'b' } else { b'a' };
            prop_assert_eq!(parse(std::str::from_utf8(&bytes).unwrap()), None);
        }

        #[test]
        fn any_text_is_parsed_or_not(text: String) {
            prop_assert_eq!(parse(&text), None);
        }
    }
}
