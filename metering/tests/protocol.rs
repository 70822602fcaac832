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
    pub(crate) mod door;
    pub(crate) mod ledger;
    pub(crate) mod random;
    pub(crate) mod rest;
    pub(crate) mod schedule;
    pub(crate) mod setup;
    pub(crate) mod world;
}

use protocol::schedule::{Failure, run, search, shorten};
use protocol::setup::{Rules, Setup};

/// Schedules of the protocol as it is, unless the environment says otherwise.
const SCHEDULES: u64 = 100_000;

/// A broken variant must be caught within so many schedules.
const SCHEDULES_PER_VARIANT: u64 = 300_000;

fn number(variable: &str, default: u64) -> u64 {
    let Some(text) = std::env::var_os(variable) else { return default };
    text.to_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        panic!("{variable} must be a number");
    })
}

fn report(failure: &Failure, rules: &Rules) -> String {
    let (actions, violation) = shorten(failure, rules);
    let setup = Setup::draw(failure.seed, rules);
    let mut text = format!("seed {}: {violation}\n{}", failure.seed, setup.summary());
    for action in actions {
        text += &format!("  {action:?}\n");
    }
    text
}

#[test]
fn random_schedules_keep_every_promise() {
    let (rules, first) = (Rules::default(), number("PROTOCOL_SEED", 0));
    let count = number("PROTOCOL_SCHEDULES", SCHEDULES);
    if let Some(failure) = search(&rules, first..first + count) {
        panic!("{}", report(&failure, &rules));
    }
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
    let rules = Rules::default();
    for seed in 0..50 {
        let (one, other) = (run(seed, &rules), run(seed, &rules));
        assert_eq!(one.actions, other.actions);
    }
    assert_ne!(run(1, &rules).actions, run(2, &rules).actions);
}

#[test]
fn schedules_reach_what_they_are_meant_to() {
    let mut reached = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 0..3_000 {
        for mark in run(seed, &Rules::default()).marks {
            *reached.entry(mark).or_default() += 1;
        }
    }
    for mark in [
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
    ] {
        assert!(reached.get(mark).is_some_and(|count| *count >= 10), "{mark}: {reached:?}");
    }
}
