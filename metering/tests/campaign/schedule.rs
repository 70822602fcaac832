//! Random schedules: drawn, searched, shortened.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::actions::Action;
use super::super::setup::{Rules, Setup};
use super::super::world::World;
use super::random::Random;
use super::world::Violation;

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
/// slow ledger, others clients that hardly ever wait; and for a while at a time some kinds of
/// action and some requests are slower than others.
pub(crate) fn run(seed: u64, rules: &Rules) -> Outcome {
    let setup = Setup::draw(seed, rules);
    let mut random = Random::new(!seed);
    let (steps, mut world) = (setup.steps, World::new(setup));
    let (mut actions, mut possible) = (Vec::with_capacity(steps), Vec::new());
    let mut weights = Weights::draw(&mut random);
    for step in 0..steps {
        if step % weights.while_steps == 0 {
            weights.change_pace(&mut random);
        }
        world.actions(&mut possible);
        let action = weights.pick(&mut random, &possible).clone();
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

struct Weights {
    base: [f32; Action::KINDS],
    pace: [f32; Action::KINDS],
    /// By request number, going round.
    requests: [f32; 8],
    /// How long a pace lasts.
    while_steps: usize,
}

impl Weights {
    fn draw(random: &mut Random) -> Self {
        Self {
            base: Self::drawn(random, &[0.1, 0.4, 1.0, 1.0, 3.0, 8.0]),
            pace: [1.0; Action::KINDS],
            requests: [1.0; 8],
            while_steps: [12, 16, 40][random.below(3)],
        }
    }

    fn change_pace(&mut self, random: &mut Random) {
        self.pace = Self::drawn(random, &[0.1, 0.5, 1.0, 2.0]);
        self.requests = Self::drawn(random, &[0.01, 0.3, 1.0, 3.0]);
    }

    fn drawn<const N: usize>(random: &mut Random, choices: &[f32]) -> [f32; N] {
        std::array::from_fn(|_| choices[random.below(choices.len())])
    }

    fn weigh(&self, action: &Action) -> f32 {
        let request = action.request().map_or(1.0, |number| {
            let place = usize::try_from(number).unwrap() % self.requests.len();
            self.requests[place]
        });
        action.weight() * self.base[action.kind()] * self.pace[action.kind()] * request
    }

    fn pick<'a>(&self, random: &mut Random, possible: &'a [Action]) -> &'a Action {
        let sum: f32 = possible.iter().map(|action| self.weigh(action)).sum();
        let mut left = sum * random.share();
        for action in possible {
            left -= self.weigh(action);
            if left < 0.0 {
                return action;
            }
        }
        &possible[0]
    }
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
pub(crate) fn replay(setup: &Setup, actions: &[Action]) -> Option<(Vec<Action>, String)> {
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
