//! Subscriptions (a user on a plan) and preferences.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::UserId;
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
