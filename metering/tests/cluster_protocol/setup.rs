//! What a schedule is made of: who sends what, and what may happen meanwhile.

use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::{ADMISSION_WINDOW, OverLimit, PlanName, Terms, Tier};
use metering::time::{Period, Timestamp};
use metering::usage::{EventId, IdDigest, RequestType};

pub(crate) use super::campaign::content::{Content, model};
pub(crate) use super::campaign::random::Random;
use super::environment::{Environment, Shape};
pub(crate) use super::rules::Rules;

/// An event that a client may send, and send again.
#[derive(Clone, Debug)]
pub(crate) struct EventSpec {
    pub(crate) user: usize,
    pub(crate) name: EventId,
    pub(crate) id: IdDigest,
    /// The event, and another one with the same id.
    pub(crate) contents: [Content; 2],
    /// The client says when it occurred: so many seconds after it is first sent. A retry repeats it.
    pub(crate) stamp_seconds: Option<i64>,
    pub(crate) tries: u8,
}

/// Everything that a schedule starts from.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) rules: Rules,
    pub(crate) environment: Environment,
    pub(crate) shape: Shape,
    pub(crate) users: Vec<UserId>,
    pub(crate) events: Vec<EventSpec>,
    pub(crate) steps: usize,
}

/// Seconds from the first sending to the time that an event is stamped with: past, ahead within what
/// the door allows, and beyond.
const STAMPS: [Option<i64>; 6] = [None, Some(0), Some(-200), Some(-500), Some(240), Some(540)];

/// In the middle of a month and of a day: neither ends within a schedule.
pub(crate) fn start() -> Timestamp {
    period().start().plus(Duration::from_secs(14 * 86_400 + 43_200))
}

pub(crate) fn period() -> Period {
    Period::from_number(2026 * 12 + 9)
}

impl Setup {
    /// The setup of a seed.
    pub(crate) fn draw(seed: u64, rules: &Rules) -> Self {
        let mut random = Random::new(seed);
        let drawn = Environment::ALL[random.below(Environment::ALL.len())];
        let environment = rules.environment.unwrap_or(drawn);
        let mut shape = environment.shape_under(rules);
        for most in [&mut shape.losses, &mut shape.failovers, &mut shape.forced, &mut shape.crashes]
        {
            *most = random.small(*most + 1);
        }
        let users: Vec<_> = (0..shape.users)
            .map(|number| UserId::from_bytes([u8::try_from(number).unwrap(); 16]))
            .collect();
        let (most, tries) = shape.events;
        let count = most - random.below(most / 2);
        let stamped = matches!(environment, Environment::Duplicates | Environment::Horizons);
        let events = (0..count)
            .map(|number| {
                let mut event = EventSpec::draw(&mut random, &users, number);
                event.tries = 1 + random.small(tries);
                if stamped && (environment == Environment::Duplicates || random.below(3) == 0) {
                    event.stamp_seconds = STAMPS[random.below(STAMPS.len())];
                }
                event
            })
            .collect();
        let steps = 60 + random.below(120);
        Self { rules: rules.clone(), environment, shape, users, events, steps }
    }

    /// Everything as often as it may be; one user, who sends events of these tokens (among
    /// duplicates: dated somewhat ahead).
    pub(crate) fn scripted(environment: Environment, tokens: &[u32], rules: &Rules) -> Self {
        let users = vec![UserId::from_bytes([0; 16])];
        let event = |(number, tokens): (usize, &u32)| {
            let kind = RequestType::Chat;
            let mut event = EventSpec::new((0, users[0]), number, kind, [*tokens; 2]);
            event.tries = 9;
            event.stamp_seconds = (environment == Environment::Duplicates).then_some(240);
            event
        };
        let events = tokens.iter().enumerate().map(event).collect();
        let (rules, shape) = (rules.clone(), environment.shape_under(rules));
        Self { rules, environment, shape, users, events, steps: 0 }
    }

    /// For whoever reads a trace.
    pub(crate) fn summary(&self) -> String {
        let (environment, limit) = (self.environment, self.shape.token_limit);
        let mut text = format!("{environment:?}, limit {limit} tokens\n");
        for (number, event) in self.events.iter().enumerate() {
            let amounts = event.contents.map(|one| one.tokens.total());
            let (user, stamp) = (event.user, event.stamp_seconds);
            text += &format!("event {number}: user {user}, {amounts:?} tokens, stamp {stamp:?}\n");
        }
        text
    }

    /// Every event of a user is in one partition.
    pub(crate) fn partition_of(&self, user: usize) -> usize {
        user % self.shape.partitions
    }

    pub(crate) fn user_number(&self, user: UserId) -> usize {
        usize::from(user.as_bytes()[0])
    }

    /// The terms of everybody.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            version: 1,
            plan: PlanName::new("modelled"),
            token_limit: Some(self.shape.token_limit),
            request_limits: [None; 3],
            tier: Tier(0),
            over_limit: OverLimit::Reject,
            valid_until: None,
        }
    }

    /// After so long nothing that was let in under the old name can count any more.
    pub(crate) fn rebuild_wait(&self) -> Duration {
        let Shape { feed_delay, clock_bound, back, .. } = self.shape;
        let rules = &self.rules;
        if !rules.rebuilds_wait {
            return Duration::ZERO;
        }
        let feed = if rules.rebuilds_wait_for_the_feed { feed_delay } else { Duration::ZERO };
        ADMISSION_WINDOW + feed + clock_bound + back
    }

    /// How far the clock of one server or process is ahead.
    pub(crate) fn ahead(&self, number: u64) -> Duration {
        if number % 2 == 1 { self.shape.clock_bound } else { Duration::ZERO }
    }
}

impl EventSpec {
    fn draw(random: &mut Random, users: &[UserId], number: usize) -> Self {
        let user = random.below(users.len());
        let prompt = u32::from(1 + random.small(2));
        let request_type = [RequestType::Chat, RequestType::Plagiarism][random.below(2)];
        let other = prompt + 1 + u32::from(random.small(2));
        Self::new((user, users[user]), number, request_type, [prompt, other])
    }

    fn new(
        (user, user_id): (usize, UserId),
        number: usize,
        request_type: RequestType,
        tokens: [u32; 2],
    ) -> Self {
        let name = EventId::new(&format!("{number}")).unwrap();
        let id = IdDigest::of_event(user_id, &name);
        let contents = tokens.map(|prompt| Content::new(request_type, prompt));
        Self { user, id, name, contents, stamp_seconds: None, tries: 1 }
    }
}
