//! API keys: credentials of services, which belong to the installation and not to a user.

use std::fmt;
use std::str::FromStr;

use crate::time::Timestamp;

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Track events of any user, and hold.
    Ingest = 1,
    /// Track events older than 35 days.
    Backfill = 2,
    /// Read everybody's usage.
    UsageRead = 4,
    /// Make users.
    Users = 8,
    /// All of them, and what a user of role `admin` may.
    Admin = 16,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ingest, Self::Backfill, Self::UsageRead, Self::Users, Self::Admin];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Backfill => "backfill",
            Self::UsageRead => "usage:read",
            Self::Users => "users",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(())
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// From [`Self::bits`].
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// How stores keep them.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set with `scope` in it.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | scope as u8)
    }

    /// Whether `scope` is allowed: it is in the set, or `admin` is.
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope as u8 | Scope::Admin as u8) != 0
    }

    /// The scopes written in it; `admin` is not spelled out.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & *scope as u8 != 0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::default(), Self::with)
    }
}

/// The public part of a key: 16 lowercase hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKeyId(pub String);

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key as it is stored: never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public part.
    pub id: ApiKeyId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// SHA-256 of the whole key as it was shown once.
    pub digest: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it is refused.
    pub expires_at: Option<Timestamp>,
    /// Since then it is refused.
    pub revoked_at: Option<Timestamp>,
}
