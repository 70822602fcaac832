//! What users see and change of themselves.

use axum::extract::State;
use edge::{Caller, Code, Problem, Success, ok};
use metering::accounts::{PreferencesChange, Theme, UserId};
use metering::quota::Totals;
use serde::Deserialize;

use super::subscription::SubscriptionSettings;
use super::view::{PreferencesView, Profile, SubscriptionView, UsageView, no_such_user};
use crate::extract::{Put, Settings};
use crate::state::Api;

/// What a PUT of preferences sets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreferencesSettings {
    theme: Option<Theme>,
    notifications: Option<bool>,
    default_model: Option<String>,
}

impl Settings for PreferencesSettings {
    const READ_ONLY: &'static [&'static str] = &["id", "user_id", "created_at", "updated_at"];
}

/// `GET /api/users/me`
pub(crate) async fn profile(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Success<Profile>, Problem> {
    let user = api.accounts.find(caller.user_id()?).await?.ok_or_else(no_such_user)?;
    api.profile_of(user).await.map(ok)
}

/// `GET /api/preferences/me`
pub(crate) async fn preferences(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Success<PreferencesView>, Problem> {
    api.preferences_of(caller.user_id()?).await.map(|found| ok(found.into()))
}

/// `PUT /api/preferences/me`
pub(crate) async fn change_preferences(
    State(api): State<Api>,
    caller: Caller,
    Put(settings): Put<PreferencesSettings>,
) -> Result<Success<PreferencesView>, Problem> {
    let user = caller.user_id()?;
    if let Some(model) = &settings.default_model {
        check_default_model(&api, user, model).await?;
    }
    let PreferencesSettings { theme, notifications, default_model } = settings;
    let change = PreferencesChange { theme, notifications, default_model };
    let changed = api.preferences.change(user, &change, api.clock.now()).await?;
    Ok(ok(changed.ok_or_else(no_such_user)?.into()))
}

/// The model that is set already may stay, also when the plan reaches it no more.
async fn check_default_model(api: &Api, user: UserId, model: &str) -> Result<(), Problem> {
    if api.preferences_of(user).await?.default_model == model {
        return Ok(());
    }
    let Some(tier) = api.models.tier_of(model) else {
        return Err(Problem::new(Code::UnknownModel, "default_model: there is no such model"));
    };
    let terms = api.subscription_of(user).await?.terms(&api.plans, api.clock.now());
    if tier <= terms.tier {
        return Ok(());
    }
    let problem = Problem::new(Code::ModelNotInPlan, "the plan does not reach this model");
    let nothing = Totals::default();
    Err(match api.plans.upgrade_from(&terms.plan, tier, &nothing, &nothing) {
        Some(plan) => problem.with_member("upgrade", api.upgrade(plan)),
        None => problem,
    })
}

/// `GET /api/usage/me` and `GET /api/users/me/usage`
pub(crate) async fn usage(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Success<UsageView>, Problem> {
    api.usage_of(caller.user_id()?).await.map(ok)
}

/// `GET /api/users/me/subscription`
pub(crate) async fn subscription(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Success<SubscriptionView>, Problem> {
    let found = api.subscription_of(caller.user_id()?).await?;
    Ok(ok(SubscriptionView::new(&api, found, api.clock.now())))
}

/// `PUT /api/users/me/subscription`
pub(crate) async fn change_subscription(
    State(api): State<Api>,
    caller: Caller,
    Put(settings): Put<SubscriptionSettings>,
) -> Result<Success<SubscriptionView>, Problem> {
    let user = caller.user_id()?;
    api.change_subscription(user, settings, caller.is_admin()).await.map(ok)
}
