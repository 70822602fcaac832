//! The quota counter in Redis: the rule suite of its port, the same random operations as on the
//! counter in memory, and what only a counter outside of the process has to stand: epochs.

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

mod redis_quota {
    mod differential;
    mod epochs;
    mod outage;
    pub(crate) mod own_server;
    pub(crate) mod setting;
    mod traffic;
}

mod servers;

use contract::quota_counter::Fixture;
use redis_quota::setting::Setting;
use stores::redis::CounterTime;

fn by_the_server() -> Fixture {
    Setting::fresh().fixture(CounterTime::Server)
}

fn by_a_clock() -> Fixture {
    Setting::fresh().fixture(CounterTime::Clock)
}

quota_counter_contract!(super::by_the_server());
quota_counter_time_contract!(super::by_a_clock());
