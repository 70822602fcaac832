//! Callers, on the real accounts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::pkcs8::EncodePrivateKey;
use edge::{Caller, Code, Verifier, access_token, api_key};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use metering::Unavailable;
use metering::accounts::{
    Accounts, ApiKey, ApiKeyId, ApiKeys, CreateError, Email, NewUser, PasswordHash, Role, Scope,
    Scopes, SigningKey, User, UserId, UserPage, UserQuery,
};
use metering::quota::PlanName;
use metering::time::{Clock, ManualClock, Timestamp};
use stores::sqlite::SqliteAccounts;

const TTL: Duration = Duration::from_secs(900);

struct Setup {
    accounts: Arc<SqliteAccounts>,
    clock: Arc<ManualClock>,
    signing: SigningKey,
    verifier: Verifier,
    _directory: tempfile::TempDir,
}

fn signing_key(id: &str, seed: u8) -> SigningKey {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    SigningKey {
        id: id.to_owned(),
        pkcs8: key.to_pkcs8_der().unwrap().as_bytes().to_vec(),
        public: key.verifying_key().to_bytes(),
        created_at: Timestamp::from_millis(0),
    }
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let accounts = Arc::new(SqliteAccounts::open(&directory.path().join("a.db")).unwrap());
        let clock = Arc::new(ManualClock::at("2026-10-10T12:00:00Z".parse().unwrap()));
        let signing = signing_key("k1", 1);
        let verifier =
            Verifier::new(accounts.clone(), accounts.clone(), vec![signing.clone()], clock.clone());
        Self { accounts, clock, signing, verifier, _directory: directory }
    }

    async fn user(&self, role: Role) -> UserId {
        let now = self.clock.now();
        let user = NewUser {
            id: UserId::generate(now),
            name: None,
            email: None,
            external_id: None,
            role,
            password: None,
            plan: PlanName::new("free"),
            payment_method_id: None,
            now,
        };
        Accounts::create(&*self.accounts, user).await.unwrap().id
    }

    fn token(&self, user: UserId) -> String {
        access_token::issue(&self.signing, user, self.clock.now(), TTL).unwrap()
    }

    async fn key(&self, number: u8, scopes: &[Scope]) -> (ApiKeyId, String) {
        let (id, text, digest) = api_key::issue([number; 8], [number; 32]);
        let key = ApiKey {
            id: id.clone(),
            name: "a service".into(),
            scopes: scopes.iter().copied().collect(),
            digest,
            created_at: self.clock.now(),
            expires_at: Some(self.clock.now().plus(Duration::from_secs(3600))),
            revoked_at: None,
        };
        ApiKeys::create(&*self.accounts, key).await.unwrap();
        (id, text)
    }

    async fn verify(&self, credential: &str) -> Result<Caller, Code> {
        self.authorize(&format!("Bearer {credential}")).await
    }

    async fn authorize(&self, header: &str) -> Result<Caller, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        self.verifier.verify(&headers).await.map_err(|problem| problem.code())
    }
}

#[tokio::test]
async fn a_user_is_known_by_their_access_token_until_it_expires() {
    let setup = Setup::new();
    let id = setup.user(Role::Admin).await;
    let token = setup.token(id);
    for _ in 0..2 {
        assert_eq!(setup.verify(&token).await, Ok(Caller::User { id, role: Role::Admin }));
    }
    assert!(setup.authorize(&format!("bearer  {token}")).await.is_ok());
    let unseen = access_token::issue(&setup.signing, id, setup.clock.now(), TTL * 2).unwrap();
    setup.clock.advance(TTL);
    assert_eq!(setup.verify(&token).await, Err(Code::CredentialsExpired), "remembered");
    setup.clock.advance(TTL);
    assert_eq!(setup.verify(&unseen).await, Err(Code::CredentialsExpired), "never seen");
}

#[tokio::test]
async fn a_forged_token_is_refused() {
    let setup = Setup::new();
    let id = setup.user(Role::User).await;
    let now = setup.clock.now();
    let good = setup.token(id);
    let other_key = access_token::issue(&signing_key("k1", 2), id, now, TTL).unwrap();
    let other_kid = access_token::issue(&signing_key("k2", 1), id, now, TTL).unwrap();
    let mut parts: Vec<&str> = good.split('.').collect();
    // {"alg":"none","kid":"k1"}
    parts[0] = "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ";
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    let changed = parts.join(".");
    let cut = &good[..good.len() - 2];
    for token in [&*other_key, &other_kid, &unsigned, &changed, cut, "", "x", "a.b.c"] {
        assert_eq!(setup.verify(token).await, Err(Code::Unauthenticated), "{token}");
    }
    for header in ["Basic dXNlcjpwYXNz", "Bearer", &good] {
        assert_eq!(setup.authorize(header).await, Err(Code::Unauthenticated), "{header}");
    }
    let none = setup.verifier.verify(&HeaderMap::new()).await.unwrap_err();
    assert_eq!(none.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn locked_and_erased_users_are_refused_once_forgotten() {
    let setup = Setup::new();
    let (locked, erased) = (setup.user(Role::User).await, setup.user(Role::User).await);
    let (of_locked, of_erased) = (setup.token(locked), setup.token(erased));
    assert!(setup.verify(&of_locked).await.is_ok() && setup.verify(&of_erased).await.is_ok());
    let now = setup.clock.now();
    setup.accounts.update(locked, None, Some(true), now).await.unwrap();
    setup.accounts.erase(erased, now).await.unwrap();
    setup.verifier.forget_user(locked);
    setup.verifier.forget_user(erased);
    assert_eq!(setup.verify(&of_locked).await, Err(Code::Unauthenticated));
    assert_eq!(setup.verify(&of_erased).await, Err(Code::Unauthenticated));
    setup.accounts.update(locked, Some(Role::Admin), Some(false), now).await.unwrap();
    setup.verifier.forget_user(locked);
    let role = Role::Admin;
    assert_eq!(setup.verify(&of_locked).await, Ok(Caller::User { id: locked, role }));
}

#[tokio::test]
async fn a_service_is_known_by_its_key_until_it_is_revoked_or_expires() {
    let setup = Setup::new();
    let (revoked, text) = setup.key(1, &[Scope::Ingest]).await;
    let (expiring, other) = setup.key(2, &[Scope::Admin]).await;
    let scopes = Scopes::default().with(Scope::Ingest);
    let caller = Caller::Service { key: revoked.clone(), scopes };
    assert_eq!(setup.verify(&text).await, Ok(caller.clone()));
    assert_eq!(caller.user_id().unwrap_err().code(), Code::Forbidden);
    assert!(caller.require(Scope::Ingest).is_ok() && caller.require_admin().is_err());
    assert_eq!(caller.require(Scope::Users).unwrap_err().code(), Code::Forbidden);
    let admin = setup.verify(&other).await.unwrap();
    assert!(admin.is_admin() && admin.require(Scope::Backfill).is_ok());

    setup.accounts.revoke(&revoked, setup.clock.now()).await.unwrap();
    setup.verifier.forget_key(&revoked);
    assert_eq!(setup.verify(&text).await, Err(Code::Unauthenticated));
    setup.clock.advance(Duration::from_secs(3600));
    assert_eq!(setup.verify(&other).await, Err(Code::CredentialsExpired), "remembered");
    setup.verifier.forget_key(&expiring);
    assert_eq!(setup.verify(&other).await, Err(Code::CredentialsExpired), "read again");
}

#[tokio::test]
async fn the_right_id_with_a_wrong_secret_is_refused() {
    let setup = Setup::new();
    setup.key(1, &[Scope::Ingest]).await;
    let (_, guessed, _) = api_key::issue([1; 8], [9; 32]);
    assert_eq!(setup.verify(&guessed).await, Err(Code::Unauthenticated));
    let (_, unknown, _) = api_key::issue([3; 8], [9; 32]);
    assert_eq!(setup.verify(&unknown).await, Err(Code::Unauthenticated));
}

/// Accounts whose answer about a user comes only when it is let go.
struct Slow {
    inner: Arc<SqliteAccounts>,
    asked: tokio::sync::Notify,
    go: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl Accounts for Slow {
    async fn find(&self, id: UserId) -> Result<Option<User>, Unavailable> {
        let found = Accounts::find(&*self.inner, id).await;
        self.asked.notify_one();
        self.go.notified().await;
        found
    }

    async fn create(&self, user: NewUser) -> Result<User, CreateError> {
        Accounts::create(&*self.inner, user).await
    }

    async fn find_login(
        &self,
        email: &Email,
    ) -> Result<Option<(User, Option<PasswordHash>)>, Unavailable> {
        self.inner.find_login(email).await
    }

    async fn find_external(&self, ids: &[String]) -> Result<Vec<Option<UserId>>, Unavailable> {
        self.inner.find_external(ids).await
    }

    async fn list(&self, query: &UserQuery) -> Result<UserPage, Unavailable> {
        Accounts::list(&*self.inner, query).await
    }

    async fn update(
        &self,
        id: UserId,
        role: Option<Role>,
        locked: Option<bool>,
        now: Timestamp,
    ) -> Result<Option<User>, Unavailable> {
        self.inner.update(id, role, locked, now).await
    }

    async fn erase(&self, id: UserId, now: Timestamp) -> Result<bool, Unavailable> {
        self.inner.erase(id, now).await
    }
}

#[tokio::test]
async fn a_verdict_that_was_overtaken_by_a_lock_is_not_remembered() {
    let setup = Setup::new();
    let id = setup.user(Role::User).await;
    let (inner, asked, go) = (setup.accounts.clone(), Default::default(), Default::default());
    let slow = Arc::new(Slow { inner, asked, go });
    let keys = setup.accounts.clone();
    let signing = vec![setup.signing.clone()];
    let verifier = Verifier::new(slow.clone(), keys, signing, setup.clock.clone());
    let mut headers = HeaderMap::new();
    let token = format!("Bearer {}", setup.token(id));
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&token).unwrap());

    let overtaken = {
        let (verifier, headers) = (verifier.clone(), headers.clone());
        tokio::spawn(async move { verifier.verify(&headers).await })
    };
    slow.asked.notified().await;
    setup.accounts.update(id, None, Some(true), setup.clock.now()).await.unwrap();
    verifier.forget_user(id);
    slow.go.notify_one();
    assert!(overtaken.await.unwrap().is_ok(), "it was asked before the lock");
    slow.go.notify_one();
    let later = verifier.verify(&headers).await.unwrap_err();
    assert_eq!(later.code(), Code::Unauthenticated);
}
