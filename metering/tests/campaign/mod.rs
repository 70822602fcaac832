//! What the campaigns of both models share: how schedules are drawn, searched and shortened, and what
//! a failure tells. Each model takes this in beside its own `actions`, `setup` and `world`.

pub(crate) mod content;
pub(crate) mod random;
pub(crate) mod schedule;
pub(crate) mod world;

use std::collections::BTreeMap;

use self::schedule::{Failure, run, search, shorten};
use super::setup::{Rules, Setup};

/// Draws so many schedules of the protocol as it is, unless the environment says otherwise.
pub(crate) fn every_promise_is_kept(schedules: u64) {
    let (rules, first) = (Rules::default(), number("PROTOCOL_SEED", 0));
    let count = number("PROTOCOL_SCHEDULES", schedules);
    if let Some(failure) = search(&rules, first..first + count) {
        panic!("{}", report(&failure, &rules));
    }
}

/// The same seed draws the same schedule, another one another.
pub(crate) fn schedules_depend_on_their_seed_alone() {
    let rules = Rules::default();
    for seed in 0..50 {
        let (one, other) = (run(seed, &rules), run(seed, &rules));
        assert_eq!(one.actions, other.actions);
    }
    assert_ne!(run(1, &rules).actions, run(2, &rules).actions);
}

/// Each mark is left by ten of so many schedules or more.
pub(crate) fn marks_are_reached(schedules: u64, marks: &[&str]) {
    let mut reached = BTreeMap::<&str, u64>::new();
    for seed in 0..schedules {
        for mark in run(seed, &Rules::default()).marks {
            *reached.entry(mark).or_default() += 1;
        }
    }
    for mark in marks {
        assert!(reached.get(mark).is_some_and(|count| *count >= 10), "{mark}: {reached:?}");
    }
}

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
