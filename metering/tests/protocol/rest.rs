//! The end of a schedule: no more trouble, everything comes to rest, and the books are compared.

use std::time::Duration;

use metering::quota::{Admission, Refused, Tier, Totals, Trust, Verdict};
use metering::time::Period;
use metering::usage::{ContentDigest, IdDigest, RequestType};

use super::actions::Action;
use super::setup::{Random, first_month};
use super::world::World;

/// More steps than any schedule needs to come to rest.
const STEPS_MAX: usize = 3_000;

impl World {
    /// Does one thing.
    pub(crate) fn apply(&mut self, action: &Action) {
        match *action {
            Action::Pass(span) => drop(self.pass(span)),
            Action::SetClock(back) => self.set_clock(back),
            Action::SetLogTime(back) => self.log_back = back,
            Action::Send { event, content, barred } => self.send(event, content, barred),
            Action::Look(number) => self.look_first(number),
            Action::Admit(number) => self.admit(number),
            Action::ReadTotals(number) => self.read_totals(number),
            Action::Seed(number) => self.seed(number),
            Action::LookAgain(number) => self.look_again(number),
            Action::LookBeforeRefusal(number) => self.look_before_refusal(number),
            Action::Publish(number) => self.publish(number),
            Action::Acknowledge(number) => self.acknowledge(number),
            Action::GiveUp(number) => self.give_up(number),
            Action::Store { request, is_reported } => self.store(request, is_reported),
            Action::Lose(number) => self.lose(number),
            Action::Fold(count) => self.fold(count),
            Action::Commit => self.commit(),
            Action::MoveCursor => self.move_cursor(),
            Action::Sync => self.sync(),
            Action::Idle => self.idle(),
            Action::Crash(commits_lost) => self.crash(commits_lost),
            Action::Open => self.open(),
            Action::Hold(index) => self.hold(index),
            Action::Release(index) => self.release(index),
        }
    }

    /// Ends all trouble, lets everything happen that is under way, and compares.
    pub(crate) fn come_to_rest(&mut self) {
        self.is_calm = true;
        self.set_back = Duration::ZERO;
        self.log_back = Duration::ZERO;
        // By chance too: two users who push each other out of a tiny counter must not do so for ever.
        let (mut possible, mut chance) = (Vec::new(), Random::new(0));
        for step in 0.. {
            self.actions(&mut possible);
            if self.violation.is_some() {
                return;
            }
            if possible.is_empty() {
                break;
            }
            if step == STEPS_MAX {
                return self.violate(format!("does not come to rest: {possible:?}"));
            }
            let action = possible[chance.below(possible.len())].clone();
            self.apply(&action);
        }
        // Holds end, and what never reached the log is forgotten.
        self.pass(Duration::from_secs(60));
        self.idle();
        self.compare();
        self.use_all_room();
    }

    fn compare(&mut self) {
        self.check_ledger();
        if self.ledger.daily != self.fold_whole_log() {
            self.violate("other batch cuts make other sums".into());
        }
        for event in 0..self.clients.len() {
            let id = self.setup.events[event].id;
            let acknowledged = self.clients[event].acknowledged;
            if acknowledged.is_some()
                && self.ledger.known.get(&id).map(|known| known.content) != acknowledged
            {
                self.violate(format!("event {event} is acknowledged but not counted"));
            }
        }
        for user in self.setup.users.clone() {
            for period in [first_month(), first_month().next()] {
                let now = self.clock();
                let standing = match self.counter.usage(user, period, now) {
                    Ok(standing) => standing,
                    Err(_) => {
                        self.seed_now(user, period);
                        self.counter.usage(user, period, now).unwrap()
                    }
                };
                let used = standing.map(|standing| standing.used);
                let counted = self.ledger.totals.get(&(user, period)).copied();
                if used != Some(counted.unwrap_or_default()) {
                    self.violate(format!("at rest {used:?} are used, {counted:?} are counted"));
                }
            }
        }
    }

    /// All room that is left can be used, and not a token more.
    fn use_all_room(&mut self) {
        for user in self.setup.users.clone() {
            for period in [first_month(), first_month().next()] {
                let used = self.ledger.totals.get(&(user, period)).copied().unwrap_or_default();
                let left = self.setup.token_limit.saturating_sub(used.tokens);
                let requests = used.requests[RequestType::PromptGeneration.index()];
                let fits = self.setup.request_limit.is_none_or(|limit| requests < limit);
                let room = probe(user, period, left, 0);
                if used.tokens <= self.setup.token_limit && fits {
                    self.expect(&room, |verdict| matches!(verdict, Verdict::Granted(_)));
                    self.expect(&probe(user, period, 1, 1), |verdict| {
                        matches!(
                            verdict,
                            Verdict::Refused(Refused::TokenLimit | Refused::RequestLimit, _)
                        )
                    });
                }
            }
        }
    }

    fn expect(&mut self, asked: &Admission, as_it_should: impl Fn(&Verdict) -> bool) {
        let now = self.clock();
        let verdict = loop {
            match self.counter.admit(asked, now) {
                Ok(verdict) => break verdict,
                Err(_) => self.seed_now(asked.user_id, asked.period),
            }
        };
        if !as_it_should(&verdict) {
            let used = self.ledger.totals.get(&(asked.user_id, asked.period));
            let tokens = asked.tokens;
            self.violate(format!("at rest, {used:?} used, {tokens} more get {verdict:?}"));
        }
    }
}

/// A new event that asks for all that is left.
fn probe(user: metering::accounts::UserId, period: Period, tokens: u64, number: u8) -> Admission {
    let request = Totals::of(RequestType::PromptGeneration, tokens);
    let month = u8::try_from(period.number() % 12).unwrap();
    Admission {
        user_id: user,
        period,
        id_digest: IdDigest([200 + number, month, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        content_digest: ContentDigest([number; 8]),
        request_type: RequestType::PromptGeneration,
        tokens: request.tokens,
        tier: Tier(0),
        trust: Trust::User,
        settles: None,
        barred: false,
    }
}
