//! The cluster's quota counter, in Redis.
//!
//! [`RedisQuotaCounter`] decides nothing by itself: the rules of `metering`'s admission state
//! machine run as Lua functions inside the server (`lua/`), each call for one partition, so that
//! an admission is atomic. Around them stand the rules that let a server be lost or deposed: every
//! partition has an *epoch*, every connection reads which life of which server it belongs to
//! before it does anything else, and what an epoch let in is only passed on while the feed still
//! names that epoch.
//!
//! All keys of a call carry the partition's hash tag (`{p17}`). Redis must run with
//! `maxmemory-policy noeviction`: an entry that is evicted is room given away twice.

mod admitting;
mod audit;
mod coalescer;
mod counter;
mod epochs;
mod feed;
mod library;
mod link;
mod outage;
mod seeder;
mod settings;
mod shared;
mod wire;

pub use counter::RedisQuotaCounter;
pub use settings::{CounterTime, OnOutage, RedisSettings};

use metering::Unavailable;

/// The label of this store in `tokenmeter_store_errors_total`.
const STORE: &str = "quota_counter";

fn unavailable(reason: impl std::fmt::Display) -> Unavailable {
    Unavailable::new(STORE, reason)
}
