//! What happens at the door: clients, look-ups, admissions, the way to the log.

use std::time::Duration;

use metering::quota::{
    ADMISSION_WINDOW, Admission, Grant, Hold, HoldOutcome, Miss, Terms, Tier, Totals, Trust,
    Verdict,
};
use metering::time::Period;
use metering::usage::{
    AdmittedEvent, ContentDigest, Flag, IdOrigin, LogRecord, Payload, RequestType, Settled,
    UsageEvent,
};

use super::setup::{Occurred, first_month, model};
use super::world::{Request, Sending, Stage, World, offset};

impl World {
    pub(crate) fn send(&mut self, event: usize, content: usize, barred: bool) {
        let spec = &self.setup.events[event];
        let day = Duration::from_secs(86_400);
        let occurred_at = match spec.occurred {
            Occurred::Now => self.clock(),
            Occurred::FirstMonth => first_month().start().plus(day),
            Occurred::SecondMonth => first_month().end().plus(day),
        };
        let digest = spec.contents[content].digest;
        let client = &mut self.clients[event];
        client.tries -= 1;
        client.sent = true;
        let counted = self.ledger.known.get(&spec.id).is_some_and(|one| one.content == digest);
        let is_repeat = counted || client.acknowledged == Some(digest);
        let (number, stage) = (self.next_request, Stage::Arrived);
        self.next_request += 1;
        self.requests.push(Request {
            number,
            event,
            content,
            barred,
            occurred_at,
            is_repeat,
            stage,
        });
    }

    pub(crate) fn look_first(&mut self, number: u32) {
        let (event, digest) = self.named(number);
        match self.look(&self.setup.events[event].id) {
            (_, Some(known)) => {
                self.mark("known at the door");
                self.tell_known(number, known.content == digest);
            }
            (cursor, None) => self.request(number).stage = Stage::Looked(cursor),
        }
    }

    pub(crate) fn admit(&mut self, number: u32) {
        let asked = self.admission(number);
        let Stage::Looked(looked) = self.request(number).stage else { unreachable!() };
        let mut now = self.clock();
        let first = self.first_admitted.get(&asked.id_digest).copied();
        if !self.setup.rules.repeats_refresh {
            now = first.unwrap_or(now);
        }
        let (verdict, users) = (self.counter.admit(&asked, now), self.counter.users());
        match verdict {
            Err(Miss::Closed(_)) => self.end(number),
            Err(Miss::Undecided) => {
                self.mark("in flight in another month");
                self.end(number);
            }
            Err(Miss::Seeds { terms, totals }) => {
                self.mark("missed");
                if terms {
                    self.counter.seed_terms(asked.user_id, self.setup.terms(self.terms_version));
                }
                if users > self.counter.users() {
                    self.mark("evicted");
                }
                if totals {
                    self.request(number).stage = Stage::Missing(looked);
                }
            }
            Ok(Verdict::Granted(grant)) => {
                self.mark("granted");
                self.first_admitted.insert(asked.id_digest, grant.admitted_at);
                self.note_settled(&asked, &grant);
                self.go_on(number, looked, grant, true);
            }
            Ok(Verdict::Repeated(mut grant)) => {
                self.mark("repeated");
                grant.admitted_at = grant.admitted_at.max(self.clock());
                self.go_on(number, looked, grant, false);
            }
            Ok(Verdict::Conflict(standing)) => {
                self.mark("conflict");
                if self.setup.rules.other_content_conflicts {
                    self.request(number).stage = Stage::Refusing;
                    if !self.setup.rules.looked_up_before_a_conflict {
                        self.refuse(number);
                    }
                    return;
                }
                let (admitted_at, cursor) = (self.clock(), looked);
                let flags = metering::usage::Flags::default();
                let grant = Grant { admitted_at, cursor, flags, over_hold: 0, standing };
                self.go_on(number, looked, grant, false);
            }
            Ok(Verdict::Refused(..)) => {
                self.mark(if asked.barred { "barred" } else { "refused" });
                self.request(number).stage = Stage::Refusing;
                if !self.setup.rules.looked_up_before_refusal {
                    self.refuse(number);
                }
            }
            Ok(Verdict::UnknownUser) => self.violate("a user is not known".into()),
        }
    }

    fn go_on(&mut self, number: u32, looked: metering::usage::Offset, grant: Grant, is_new: bool) {
        let rules = &self.setup.rules;
        let looks =
            rules.looked_up_after_the_cursor_moved && (is_new || rules.looked_up_after_a_repeat);
        self.request(number).stage = if looks && grant.cursor > looked {
            Stage::Doubtful { grant, is_new }
        } else {
            Stage::Sound(grant)
        };
    }

    /// Marks, and the broken variant in which a settled hold goes on.
    fn note_settled(&mut self, asked: &Admission, grant: &Grant) {
        let Some(id) = asked.settles else { return };
        let index = self.setup.holds.iter().position(|hold| hold.id == id).unwrap();
        if !std::mem::take(&mut self.holds_made[index]) {
            return;
        }
        self.mark("settled");
        if grant.flags.has(Flag::OverHold) {
            self.mark("above a hold");
        }
        if !self.setup.rules.holds_end {
            let limited = self.setup.terms(self.terms_version + 2);
            let unlimited = Terms {
                version: self.terms_version + 1,
                token_limit: None,
                request_limits: [None; 3],
                ..limited.clone()
            };
            self.terms_version += 2;
            self.counter.set_terms(asked.user_id, Some(unlimited)).unwrap();
            self.make_hold(index);
            self.counter.set_terms(asked.user_id, Some(limited)).unwrap();
        }
    }

    pub(crate) fn read_totals(&mut self, number: u32) {
        let asked = self.admission(number);
        let Stage::Missing(looked) = self.request(number).stage else { unreachable!() };
        let (totals, cursor) = (self.totals(&asked), offset(self.ledger.cursor));
        self.request(number).stage = Stage::Read { looked, totals, cursor };
    }

    pub(crate) fn seed(&mut self, number: u32) {
        let asked = self.admission(number);
        let Stage::Read { looked, totals, mut cursor } = self.request(number).stage else {
            unreachable!()
        };
        if !self.setup.rules.seeds_are_one_snapshot {
            cursor = offset(self.ledger.cursor);
        }
        self.counter.seed_totals(asked.user_id, asked.period, totals, cursor);
        let again = self.counter.usage(asked.user_id, asked.period, self.clock());
        if matches!(again, Err(Miss::Seeds { totals: true, .. })) {
            self.mark("old seed dropped");
        }
        self.request(number).stage = Stage::Looked(looked);
    }

    pub(crate) fn look_again(&mut self, number: u32) {
        let asked = self.admission(number);
        let Stage::Doubtful { grant, is_new } = self.request(number).stage.clone() else {
            unreachable!()
        };
        let Some(known) = self.look(&asked.id_digest).1 else {
            self.request(number).stage = Stage::Sound(grant);
            return;
        };
        self.mark("known at the recheck");
        let in_totals = known.offset < grant.cursor;
        if is_new && (in_totals || !self.setup.rules.withdrawn_only_when_in_the_totals) {
            self.withdraw(&asked);
        }
        if is_new && !in_totals {
            self.mark("counted since the grant");
        }
        self.tell_known(number, known.content == asked.content_digest);
    }

    pub(crate) fn look_before_refusal(&mut self, number: u32) {
        let (event, digest) = self.named(number);
        let known = self.look(&self.setup.events[event].id).1;
        if known.is_some_and(|known| known.content == digest) {
            self.mark("known before a refusal");
            self.tell_known(number, true);
        } else {
            self.refuse(number);
        }
    }

    pub(crate) fn publish(&mut self, number: u32) {
        let asked = self.admission(number);
        let Stage::Sound(grant) = self.request(number).stage.clone() else { unreachable!() };
        let admitted = self.admitted(number, &asked, &grant);
        self.on_its_way.push(Sending { request: number, admitted });
        let durable_first = self.setup.rules.durable_before_acknowledged;
        self.request(number).stage = if durable_first { Stage::Waiting } else { Stage::Stored };
    }

    pub(crate) fn acknowledge(&mut self, number: u32) {
        let (event, digest) = self.named(number);
        self.check_acknowledged(event, digest);
        self.end(number);
    }

    pub(crate) fn give_up(&mut self, number: u32) {
        if !self.setup.rules.failures_refund_nothing {
            let asked = self.admission(number);
            self.withdraw(&asked);
        }
        self.end(number);
    }

    pub(crate) fn store(&mut self, number: u32, is_reported: bool) {
        let place = self.on_its_way.iter().position(|one| one.request == number).unwrap();
        let admitted = self.on_its_way.remove(place).admitted;
        let log_time = self.log_time();
        let waits = self.requests.iter().any(|one| one.number == number);
        let late = log_time > admitted.admitted_at.plus(ADMISSION_WINDOW);
        if late && self.setup.rules.late_records_lapse {
            self.mark("lapsed");
            if waits {
                self.end(number);
            }
            return;
        }
        self.check_stored(&admitted);
        let (offset, payload) = (offset(self.log.len()), Payload::Event(Box::new(admitted)));
        self.log.push(LogRecord { offset, log_time, payload });
        if !waits {
            self.mark("stored after its request gave up");
        } else if is_reported {
            self.request(number).stage = Stage::Stored;
        } else {
            self.end(number);
        }
    }

    pub(crate) fn lose(&mut self, number: u32) {
        self.on_its_way.retain(|sending| sending.request != number);
        if self.requests.iter().any(|one| one.number == number) {
            self.end(number);
        }
    }

    pub(crate) fn hold(&mut self, index: usize) {
        self.hold_tries[index] -= 1;
        if self.make_hold(index) {
            self.mark("held");
            self.holds_made[index] = true;
        }
    }

    pub(crate) fn release(&mut self, index: usize) {
        self.holds_made[index] = false;
        let spec = &self.setup.holds[index];
        if self.counter.release(spec.user, &spec.id, self.clock()).unwrap() {
            self.mark("released");
        }
    }

    /// Asks for a hold, seeding what is missing. Whether a new one stands.
    fn make_hold(&mut self, index: usize) -> bool {
        let (spec, now) = (&self.setup.holds[index], self.clock());
        let asked = Hold {
            user_id: spec.user,
            period: Period::of(now),
            id_digest: spec.id,
            content_digest: spec.digest,
            request_type: RequestType::Chat,
            tokens: spec.tokens,
            tier: Tier(0),
            expires_at: now.plus(spec.lasts),
        };
        if self.counter.usage(asked.user_id, asked.period, now).is_err() {
            self.seed_now(asked.user_id, asked.period);
        }
        // An error all the same: the ledger is behind what the counter was told. Ask another time.
        matches!(self.counter.hold(&asked, now), Ok(HoldOutcome::Held(_)))
    }

    /// Reads and seeds terms and totals without anything in between.
    pub(crate) fn seed_now(&mut self, user: metering::accounts::UserId, period: Period) {
        let totals = self.ledger.totals.get(&(user, period)).copied().unwrap_or_default();
        self.counter.seed_terms(user, self.setup.terms(self.terms_version));
        self.counter.seed_totals(user, period, totals, offset(self.ledger.cursor));
    }

    fn refuse(&mut self, number: u32) {
        let request = self.request(number).clone();
        if request.is_repeat {
            self.violate(format!("event {} is refused though it is known", request.event));
        }
        self.end(number);
    }

    /// The answer to an event that is counted already: duplicate, or reused id.
    fn tell_known(&mut self, number: u32, is_same: bool) {
        let (event, digest) = self.named(number);
        if is_same {
            self.check_acknowledged(event, digest);
            self.end(number);
        } else {
            self.refuse(number);
        }
    }

    fn withdraw(&mut self, asked: &Admission) {
        let (user_id, period, id_digest) = (asked.user_id, asked.period, asked.id_digest);
        self.counter.withdraw(&[Settled { user_id, period, id_digest }]).unwrap();
    }

    fn totals(&self, asked: &Admission) -> Totals {
        self.ledger.totals.get(&(asked.user_id, asked.period)).copied().unwrap_or_default()
    }

    fn named(&mut self, number: u32) -> (usize, ContentDigest) {
        let (event, content) = (self.request(number).event, self.request(number).content);
        (event, self.setup.events[event].contents[content].digest)
    }

    fn admission(&mut self, number: u32) -> Admission {
        let request = self.request(number).clone();
        let spec = &self.setup.events[request.event];
        let content = spec.contents[request.content];
        let trusted = !self.setup.rules.users_stay_below_their_hold;
        Admission {
            user_id: spec.user,
            period: Period::of(request.occurred_at),
            id_digest: spec.id,
            content_digest: content.digest,
            request_type: content.request_type,
            tokens: content.tokens.total(),
            tier: Tier(0),
            trust: if trusted { Trust::Service } else { spec.trust },
            settles: spec.settles,
            barred: request.barred,
        }
    }

    fn admitted(&mut self, number: u32, asked: &Admission, grant: &Grant) -> AdmittedEvent {
        let request = self.request(number).clone();
        let spec = &self.setup.events[request.event];
        let content = spec.contents[request.content];
        let allowed = spec.trust == Trust::Service;
        AdmittedEvent {
            event: UsageEvent {
                user_id: spec.user,
                event_id: spec.name.clone(),
                id_origin: IdOrigin::Client,
                request_type: content.request_type,
                model: model(),
                tokens: content.tokens,
                occurred_at: request.occurred_at,
                occurred_at_given: spec.occurred != Occurred::Now,
                received_at: request.occurred_at,
                reservation_id: None,
                metadata: None,
            },
            id_digest: asked.id_digest,
            content_digest: asked.content_digest,
            plan: grant.standing.plan.clone(),
            admitted_at: grant.admitted_at,
            flags: grant.flags,
            // What a user takes beyond its hold is no excuse.
            over_hold: if allowed { grant.over_hold } else { 0 },
        }
    }
}
