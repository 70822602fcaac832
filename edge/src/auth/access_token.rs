//! Access tokens: JWTs (RFC 7519) signed with Ed25519 (RFC 8037).

use std::collections::HashMap;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use metering::accounts::{SigningKey, UserId};
use metering::time::Timestamp;
use serde::{Deserialize, Serialize};

/// `iss` of every access token.
pub const ISSUER: &str = "tokenmeter";

/// What an access token says. Role and lock are not in it: they are asked of the accounts, so
/// that a change is in force at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// [`ISSUER`].
    pub iss: String,
    /// The user.
    pub sub: UserId,
    /// Issued at, in seconds since 1970.
    pub iat: i64,
    /// Expires at, in seconds since 1970.
    pub exp: i64,
}

/// The token could not be signed: the key is not an Ed25519 key in PKCS#8.
#[derive(Debug, thiserror::Error)]
#[error("the signing key cannot be used")]
pub struct BadSigningKey(#[from] jsonwebtoken::errors::Error);

/// Signs a token for `user`, valid from `now` for `ttl` (whole seconds).
///
/// # Errors
/// [`BadSigningKey`].
pub fn issue(
    key: &SigningKey,
    user: UserId,
    now: Timestamp,
    ttl: Duration,
) -> Result<String, BadSigningKey> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(key.id.clone());
    let (iat, exp) = (now.as_seconds(), now.plus(ttl).as_seconds());
    let claims = Claims { iss: ISSUER.to_owned(), sub: user, iat, exp };
    Ok(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&key.pkcs8))?)
}

/// The keys that access tokens may be signed with, by `kid`.
pub(super) struct TrustedKeys(HashMap<String, DecodingKey>);

impl TrustedKeys {
    pub(super) fn new(keys: &[SigningKey]) -> Self {
        let trusted = |key: &SigningKey| (key.id.clone(), DecodingKey::from_ed_der(&key.public));
        Self(keys.iter().map(trusted).collect())
    }

    /// The claims of a token with a good signature, expired or not; `None` for anything else.
    pub(super) fn claims(&self, token: &str) -> Option<Claims> {
        let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        // Expiry is checked against our own clock, and told apart from a bad token.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        let decoded = jsonwebtoken::decode::<Claims>(token, self.0.get(&kid)?, &validation);
        decoded.ok().map(|token| token.claims)
    }
}
