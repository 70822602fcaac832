//! Alerts: a user has used so much of what their plan gives. Which there are follows from the log and
//! the plan catalogue alone, like everything that is counted.

mod outbox;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{Flush, RequestType};
use crate::accounts::UserId;
use crate::quota::{Plan, PlanCatalogue, PlanName, Totals};
use crate::time::{Period, Timestamp};

pub use outbox::{AlertBacklog, AlertQuery, Alerts, Attempt, Delivery, DeliveryState, ListedAlert};

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meter {
    /// Prompt and completion tokens.
    Tokens,
    /// Requests of one type.
    Requests(RequestType),
}

impl Meter {
    /// All of them.
    const ALL: [Self; 4] = [
        Self::Tokens,
        Self::Requests(RequestType::Chat),
        Self::Requests(RequestType::Plagiarism),
        Self::Requests(RequestType::PromptGeneration),
    ];

    /// As `GET /api/usage/me` calls it, and as stores keep it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Requests(request_type) => request_type.counter(),
        }
    }

    /// What of these totals it measures.
    const fn of(self, totals: &Totals) -> u64 {
        match self {
            Self::Tokens => totals.tokens,
            Self::Requests(request_type) => totals.requests[request_type.index()],
        }
    }

    /// The limit that a plan sets on it.
    const fn limit(self, plan: &Plan) -> Option<u64> {
        match self {
            Self::Tokens => plan.token_limit,
            Self::Requests(request_type) => plan.request_limits[request_type.index()],
        }
    }
}

impl FromStr for Meter {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|meter| meter.as_str() == text).ok_or(())
    }
}

impl Serialize for Meter {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.serialize_str(self.as_str())
    }
}

/// A part of a limit at which an alert is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Threshold {
    meter: Meter,
    percent: u16,
    /// For a month.
    limit: u64,
    /// The first amount that reaches it: never 0.
    amount: u64,
}

impl Threshold {
    /// `None` when no amount of 64 bits reaches it.
    fn new(meter: Meter, percent: u16, limit: u64) -> Option<Self> {
        let amount = (u128::from(limit) * u128::from(percent)).div_ceil(100);
        let amount = u64::try_from(amount).ok()?.max(1);
        Some(Self { meter, percent, limit, amount })
    }
}

/// Which alerts are raised under which plan.
#[derive(Clone, Debug, Default)]
pub struct AlertRules {
    of_plans: HashMap<PlanName, Arc<[Threshold]>>,
}

impl AlertRules {
    /// Those of `alert_at` in the catalogue. Of thresholds that the same amount reaches the highest
    /// counts: of a limit of 5 the fifth reaches 95 and 100 percent.
    pub fn of(plans: &PlanCatalogue) -> Self {
        let with_some = plans.all().iter().filter_map(|plan| {
            let thresholds: Arc<[_]> = thresholds(plan).into();
            (!thresholds.is_empty()).then(|| (plan.name.clone(), thresholds))
        });
        Self { of_plans: with_some.collect() }
    }

    /// Whom a commit of `flush` must look at: each user and month in it, for each plan with thresholds
    /// that was in force for one of its events.
    pub fn watched(&self, flush: &Flush) -> Vec<Watched> {
        if self.of_plans.is_empty() {
            return Vec::new();
        }
        let keys: Vec<_> = flush.daily.keys().collect();
        let month = |key: &super::SummaryKey| (key.user_id, Period::of(key.day.start()));
        let (mut watched, mut mixed) = (Vec::new(), HashMap::new());
        for keys in keys.chunk_by(|one, next| month(one) == month(next)) {
            let (user_id, period) = month(keys[0]);
            let first = &keys[0].breakdown.plan;
            if keys.iter().any(|key| key.breakdown.plan != *first) {
                mixed.insert((user_id, period), Vec::<Watched>::new());
            } else if let Some(thresholds) = self.of_plans.get(first) {
                let (plan, thresholds) = (first.clone(), Arc::clone(thresholds));
                let after = Totals::default();
                watched.push(Watched { user_id, period, plan, after, thresholds });
            }
        }
        if !mixed.is_empty() {
            watched.extend(self.watched_under_several(flush, mixed));
        }
        watched
    }

    /// For users whose plan changed within the flush: what came after their last event under each.
    fn watched_under_several(
        &self,
        flush: &Flush,
        mut mixed: HashMap<(UserId, Period), Vec<Watched>>,
    ) -> Vec<Watched> {
        let none: Arc<[Threshold]> = Arc::new([]);
        let mut after = HashMap::<_, Totals>::new();
        for counted in flush.counted.iter().rev() {
            let event = &counted.admitted.event;
            let (user_id, period) = (event.user_id, event.period());
            let Some(plans) = mixed.get_mut(&(user_id, period)) else { continue };
            let plan = &counted.admitted.plan;
            let later = after.entry((user_id, period)).or_default();
            if plans.iter().all(|one| one.plan != *plan) {
                let (plan, after) = (plan.clone(), *later);
                let thresholds = Arc::clone(self.of_plans.get(&plan).unwrap_or(&none));
                plans.push(Watched { user_id, period, plan, after, thresholds });
            }
            // It fits: the fold has added all of them.
            let more = Totals::of(event.request_type, event.tokens.total());
            *later = later.plus(more).unwrap_or(*later);
        }
        let watched = mixed.into_values().flatten();
        watched.filter(|one| !one.thresholds.is_empty()).collect()
    }
}

fn thresholds(plan: &Plan) -> Vec<Threshold> {
    let mut all: Vec<Threshold> = Vec::new();
    for meter in Meter::ALL {
        let Some(limit) = meter.limit(plan) else { continue };
        for threshold in plan.alert_at.iter().filter_map(|&at| Threshold::new(meter, at, limit)) {
            let same = |one: &Threshold| one.meter == meter && one.amount == threshold.amount;
            all.pop_if(|last| same(last));
            all.push(threshold);
        }
    }
    all
}

/// A user's month under one plan, which a commit compares with the plan's thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// Whose.
    pub user_id: UserId,
    /// Which month.
    pub period: Period,
    /// The plan at admission of an event in the flush.
    pub plan: PlanName,
    /// What the flush counts for the user and month after their last event under the plan: almost
    /// always nothing.
    after: Totals,
    thresholds: Arc<[Threshold]>,
}

impl Watched {
    /// The alerts of every threshold that was reached by the user's last event under the plan, when
    /// the commit makes the month's totals these. Those that were raised before are among them: the
    /// ledger keeps each once, by its id.
    pub fn reached(&self, totals: Totals, raised_at: Timestamp) -> impl Iterator<Item = Alert> {
        // All of the flush is in the totals.
        let used = totals.minus(self.after).unwrap_or_default();
        let reached = self.thresholds.iter().filter(move |one| one.meter.of(&used) >= one.amount);
        reached.map(move |threshold| Alert {
            user_id: self.user_id,
            period: self.period,
            plan: self.plan.clone(),
            meter: threshold.meter,
            percent: threshold.percent,
            limit: threshold.limit,
            used: threshold.meter.of(&used),
            raised_at,
        })
    }
}

/// A user reached a part of a limit of their plan. Raised once for each user, month, plan, meter and
/// percentage. As JSON it has its id too.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Whose usage.
    pub user_id: UserId,
    /// In which month.
    pub period: Period,
    /// The plan at admission.
    pub plan: PlanName,
    /// What the limit is on.
    pub meter: Meter,
    /// Which part of the limit was reached, in percent.
    pub percent: u16,
    /// The limit of the plan then.
    pub limit: u64,
    /// What was used when the ledger saw it: at least that part.
    pub used: u64,
    /// The log time of the commit that saw it.
    pub raised_at: Timestamp,
}

impl Alert {
    /// The same however often the same records are counted, so that whoever is told twice knows.
    pub fn id(&self) -> AlertId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"alert\0").update(self.user_id.as_bytes());
        hasher.update(&self.period.number().to_le_bytes());
        hasher.update(self.meter.as_str().as_bytes()).update(&[0]);
        hasher.update(&self.percent.to_le_bytes()).update(self.plan.as_str().as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        AlertId(uuid::Builder::from_custom_bytes(first).into_uuid())
    }
}

impl Serialize for Alert {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        let mut shown = into.serialize_struct("Alert", 9)?;
        shown.serialize_field("id", &self.id())?;
        shown.serialize_field("user_id", &self.user_id)?;
        shown.serialize_field("period", &self.period.to_string())?;
        shown.serialize_field("plan", &self.plan)?;
        shown.serialize_field("meter", &self.meter)?;
        shown.serialize_field("percent", &self.percent)?;
        shown.serialize_field("limit", &self.limit)?;
        shown.serialize_field("used", &self.used)?;
        shown.serialize_field("raised_at", &self.raised_at)?;
        shown.end()
    }
}

/// An alert's id: a UUIDv8 made of what the alert is about. Shown as `alert_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertId(Uuid);

impl AlertId {
    const PREFIX: &str = "alert_";

    /// From 16 bytes that a store kept.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes that stores keep.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

impl FromStr for AlertId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let uuid = text.strip_prefix(Self::PREFIX).ok_or(())?;
        Uuid::try_parse(uuid).map(Self).map_err(drop)
    }
}

impl Serialize for AlertId {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.collect_str(self)
    }
}
