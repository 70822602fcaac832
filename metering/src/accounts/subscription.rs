//! Subscriptions (a user on a plan) and preferences.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{UserId, uuid_at};
use crate::quota::{PlanCatalogue, PlanName, Terms};
use crate::time::Timestamp;

/// Where a subscription is in its life. Only `Active` (and not yet expired) has its plan's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStatus {
    /// In force.
    Active,
    /// A payment is late.
    PastDue,
    /// Ended.
    Canceled,
}

impl SubscriptionStatus {
    /// As JSON shows it and stores keep it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Canceled => "canceled",
        }
    }
}

impl FromStr for SubscriptionStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "active" => Ok(Self::Active),
            "past_due" => Ok(Self::PastDue),
            "canceled" => Ok(Self::Canceled),
            _ => Err(()),
        }
    }
}

/// A user on a plan. Every user has exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// `sub_` and a UUIDv7.
    pub id: String,
    /// Whose.
    pub user_id: UserId,
    /// Which plan.
    pub plan: PlanName,
    /// Where it is in its life.
    pub status: SubscriptionStatus,
    /// When the plan began.
    pub start_date: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Whether it goes on at its end.
    pub auto_renew: bool,
    /// Stripe's `cus_…`.
    pub stripe_customer_id: Option<String>,
    /// Stripe's `sub_…`.
    pub stripe_subscription_id: Option<String>,
    /// Stripe's `pm_…`.
    pub payment_method_id: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Grows with each change.
    pub version: u64,
}

impl Subscription {
    /// Whether its plan's terms are in force.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.status == SubscriptionStatus::Active && self.expires_at.is_none_or(|end| now < end)
    }

    /// The terms in force at `now`: those of its plan, or of `free` when it is not active (or its
    /// plan is not in the catalogue any more).
    pub fn terms(&self, plans: &PlanCatalogue, now: Timestamp) -> Terms {
        match plans.get(self.plan.as_str()).filter(|_| self.is_active(now)) {
            Some(plan) => Terms::of(plan, self.version, self.expires_at),
            None => Terms::of(plans.free(), self.version, None),
        }
    }

    /// The subscription after a change, of the next version; `None` when it changes nothing. A plan
    /// that is in force without an end and named again goes on as it is.
    pub fn changed(&self, change: &SubscriptionChange, now: Timestamp) -> Option<Self> {
        let mut after = self.clone();
        let goes_on = self.is_active(now) && self.expires_at.is_none();
        if let Some(plan) = change.plan.as_ref().filter(|plan| !goes_on || **plan != self.plan) {
            after.plan = plan.clone();
            after.status = SubscriptionStatus::Active;
            after.start_date = now;
            after.expires_at = None;
        }
        after.auto_renew = change.auto_renew.unwrap_or(self.auto_renew);
        after.payment_method_id =
            change.payment_method_id.clone().or_else(|| self.payment_method_id.clone());
        if after == *self {
            return None;
        }
        Some(Self { updated_at: now, version: self.version.saturating_add(1), ..after })
    }
}

/// What to change of a subscription; `None` leaves as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionChange {
    /// Another plan: begins now, active, without an end.
    pub plan: Option<PlanName>,
    /// Another way to pay.
    pub payment_method_id: Option<String>,
    /// Whether it goes on at its end.
    pub auto_renew: Option<bool>,
}

/// How the dashboard looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// Light.
    Light,
    /// Dark.
    Dark,
    /// As the system has it.
    #[default]
    System,
}

impl Theme {
    /// As JSON shows it and stores keep it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
            Self::System => "system",
        }
    }
}

impl FromStr for Theme {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "light" => Ok(Self::Light),
            "dark" => Ok(Self::Dark),
            "system" => Ok(Self::System),
            _ => Err(()),
        }
    }
}

/// A user's preferences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preferences {
    /// `pref_` and a UUIDv7.
    pub id: String,
    /// Whose.
    pub user_id: UserId,
    /// How the dashboard looks.
    pub theme: Theme,
    /// Whether they want mail.
    pub notifications: bool,
    /// The model that clients preselect.
    pub default_model: String,
    /// When they were made.
    pub created_at: Timestamp,
    /// When they last changed.
    pub updated_at: Timestamp,
}

impl Preferences {
    /// The model of whoever has chosen none: every plan reaches it.
    pub const DEFAULT_MODEL: &'static str = "gpt-3.5-turbo";

    /// Those of whoever has chosen nothing.
    pub fn defaults(user_id: UserId, now: Timestamp) -> Self {
        Self {
            id: format!("pref_{}", uuid_at(now)),
            user_id,
            theme: Theme::default(),
            notifications: true,
            default_model: Self::DEFAULT_MODEL.to_owned(),
            created_at: now,
            updated_at: now,
        }
    }

    /// The preferences after a change; `None` when it changes nothing.
    pub fn changed(&self, change: &PreferencesChange, now: Timestamp) -> Option<Self> {
        let default_model = change.default_model.as_ref().unwrap_or(&self.default_model);
        let after = Self {
            theme: change.theme.unwrap_or(self.theme),
            notifications: change.notifications.unwrap_or(self.notifications),
            default_model: default_model.clone(),
            ..self.clone()
        };
        (after != *self).then_some(Self { updated_at: now, ..after })
    }
}

/// What to change of preferences; `None` leaves as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreferencesChange {
    /// How the dashboard looks.
    pub theme: Option<Theme>,
    /// Whether they want mail.
    pub notifications: Option<bool>,
    /// The model that clients preselect.
    pub default_model: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::ModelCatalogue;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn on(plan: &str, status: SubscriptionStatus, expires_at: Option<Timestamp>) -> Subscription {
        Subscription {
            id: "sub_1".into(),
            user_id: UserId::from_bytes([1; 16]),
            plan: PlanName::new(plan),
            status,
            start_date: at(0),
            expires_at,
            auto_renew: false,
            stripe_customer_id: None,
            stripe_subscription_id: None,
            payment_method_id: None,
            created_at: at(0),
            updated_at: at(0),
            version: 3,
        }
    }

    fn terms(subscription: &Subscription, now: i64) -> Terms {
        let models = ModelCatalogue::from_toml(ModelCatalogue::DEFAULT_TOML).unwrap();
        let plans = PlanCatalogue::from_toml(PlanCatalogue::DEFAULT_TOML, &models).unwrap();
        subscription.terms(&plans, at(now))
    }

    #[test]
    fn an_active_subscription_has_the_terms_of_its_plan_until_it_ends() {
        let ending = on("basic", SubscriptionStatus::Active, Some(at(1000)));
        let before = terms(&ending, 999);
        assert_eq!((before.plan.as_str(), before.token_limit), ("basic", Some(500_000)));
        assert_eq!((before.version, before.valid_until), (3, Some(at(1000))));
        let after = terms(&ending, 1000);
        assert_eq!((after.plan.as_str(), after.token_limit), ("free", Some(100_000)));
        assert_eq!((after.version, after.valid_until), (3, None));
        let endless = on("professional", SubscriptionStatus::Active, None);
        assert_eq!(terms(&endless, i64::MAX).token_limit, None);
    }

    #[test]
    fn whoever_is_not_active_or_on_a_plan_that_is_gone_has_the_terms_of_free() {
        for status in [SubscriptionStatus::PastDue, SubscriptionStatus::Canceled] {
            assert_eq!(terms(&on("basic", status, None), 0).plan.as_str(), "free");
        }
        let gone = on("withdrawn", SubscriptionStatus::Active, None);
        assert_eq!(terms(&gone, 0).plan.as_str(), "free");
    }
}
