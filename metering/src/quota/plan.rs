//! Plans and the terms that a user is on.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Standing, Tier};
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

impl Borrow<str> for PlanName {
    fn borrow(&self) -> &str {
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
    /// At which parts of a limit an alert is raised, in percent, ascending.
    pub alert_at: Vec<u16>,
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

    /// Where a user under these terms stands who has used that much.
    pub fn standing(&self, used: Totals) -> Standing {
        Standing {
            plan: self.plan.clone(),
            used,
            token_limit: self.token_limit,
            request_limits: self.request_limits,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_request_counts_for_its_type() {
        let totals = Totals::of(RequestType::Plagiarism, 30);
        assert_eq!(totals, Totals { tokens: 30, requests: [0, 1, 0] });
    }

    #[test]
    fn sums_that_do_not_fit_are_seen() {
        let full = Totals { tokens: u64::MAX, requests: [0; 3] };
        assert_eq!(full.plus(Totals::of(RequestType::Chat, 1)), None);
        let full = Totals { tokens: 0, requests: [0, 0, u64::MAX] };
        assert_eq!(full.plus(Totals::of(RequestType::PromptGeneration, 0)), None);
        assert_eq!(Totals::default().minus(Totals::of(RequestType::Chat, 0)), None);
    }

    #[test]
    fn terms_are_those_of_the_plan() {
        let plan = Plan {
            name: PlanName::new("basic"),
            token_limit: Some(5),
            request_limits: [Some(1), None, Some(3)],
            tier: Tier(1),
            over_limit: OverLimit::Record,
            free: false,
            alert_at: vec![],
        };
        let end = Some(Timestamp::from_millis(7));
        let terms = Terms::of(&plan, 4, end);
        assert_eq!((terms.version, terms.valid_until, terms.tier), (4, end, plan.tier));
        assert_eq!((terms.plan, terms.over_limit), (plan.name, plan.over_limit));
        assert_eq!(terms.token_limit, plan.token_limit);
        assert_eq!(terms.request_limits, plan.request_limits);
    }

    proptest! {
        #[test]
        fn what_is_added_can_be_taken_out(
            tokens in 0..u64::MAX / 2, more in 0..u64::MAX / 2, requests: [u32; 3], others: [u32; 3],
        ) {
            let one = Totals { tokens, requests: requests.map(u64::from) };
            let other = Totals { tokens: more, requests: others.map(u64::from) };
            let sum = one.plus(other).unwrap();
            prop_assert_eq!(sum.tokens, tokens + more);
            prop_assert_eq!(sum.minus(other), Some(one));
        }
    }
}
