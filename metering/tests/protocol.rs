//! A model of the whole counting protocol on one node, under random schedules.
//!
//! It drives the product's own admission state machine (`quota::Counter`) and fold
//! (`usage::fold`) through everything that may happen around them: clients that send again,
//! appends whose report is lost, a ledger that lags, crashes at any moment, clocks that step back.
//! After each step it asks what the product promises: what is acknowledged is counted, nothing
//! twice, never past a limit, nothing known is refused, and at rest everything agrees and all room
//! that is left can be used. A schedule is a pure function of its seed.
//!
//! The model is worth something because it can fail: for each rule of the protocol there is a
//! variant without it, and each of them must be caught.
//!
//! Longer campaigns: `PROTOCOL_SCHEDULES=5000000 PROTOCOL_SEED=7 cargo test -p metering --test
//! protocol`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the model is test code, though it stands outside of the test functions"
)]

mod protocol {
    pub(crate) mod actions;
    #[path = "../campaign/mod.rs"]
    pub(crate) mod campaign;
    pub(crate) mod door;
    pub(crate) mod ledger;
    pub(crate) mod rest;
    pub(crate) mod setup;
    pub(crate) mod world;
}

use protocol::campaign;
use protocol::campaign::schedule::search;
use protocol::setup::Rules;

/// Schedules of the protocol as it is, unless the environment says otherwise.
const SCHEDULES: u64 = 100_000;

/// A broken variant must be caught within so many schedules.
const SCHEDULES_PER_VARIANT: u64 = 300_000;

#[test]
fn random_schedules_keep_every_promise() {
    campaign::every_promise_is_kept(SCHEDULES);
}

#[test]
fn each_broken_rule_is_caught() {
    for (name, rules) in Rules::each_broken() {
        let found = search(&rules, 0..SCHEDULES_PER_VARIANT);
        let Some(failure) = found else {
            panic!("without the rule `{name}` nothing went wrong in any schedule");
        };
        println!("{name:34} seed {:6}: {}", failure.seed, failure.violation);
    }
}

#[test]
fn a_schedule_depends_on_its_seed_alone() {
    campaign::schedules_depend_on_their_seed_alone();
}

#[test]
fn schedules_reach_what_they_are_meant_to() {
    let marks = [
        "granted",
        "repeated",
        "conflict",
        "refused",
        "barred",
        "known at the door",
        "known at the recheck",
        "known before a refusal",
        "missed",
        "old seed dropped",
        "lapsed",
        "stored after its request gave up",
        "twice in the log",
        "held",
        "settled",
        "above a hold",
        "released",
        "crashed",
        "ledger lost commits",
        "both months",
        "evicted",
        "counted since the grant",
        "in flight in another month",
        "clock set back",
    ];
    campaign::marks_are_reached(3_000, &marks);
}
