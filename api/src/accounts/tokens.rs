//! Access tokens and the keys that sign them; refresh tokens.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use edge::{Problem, access_token};
use metering::Unavailable;
use metering::accounts::{SigningKey, SigningKeys, UserId};
use metering::time::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How long a refresh token is good unless settings say otherwise. Shorter logs people out more
/// often; longer keeps a stolen one useful until it is used twice.
const REFRESH_TOKEN_TTL: Duration = Duration::from_secs(30 * 86_400);

/// There is no key to sign with.
#[derive(Debug, Clone, thiserror::Error)]
#[error("there is no key to sign access tokens with")]
pub struct NoSigningKey;

/// Signs access tokens, and shows the public keys that others verify them with.
pub struct TokenIssuer {
    key: SigningKey,
    ttl: Duration,
    refresh_ttl: Duration,
    jwks: Value,
}

impl TokenIssuer {
    /// Signs with the first of `keys` (the newest), for `ttl`.
    ///
    /// # Errors
    /// [`NoSigningKey`] when `keys` is empty.
    pub fn new(keys: &[SigningKey], ttl: Duration) -> Result<Self, NoSigningKey> {
        let key = keys.first().cloned().ok_or(NoSigningKey)?;
        let jwk = |key: &SigningKey| {
            // RFC 8037: an octet key pair.
            json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
                "kid": key.id, "x": URL_SAFE_NO_PAD.encode(key.public),
            })
        };
        let jwks = json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()});
        Ok(Self { key, ttl, refresh_ttl: REFRESH_TOKEN_TTL, jwks })
    }

    /// The same, with refresh tokens that are good for `ttl`.
    #[must_use]
    pub fn with_refresh_ttl(self, ttl: Duration) -> Self {
        Self { refresh_ttl: ttl, ..self }
    }

    /// When a refresh token that is issued now expires.
    pub(super) fn refresh_expiry(&self, now: Timestamp) -> Timestamp {
        now.plus(self.refresh_ttl)
    }

    /// An access token, and for how many seconds it is good.
    pub(super) fn access_token(
        &self,
        user: UserId,
        now: Timestamp,
    ) -> Result<(String, u64), Problem> {
        let token = access_token::issue(&self.key, user, now, self.ttl);
        Ok((token.map_err(Problem::internal)?, self.ttl.as_secs()))
    }

    pub(super) fn jwks(&self) -> &Value {
        &self.jwks
    }
}

/// The installation's signing keys, newest first; makes one at the first start.
///
/// # Errors
/// [`Unavailable`] when the store cannot be asked.
pub async fn signing_keys(
    store: &dyn SigningKeys,
    now: Timestamp,
) -> Result<Vec<SigningKey>, Unavailable> {
    let pair = ed25519_dalek::SigningKey::from_bytes(&rand::random());
    let public = pair.verifying_key().to_bytes();
    let pkcs8 = pair.to_pkcs8_der();
    let pkcs8 = pkcs8.map_err(|error| Unavailable::new("signing_keys", error))?;
    let pkcs8 = pkcs8.as_bytes().to_vec();
    let id = URL_SAFE_NO_PAD.encode(&Sha256::digest(public)[..12]);
    store.load(SigningKey { id, pkcs8, public, created_at: now }).await
}

/// A new refresh token: 256 random bits, and the digest to store.
pub(super) fn refresh_token() -> (String, [u8; 32]) {
    let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let digest = refresh_token_digest(&token);
    (token, digest)
}

/// What is stored of a refresh token. It is random, so no slow hash is needed.
pub(super) fn refresh_token_digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
