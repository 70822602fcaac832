//! The ports of accounts. One trait each; every adapter passes the same rule suites.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    ApiKey, ApiKeyId, Email, PasswordHash, Preferences, PreferencesChange, Role, Subscription,
    SubscriptionChange, User, UserId,
};
use crate::Unavailable;
use crate::quota::PlanName;
use crate::time::Timestamp;

/// A user to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// Made by the caller.
    pub id: UserId,
    /// Shown only.
    pub name: Option<String>,
    /// Must not be taken.
    pub email: Option<Email>,
    /// Must not be taken.
    pub external_id: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Without one they cannot log in.
    pub password: Option<PasswordHash>,
    /// The plan of the subscription that is made with them.
    pub plan: PlanName,
    /// How to pay for it.
    pub payment_method_id: Option<String>,
    /// The present.
    pub now: Timestamp,
}

impl NewUser {
    /// What [`UserQuery::search`] looks into: name, e-mail and external id in lower case. Each
    /// stands on a line of its own, so that no search matches across two of them.
    pub fn search_text(&self) -> String {
        let email = self.email.as_ref().map(Email::as_str);
        let parts = [self.name.as_deref(), email, self.external_id.as_deref()];
        parts.map(Option::unwrap_or_default).join("\n").to_lowercase()
    }

    /// The user once made.
    pub fn into_user(self) -> User {
        User {
            id: self.id,
            name: self.name,
            email: self.email,
            external_id: self.external_id,
            role: self.role,
            locked: false,
            created_at: self.now,
            updated_at: self.now,
        }
    }
}

/// Why a user was not made. Nothing was stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CreateError {
    /// Somebody has this e-mail address.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// This user has the external id.
    #[error("the external id is taken by {}", .0.id)]
    ExternalIdTaken(Box<User>),
    /// Try again.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Which users to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserQuery {
    /// Part of name, e-mail or external id, case-insensitively.
    pub search: Option<String>,
    /// Only users made after this one (ids sort by time).
    pub after: Option<UserId>,
    /// At most so many.
    pub rows_max: usize,
}

/// A page of users, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPage {
    /// The users.
    pub users: Vec<User>,
    /// Whether there are more after the last.
    pub has_more: bool,
}

/// Who there is.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Makes a user and their subscription, both or neither; announces the new terms. When both the
    /// external id and the address are taken, `ExternalIdTaken` is told: a service that repeats its
    /// request gets the user it made.
    async fn create(&self, user: NewUser) -> Result<User, CreateError>;

    /// The user of that id; `None` also once erased.
    async fn find(&self, id: UserId) -> Result<Option<User>, Unavailable>;

    /// The user with that address, and their password.
    async fn find_login(
        &self,
        email: &Email,
    ) -> Result<Option<(User, Option<PasswordHash>)>, Unavailable>;

    /// The users of a service's own ids, in the order asked.
    async fn find_external(
        &self,
        external_ids: &[String],
    ) -> Result<Vec<Option<UserId>>, Unavailable>;

    /// A page of users, erased ones left out.
    async fn list(&self, query: &UserQuery) -> Result<UserPage, Unavailable>;

    /// Changes role or lock (`None` leaves as it is); announces it; locking ends their sessions. What
    /// changes nothing is not announced. `None`: no such user.
    async fn update(
        &self,
        id: UserId,
        role: Option<Role>,
        locked: Option<bool>,
        now: Timestamp,
    ) -> Result<Option<User>, Unavailable>;

    /// Erases name, e-mail, external id, password and sessions, and announces it; the id stays
    /// taken and is found no more. `false`: no such user.
    async fn erase(&self, id: UserId, now: Timestamp) -> Result<bool, Unavailable>;
}

/// The plans that users are on.
#[async_trait]
pub trait Subscriptions: Send + Sync {
    /// In the order asked; `None` for who does not exist or was erased.
    async fn of_users(&self, users: &[UserId]) -> Result<Vec<Option<Subscription>>, Unavailable>;

    /// Changes a subscription and announces it. A plan that is in force without an end and named
    /// again goes on as it is; what changes nothing has no new version and is not announced. `None`:
    /// no such user.
    async fn change(
        &self,
        user: UserId,
        change: &SubscriptionChange,
        now: Timestamp,
    ) -> Result<Option<Subscription>, Unavailable>;
}

/// What users like.
#[async_trait]
pub trait PreferenceStore: Send + Sync {
    /// A user's preferences, made with defaults at first sight. `None`: no such user.
    async fn of_user(
        &self,
        user: UserId,
        now: Timestamp,
    ) -> Result<Option<Preferences>, Unavailable>;

    /// Changes some of them. `None`: no such user.
    async fn change(
        &self,
        user: UserId,
        change: &PreferencesChange,
        now: Timestamp,
    ) -> Result<Option<Preferences>, Unavailable>;
}

/// Credentials of services.
#[async_trait]
pub trait ApiKeys: Send + Sync {
    /// Stores a new key.
    async fn create(&self, key: ApiKey) -> Result<(), Unavailable>;

    /// The key of that id, revoked and expired ones too.
    async fn find(&self, id: &ApiKeyId) -> Result<Option<ApiKey>, Unavailable>;

    /// All keys, oldest first.
    async fn list(&self) -> Result<Vec<ApiKey>, Unavailable>;

    /// Revokes a key and announces it; `false` when there is none or it was revoked before.
    async fn revoke(&self, id: &ApiKeyId, now: Timestamp) -> Result<bool, Unavailable>;
}

/// What became of a refresh token that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It was valid and is used now; the new one is stored in its place.
    Rotated(UserId),
    /// It was used before: its whole family is revoked now.
    Reused,
    /// Unknown, expired or revoked.
    Invalid,
}

/// Refresh tokens, by the SHA-256 of what the client holds. A family is all that came from one
/// login.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Begins a family. For who is locked or erased by now the token is never valid.
    async fn begin(
        &self,
        user: UserId,
        digest: [u8; 32],
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Unavailable>;

    /// Uses a token and stores its successor, atomically: of two uses one is `Reused`.
    async fn rotate(
        &self,
        digest: [u8; 32],
        successor: [u8; 32],
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Rotation, Unavailable>;

    /// Revokes the family of a token; unknown ones are passed over.
    async fn end(&self, digest: [u8; 32], now: Timestamp) -> Result<(), Unavailable>;
}

/// Whose attempts are counted: one account or one client address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AddressKey {
    /// By the compared form of the e-mail address, whether or not there is such an account.
    Account(String),
    /// By client address.
    Client(String),
}

impl AddressKey {
    /// As stores keep it: an account and a client of the same text differ.
    pub fn subject(&self) -> String {
        match self {
            Self::Account(email) => format!("account:{email}"),
            Self::Client(address) => format!("client:{address}"),
        }
    }
}

/// How long a wrong password is kept: longer than any span that throttling asks about. Shorter would
/// let attempts be forgotten.
pub const WRONG_PASSWORDS_KEPT_FOR: Duration = Duration::from_secs(86_400);

/// Wrong passwords of late.
#[async_trait]
pub trait LoginAttempts: Send + Sync {
    /// How many wrong ones since `since`, and when the oldest of them was.
    async fn count(
        &self,
        key: &AddressKey,
        since: Timestamp,
    ) -> Result<(u32, Option<Timestamp>), Unavailable>;

    /// Notes a wrong one; those older than [`WRONG_PASSWORDS_KEPT_FOR`] may be let go.
    async fn note(&self, key: &AddressKey, now: Timestamp) -> Result<(), Unavailable>;
}

/// A key that signs access tokens (Ed25519).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// `kid` in headers and in the JWKS.
    pub id: String,
    /// The secret key as PKCS#8 DER.
    pub pkcs8: Vec<u8>,
    /// The public key, 32 bytes.
    pub public: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys that sign access tokens, so that sessions survive a restart.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// All keys, newest first; stores `candidate` if there is none yet. Two processes that start
    /// at once get the same answer.
    async fn load(&self, candidate: SigningKey) -> Result<Vec<SigningKey>, Unavailable>;
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A user's role or lock, or they were erased: cached verdicts on them are void.
    User(UserId),
    /// A user's terms.
    Terms(UserId),
    /// An API key was revoked.
    ApiKey(ApiKeyId),
}

/// One numbered change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Grows by commit.
    pub number: u64,
    /// What changed.
    pub kind: ChangeKind,
}

/// Changes that every process must hear of soon, those made by the command line included.
#[async_trait]
pub trait ChangeFeed: Send + Sync {
    /// The number of the latest change.
    async fn latest(&self) -> Result<u64, Unavailable>;

    /// All changes after `number`, ascending.
    async fn after(&self, number: u64) -> Result<Vec<Change>, Unavailable>;

    /// How often to ask.
    fn poll_interval(&self) -> Duration;
}
