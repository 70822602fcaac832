//! What is compared on the way and at the end of a schedule, and the trouble of servers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::{Admission, Miss, Tier, Totals, Trust, Verdict};
use metering::usage::{
    ContentDigest, Flush, IdDigest, Partition, Payload, RequestType, SummaryKey, Sums,
};

use super::log::Fate;
use super::owner::{Aggregator, Progress};
use super::redis::{Keyspace, Server};
use super::serving::Serving;
use super::setup::{Random, period};
use super::stores::{Running, key_of};
use super::world::{World, place};

/// More steps than any schedule needs to come to rest.
const STEPS_MAX: usize = 3_000;

impl World {
    pub(crate) fn snapshot(&mut self) {
        let keyspaces = self.servers[self.master].keyspaces.clone();
        self.snapshots.push(keyspaces);
    }

    /// The master begins a new life; 0: empty, else with that snapshot.
    pub(crate) fn restart(&mut self, number: usize) {
        self.setup.shape.losses -= 1;
        self.mark(if number == 0 { "came back empty" } else { "came back old" });
        self.begin_life(number);
    }

    /// The other server becomes the master; the old one goes on with whoever is connected.
    pub(crate) fn replace(&mut self, number: usize) {
        self.setup.shape.failovers -= 1;
        self.mark("another server");
        self.master ^= 1;
        self.begin_life(number);
    }

    fn begin_life(&mut self, number: usize) {
        self.lives += 1;
        let keyspaces = match number.checked_sub(1) {
            None => Keyspace::none(self.setup.shape.partitions),
            Some(place) => self.snapshots[place].clone(),
        };
        self.servers[self.master] = Server { life: self.lives, keyspaces };
    }

    /// I1, I4, I5: after a transaction, ClickHouse and Postgres hold what the log says.
    pub(crate) fn check_book(&mut self, partition: usize, committed: Option<&Flush>) {
        let log = &self.logs[partition];
        let counts = |place: &usize| log.fates[*place] == Fate::Counted;
        let judges = self.setup.rules.the_horizon_is_in_the_log;
        let book = &self.books[partition];
        let below = place(book.cursor.position);
        let mut wrong = None;
        if let Some(flush) = committed {
            let range = place(flush.range.start)..place(flush.range.end);
            let raw = self.raw.range((partition, range.start)..(partition, range.end));
            let raw: BTreeSet<_> = raw.map(|((_, place), _)| *place).collect();
            let counted: BTreeSet<_> =
                flush.counted.iter().map(|event| place(event.offset)).collect();
            if !raw.is_superset(&counted) {
                wrong = Some(format!("I1: of {counted:?} only {raw:?} are stored"));
            } else if raw != counted {
                wrong = Some(format!("I5: {raw:?} are stored, but only {counted:?} are counted"));
            } else if judges && counted != range.filter(counts).collect() {
                wrong = Some(format!("I4: {counted:?} are counted"));
            }
        }
        let mut totals = BTreeMap::<UserId, Totals>::new();
        for place in (0..below).filter(counts) {
            let Payload::Event(admitted) = &log.records[place].payload else { unreachable!() };
            let event = &admitted.event;
            let more = Totals::of(event.request_type, event.tokens.total());
            let sum = totals.entry(event.user_id).or_default();
            *sum = sum.plus(more).unwrap();
        }
        if judges && totals != book.totals {
            wrong = Some(format!("I4: Postgres has {:?}, the log says {totals:?}", book.totals));
        }
        if book.tallied != book.cursor.position.number() {
            wrong = Some("I4: the tallies are not the length of what was counted".into());
        }
        if let Some(wrong) = wrong {
            self.violate(wrong);
        }
    }

    /// I6: a summary row at a version is what was counted below it.
    pub(crate) fn check_summary(&mut self, key: &SummaryKey, row: Running) {
        let partition = self.setup.partition_of(self.setup.user_number(key.user_id));
        let below = place(row.version).min(self.logs[partition].len());
        let sums = self.summed(partition, below).remove(key).unwrap_or_default();
        if sums != row.sums && self.setup.rules.the_horizon_is_in_the_log {
            let (have, want, version) = (row.sums.prompt_tokens, sums.prompt_tokens, row.version);
            self.violate(format!("I6: a summary at {version} has {have} tokens instead of {want}"));
        }
    }

    fn summed(&self, partition: usize, below: usize) -> BTreeMap<SummaryKey, Sums> {
        let log = &self.logs[partition];
        let mut all = BTreeMap::<SummaryKey, Sums>::new();
        for place in (0..below).filter(|place| log.fates[*place] == Fate::Counted) {
            let record = &log.records[place];
            let Payload::Event(admitted) = &record.payload else { unreachable!() };
            let (offset, log_time) = (record.offset, record.log_time);
            let admitted = admitted.clone();
            let event = metering::usage::CountedEvent { offset, log_time, admitted };
            let sums = all.entry(key_of(&event)).or_default();
            *sums = sums.plus(Sums::of(&event.admitted)).unwrap();
        }
        all
    }

    /// Ends all trouble, lets everything happen that is under way, and compares.
    pub(crate) fn come_to_rest(&mut self) {
        self.is_calm = true;
        self.log_back = Duration::ZERO;
        // The deposed server ends, and all processes but one.
        self.lives += 1;
        self.servers[self.master ^ 1].life = self.lives;
        let (partitions, name) = (self.setup.shape.partitions, self.books[0].announced);
        for one in &mut self.aggregators[1..] {
            *one = Aggregator::new(partitions, name);
        }
        let mut chance = Random::new(0);
        self.settle_down(&mut chance);
        // What never reached the log is forgotten.
        self.now = self.now.plus(Duration::from_secs(60));
        for partition in 0..partitions {
            self.append_tick(partition, self.horizon(partition));
        }
        self.settle_down(&mut chance);
        if self.violation.is_none() {
            self.compare();
        }
    }

    fn settle_down(&mut self, chance: &mut Random) {
        let mut possible = Vec::new();
        for _ in 0..STEPS_MAX {
            if self.violation.is_some() || self.is_quiet() {
                return;
            }
            self.actions(&mut possible);
            if possible.is_empty() {
                break;
            }
            let action = possible[chance.below(possible.len())].clone();
            self.apply(&action);
        }
        self.violate(format!("I9: does not come to rest: {possible:?}"));
    }

    fn is_quiet(&self) -> bool {
        let writes = self.late_inserts.len() + self.late_commits.len();
        let one = &self.aggregators[0];
        let served = |(partition, task): (usize, &Option<super::owner::Task>)| {
            task.as_ref().is_some_and(|task| {
                matches!((&task.stage, &task.serving), (Progress::Counting, Serving::Open))
                    && task.sync.is_none()
                    && task.cursor.position == self.end_of(partition)
                    && one.feed[partition] == self.books[partition].announced
                    && !self.is_behind(0, partition, task)
            })
        };
        self.requests.is_empty()
            && self.sending.is_empty()
            && writes == 0
            && one.group.is_none()
            && one.server == self.master
            && self.reaches(0)
            && one.tasks.iter().enumerate().all(served)
    }

    /// At rest everything agrees, and all room that is left can be used.
    fn compare(&mut self) {
        for (event, client) in self.clients.iter().enumerate() {
            if client.acknowledged.is_some() && self.known(event).is_none() {
                return self.violate(format!("I1: event {event} is acknowledged, not counted"));
            }
        }
        let judges = self.setup.rules.the_horizon_is_in_the_log;
        for partition in 0..self.setup.shape.partitions {
            let sums = self.summed(partition, self.logs[partition].len());
            for (key, sums) in sums {
                let row = self.summaries.get(&key).copied().unwrap_or_default();
                if judges && row.sums != sums {
                    return self.violate(format!("I6: at rest a summary has {row:?}"));
                }
            }
        }
        for user in 0..self.setup.users.len() {
            let used = match self.used(user) {
                Some(used) => used,
                None => self.seeded(user),
            };
            let counted = self.counted_tokens(user);
            if used != counted {
                return self.violate(format!("I8: {used:?} are used, {counted:?} are counted"));
            }
            let limit = self.setup.shape.token_limit;
            let left = limit.saturating_sub(counted.tokens);
            let uses_all = self.fits(user, left, 1) && !self.fits(user, 1, 2);
            if counted.tokens <= limit && !uses_all {
                return self.violate(format!("I9: {left} tokens are left but not granted"));
            }
        }
    }

    fn counter(&mut self, user: usize) -> &mut metering::quota::Counter {
        let partition = self.setup.partition_of(user);
        &mut self.servers[self.master].keyspaces[partition].counter
    }

    fn used(&mut self, user: usize) -> Option<Totals> {
        let (id, now) = (self.setup.users[user], self.now);
        self.counter(user).usage(id, period(), now).ok()?.map(|standing| standing.used)
    }

    fn seeded(&mut self, user: usize) -> Totals {
        let (id, terms) = (self.setup.users[user], self.setup.terms());
        let totals = self.counted_tokens(user);
        let cursor = self.books[self.setup.partition_of(user)].cursor.position;
        self.counter(user).seed_terms(id, terms);
        self.counter(user).seed_totals(id, period(), totals, cursor);
        self.used(user).unwrap()
    }

    /// A new event that asks for so much.
    fn fits(&mut self, user: usize, tokens: u64, number: u8) -> bool {
        let asked = Admission {
            user_id: self.setup.users[user],
            period: period(),
            id_digest: IdDigest([200 + number; 16]),
            content_digest: ContentDigest([number; 8]),
            request_type: RequestType::PromptGeneration,
            tokens,
            tier: Tier(0),
            trust: Trust::User,
            settles: None,
            barred: false,
        };
        let now = self.now;
        let verdict: Result<Verdict, Miss> = self.counter(user).admit(&asked, now);
        debug_assert!(self.counter(user).cursor(Partition::SINGLE).is_some());
        matches!(verdict, Ok(Verdict::Granted(_)))
    }
}
