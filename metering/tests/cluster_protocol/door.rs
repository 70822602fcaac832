//! What happens at the door: clients, admissions, the way to the log.

use std::time::Duration;

use metering::quota::{Admission, Grant, Miss, Tier, Totals, Trust, Verdict};
use metering::time::Timestamp;
use metering::usage::{
    AdmittedEvent, ContentDigest, Flag, Flags, IdOrigin, Offset, Partition, STAMP_AHEAD_MAX,
    UsageEvent,
};

use super::log::Sending;
use super::setup::{model, period, start};
use super::world::{Announced, Request, Stage, World, place};

impl World {
    pub(crate) fn send(&mut self, event: usize, content: usize, ingest: usize) {
        let spec = &self.setup.events[event];
        let client = &mut self.clients[event];
        client.tries -= 1;
        if let Some(seconds) = spec.stamp_seconds {
            let after = Duration::from_secs(seconds.unsigned_abs());
            let now = self.now;
            let stamp = || if seconds < 0 { now.minus(after) } else { now.plus(after) };
            let stamp = *client.stamp.get_or_insert_with(stamp);
            if stamp > self.now.plus(STAMP_AHEAD_MAX) && self.setup.rules.the_door_looks_at_stamps {
                return self.mark("dated ahead");
            }
        }
        let digest = spec.contents[content].digest;
        let is_known = self.known(event).is_some_and(|known| known == digest);
        let (number, stage) = (self.next_request, Stage::Arrived);
        self.next_request += 1;
        self.requests.push(Request { number, event, content, ingest, is_known, stage });
    }

    /// The ledger's answer to a look-up: the content that an id was last counted with.
    pub(crate) fn known(&self, event: usize) -> Option<ContentDigest> {
        let spec = &self.setup.events[event];
        let partition = self.setup.partition_of(spec.user);
        let below = place(self.books[partition].cursor.position);
        let rows = self.raw.range((partition, 0)..(partition, below));
        rows.rev().find(|(_, row)| row.id == spec.id).map(|(_, row)| row.seen.content)
    }

    /// Asks the counter; the answer may be lost on the way.
    pub(crate) fn admit(&mut self, number: u32, is_answered: bool) {
        let asked = self.admission(number);
        let (event, at) = (self.request(number).event, self.request(number).ingest);
        let ingest = self.ingests[at].clone();
        let partition = self.setup.partition_of(self.setup.events[event].user);
        let mut now = self.server_time(ingest.server);
        let rules = &self.setup.rules;
        if !self.is_linked(ingest.server, ingest.life) {
            return self.without_counter(number);
        }
        let keyspace = &mut self.servers[ingest.server].keyspaces[partition];
        let Some(epoch) = keyspace.epoch.clone().filter(|epoch| epoch.is_open) else {
            self.mark("closed");
            return self.without_counter(number);
        };
        if rules.incarnations_are_compared && epoch.life != ingest.believed {
            self.mark("another incarnation");
            return self.without_counter(number);
        }
        if !rules.forgotten_by_the_watermark {
            keyspace.counter.advance(Partition::SINGLE, epoch.cursor, now).unwrap();
        }
        if !rules.repeats_refresh {
            let months = keyspace.counter.audit().unwrap();
            let mut entries = months.iter().flat_map(|month| &month.in_flight);
            let entry = entries.find(|entry| entry.id_digest == asked.id_digest);
            now = entry.map_or(now, |entry| entry.admitted_at);
        }
        let verdict = keyspace.counter.admit(&asked, now);
        let under = Announced { life: ingest.believed, nonce: epoch.nonce };
        self.told(number, verdict, under);
        if !is_answered {
            self.end(number);
        }
    }

    /// No counter can decide.
    fn without_counter(&mut self, number: u32) {
        if !self.setup.shape.records_outages {
            return self.end(number);
        }
        let standing = self.setup.terms().standing(Totals::default());
        let flags = Flags::default().with(Flag::Unmetered);
        let (admitted_at, cursor) = (self.now, Offset::default());
        let grant = Grant { admitted_at, cursor, flags, over_hold: 0, standing };
        self.request(number).stage = Stage::Unmetered { grant };
    }

    fn told(&mut self, number: u32, verdict: Result<Verdict, Miss>, under: Announced) {
        let at = self.request(number).ingest;
        let server = self.ingests[at].server;
        let present = self.server_time(server);
        match verdict {
            Err(Miss::Closed(_)) => self.end(number),
            Err(Miss::Undecided) => self.violate("there is one month only".into()),
            Err(Miss::Seeds { .. }) => {
                self.mark("missed");
                self.request(number).stage = Stage::Missing { nonce: under.nonce };
            }
            Ok(Verdict::Granted(grant)) => {
                self.mark("granted");
                self.request(number).stage = Stage::Granted { grant, under };
            }
            Ok(Verdict::Repeated(mut grant)) => {
                self.mark("repeated");
                grant.admitted_at = grant.admitted_at.max(present);
                self.request(number).stage = Stage::Granted { grant, under };
            }
            Ok(Verdict::Conflict(standing)) => {
                self.mark("conflict");
                if self.setup.rules.other_content_conflicts {
                    self.request(number).stage = Stage::Refusing;
                    return;
                }
                let (cursor, flags) = (Offset::default(), Flags::default());
                let grant = Grant { admitted_at: present, cursor, flags, over_hold: 0, standing };
                self.request(number).stage = Stage::Granted { grant, under };
            }
            Ok(Verdict::Refused(..)) => {
                self.mark("refused");
                self.request(number).stage = Stage::Refusing;
                if !self.setup.rules.looked_up_before_refusal {
                    self.refuse(number);
                }
            }
            Ok(Verdict::UnknownUser) => self.violate("a user is not known".into()),
        }
    }

    pub(crate) fn read_totals(&mut self, number: u32) {
        let Stage::Missing { mut nonce } = self.request(number).stage else { unreachable!() };
        let (event, at) = (self.request(number).event, self.request(number).ingest);
        let user = self.setup.events[event].user;
        let partition = self.setup.partition_of(user);
        if !self.setup.rules.seeds_carry_the_nonce_of_the_miss {
            let keyspace = &self.servers[self.ingests[at].server].keyspaces[partition];
            nonce = keyspace.epoch.as_ref().map_or(nonce, |epoch| epoch.nonce);
        }
        let book = &self.books[partition];
        let totals = book.totals.get(&self.setup.users[user]).copied().unwrap_or_default();
        let cursor = book.cursor.position;
        self.request(number).stage = Stage::Read { nonce, totals, cursor };
    }

    pub(crate) fn seed(&mut self, number: u32) {
        let Stage::Read { nonce, totals, mut cursor } = self.request(number).stage else {
            unreachable!()
        };
        self.request(number).stage = Stage::Arrived;
        let (event, at) = (self.request(number).event, self.request(number).ingest);
        let ingest = self.ingests[at].clone();
        if !self.is_linked(ingest.server, ingest.life) {
            return self.end(number);
        }
        let spec = &self.setup.events[event];
        let (partition, user) = (self.setup.partition_of(spec.user), self.setup.users[spec.user]);
        let (rules, terms) = (&self.setup.rules, self.setup.terms());
        let keyspace = &mut self.servers[ingest.server].keyspaces[partition];
        let Some(epoch) = keyspace.epoch.as_ref().filter(|epoch| epoch.is_open) else { return };
        if rules.incarnations_are_compared && epoch.life != ingest.believed {
            return;
        }
        if rules.seeds_carry_the_nonce && epoch.nonce != nonce {
            return self.mark("seed of another epoch");
        }
        let is_old = cursor < epoch.cursor;
        if !rules.old_seeds_are_dropped {
            cursor = cursor.max(epoch.cursor);
        }
        keyspace.counter.seed_terms(user, terms);
        keyspace.counter.seed_totals(user, period(), totals, cursor);
        if is_old {
            self.mark("old seed dropped");
        }
    }

    /// Before a client hears that an event is not let in.
    pub(crate) fn look_up(&mut self, number: u32) {
        let (event, digest) = self.named(number);
        if self.known(event) == Some(digest) {
            self.mark("known before a refusal");
            self.acknowledged(event, digest);
            self.end(number);
        } else {
            self.refuse(number);
        }
    }

    fn refuse(&mut self, number: u32) {
        let request = self.request(number).clone();
        if request.is_known {
            self.violate(format!("I7: event {} is refused though it is counted", request.event));
        }
        self.end(number);
    }

    /// Passes on what was let in, if the feed names the epoch that has let it in.
    pub(crate) fn publish(&mut self, number: u32) {
        let (grant, under) = match self.request(number).stage.clone() {
            Stage::Granted { grant, under } => (grant, under),
            Stage::Unmetered { grant } => return self.hand_over(number, grant),
            _ => unreachable!(),
        };
        let at = self.request(number).ingest;
        let (event, _) = self.named(number);
        let partition = self.setup.partition_of(self.setup.events[event].user);
        let rules = &self.setup.rules;
        let (fresh, asks) = (rules.the_feed_is_fresh, rules.the_feed_is_asked);
        let by_nonce = rules.the_feed_is_asked_for_the_nonce;
        let named = |seen: Announced| {
            if by_nonce { seen.nonce == under.nonce } else { seen.life == under.life }
        };
        let reach = self.ingests[at].looked_at.plus(self.setup.shape.feed_delay);
        if asks {
            if fresh && (grant.admitted_at > reach || !named(self.ingests[at].feed[partition])) {
                self.mark("the feed is read first");
                self.look_at_feed(at);
            }
            if !named(self.ingests[at].feed[partition]) {
                self.mark("deposed");
                return self.without_counter(number);
            }
        }
        self.hand_over(number, grant);
    }

    fn hand_over(&mut self, number: u32, grant: Grant) {
        let (event, _) = self.named(number);
        let partition = self.setup.partition_of(self.setup.events[event].user);
        let admitted = self.admitted(number, grant);
        self.sending.push(Sending { request: number, partition, admitted });
        self.request(number).stage = Stage::Waiting;
    }

    pub(crate) fn look_at_feed(&mut self, ingest: usize) {
        let ahead = self.setup.ahead(u64::try_from(ingest).unwrap());
        let (looked_at, feed) = (self.now.plus(ahead), self.feed());
        self.ingests[ingest].looked_at = looked_at;
        self.ingests[ingest].feed = feed;
    }

    /// New connections reach the master.
    pub(crate) fn connect(&mut self, ingest: usize) {
        let (server, life) = (self.master, self.servers[self.master].life);
        let learns = self.setup.rules.connections_learn_the_incarnation;
        let ingest = &mut self.ingests[ingest];
        (ingest.server, ingest.life) = (server, life);
        if learns {
            ingest.believed = life;
        }
    }

    pub(crate) fn acknowledge(&mut self, number: u32) {
        let Stage::Stored { lapsed } = self.request(number).stage else { unreachable!() };
        let (event, digest) = self.named(number);
        if !lapsed || !self.setup.rules.acknowledged_within_the_window {
            self.mark("acknowledged");
            self.acknowledged(event, digest);
        }
        self.end(number);
    }

    /// I1: who hears that an event is recorded finds it in the log, where it counts.
    fn acknowledged(&mut self, event: usize, content: ContentDigest) {
        let spec = &self.setup.events[event];
        let partition = self.setup.partition_of(spec.user);
        if self.logs[partition].counted(spec.id).next().is_none() {
            self.violate(format!("I1: event {event} is acknowledged but does not count"));
        }
        self.clients[event].acknowledged = Some(content);
    }

    fn named(&mut self, number: u32) -> (usize, ContentDigest) {
        let (event, content) = (self.request(number).event, self.request(number).content);
        (event, self.setup.events[event].contents[content].digest)
    }

    fn admission(&mut self, number: u32) -> Admission {
        let (event, content) = (self.request(number).event, self.request(number).content);
        let spec = &self.setup.events[event];
        let content = spec.contents[content];
        Admission {
            user_id: self.setup.users[spec.user],
            period: period(),
            id_digest: spec.id,
            content_digest: content.digest,
            request_type: content.request_type,
            tokens: content.tokens.total(),
            tier: Tier(0),
            trust: Trust::User,
            settles: None,
            barred: false,
        }
    }

    fn admitted(&mut self, number: u32, grant: Grant) -> AdmittedEvent {
        let (event, content) = (self.request(number).event, self.request(number).content);
        let (spec, stamp) = (&self.setup.events[event], self.clients[event].stamp);
        let content = spec.contents[content];
        let occurred_at = stamp.unwrap_or(start());
        let received_at = Timestamp::default();
        AdmittedEvent {
            event: UsageEvent {
                user_id: self.setup.users[spec.user],
                event_id: spec.name.clone(),
                id_origin: IdOrigin::Client,
                request_type: content.request_type,
                model: model(),
                tokens: content.tokens,
                occurred_at,
                occurred_at_given: stamp.is_some(),
                received_at,
                reservation_id: None,
                metadata: None,
            },
            id_digest: spec.id,
            content_digest: content.digest,
            plan: grant.standing.plan,
            admitted_at: grant.admitted_at,
            flags: grant.flags,
            over_hold: grant.over_hold,
        }
    }

    /// What a user has in the ledger.
    pub(crate) fn counted_tokens(&self, user: usize) -> Totals {
        let book = &self.books[self.setup.partition_of(user)];
        book.totals.get(&self.setup.users[user]).copied().unwrap_or_default()
    }
}
