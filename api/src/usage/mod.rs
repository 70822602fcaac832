//! What was used: a user's month, their history, and everybody's usage, from the ledger.
//!
//! All of it stands at the ledger's cursor; what is in flight is only in `GET /api/usage/me`.

pub(crate) mod admin;
pub(crate) mod alerts;
mod csv_body;
mod format;
mod history;
mod monthly;
mod parameters;

pub(crate) use history::{history_of_me, history_of_user};
pub(crate) use monthly::{tokens_of_me, tokens_of_user};

use axum::extract::{FromRef, FromRequestParts};
use edge::{Caller, Code, Path, Problem, Verifier};
use http::request::Parts;
use metering::accounts::{Scope, Subscription, UserId};

use crate::state::Api;

#[cfg(test)]
mod tests;

/// An admin, or a key with scope `usage:read`. Others get 403 before their request is looked at
/// further.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsageReader;

impl<S> FromRequestParts<S> for UsageReader
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        caller.require(Scope::UsageRead).map(|()| Self)
    }
}

/// The user that the path names, for whoever may read their usage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject(UserId);

impl<S> FromRequestParts<S> for Subject
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        UsageReader::from_request_parts(parts, state).await?;
        let Path(id) = Path::<String>::from_request_parts(parts, state).await?;
        // What is no id at all names nobody.
        id.parse().map(Self).map_err(|_| no_such_user())
    }
}

/// A user who calls for themselves; services get 403.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Me(UserId);

impl<S> FromRequestParts<S> for Me
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Caller::from_request_parts(parts, state).await?.user_id().map(Self)
    }
}

/// The subscription of a user who is there; 404 for others.
async fn subscription_of(api: &Api, user: UserId) -> Result<Subscription, Problem> {
    let found = api.subscriptions.of_users(&[user]).await?;
    found.into_iter().next().flatten().ok_or_else(no_such_user)
}

fn no_such_user() -> Problem {
    Problem::new(Code::NotFound, "there is no such user")
}
