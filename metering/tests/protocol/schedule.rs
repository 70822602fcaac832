//! Random schedules: drawn, searched, shortened.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::actions::Action;
use super::setup::{Random, Rules, Setup};
use super::world::{Violation, World};

/// What became of a schedule.
pub(crate) struct Outcome {
    pub(crate) actions: Vec<Action>,
    pub(crate) marks: Vec<&'static str>,
    pub(crate) violation: Option<Violation>,
}

/// A schedule in which a promise was broken.
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) actions: Vec<Action>,
    pub(crate) violation: String,
}

/// The schedule of a seed. Each draws its own weights, so that some have many crashes, others a
/// slow ledger, others clients that hardly ever wait; and now and then the weights change.
pub(crate) fn run(seed: u64, rules: &Rules) -> Outcome {
    let setup = Setup::draw(seed, rules);
    let mut random = Random::new(!seed);
    let (steps, mut world) = (setup.steps, World::new(setup));
    let (mut actions, mut possible) = (Vec::with_capacity(steps), Vec::new());
    let base = weights(&mut random, &[0.1, 0.4, 1.0, 1.0, 3.0, 8.0]);
    let mut pace = [1.0; Action::KINDS];
    for step in 0..steps {
        if step % 16 == 0 {
            pace = weights(&mut random, &[0.02, 0.5, 1.0, 2.0]);
        }
        world.actions(&mut possible);
        let action = pick(&mut random, &possible, &base, &pace).clone();
        world.apply(&action);
        actions.push(action);
        if world.violation.is_some() {
            break;
        }
    }
    if world.violation.is_none() {
        world.come_to_rest();
    }
    Outcome { actions, marks: world.marks, violation: world.violation }
}

fn weights(random: &mut Random, choices: &[f32]) -> [f32; Action::KINDS] {
    std::array::from_fn(|_| choices[random.below(choices.len())])
}

fn pick<'a>(random: &mut Random, possible: &'a [Action], base: &[f32], pace: &[f32]) -> &'a Action {
    let weigh = |one: &Action| one.weight() * base[one.kind()] * pace[one.kind()];
    let sum: f32 = possible.iter().map(weigh).sum();
    let mut left = sum * (random.below(1 << 20) as f32 / (1 << 20) as f32);
    for action in possible {
        left -= weigh(action);
        if left < 0.0 {
            return action;
        }
    }
    &possible[0]
}

/// The failure with the smallest seed, of all schedules in the range; on all cores.
pub(crate) fn search(rules: &Rules, seeds: Range<u64>) -> Option<Failure> {
    let (next, found) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || seed > found.load(Ordering::Relaxed) {
                        return;
                    }
                    if run(seed, rules).violation.is_some() {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = found.into_inner();
    if seed == u64::MAX {
        return None;
    }
    let outcome = run(seed, rules);
    let violation = outcome.violation?.0;
    Some(Failure { seed, actions: outcome.actions, violation })
}

/// Leaves out of a failing schedule what it does not need to fail, and says how it fails then.
pub(crate) fn shorten(failure: &Failure, rules: &Rules) -> (Vec<Action>, String) {
    let setup = Setup::draw(failure.seed, rules);
    let mut shortest = (failure.actions.clone(), failure.violation.clone());
    let mut chunk = shortest.0.len();
    while chunk > 0 {
        let mut start = 0;
        while start < shortest.0.len() {
            let end = (start + chunk).min(shortest.0.len());
            let mut fewer = shortest.0.clone();
            fewer.drain(start..end);
            match replay(&setup, &fewer) {
                Some(failing) => shortest = failing,
                None => start = end,
            }
        }
        chunk /= 2;
    }
    shortest
}

/// Does what is still possible of `actions`; what was done and how it failed, if it failed.
fn replay(setup: &Setup, actions: &[Action]) -> Option<(Vec<Action>, String)> {
    let mut world = World::new(setup.clone());
    let (mut done, mut possible) = (Vec::new(), Vec::new());
    for action in actions {
        world.actions(&mut possible);
        if possible.contains(action) {
            world.apply(action);
            done.push(action.clone());
        }
        if world.violation.is_some() {
            break;
        }
    }
    if world.violation.is_none() {
        world.come_to_rest();
    }
    world.violation.map(|violation| (done, violation.0))
}
