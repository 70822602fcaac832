//! The same random operations on Redis and on the counter in memory: every answer must agree.

mod steps;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use metering::quota::{
    Admission, CounterUser, Hold, QuotaCounter, Synced, Tier, Totals, UserTotals,
};
use metering::time::{Clock, Timestamp};
use metering::usage::{Offset, Partition, RequestType};
use proptest::prelude::*;
use stores::memory::MemoryQuotaCounter;
use stores::redis::CounterTime;

use self::steps::{Event, Mood, Plan, Step, Who, content, hold_id, period, plan, settled, step};
use super::setting::Setting;
use crate::contract::quota_counter::user;

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
