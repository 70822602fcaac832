//! Which events are sent: a pure function of the seed, so that nothing about them is kept.
//!
//! The traffic is an endless row of positions. Most hold an event of their own (whose number is
//! the position), some hold an earlier event again.

use std::io::Write as _;

/// Repeats reach back so far: a client retries soon, if at all.
const REPEAT_REACH: u64 = 100_000;

const REQUEST_TYPES: [&str; 3] = ["chat", "plagiarism", "prompt_generation"];

/// All of the lowest tier, so that the free plan reaches them too.
const MODELS: [&str; 4] = ["gpt-3.5-turbo", "gpt-4o-mini", "gpt-5-nano", "claude-3-haiku"];

/// One event; the number says all the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Whose: an index into the users of the run.
    pub(crate) user: usize,
    /// As the contract writes it.
    pub(crate) request_type: &'static str,
    /// As the catalogue writes it.
    pub(crate) model: &'static str,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: u32,
    /// The part of the prompt that came from a cache.
    pub(crate) cached_tokens: u32,
    /// Tokens of the completion.
    pub(crate) completion_tokens: u32,
}

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// Decides everything else.
    pub(crate) seed: u64,
    /// Stands in every event id: two runs never share events.
    pub(crate) run: u32,
    /// The ids of the users; the first [`Self::over_limit_users`] are on the free plan.
    pub(crate) users: Vec<String>,
    /// How many users are on the free plan.
    pub(crate) over_limit_users: usize,
    /// The share of positions that hold an earlier event.
    pub(crate) repeats: f64,
    /// The share of events of users on the free plan.
    pub(crate) over_limit: f64,
}

/// How many of `users` are put on the free plan, when any event is to be theirs.
pub(crate) fn over_limit_users(users: usize, share: f64) -> usize {
    if share <= 0.0 { 0 } else { (users / 100).max(1) }
}

impl Traffic {
    /// The number of the event at `position`.
    pub(crate) fn event_at(&self, position: u64) -> u64 {
        let mut at = position;
        while at > 0 && chance(self.random(at, 0)) < self.repeats {
            at -= 1 + self.random(at, 1) % at.min(REPEAT_REACH);
        }
        at
    }

    /// The event of that number.
    pub(crate) fn event(&self, number: u64) -> Event {
        let dice = self.random(number, 2);
        let others = self.users.len() - self.over_limit_users;
        let over_limit = self.over_limit_users > 0
            && (others == 0 || chance(self.random(number, 3)) < self.over_limit);
        let (first, count) =
            if over_limit { (0, self.over_limit_users) } else { (self.over_limit_users, others) };
        let prompt_tokens = 20 + below(dice >> 32, 2000);
        Event {
            user: first + index(self.random(number, 4), count),
            request_type: REQUEST_TYPES
                [usize::from(dice.is_multiple_of(10)) + usize::from(dice.is_multiple_of(20))],
            model: MODELS[index(dice >> 8, MODELS.len())],
            prompt_tokens,
            cached_tokens: if dice.is_multiple_of(4) { prompt_tokens / 2 } else { 0 },
            completion_tokens: 1 + below(dice >> 48, 500),
        }
    }

    /// Appends the event's JSON.
    pub(crate) fn write_event(&self, number: u64, json: &mut Vec<u8>) {
        let event = self.event(number);
        let Event { request_type, model, prompt_tokens, cached_tokens, completion_tokens, .. } =
            event;
        let (user, run) = (&self.users[event.user], self.run);
        // Writing to a vector cannot fail.
        write!(
            json,
            "{{\"user_id\":\"{user}\",\"event_id\":\"{run:08x}-0000-4000-8000-{number:012x}\",\
             \"request_type\":\"{request_type}\",\"model\":\"{model}\",\
             \"prompt_tokens\":{prompt_tokens},\"completion_tokens\":{completion_tokens},\
             \"cached_tokens\":{cached_tokens}}}"
        )
        .ok();
    }

    /// The number of the event with that id; `None` for ids that this run never made.
    pub(crate) fn number_of(&self, event_id: &str) -> Option<u64> {
        let rest = event_id.strip_prefix(&format!("{:08x}-0000-4000-8000-", self.run))?;
        u64::from_str_radix(rest, 16).ok().filter(|_| rest.len() == 12)
    }

    fn random(&self, number: u64, purpose: u64) -> u64 {
        mix(mix(self.seed.wrapping_add(purpose << 56)).wrapping_add(number))
    }
}

/// A step of SplitMix64: every bit of the result depends on every bit of `state`.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From random bits to `[0, 1)`.
fn chance(random: u64) -> f64 {
    f64::from(u32::try_from(random >> 32).unwrap_or(0)) / 4_294_967_296.0
}

fn below(random: u64, bound: u32) -> u32 {
    u32::try_from(random % u64::from(bound)).unwrap_or(0)
}

fn index(random: u64, count: usize) -> usize {
    usize::try_from(random % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0)
}

#[cfg(test)]
pub(crate) fn traffic(users: usize, repeats: f64, over_limit: f64) -> Traffic {
    Traffic {
        seed: 7,
        run: 0xabcd,
        users: (0..users).map(|n| format!("user-{n}")).collect(),
        over_limit_users: over_limit_users(users, over_limit),
        repeats,
        over_limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_traffic_and_another_seed_another() {
        let (one, other) = (traffic(100, 0.1, 0.1), Traffic { seed: 8, ..traffic(100, 0.1, 0.1) });
        let of = |t: &Traffic| (0..500).map(|p| t.event(t.event_at(p))).collect::<Vec<_>>();
        assert_eq!(of(&one), of(&traffic(100, 0.1, 0.1)));
        assert_ne!(of(&one), of(&other));
    }

    #[test]
    fn about_the_share_asked_for_are_repeats_of_earlier_events() {
        let traffic = traffic(10, 0.2, 0.0);
        let repeats = (0..10_000).filter(|p| traffic.event_at(*p) != *p).count();
        assert!((1800..2200).contains(&repeats), "{repeats}");
        for position in 0..10_000 {
            let number = traffic.event_at(position);
            assert!(number <= position);
            assert_eq!(traffic.event_at(number), number, "a repeat is of a first occurrence");
        }
    }

    #[test]
    fn about_the_share_asked_for_is_of_users_on_the_free_plan() {
        let traffic = traffic(500, 0.0, 0.1);
        assert_eq!(traffic.over_limit_users, 5);
        let theirs = (0..10_000).filter(|n| traffic.event(*n).user < 5).count();
        assert!((900..1100).contains(&theirs), "{theirs}");
        assert!((0..10_000).all(|n| traffic.event(n).user < 500));
    }

    #[test]
    fn an_event_is_json_with_an_id_that_says_its_number() {
        let traffic = traffic(3, 0.0, 0.0);
        let mut json = Vec::new();
        traffic.write_event(0x1234, &mut json);
        let event: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(traffic.number_of(event["event_id"].as_str().unwrap()), Some(0x1234));
        assert_eq!(event["prompt_tokens"], traffic.event(0x1234).prompt_tokens);
        assert_eq!(traffic.number_of("0000abce-0000-4000-8000-000000001234"), None);
        assert_eq!(traffic.number_of("0000abcd-0000-4000-8000-1234"), None);
    }

    #[test]
    fn every_request_type_and_model_occurs() {
        let traffic = traffic(3, 0.0, 0.0);
        let events: Vec<_> = (0..1000).map(|n| traffic.event(n)).collect();
        assert!(REQUEST_TYPES.iter().all(|t| events.iter().any(|e| e.request_type == *t)));
        assert!(MODELS.iter().all(|m| events.iter().any(|e| e.model == *m)));
        assert!(events.iter().all(|e| e.cached_tokens <= e.prompt_tokens));
    }
}
