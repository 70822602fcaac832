//! Accounts as JSON shows them.

use edge::{Code, Problem};
use metering::accounts::{Email, Preferences, Role, Subscription, Theme, User, UserId};
use metering::quota::{Plan, Standing, Totals};
use metering::time::{Period, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use crate::state::Api;

/// A user without what hangs on them: a row of the administration's list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct UserView {
    id: UserId,
    name: Option<String>,
    email: Option<Email>,
    external_id: Option<String>,
    role: Role,
    locked: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    pub(super) subscription: SubscriptionView,
}

/// The profile.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Profile {
    #[serde(flatten)]
    user: UserView,
    preferences: PreferencesView,
    usage: UsageView,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct SubscriptionView {
    id: String,
    user_id: UserId,
    plan: String,
    status: &'static str,
    start_date: Timestamp,
    expires_at: Option<Timestamp>,
    is_active: bool,
    auto_renew: bool,
    stripe_customer_id: Option<String>,
    stripe_subscription_id: Option<String>,
    payment_method_id: Option<String>,
    token_limit: Option<u64>,
    max_model_tier: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct PreferencesView {
    id: String,
    user_id: UserId,
    theme: Theme,
    notifications: bool,
    default_model: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct UsageView {
    chat_messages: CounterView,
    plagiarism_checks: CounterView,
    prompts_generated: CounterView,
    tokens: CounterView,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct CounterView {
    used: u64,
    limit: Option<u64>,
    reset_date: Timestamp,
}

impl From<Preferences> for PreferencesView {
    fn from(preferences: Preferences) -> Self {
        let Preferences { id, user_id, theme, notifications, default_model, .. } = preferences;
        let Preferences { created_at, updated_at, .. } = preferences;
        Self { id, user_id, theme, notifications, default_model, created_at, updated_at }
    }
}

impl SubscriptionView {
    pub(super) fn new(api: &Api, subscription: Subscription, now: Timestamp) -> Self {
        // What is in force: an inactive subscription has the terms of `free`.
        let terms = subscription.terms(&api.plans, now);
        Self {
            is_active: subscription.is_active(now),
            token_limit: terms.token_limit,
            max_model_tier: api.models.name_of(terms.tier).to_owned(),
            id: subscription.id,
            user_id: subscription.user_id,
            plan: subscription.plan.as_str().to_owned(),
            status: subscription.status.as_str(),
            start_date: subscription.start_date,
            expires_at: subscription.expires_at,
            auto_renew: subscription.auto_renew,
            stripe_customer_id: subscription.stripe_customer_id,
            stripe_subscription_id: subscription.stripe_subscription_id,
            payment_method_id: subscription.payment_method_id,
            created_at: subscription.created_at,
            updated_at: subscription.updated_at,
        }
    }
}

impl UsageView {
    fn new(standing: &Standing, period: Period) -> Self {
        let reset_date = period.end();
        let requests = |type_index: usize| CounterView {
            used: standing.used.requests[type_index],
            limit: standing.request_limits[type_index],
            reset_date,
        };
        let tokens =
            CounterView { used: standing.used.tokens, limit: standing.token_limit, reset_date };
        Self {
            chat_messages: requests(0),
            plagiarism_checks: requests(1),
            prompts_generated: requests(2),
            tokens,
        }
    }
}

impl UserView {
    pub(super) fn new(user: User, subscription: SubscriptionView) -> Self {
        let User { id, name, email, external_id, role, locked, created_at, updated_at } = user;
        Self { id, name, email, external_id, role, locked, created_at, updated_at, subscription }
    }
}

// What hangs on a user. A user who is there no more (perhaps erased a moment ago) is 404.
impl Api {
    pub(super) async fn subscription_of(&self, user: UserId) -> Result<Subscription, Problem> {
        let found = self.subscriptions.of_users(&[user]).await?;
        found.into_iter().next().flatten().ok_or_else(no_such_user)
    }

    pub(super) async fn preferences_of(&self, user: UserId) -> Result<Preferences, Problem> {
        let found = self.preferences.of_user(user, self.clock.now()).await?;
        found.ok_or_else(no_such_user)
    }

    /// Live, from the counter.
    pub(super) async fn usage_of(&self, user: UserId) -> Result<UsageView, Problem> {
        let period = Period::of(self.clock.now());
        let standing = self.counter.usage(user, period).await?.ok_or_else(no_such_user)?;
        Ok(UsageView::new(&standing, period))
    }

    pub(super) async fn profile_of(&self, user: User) -> Result<Profile, Problem> {
        let (subscription, preferences, usage) = tokio::try_join!(
            self.subscription_of(user.id),
            self.preferences_of(user.id),
            self.usage_of(user.id)
        )?;
        let subscription = SubscriptionView::new(self, subscription, self.clock.now());
        Ok(Profile {
            user: UserView::new(user, subscription),
            preferences: preferences.into(),
            usage,
        })
    }

    /// The profile of a user just made: nothing is used yet, so the counter is not asked (it may
    /// be closed while the process starts, and the user is made all the same).
    pub(super) async fn new_profile(&self, user: User) -> Result<Profile, Problem> {
        let now = self.clock.now();
        let (subscription, preferences) =
            tokio::try_join!(self.subscription_of(user.id), self.preferences_of(user.id))?;
        let terms = subscription.terms(&self.plans, now);
        let standing = Standing {
            plan: terms.plan,
            used: Totals::default(),
            token_limit: terms.token_limit,
            request_limits: terms.request_limits,
        };
        let subscription = SubscriptionView::new(self, subscription, now);
        Ok(Profile {
            user: UserView::new(user, subscription),
            preferences: preferences.into(),
            usage: UsageView::new(&standing, Period::of(now)),
        })
    }

    /// The member `upgrade` of a refusal.
    pub(super) fn upgrade(&self, plan: &Plan) -> Value {
        json!({
            "plan": plan.name,
            "token_limit": plan.token_limit,
            "max_model_tier": self.models.name_of(plan.tier),
        })
    }
}

pub(super) fn no_such_user() -> Problem {
    Problem::new(Code::NotFound, "there is no such user")
}
