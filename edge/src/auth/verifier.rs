//! Checks credentials, and remembers what it found.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use metering::accounts::{Accounts, ApiKeyId, ApiKeys, SigningKey, UserId};
use metering::time::{Clock, Timestamp};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::access_token::TrustedKeys;
use super::cache::{CredentialDigest, Subject, Verdict, VerdictCache};
use super::{Caller, api_key};
use crate::code::Code;
use crate::problem::Problem;

/// Longer credentials are none of ours: an access token has some 300 bytes.
const CREDENTIAL_BYTES_MAX: usize = 4096;

/// Says who calls. Cheap to clone; all clones share one cache.
///
/// Good credentials are remembered until they expire or [`Self::forget_user`] or
/// [`Self::forget_key`] names their owner; bad ones are checked anew each time.
#[derive(Clone)]
pub struct Verifier {
    shared: Arc<Shared>,
}

struct Shared {
    accounts: Arc<dyn Accounts>,
    keys: Arc<dyn ApiKeys>,
    trusted: TrustedKeys,
    clock: Arc<dyn Clock>,
    cache: VerdictCache,
}

impl Verifier {
    /// Takes access tokens signed by any of `signing`, and API keys that `keys` knows.
    pub fn new(
        accounts: Arc<dyn Accounts>,
        keys: Arc<dyn ApiKeys>,
        signing: Vec<SigningKey>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (trusted, cache) = (TrustedKeys::new(&signing), VerdictCache::default());
        Self { shared: Arc::new(Shared { accounts, keys, trusted, clock, cache }) }
    }

    /// Who sends `Authorization: Bearer …`.
    ///
    /// # Errors
    /// 401 `unauthenticated` or `credentials_expired`; 503 when the accounts cannot be asked.
    pub async fn verify(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let credential = bearer(headers)?;
        let digest: CredentialDigest = Sha256::digest(credential.as_bytes()).into();
        let now = self.shared.clock.now();
        if let Some(verdict) = self.shared.cache.get(&digest) {
            return in_time(verdict, now);
        }
        let asked_at = self.shared.cache.generation();
        let verdict = match api_key::parse(credential) {
            Some(id) => self.verify_key(&id, &digest).await?,
            None => self.verify_token(credential, now).await?,
        };
        if !verdict.has_expired(now) {
            self.shared.cache.insert(digest, verdict.clone(), asked_at, now);
        }
        in_time(verdict, now)
    }

    /// Drops what is remembered of a user: their role or lock changed, or they were erased.
    pub fn forget_user(&self, user: UserId) {
        self.shared.cache.forget(&Subject::User(user));
    }

    /// Drops what is remembered of a key: it was revoked.
    pub fn forget_key(&self, key: &ApiKeyId) {
        self.shared.cache.forget(&Subject::Key(key.clone()));
    }

    async fn verify_key(
        &self,
        id: &ApiKeyId,
        digest: &CredentialDigest,
    ) -> Result<Verdict, Problem> {
        let key = self.shared.keys.find(id).await?.ok_or_else(bad)?;
        if !bool::from(key.digest.ct_eq(digest)) || key.revoked_at.is_some() {
            return Err(bad());
        }
        let caller = Caller::Service { key: key.id, scopes: key.scopes };
        Ok(Verdict { caller, expires_at: key.expires_at })
    }

    async fn verify_token(&self, token: &str, now: Timestamp) -> Result<Verdict, Problem> {
        let claims = self.shared.trusted.claims(token).ok_or_else(bad)?;
        let expires_at = Timestamp::from_millis(claims.exp.saturating_mul(1000));
        if expires_at <= now {
            return Err(expired());
        }
        let user = self.shared.accounts.find(claims.sub).await?;
        let user = user.filter(|user| !user.locked).ok_or_else(bad)?;
        let caller = Caller::User { id: user.id, role: user.role };
        Ok(Verdict { caller, expires_at: Some(expires_at) })
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::new(Code::Unauthenticated, "send Authorization: Bearer …");
    let value = headers.get(AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| bad())?;
    let (scheme, credential) = value.split_once(' ').ok_or_else(missing)?;
    let credential = credential.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || credential.is_empty() {
        return Err(missing());
    }
    if credential.len() > CREDENTIAL_BYTES_MAX { Err(bad()) } else { Ok(credential) }
}

fn in_time(verdict: Verdict, now: Timestamp) -> Result<Caller, Problem> {
    if verdict.has_expired(now) { Err(expired()) } else { Ok(verdict.caller) }
}

fn bad() -> Problem {
    Problem::new(Code::Unauthenticated, "the credentials are not valid")
}

fn expired() -> Problem {
    Problem::new(Code::CredentialsExpired, "the credentials have expired")
}
