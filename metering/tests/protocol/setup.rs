//! What a schedule is made of: who sends what, and which rules hold.

use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::{MARGIN, OverLimit, PlanName, Terms, Tier, Trust};
use metering::time::{Period, Timestamp};
use metering::usage::{ContentDigest, EventId, IdDigest, RequestType, ReservationId};

pub(crate) use super::campaign::content::{Content, model};
pub(crate) use super::campaign::random::Random;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One switch for each rule that carries weight: all true is the protocol.
        #[derive(Clone, Debug)]
        pub(crate) struct Rules { $($(#[$doc])* pub(crate) $name: bool,)* }

        impl Default for Rules {
            fn default() -> Self {
                Self { $($name: true,)* }
            }
        }

        impl Rules {
            /// Each variant with one rule broken, and its name.
            pub(crate) fn each_broken() -> Vec<(&'static str, Self)> {
                vec![$((stringify!($name), Self { $name: false, ..Self::default() }),)*]
            }
        }
    };
}

rules! {
    /// The log refuses a record later than the admission window.
    late_records_lapse,
    /// The log's time steps back by less than the margin.
    log_time_keeps_its_margin,
    /// The log stamps no record earlier than a watermark that it gave out, but for the margin.
    watermark_binds_the_log,
    /// A watermark of the present is given only when everything in the log is counted.
    watermark_waits_for_the_count,
    /// Watermark and cursor move only when the entries have left.
    watermark_moves_last,
    /// A sync carries the totals after the commit.
    totals_are_those_of_the_cursor,
    /// Totals and their cursor are read in one snapshot.
    seeds_are_one_snapshot,
    /// A repeat refreshes the entry's `admitted_at`.
    repeats_refresh,
    /// Other content of an id in flight is not published.
    other_content_conflicts,
    /// An entry is not taken back because its append failed.
    failures_refund_nothing,
    /// A partition is opened only when its log is counted to the end.
    opened_at_the_end,
    /// Nothing of a dead process reaches the log after the next has read its end.
    the_dead_store_nothing,
    /// Acknowledged only when the record is durable.
    durable_before_acknowledged,
    /// The ledger is asked again before a refusal.
    looked_up_before_refusal,
    /// The ledger is asked again when the counter was ahead of the first look.
    looked_up_after_the_cursor_moved,
    /// … also before a client hears that its id was reused.
    looked_up_before_a_conflict,
    /// … also when the grant repeats that of another request.
    looked_up_after_a_repeat,
    /// An entry is taken back only if the event was counted below the cursor of its grant; else
    /// the counter does not have its totals yet.
    withdrawn_only_when_in_the_totals,
    /// A look sees everything below the cursor that it names.
    looks_are_current,
    /// The fold knows what was counted before its batch.
    counted_ids_are_known,
    /// Effects and cursor are committed together.
    commits_are_atomic,
    /// A user's own event above its hold must fit.
    users_stay_below_their_hold,
    /// A hold ends when it is settled.
    holds_end,
}

/// Which month an event says that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occurred {
    /// It does not say: the month of its receipt.
    Now,
    /// Said: the first month.
    FirstMonth,
    /// Said: the second month.
    SecondMonth,
}

/// An event that a client may send, and send again.
#[derive(Clone, Debug)]
pub(crate) struct EventSpec {
    pub(crate) user: UserId,
    pub(crate) name: EventId,
    pub(crate) id: IdDigest,
    /// The event, and another one with the same id.
    pub(crate) contents: [Content; 2],
    pub(crate) occurred: Occurred,
    pub(crate) settles: Option<IdDigest>,
    pub(crate) trust: Trust,
    pub(crate) tries: u8,
}

/// A hold that a client may make.
#[derive(Clone, Debug)]
pub(crate) struct HoldSpec {
    pub(crate) user: UserId,
    pub(crate) id: IdDigest,
    pub(crate) digest: ContentDigest,
    pub(crate) tokens: u64,
    pub(crate) lasts: Duration,
    pub(crate) tries: u8,
}

/// Everything that a schedule starts from.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) rules: Rules,
    pub(crate) start: Timestamp,
    pub(crate) users: Vec<UserId>,
    pub(crate) users_max: usize,
    pub(crate) token_limit: u64,
    pub(crate) request_limit: Option<u64>,
    pub(crate) events: Vec<EventSpec>,
    pub(crate) holds: Vec<HoldSpec>,
    pub(crate) other_contents: bool,
    pub(crate) crashes: u8,
    /// By how much the log's time may step back.
    pub(crate) log_steps_back: Vec<Duration>,
    /// By how much the machine's clock may be set back.
    pub(crate) clock_set_back: Vec<Duration>,
    pub(crate) steps: usize,
}

/// The first of the two months that a schedule may touch.
pub(crate) fn first_month() -> Period {
    "2026-10".parse().unwrap()
}

impl Setup {
    /// The setup of a seed.
    pub(crate) fn draw(seed: u64, rules: &Rules) -> Self {
        let mut random = Random::new(seed);
        let users: Vec<_> =
            (0..1 + random.small(3)).map(|number| UserId::from_bytes([number; 16])).collect();
        let second = Duration::from_secs(1);
        let before_midnight = [4, 12, 30, 600_000][random.below(4)] * second;
        let token_limit = 3 + random.small(4);
        let holds = (0..[0, 0, 1, 2][random.below(4)])
            .map(|number| HoldSpec::draw(&mut random, &users, number, token_limit))
            .collect::<Vec<_>>();
        // Many events, or few that are sent again and again.
        let few = (1 + random.below(3), 8);
        let (count, tries) =
            [(3 + random.below(5), 3), (3 + random.below(5), 3), few][random.below(3)];
        let events = (0..count)
            .map(|number| {
                let tries = 1 + random.small(tries);
                EventSpec { tries, ..EventSpec::draw(&mut random, &users, &holds, number) }
            })
            .collect();
        let back = MARGIN + if rules.log_time_keeps_its_margin { 0 } else { 8 } * second;
        Self {
            rules: rules.clone(),
            start: first_month().end().minus(before_midnight),
            users_max: [1, 2, 100][random.below(3)],
            users,
            token_limit: token_limit.into(),
            request_limit: [None, Some(2), Some(4)][random.below(3)],
            events,
            holds,
            other_contents: random.below(2) == 0,
            crashes: [0, 1, 3][random.below(3)],
            log_steps_back: vec![[Duration::ZERO, back][random.below(2)], back / 2],
            clock_set_back: [vec![], vec![3 * second, 12 * second]][random.below(2)].clone(),
            steps: 60 + random.below(140),
        }
    }

    /// For whoever reads a trace.
    pub(crate) fn summary(&self) -> String {
        let (tokens, requests) = (self.token_limit, self.request_limit);
        let mut text = format!("limits {tokens} tokens, {requests:?} requests\n");
        for (number, event) in self.events.iter().enumerate() {
            let amounts = event.contents.map(|one| one.tokens.total());
            let (user, trust, occurred) = (event.user, event.trust, event.occurred);
            let hold = self.holds.iter().position(|hold| Some(hold.id) == event.settles);
            text += &format!(
                "event {number}: {amounts:?} tokens, {occurred:?}, settles {hold:?}, {trust:?} {user}\n"
            );
        }
        for (number, hold) in self.holds.iter().enumerate() {
            let (tokens, lasts, user) = (hold.tokens, hold.lasts, hold.user);
            text += &format!("hold {number}: {tokens} tokens for {lasts:?}, {user}\n");
        }
        text
    }

    /// The terms of everybody.
    pub(crate) fn terms(&self, version: u64) -> Terms {
        Terms {
            version,
            plan: PlanName::new("modelled"),
            token_limit: Some(self.token_limit),
            request_limits: [self.request_limit; 3],
            tier: Tier(0),
            over_limit: OverLimit::Reject,
            valid_until: None,
        }
    }
}

impl HoldSpec {
    fn draw(random: &mut Random, users: &[UserId], number: usize, limit: u8) -> Self {
        let user = users[random.below(users.len())];
        let tokens = u64::from(1 + random.small(limit));
        Self {
            user,
            id: IdDigest::of_hold(user, &ReservationId::new(&format!("{number}")).unwrap()),
            digest: ContentDigest::of_hold(RequestType::Chat, &model(), tokens),
            tokens,
            lasts: Duration::from_secs([3, 12, 30][random.below(3)]),
            tries: 1 + random.small(3),
        }
    }
}

impl EventSpec {
    fn draw(random: &mut Random, users: &[UserId], holds: &[HoldSpec], number: usize) -> Self {
        let mut user = users[random.below(users.len())];
        let mut settles = None;
        if !holds.is_empty() && random.below(3) > 0 {
            let hold = &holds[random.below(holds.len())];
            (user, settles) = (hold.user, Some(hold.id));
        }
        let name = EventId::new(&format!("{number}")).unwrap();
        let prompt = u32::from(1 + random.small(3));
        let other_type = [RequestType::Chat, RequestType::Plagiarism][random.below(2)];
        Self {
            user,
            id: IdDigest::of_event(user, &name),
            name,
            contents: [
                Content::new(RequestType::Chat, prompt),
                Content::new(other_type, prompt + 1 + u32::from(random.small(2))),
            ],
            occurred: [Occurred::Now, Occurred::Now, Occurred::FirstMonth, Occurred::SecondMonth]
                [random.below(4)],
            settles,
            trust: [Trust::User, Trust::Service][random.below(2)],
            tries: 1,
        }
    }
}
