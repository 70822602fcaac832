//! The same random operations on Redis and on the counter in memory: every answer must agree.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use metering::quota::{
    Admission, CounterUser, Hold, OverLimit, PlanName, QuotaCounter, Synced, Terms, Tier, Totals,
    Trust, UserTotals,
};
use metering::time::{Clock, Period, Timestamp};
use metering::usage::{ContentDigest, IdDigest, Offset, Partition, RequestType, Settled};
use proptest::prelude::*;
use stores::memory::MemoryQuotaCounter;
use stores::redis::CounterTime;

use super::setting::Setting;
use crate::contract::quota_counter::{october, user};

#[derive(Clone, Debug)]
enum Step {
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
struct Who {
    user: u8,
    month: i32,
}

#[derive(Clone, Debug)]
struct Event {
    who: Who,
    name: u8,
    /// Another content than the name's own.
    other: Option<(u64, usize)>,
    tier: u8,
    service: bool,
    barred: bool,
    settles: Option<u8>,
}

#[derive(Clone, Debug)]
struct Plan {
    version: u64,
    tokens: Option<u64>,
    requests: [Option<u64>; 3],
    tier: u8,
    records: bool,
    seconds: Option<u64>,
}

/// What the steps are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
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

fn plan(mood: Mood) -> impl Strategy<Value = Plan> {
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

fn step(mood: Mood) -> impl Strategy<Value = Step> {
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

fn period(who: Who) -> Period {
    Period::from_number(october().number() - 1 + who.month)
}

fn id(space: u8, who: u8, name: u8) -> IdDigest {
    let mut digest = [0; 16];
    digest[..3].copy_from_slice(&[space, who, name]);
    IdDigest(digest)
}

fn event_id(who: u8, name: u8) -> IdDigest {
    id(1, who, name)
}

fn hold_id(who: u8, name: u8) -> IdDigest {
    id(2, who, name)
}

fn content(tokens: u64, kind: usize) -> ContentDigest {
    ContentDigest(tokens.wrapping_mul(4).wrapping_add(kind as u64).to_le_bytes())
}

fn settled(entries: &[(Who, u8)]) -> Vec<Settled> {
    let one = |(who, name): &(Who, u8)| Settled {
        user_id: user(who.user),
        period: period(*who),
        id_digest: event_id(who.user, *name),
    };
    entries.iter().map(one).collect()
}

impl Event {
    fn admission(&self) -> Admission {
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
    fn terms(&self, now: Timestamp) -> Terms {
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

/// Two counters over the same seeds and the same clock.
struct Pair {
    setting: Setting,
    redis: Arc<dyn QuotaCounter>,
    memory: Arc<dyn QuotaCounter>,
}

impl Pair {
    fn new() -> Self {
        let setting = Setting::fresh();
        let redis = setting.counter(CounterTime::Clock);
        let memory = MemoryQuotaCounter::new(setting.seeds.clone(), setting.clock.clone());
        Self { setting, redis, memory: Arc::new(memory) }
    }

    fn now(&self) -> Timestamp {
        self.setting.clock.now()
    }

    /// Asks both the same. Why one is unavailable is its own affair.
    async fn both<T, E, F, Asking>(&self, ask: F) -> Result<(), TestCaseError>
    where
        T: PartialEq + Debug,
        F: Fn(Arc<dyn QuotaCounter>) -> Asking,
        Asking: Future<Output = Result<T, E>>,
        E: Debug,
    {
        let (redis, memory) = (ask(self.redis.clone()).await, ask(self.memory.clone()).await);
        let same = match (&redis, &memory) {
            (Ok(one), Ok(other)) => one == other,
            (one, other) => one.is_err() && other.is_err(),
        };
        prop_assert!(same, "\nRedis:  {:?}\nmemory: {:?}", redis, memory);
        Ok(())
    }

    async fn take(&self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now();
        match step {
            Step::Admit(events) => {
                let asked: &Vec<_> = &events.iter().map(Event::admission).collect();
                self.both(|counter| async move { counter.admit(asked).await }).await
            }
            Step::AdmitAtOnce(events) => {
                let asked: Vec<_> = events.iter().map(Event::admission).collect();
                self.admit_at_once(&asked).await
            }
            Step::Hold { who, name, tokens, kind, tier, seconds } => {
                let asked = &Hold {
                    user_id: user(who.user),
                    period: period(*who),
                    id_digest: hold_id(who.user, *name),
                    content_digest: content(*tokens, *kind),
                    request_type: RequestType::ALL[*kind],
                    tokens: *tokens,
                    tier: Tier(*tier),
                    expires_at: now.plus(Duration::from_secs(*seconds)),
                };
                self.both(|counter| async move { counter.hold(asked).await }).await
            }
            Step::Release { who, name } => {
                let (user, id) = (user(*who), hold_id(*who, *name));
                self.both(|counter| async move { counter.release(user, id).await }).await
            }
            Step::Usage(who) => {
                let (user, period) = (user(who.user), period(*who));
                self.both(|counter| async move { counter.usage(user, period).await }).await
            }
            Step::SetTerms { who, terms } => {
                let (user, terms) = (user(*who), &terms.as_ref().map(|plan| plan.terms(now)));
                let set = |counter: Arc<dyn QuotaCounter>| async move {
                    counter.set_terms(user, terms.clone()).await
                };
                self.both(set).await
            }
            Step::Withdraw(entries) => {
                let entries = &settled(entries);
                self.both(|counter| async move { counter.withdraw(entries).await }).await
            }
            Step::Sync { cursor, age, totals, settled: leaving } => {
                let totals = distinct(totals);
                let synced = &Synced {
                    partition: Partition::SINGLE,
                    cursor: Offset::new(*cursor),
                    watermark: now.minus(Duration::from_secs(*age)),
                    totals,
                    settled: settled(leaving),
                };
                self.both(|counter| async move { counter.sync(synced).await }).await
            }
            step => self.take_rarer(step).await,
        }
    }

    async fn take_rarer(&self, step: &Step) -> Result<(), TestCaseError> {
        let (seeds, single) = (&self.setting.seeds, Partition::SINGLE);
        match step {
            Step::SeedTerms { who, terms: Some(plan) } => {
                seeds.put(user(*who), plan.terms(self.now()));
            }
            Step::SeedTerms { who, terms: None } => seeds.remove(user(*who)),
            Step::SeedTotals { who, totals, cursor } => {
                seeds.count_for(user(who.user), period(*who), *totals, *cursor);
            }
            Step::Pass(millis) => self.setting.clock.advance(Duration::from_millis(*millis)),
            Step::Break(broken) => seeds.set_broken(*broken),
            Step::Close => {
                let close = |counter: Arc<dyn QuotaCounter>| async move {
                    counter.close(single).await.map(drop)
                };
                self.both(close).await?;
            }
            Step::Open { cursor, age } => {
                let (cursor, watermark) =
                    (Offset::new(*cursor), self.now().minus(Duration::from_secs(*age)));
                let open = |counter: Arc<dyn QuotaCounter>| async move {
                    counter.close(single).await?;
                    counter.open(single, cursor, watermark).await
                };
                self.both(open).await?;
            }
            Step::TakeOver => {
                self.both(|counter| async move { counter.take_over(single).await }).await?;
            }
            other => prop_assert!(false, "{:?} is taken elsewhere", other),
        }
        Ok(())
    }

    /// What Redis decides at once, the other decides so too; then both decide the rest.
    async fn admit_at_once(&self, asked: &[Admission]) -> Result<(), TestCaseError> {
        let told = self.redis.admit_at_once(asked).await;
        prop_assert_eq!(told.len(), asked.len());
        let (mut decided, mut verdicts, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (one, verdict) in asked.iter().zip(told) {
            match verdict {
                Some(verdict) => {
                    decided.push(one.clone());
                    verdicts.push(verdict);
                }
                None => rest.push(one),
            }
        }
        if !decided.is_empty() {
            prop_assert_eq!(self.memory.admit(&decided).await.ok(), Some(verdicts));
        }
        for one in rest {
            let one = std::slice::from_ref(one);
            self.both(|counter| async move { counter.admit(one).await }).await?;
        }
        Ok(())
    }

    async fn know_the_same(&self) -> Result<(), TestCaseError> {
        self.both(|counter| async move { counter.audit().await.map(in_order) }).await
    }
}

/// One total for each month, as a flush has them.
fn distinct(totals: &[(Who, Totals)]) -> Vec<UserTotals> {
    let month = |(who, totals): &(Who, Totals)| ((user(who.user), period(*who)), *totals);
    let months: BTreeMap<_, _> = totals.iter().map(month).collect();
    let one = |((user_id, period), totals)| UserTotals { user_id, period, totals };
    months.into_iter().map(one).collect()
}

fn in_order(mut all: Vec<CounterUser>) -> Vec<CounterUser> {
    all.sort_by_key(|one| (one.ledger.user_id, one.ledger.period));
    for one in &mut all {
        one.in_flight.sort_by_key(|entry| entry.id_digest);
    }
    all
}

fn agree(plans: &[Plan], steps: &[Step]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pair = Pair::new();
        for (number, plan) in (1..).zip(plans) {
            pair.setting.seeds.put(user(number), plan.terms(pair.now()));
        }
        pair.take(&Step::Open { cursor: 0, age: 0 }).await?;
        for some in steps.chunks(20) {
            for step in some {
                pair.take(step).await?;
            }
            pair.know_the_same().await?;
        }
        pair.setting.lose_everything();
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn redis_answers_as_the_counter_in_memory_does(
        plans in [plan(Mood::Wild), plan(Mood::Wild)],
        steps in prop::collection::vec(step(Mood::Wild), 40..70),
    ) {
        agree(&plans, &steps)?;
    }

    #[test]
    fn redis_answers_so_on_the_shorter_way_too(
        plans in [plan(Mood::Calm), plan(Mood::Calm)],
        steps in prop::collection::vec(step(Mood::Calm), 40..70),
    ) {
        agree(&plans, &steps)?;
    }
}
