//! A model of the counting protocol on a cluster, under random schedules.
//!
//! It drives the product's own fold (`usage::fold`) and admission state machine (`quota::Counter`,
//! in a shell that stands for Redis) through what may happen between several processes and stores:
//! epochs that are lost, closed, taken over and deposed, records that come too late, owners that
//! do not know that they are none any more, writes that nobody has heard of, ids that come
//! again after they were forgotten. After each step it asks what the product promises:
//!
//! - I1 what is acknowledged is counted, and nothing that is counted is missing from ClickHouse;
//! - I2 no event is counted twice (one without any time in it: within the horizon);
//! - I3 no limit is passed;
//! - I4 Postgres is what the log says;
//! - I5 ClickHouse holds nothing below the cursor that is not counted;
//! - I6 each summary is what was counted below its version;
//! - I7 nothing that is counted is refused;
//! - I8 at rest the counter is what the ledger says;
//! - I9 everything comes to rest, and all room that is left can be used.
//!
//! A schedule is a pure function of its seed. For each rule of the protocol there is a variant
//! without it, and each of them must be caught.
//!
//! Longer campaigns: `PROTOCOL_SCHEDULES=5000000 PROTOCOL_SEED=7 cargo test -p metering --test
//! cluster_protocol`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the model is test code, though it stands outside of the test functions"
)]

mod cluster_protocol {
    pub(crate) mod actions;
    pub(crate) mod door;
    pub(crate) mod environment;
    pub(crate) mod log;
    pub(crate) mod owner;
    pub(crate) mod possible;
    #[path = "../protocol/random.rs"]
    pub(crate) mod random;
    pub(crate) mod redis;
    pub(crate) mod rest;
    pub(crate) mod rules;
    #[path = "../protocol/schedule.rs"]
    pub(crate) mod schedule;
    pub(crate) mod scripts;
    pub(crate) mod serving;
    pub(crate) mod setup;
    pub(crate) mod stores;
    pub(crate) mod world;
}

use cluster_protocol::rules::{Rules, variants};
use cluster_protocol::schedule::{Failure, replay, run, search, shorten};
use cluster_protocol::scripts::scripts;
use cluster_protocol::setup::Setup;

/// Schedules of the protocol as it is, unless the environment says otherwise.
const SCHEDULES: u64 = 40_000;

/// A broken variant must be caught within so many schedules.
const SCHEDULES_PER_VARIANT: u64 = 30_000;

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
    let mut missed = Vec::new();
    for variant in variants() {
        let name = variant.broken.join(" + ");
        match search(&variant.rules, 0..SCHEDULES_PER_VARIANT) {
            Some(failure) => println!("{name:60} seed {:6}: {}", failure.seed, failure.violation),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "nothing went wrong in any schedule without {missed:?}");
}

#[test]
fn scripted_orders_go_wrong_only_without_their_rule() {
    for script in scripts() {
        let (broken, rules) = (&script.variant.broken, Rules::default());
        let survived = replay(&script.setup(&rules), &script.actions);
        assert_eq!(survived, None, "the protocol itself fails where {broken:?} should");
        match replay(&script.setup(&script.variant.rules), &script.actions) {
            Some((_, violation)) => println!("{broken:?}: {violation}"),
            None => panic!("nothing goes wrong without {broken:?}"),
        }
    }
}

#[test]
fn every_rule_is_left_out_somewhere() {
    let variants = variants().into_iter().chain(scripts().into_iter().map(|one| one.variant));
    let broken: std::collections::BTreeSet<_> = variants.flat_map(|one| one.broken).collect();
    for name in Rules::NAMES {
        assert!(broken.contains(name), "no variant leaves {name} out");
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
    for seed in 0..4_000 {
        for mark in run(seed, &Rules::default()).marks {
            *reached.entry(mark).or_default() += 1;
        }
    }
    for mark in [
        "granted",
        "acknowledged",
        "repeated",
        "conflict",
        "refused",
        "known before a refusal",
        "missed",
        "seed of another epoch",
        "old seed dropped",
        "closed",
        "another incarnation",
        "the feed is read first",
        "deposed",
        "stored after its request gave up",
        "twice in the log",
        "void",
        "dated ahead",
        "counted again after the horizon",
        "another horizon",
        "looked up",
        "two owners",
        "crashed",
        "several partitions",
        "lost a partition",
        "in doubt",
        "committed after all",
        "not committed",
        "nobody asks any more",
        "the ledger stands elsewhere",
        "a summary is ahead",
        "stored late",
        "committed late",
        "caught up",
        "the counter serves under another name",
        "rebuilt without need",
        "opened anew",
        "closed by another",
        "came back empty",
        "came back old",
        "another server",
    ] {
        assert!(reached.get(mark).is_some_and(|count| *count >= 10), "{mark}: {reached:?}");
    }
}
