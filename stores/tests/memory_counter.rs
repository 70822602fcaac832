//! The rule suite of `QuotaCounter` on the counter in memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "rules are test code, though they stand outside of the test functions"
)]

#[macro_use]
mod contract {
    #[macro_use]
    pub(crate) mod quota_counter;
}

use std::sync::Arc;

use contract::quota_counter::{Fixture, ScriptedSeeds};
use metering::time::{Clock, ManualClock, Timestamp};
use stores::memory::MemoryQuotaCounter;

fn fresh() -> Fixture {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_791_000_000_000)));
    let seeds = Arc::new(ScriptedSeeds::default());
    let (showing, moving) = (clock.clone(), clock.clone());
    Fixture {
        counter: Arc::new(MemoryQuotaCounter::new(seeds.clone(), clock)),
        seeds,
        now: Box::new(move || showing.now()),
        pass: Box::new(move |span| moving.advance(span)),
    }
}

quota_counter_contract!(super::fresh());
quota_counter_time_contract!(super::fresh());
