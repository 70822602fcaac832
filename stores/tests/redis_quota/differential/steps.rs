//! What may happen to a counter, at random.

use std::time::Duration;

use metering::quota::{Admission, OverLimit, PlanName, Terms, Tier, Totals, Trust};
use metering::time::{Period, Timestamp};
use metering::usage::{ContentDigest, IdDigest, RequestType, Settled};
use proptest::prelude::*;

use crate::contract::quota_counter::{october, user};

#[derive(Clone, Debug)]
pub(super) enum Step {
    Admit(Vec<Event>),
    AdmitAtOnce(Vec<Event>),
    Hold { who: Who, name: u8, tokens: u64, kind: usize, tier: u8, seconds: u64 },
    Release { who: u8, name: u8 },
    Usage(Who),
    SetTerms { who: u8, terms: Option<Plan> },
    SeedTerms { who: u8, terms: Option<Plan> },
    SeedTotals { who: Who, totals: Totals, cursor: u64 },
    Sync { cursor: u64, age: u64, totals: Vec<(Who, Totals)>, settled: Vec<(Who, u8)> },
    Withdraw(Vec<(Who, u8)>),
    Pass(u64),
    Close,
    Open { cursor: u64, age: u64 },
    TakeOver,
    Break(bool),
}

/// A user and a month.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who {
    pub(super) user: u8,
    pub(super) month: i32,
}

#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) who: Who,
    pub(super) name: u8,
    /// Another content than the name's own.
    pub(super) other: Option<(u64, usize)>,
    pub(super) tier: u8,
    pub(super) service: bool,
    pub(super) barred: bool,
    pub(super) settles: Option<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) version: u64,
    pub(super) tokens: Option<u64>,
    pub(super) requests: [Option<u64>; 3],
    pub(super) tier: u8,
    pub(super) records: bool,
    pub(super) seconds: Option<u64>,
}

/// What the steps are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Anything may happen at any time.
    Wild,
    /// Mostly new events that fit, in one month: where a counter may take a shorter way, and must
    /// not keep to it when the terms or the months change.
    Calm,
}

impl Mood {
    /// How likely something is that the shorter way has no part in.
    fn rarely(self, wild: f64) -> f64 {
        if self == Self::Wild { wild } else { 0.04 }
    }
}

fn who(mood: Mood) -> impl Strategy<Value = Who> {
    let month = prop::bool::weighted(if mood == Mood::Wild { 1.0 } else { 0.2 });
    (1..4u8, 0..3i32, month)
        .prop_map(|(user, month, any)| Who { user, month: if any { month } else { 1 } })
}

/// Mostly small; at times around the bounds of halves, doubles and 64 bits.
fn tokens() -> impl Strategy<Value = u64> {
    let bounds = [u32::MAX.into(), 1 << 32, (1 << 53) - 1, (1 << 53) + 1, u64::MAX - 5, u64::MAX];
    prop_oneof![20 => 0..60u64, 1 => prop::sample::select(bounds.to_vec())]
}

fn totals() -> impl Strategy<Value = Totals> {
    (tokens(), [0..4u64, 0..4u64, 0..4u64])
        .prop_map(|(tokens, requests)| Totals { tokens, requests })
}

pub(super) fn plan(mood: Mood) -> impl Strategy<Value = Plan> {
    let limit = || prop::option::weighted(mood.rarely(0.4), 0..6u64);
    let some_tokens = if mood == Mood::Wild { 30..150u64 } else { 200..1000 };
    let tokens = prop::option::weighted(0.8, prop_oneof![5 => some_tokens, 1 => tokens()]);
    let seconds = prop::option::weighted(0.2, 0..40u64);
    let requests = [limit(), limit(), limit()];
    (0..5u64, tokens, requests, 0..3u8, any::<bool>(), seconds).prop_map(
        |(version, tokens, requests, tier, records, seconds)| Plan {
            version,
            tokens,
            requests,
            tier,
            records: records && version > 2,
            seconds,
        },
    )
}

fn event(mood: Mood, names: std::ops::Range<u8>) -> impl Strategy<Value = Event> {
    let other = prop::option::weighted(mood.rarely(0.2), (tokens(), 0..3usize));
    let settles = prop::option::weighted(mood.rarely(0.3), 0..3u8);
    let tier = (0..3u8, prop::bool::weighted(mood.rarely(1.0)));
    let unlikely = prop::bool::weighted(mood.rarely(0.1));
    (who(mood), names, other, tier, any::<bool>(), unlikely, settles).prop_map(
        |(who, name, other, (tier, any_tier), service, barred, settles)| Event {
            who,
            name,
            other,
            tier: if any_tier { tier } else { 0 },
            service,
            barred,
            settles,
        },
    )
}

pub(super) fn step(mood: Mood) -> impl Strategy<Value = Step> {
    // An id that is in flight in two months ends a batch where it stands, and each counter may
    // stop at another event: so in batches every month has its own ids.
    let batched = move || {
        event(mood, 0..4u8).prop_map(|one| {
            let month = u8::try_from(one.who.month).unwrap();
            Event { name: 100 + month * 10 + one.name, ..one }
        })
    };
    let (names, often, sometimes) = match mood {
        Mood::Wild => (0..8u8, 12, 5),
        Mood::Calm => (0..25, 40, 1),
    };
    let who = move || who(mood);
    let some = || prop::collection::vec((who(), 0..8u8), 0..4);
    prop_oneof![
        often => event(mood, names).prop_map(|one| Step::Admit(vec![one])),
        4 => prop::collection::vec(batched(), 1..8).prop_map(Step::Admit),
        4 => prop::collection::vec(batched(), 1..8).prop_map(Step::AdmitAtOnce),
        sometimes => (who(), 0..3u8, tokens(), 0..3usize, 0..3u8, 0..40u64).prop_map(
            |(who, name, tokens, kind, tier, seconds)|
            Step::Hold { who, name, tokens, kind, tier, seconds }),
        2 => (1..4u8, 0..3u8).prop_map(|(who, name)| Step::Release { who, name }),
        3 => who().prop_map(Step::Usage),
        2 => (1..4u8, prop::option::weighted(0.9, plan(mood)))
            .prop_map(|(who, terms)| Step::SetTerms { who, terms }),
        2 => (1..4u8, prop::option::weighted(0.9, plan(mood)))
            .prop_map(|(who, terms)| Step::SeedTerms { who, terms }),
        2 => (who(), totals(), 0..12u64)
            .prop_map(|(who, totals, cursor)| Step::SeedTotals { who, totals, cursor }),
        6 => (0..10u64, 0..30u64, prop::collection::vec((who(), totals()), 0..3), some())
            .prop_map(|(cursor, age, totals, settled)|
                Step::Sync { cursor, age, totals, settled }),
        2 => some().prop_map(Step::Withdraw),
        sometimes => (0..25_000u64).prop_map(Step::Pass),
        1 => Just(Step::Close),
        2 => (0..6u64, 0..30u64).prop_map(|(cursor, age)| Step::Open { cursor, age }),
        1 => Just(Step::TakeOver),
        1 => any::<bool>().prop_map(Step::Break),
    ]
}

pub(super) fn period(who: Who) -> Period {
    Period::from_number(october().number() - 1 + who.month)
}

fn id(space: u8, who: u8, name: u8) -> IdDigest {
    let mut digest = [0; 16];
    digest[..3].copy_from_slice(&[space, who, name]);
    IdDigest(digest)
}

pub(super) fn event_id(who: u8, name: u8) -> IdDigest {
    id(1, who, name)
}

pub(super) fn hold_id(who: u8, name: u8) -> IdDigest {
    id(2, who, name)
}

pub(super) fn content(tokens: u64, kind: usize) -> ContentDigest {
    ContentDigest(tokens.wrapping_mul(4).wrapping_add(kind as u64).to_le_bytes())
}

pub(super) fn settled(entries: &[(Who, u8)]) -> Vec<Settled> {
    let one = |(who, name): &(Who, u8)| Settled {
        user_id: user(who.user),
        period: period(*who),
        id_digest: event_id(who.user, *name),
    };
    entries.iter().map(one).collect()
}

impl Event {
    pub(super) fn admission(&self) -> Admission {
        let own = (u64::from(self.name % 10) * 7 + 3, usize::from(self.name) % 3);
        let (tokens, kind) = self.other.unwrap_or(own);
        Admission {
            user_id: user(self.who.user),
            period: period(self.who),
            id_digest: event_id(self.who.user, self.name),
            content_digest: content(tokens, kind),
            request_type: RequestType::ALL[kind],
            tokens,
            tier: Tier(self.tier),
            trust: if self.service { Trust::Service } else { Trust::User },
            settles: self.settles.map(|name| hold_id(self.who.user, name)),
            barred: self.barred,
        }
    }
}

impl Plan {
    pub(super) fn terms(&self, now: Timestamp) -> Terms {
        Terms {
            version: self.version,
            plan: PlanName::new(&format!("plan {}", self.version)),
            token_limit: self.tokens,
            request_limits: self.requests,
            tier: Tier(self.tier),
            over_limit: if self.records { OverLimit::Record } else { OverLimit::Reject },
            valid_until: self.seconds.map(|seconds| now.plus(Duration::from_secs(seconds))),
        }
    }
}
