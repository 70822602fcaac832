//! The administration of users.

use axum::extract::{FromRequestParts, State};
use edge::json::Body;
use edge::{Caller, Path, Problem, Query, Success, created, ok};
use http::request::Parts;
use metering::accounts::{CreateError, Role, Scope, User, UserId, UserQuery};
use serde::{Deserialize, Serialize};

use super::issue::{UserRequest, create_user};
use super::session::not_created;
use super::subscription::SubscriptionSettings;
use super::view::{Profile, SubscriptionView, UsageView, UserView, no_such_user};
use crate::cursor;
use crate::extract::{Admin, Put, Settings};
use crate::state::Api;

/// The user that the path names; what is no id at all names nobody.
pub(crate) struct Named(UserId);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, state).await?;
        id.parse().map(Self).map_err(|_| no_such_user())
    }
}

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    search: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct UserList {
    data: Vec<UserView>,
    has_more: bool,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Creation {
    name: Option<String>,
    email: Option<String>,
    external_id: Option<String>,
    password: Option<String>,
    role: Option<Role>,
    plan: Option<String>,
}

/// What a PATCH of a user sets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserSettings {
    role: Option<Role>,
    locked: Option<bool>,
}

impl Settings for UserSettings {
    const READ_ONLY: &'static [&'static str] = &[
        "id",
        "name",
        "email",
        "external_id",
        "created_at",
        "updated_at",
        "subscription",
        "preferences",
        "usage",
    ];
}

#[derive(Debug, Serialize)]
pub(crate) struct Erased {}

/// `GET /api/users`
pub(crate) async fn list(
    State(api): State<Api>,
    _: Admin,
    Query(query): Query<ListQuery>,
) -> Result<Success<UserList>, Problem> {
    let rows_max = cursor::rows_max(query.limit)?;
    let filters = ("users", &query.search);
    let after = query.cursor.as_deref().map(|text| cursor::decode(text, &filters)).transpose()?;
    let search = query.search.clone();
    let page = api.accounts.list(&UserQuery { search, after, rows_max }).await?;
    let next_cursor = match page.users.last().filter(|_| page.has_more) {
        Some(last) => Some(cursor::encode(&last.id, &filters)?),
        None => None,
    };
    let ids: Vec<UserId> = page.users.iter().map(|user| user.id).collect();
    let subscriptions = api.subscriptions.of_users(&ids).await?;
    let now = api.clock.now();
    let rows = page.users.into_iter().zip(subscriptions);
    // Whoever was erased between the two questions is left out.
    let data = rows.filter_map(|(user, subscription)| {
        subscription.map(|found| UserView::new(user, SubscriptionView::new(&api, found, now)))
    });
    Ok(ok(UserList { data: data.collect(), has_more: next_cursor.is_some(), next_cursor }))
}

/// `POST /api/users`
///
/// The same external id again is the user made before.
pub(crate) async fn create(
    State(api): State<Api>,
    caller: UserMaker,
    Body(asked): Body<Creation>,
) -> Result<Success<Profile>, Problem> {
    let role = asked.role.unwrap_or_default();
    if role != Role::User {
        caller.0.require_admin()?;
    }
    let request = UserRequest {
        name: asked.name,
        email: asked.email,
        external_id: asked.external_id,
        password: asked.password,
        role,
        plan: asked.plan,
        payment_method_id: None,
    };
    let user = request.check(&api.plans)?;
    match create_user(&*api.accounts, &api.passwords, user, api.clock.now()).await {
        Ok(user) => api.new_profile(user).await.map(created),
        Err(CreateError::ExternalIdTaken(user)) => api.profile_of(*user).await.map(ok),
        Err(error @ (CreateError::EmailTaken | CreateError::Unavailable(_))) => {
            Err(not_created(error))
        }
    }
}

/// An admin, or a key with scope `users`.
pub(crate) struct UserMaker(Caller);

impl FromRequestParts<Api> for UserMaker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, api).await?;
        caller.require(Scope::Users)?;
        Ok(Self(caller))
    }
}

/// `GET /api/users/{id}`
pub(crate) async fn profile(
    State(api): State<Api>,
    _: Admin,
    Named(id): Named,
) -> Result<Success<Profile>, Problem> {
    let user = api.accounts.find(id).await?.ok_or_else(no_such_user)?;
    api.profile_of(user).await.map(ok)
}

/// `PATCH /api/users/{id}`
pub(crate) async fn update(
    State(api): State<Api>,
    _: Admin,
    Named(id): Named,
    Put(settings): Put<UserSettings>,
) -> Result<Success<Profile>, Problem> {
    let UserSettings { role, locked } = settings;
    let changed = api.accounts.update(id, role, locked, api.clock.now()).await?;
    let user: User = changed.ok_or_else(no_such_user)?;
    api.verifier.forget_user(id);
    api.profile_of(user).await.map(ok)
}

/// `DELETE /api/users/{id}`
///
/// Every step is taken again when the call is repeated, so that one which failed half-way can be
/// brought to its end; the answer is 404 then.
pub(crate) async fn erase(
    State(api): State<Api>,
    _: Admin,
    Named(id): Named,
) -> Result<Success<Erased>, Problem> {
    let erased = api.accounts.erase(id, api.clock.now()).await?;
    api.verifier.forget_user(id);
    api.counter.set_terms(id, None).await?;
    api.reports.erase_metadata(id).await?;
    if erased { Ok(ok(Erased {})) } else { Err(no_such_user()) }
}

/// `GET /api/users/{id}/subscription`
pub(crate) async fn subscription(
    State(api): State<Api>,
    _: Admin,
    Named(id): Named,
) -> Result<Success<SubscriptionView>, Problem> {
    let found = api.subscription_of(id).await?;
    Ok(ok(SubscriptionView::new(&api, found, api.clock.now())))
}

/// `PUT /api/users/{id}/subscription`
pub(crate) async fn change_subscription(
    State(api): State<Api>,
    _: Admin,
    Named(id): Named,
    Put(settings): Put<SubscriptionSettings>,
) -> Result<Success<SubscriptionView>, Problem> {
    api.change_subscription(id, settings, true).await.map(ok)
}

/// `GET /api/users/{id}/usage`
pub(crate) async fn usage(
    State(api): State<Api>,
    _: Admin,
    Named(id): Named,
) -> Result<Success<UsageView>, Problem> {
    api.usage_of(id).await.map(ok)
}
