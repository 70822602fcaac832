//! A user: an account, or the subject of a service.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// A UUIDv7 of `now`: sorts by time.
pub fn uuid_at(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.as_seconds()).unwrap_or(0);
    let nanos = u32::try_from(now.as_millis().rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

/// A user's id: a UUIDv7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(Uuid);

impl UserId {
    /// A new one.
    pub fn generate(now: Timestamp) -> Self {
        Self(uuid_at(now))
    }

    /// From 16 bytes that a store kept.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes that stores keep and digests are made of.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UserId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Their own account.
    #[default]
    User,
    /// Everything.
    Admin,
}

impl Role {
    /// As JSON shows it and stores keep it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "user" => Ok(Self::User),
            "admin" => Ok(Self::Admin),
            _ => Err(()),
        }
    }
}

/// Not an e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address of at most 254 bytes")]
pub struct NotAnEmail;

/// An e-mail address as it was written; compares case-insensitively.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    /// Checks the outline: one `@` with something on both sides, no white space, no control
    /// characters, at most 254 bytes (RFC 5321, 4.5.3.1.3). Only a mail shows whether it exists.
    ///
    /// # Errors
    /// [`NotAnEmail`].
    pub fn new(text: &str) -> Result<Self, NotAnEmail> {
        let text = text.trim();
        let sides = text.split_once('@').filter(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && !domain.contains('@')
        });
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if sides.is_none() || text.len() > 254 || text.contains(odd) {
            return Err(NotAnEmail);
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is compared, and unique in every store.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

impl PartialEq for Email {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Email {}

/// A PHC string (`$argon2id$…`). Never shown, never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Never changes.
    pub id: UserId,
    /// Shown only; `None` once erased, or for a service's subject without one.
    pub name: Option<String>,
    /// Unique. With a password it is what they log in with.
    pub email: Option<Email>,
    /// A service's own name for them. Unique.
    pub external_id: Option<String>,
    /// What they may do.
    pub role: Role,
    /// No login, own credentials refused; services may still meter them.
    pub locked: bool,
    /// When they were made.
    pub created_at: Timestamp,
    /// When anything above last changed.
    pub updated_at: Timestamp,
}

impl User {
    /// The user with another role or lock (`None` leaves as it is); `None` when it changes nothing.
    pub fn changed(
        &self,
        role: Option<Role>,
        locked: Option<bool>,
        now: Timestamp,
    ) -> Option<Self> {
        let after = Self {
            role: role.unwrap_or(self.role),
            locked: locked.unwrap_or(self.locked),
            ..self.clone()
        };
        (after != *self).then_some(Self { updated_at: now, ..after })
    }
}
