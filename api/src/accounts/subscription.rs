//! Plan changes, by users and by admins.

use edge::{Code, Problem};
use metering::accounts::{Subscription, SubscriptionChange, UserId};
use metering::quota::Plan;
use serde::Deserialize;

use super::issue::{Invalid, check_payment_method};
use super::view::{SubscriptionView, no_such_user};
use crate::extract::Settings;
use crate::state::{Api, Payments};

/// What a PUT of a subscription sets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubscriptionSettings {
    plan: String,
    payment_method_id: Option<String>,
    auto_renew: Option<bool>,
}

impl Settings for SubscriptionSettings {
    const READ_ONLY: &'static [&'static str] = &[
        "id",
        "user_id",
        "status",
        "start_date",
        "expires_at",
        "is_active",
        "stripe_customer_id",
        "stripe_subscription_id",
        "token_limit",
        "max_model_tier",
        "created_at",
        "updated_at",
    ];
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::field(&format!("#/{}", invalid.field), invalid.code, invalid.detail)
    }
}

impl Api {
    /// Refuses a paid plan to somebody who is no admin, unless payments are trusted.
    pub(super) fn may_ask_for(&self, plan: &Plan) -> Result<(), Problem> {
        match self.payments {
            Payments::Trust => Ok(()),
            Payments::None if plan.free => Ok(()),
            Payments::None => Err(Problem::new(
                Code::PaymentsUnavailable,
                "this installation does not sell plans: an admin grants them",
            )),
        }
    }

    /// Changes a subscription, and answers when its terms are in force for the next track call.
    /// `granted`: by an admin, who may give any plan.
    pub(super) async fn change_subscription(
        &self,
        user: UserId,
        settings: SubscriptionSettings,
        granted: bool,
    ) -> Result<SubscriptionView, Problem> {
        let no_such_plan = || Problem::field("#/plan", "not_allowed", "there is no such plan");
        let plan = self.plans.get(&settings.plan).ok_or_else(no_such_plan)?;
        if let Some(id) = &settings.payment_method_id {
            check_payment_method(id)?;
        }
        let now = self.clock.now();
        let before = self.subscription_of(user).await?;
        let keeps_plan = before.plan == plan.name && before.is_active(now);
        if !granted && !keeps_plan {
            self.may_ask_for(plan)?;
        }
        let change = SubscriptionChange {
            plan: Some(plan.name.clone()),
            payment_method_id: settings.payment_method_id,
            auto_renew: settings.auto_renew,
        };
        let changed = self.subscriptions.change(user, &change, now).await?;
        let changed = changed.ok_or_else(no_such_user)?;
        self.put_in_force(&changed).await?;
        Ok(SubscriptionView::new(self, changed, now))
    }

    /// The change feed would do the same within a second; a PUT answers afterwards.
    async fn put_in_force(&self, subscription: &Subscription) -> Result<(), Problem> {
        let terms = subscription.terms(&self.plans, self.clock.now());
        Ok(self.counter.set_terms(subscription.user_id, Some(terms)).await?)
    }
}
