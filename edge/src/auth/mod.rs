//! Who calls: access tokens of users and API keys of services.

pub mod access_token;
pub mod api_key;
mod cache;
mod verifier;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use metering::accounts::{ApiKeyId, Role, Scope, Scopes, UserId};
use metering::quota::Trust;

pub use verifier::Verifier;

use crate::code::Code;
use crate::problem::Problem;

/// Who calls. As an extractor it answers 401 when the credentials are missing or bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A user with an access token.
    User {
        /// Who.
        id: UserId,
        /// What they may do.
        role: Role,
    },
    /// A service with an API key, which belongs to the installation and not to a user.
    Service {
        /// Which key.
        key: ApiKeyId,
        /// What it may do.
        scopes: Scopes,
    },
}

impl Caller {
    /// The user who calls.
    ///
    /// # Errors
    /// 403 for a service: `/me` is nobody there.
    pub fn user_id(&self) -> Result<UserId, Problem> {
        match self {
            Self::User { id, .. } => Ok(*id),
            Self::Service { .. } => Err(Problem::new(
                Code::Forbidden,
                "an API key belongs to no user: use the path for services",
            )),
        }
    }

    /// Whether they may everything: role admin, or scope admin.
    pub fn is_admin(&self) -> bool {
        match self {
            Self::User { role, .. } => *role == Role::Admin,
            Self::Service { scopes, .. } => scopes.iter().any(|scope| scope == Scope::Admin),
        }
    }

    /// Whether they may what `scope` allows: role admin, or a key that allows it.
    pub fn allows(&self, scope: Scope) -> bool {
        match self {
            Self::User { role, .. } => *role == Role::Admin,
            Self::Service { scopes, .. } => scopes.allow(scope),
        }
    }

    /// Lets only admins pass.
    ///
    /// # Errors
    /// 403.
    pub fn require_admin(&self) -> Result<(), Problem> {
        if self.is_admin() {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, "this needs the role or the scope admin"))
    }

    /// Lets only those pass who may what `scope` allows.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.allows(scope) {
            return Ok(());
        }
        let detail = format!("this needs the role admin or a key with scope {}", scope.as_str());
        Err(Problem::new(Code::Forbidden, detail))
    }

    /// How far what they report is trusted: users other than admins must fit into their plan.
    pub fn trust(&self) -> Trust {
        match self {
            Self::User { role: Role::User, .. } => Trust::User,
            Self::User { role: Role::Admin, .. } | Self::Service { .. } => Trust::Service,
        }
    }
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Verifier::from_ref(state).verify(&parts.headers).await
    }
}
