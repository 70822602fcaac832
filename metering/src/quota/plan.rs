//! Plans and the terms that a user is on.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Tier;
use crate::time::Timestamp;
use crate::usage::RequestType;

/// A plan's name, such as `free`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanName(Arc<str>);

impl PlanName {
    /// Takes any text: whether the plan exists is the catalogue's question.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As the catalogue writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happens to an event that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverLimit {
    /// It is refused and not recorded.
    #[default]
    Reject,
    /// It is recorded, flagged `over_limit`.
    Record,
}

/// One plan of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: PlanName,
    /// Tokens a month; `None` is unlimited.
    pub token_limit: Option<u64>,
    /// Requests a month, indexed by [`RequestType::index`]; `None` is unlimited.
    pub request_limits: [Option<u64>; 3],
    /// The highest tier of models it reaches.
    pub tier: Tier,
    /// What happens past a limit.
    pub over_limit: OverLimit,
    /// Whether it costs nothing.
    pub free: bool,
}

/// The terms in force for one user, as the quota counter keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Grows with each change of the subscription: older terms never replace newer ones.
    pub version: u64,
    /// The plan.
    pub plan: PlanName,
    /// Tokens a month; `None` is unlimited.
    pub token_limit: Option<u64>,
    /// Requests a month, indexed by [`RequestType::index`].
    pub request_limits: [Option<u64>; 3],
    /// The highest tier of models.
    pub tier: Tier,
    /// What happens past a limit.
    pub over_limit: OverLimit,
    /// From then on these terms are not to be used: they are read again.
    pub valid_until: Option<Timestamp>,
}

impl Terms {
    /// The terms of `plan`.
    pub fn of(plan: &Plan, version: u64, valid_until: Option<Timestamp>) -> Self {
        Self {
            version,
            plan: plan.name.clone(),
            token_limit: plan.token_limit,
            request_limits: plan.request_limits,
            tier: plan.tier,
            over_limit: plan.over_limit,
            valid_until,
        }
    }
}

/// What limits are checked against: one user's tokens and requests in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Prompt and completion tokens.
    pub tokens: u64,
    /// Requests, indexed by [`RequestType::index`].
    pub requests: [u64; 3],
}

impl Totals {
    /// One request of `tokens` tokens.
    pub fn of(request_type: RequestType, tokens: u64) -> Self {
        let mut requests = [0; 3];
        requests[request_type.index()] = 1;
        Self { tokens, requests }
    }

    /// Both together; `None` when a sum does not fit.
    pub fn plus(self, other: Self) -> Option<Self> {
        let mut sum = Self { tokens: self.tokens.checked_add(other.tokens)?, ..self };
        for (mine, theirs) in sum.requests.iter_mut().zip(other.requests) {
            *mine = mine.checked_add(theirs)?;
        }
        Some(sum)
    }

    /// What is left when `other` is taken out; `None` when it was not all in.
    pub fn minus(self, other: Self) -> Option<Self> {
        let mut rest = Self { tokens: self.tokens.checked_sub(other.tokens)?, ..self };
        for (mine, theirs) in rest.requests.iter_mut().zip(other.requests) {
            *mine = mine.checked_sub(theirs)?;
        }
        Some(rest)
    }
}
