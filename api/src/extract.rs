//! Extractors that the handlers of this service share.

use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use edge::json::Body;
use edge::{Caller, Problem, Verifier};
use http::header::AUTHORIZATION;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// An admin: role or scope. Others get 403 before their request is looked at further.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin;

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Caller::from_request_parts(parts, state).await?.require_admin().map(|()| Self)
    }
}

/// Who calls a path that is open to everybody. Credentials that are sent must be good all the same.
#[derive(Clone, Debug)]
pub(crate) struct Anybody(pub(crate) Option<Caller>);

impl<S> FromRequestParts<S> for Anybody
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(Self(None));
        }
        Caller::from_request_parts(parts, state).await.map(|caller| Self(Some(caller)))
    }
}

/// What a PUT or PATCH may set; refuses unknown fields (`#[serde(deny_unknown_fields)]`).
pub(crate) trait Settings: DeserializeOwned {
    /// Fields that the GET of the same path shows and that cannot be set: ignored, so that what
    /// was read can be changed and sent back.
    const READ_ONLY: &'static [&'static str];
}

/// The body of a PUT or PATCH.
#[derive(Clone, Debug)]
pub(crate) struct Put<T>(pub(crate) T);

impl<T: Settings, S: Send + Sync> FromRequest<S> for Put<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Body(mut fields) = Body::<Map<String, Value>>::from_request(request, state).await?;
        fields.remove("success");
        for name in T::READ_ONLY {
            fields.remove(*name);
        }
        let rest = serde_json::to_vec(&fields).map_err(Problem::internal)?;
        edge::json::read(&rest).map(Self)
    }
}
