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
//! - I3 no limit is passed, by what a counter let in;
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
    #[path = "../campaign/mod.rs"]
    pub(crate) mod campaign;
    pub(crate) mod door;
    pub(crate) mod environment;
    pub(crate) mod log;
    pub(crate) mod owner;
    pub(crate) mod possible;
    pub(crate) mod redis;
    pub(crate) mod rest;
    pub(crate) mod rules;
    pub(crate) mod scripts;
    pub(crate) mod serving;
    pub(crate) mod setup;
    pub(crate) mod stores;
    pub(crate) mod world;
}

use cluster_protocol::campaign;
use cluster_protocol::campaign::schedule::{replay, search};
use cluster_protocol::rules::{Rules, variants};
use cluster_protocol::scripts::scripts;

/// Schedules of the protocol as it is, unless the environment says otherwise.
const SCHEDULES: u64 = 40_000;

/// A broken variant must be caught within so many schedules.
const SCHEDULES_PER_VARIANT: u64 = 30_000;

#[test]
fn random_schedules_keep_every_promise() {
    campaign::every_promise_is_kept(SCHEDULES);
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
    campaign::schedules_depend_on_their_seed_alone();
}

#[test]
fn schedules_reach_what_they_are_meant_to() {
    let marks = [
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
        "committed before the counter was told of the flush before",
        "nobody asks any more",
        "the ledger stands elsewhere",
        "a summary is ahead",
        "stored late",
        "committed late",
        "caught up",
        "fell behind",
        "the counter serves under another name",
        "rebuilt without need",
        "opened anew",
        "closed by another",
        "came back empty",
        "came back old",
        "another server",
        "counted unmetered",
    ];
    campaign::marks_are_reached(4_000, &marks);
}
