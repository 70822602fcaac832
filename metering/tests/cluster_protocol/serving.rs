//! How the owner of a partition opens its counter, keeps it up to date and opens it anew.

use std::collections::BTreeMap;

use metering::accounts::UserId;
use metering::quota::{Totals, UserTotals};
use metering::time::Timestamp;
use metering::usage::{Cursor, Offset, Payload, Settled, is_void};

use super::owner::{Pending, Progress};
use super::redis::Month;
use super::setup::period;
use super::world::{Announced, World, place};

/// Whether the counter admits to a partition, as its owner believes, and how far that is from being so.
#[derive(Clone, Debug)]
pub(crate) enum Serving {
    /// Just taken over, or fallen behind: perhaps it is open.
    New,
    /// It is, under this name and up to this cursor; the feed is asked next.
    Found {
        nonce: u64,
        from: Offset,
    },
    /// The feed has the same name. The log in between is read next.
    Named {
        from: Offset,
    },
    /// These entries leave; the totals of these users are read next.
    Behind {
        settled: Vec<Settled>,
    },
    No,
    Rebuilding(Rebuild),
    Open,
}

/// Closed by us.
#[derive(Clone, Debug)]
pub(crate) struct Rebuild {
    pub(crate) name: Announced,
    pub(crate) is_announced: bool,
    /// When the wait began.
    pub(crate) since: Option<Timestamp>,
    pub(crate) end: Option<Offset>,
}

/// A sync on its way: user by user, then the cursor.
#[derive(Clone, Debug)]
pub(crate) struct Syncing {
    pub(crate) cursor: Cursor,
    months: Vec<Month>,
    next: usize,
    has_advanced: bool,
    pub(crate) catches_up: bool,
}

impl World {
    pub(crate) fn connect_aggregator(&mut self, at: usize) {
        let (server, life) = (self.master, self.servers[self.master].life);
        let one = &mut self.aggregators[at];
        (one.server, one.life) = (server, life);
        for task in one.tasks.iter_mut().flatten() {
            match &mut task.sync {
                // Its end is not known: all of it again.
                Some(sync) if !sync.catches_up => (sync.next, sync.has_advanced) = (0, false),
                Some(_) => (task.sync, task.serving) = (None, Serving::New),
                None => {}
            }
        }
    }

    /// Whether an aggregator's connection works.
    pub(crate) fn reaches(&self, at: usize) -> bool {
        let one = &self.aggregators[at];
        self.is_linked(one.server, one.life)
    }

    pub(crate) fn adopt(&mut self, at: usize, partition: usize) {
        let one = &self.aggregators[at];
        let epoch = self.servers[one.server].keyspaces[partition].serving(one.life);
        let found = epoch.map(|epoch| Serving::Found { nonce: epoch.nonce, from: epoch.cursor });
        self.aggregators[at].task(partition).serving = found.unwrap_or(Serving::No);
    }

    /// Asks the feed whether that is the epoch in force.
    pub(crate) fn ask_feed(&mut self, at: usize, partition: usize) {
        let feed = self.feed();
        let one = &mut self.aggregators[at];
        let Serving::Found { nonce, from } = one.task(partition).serving else { unreachable!() };
        one.feed = feed;
        if one.feed[partition].nonce == nonce {
            one.names[partition] = Some(nonce);
            one.task(partition).serving = Serving::Named { from };
        } else {
            one.task(partition).serving = Serving::No;
        }
    }

    /// Reads the log from the epoch's cursor to that of the ledger.
    pub(crate) fn read_between(&mut self, at: usize, partition: usize) {
        let task = self.aggregators[at].task(partition);
        let Serving::Named { from } = task.serving else { unreachable!() };
        let range = place(from)..place(task.cursor.position).max(place(from));
        if !range.is_empty() {
            self.mark("caught up");
        }
        let mut settled = Vec::new();
        for record in &self.logs[partition].records[range] {
            let Payload::Event(admitted) = &record.payload else { continue };
            if is_void(admitted, record.log_time) {
                continue;
            }
            let event =
                self.setup.events.iter().position(|one| one.id == admitted.id_digest).unwrap();
            if self.known(event) == Some(admitted.content_digest) {
                let (user_id, id_digest) = (admitted.event.user_id, admitted.id_digest);
                settled.push(Settled { user_id, period: period(), id_digest });
            }
        }
        if !self.setup.rules.take_over_catches_up {
            settled.clear();
        }
        self.aggregators[at].task(partition).serving = Serving::Behind { settled };
    }

    /// Reads the totals of the users in between.
    pub(crate) fn read_between_totals(&mut self, at: usize, partition: usize) {
        let totals = self.books[partition].totals.clone();
        let task = self.aggregators[at].task(partition);
        let Serving::Behind { settled } = &task.serving else { unreachable!() };
        let mut users: Vec<_> = settled.iter().map(|one| one.user_id).collect();
        users.sort();
        users.dedup();
        let months = months(&users, settled, &totals);
        let cursor = task.cursor;
        task.serving = Serving::Open;
        task.sync =
            Some(Syncing { cursor, months, next: 0, has_advanced: false, catches_up: true });
    }

    /// After a commit: what the counter must hear.
    pub(crate) fn tell(
        &mut self,
        at: usize,
        partition: usize,
        pending: &Pending,
        totals: &BTreeMap<UserId, Totals>,
    ) {
        let task = self.aggregators[at].task(partition);
        if matches!(task.serving, Serving::Open) {
            let months = months(&pending.users, &pending.settled, totals);
            let (cursor, next) = (task.cursor, 0);
            task.sync =
                Some(Syncing { cursor, months, next, has_advanced: false, catches_up: false });
        }
    }

    /// After doubt that has ended well: the totals are read.
    pub(crate) fn resolve(&mut self, at: usize, partition: usize) {
        let totals = self.books[partition].totals.clone();
        let task = self.aggregators[at].task(partition);
        let stage = std::mem::replace(&mut task.stage, Progress::Counting);
        let Progress::Resolved(pending) = stage else { unreachable!() };
        self.tell(at, partition, &pending, &totals);
    }

    /// Nothing to count: the counter hears the watermark, and its owner how the counter is.
    pub(crate) fn idle(&mut self, at: usize, partition: usize) {
        let task = self.aggregators[at].task(partition);
        let (cursor, months, next) = (task.cursor, Vec::new(), 0);
        task.sync = Some(Syncing { cursor, months, next, has_advanced: false, catches_up: false });
    }

    /// The next call of a sync.
    pub(crate) fn sync(&mut self, at: usize, partition: usize) {
        let rules = self.setup.rules.clone();
        let one = &mut self.aggregators[at];
        let (server, life, named) = (one.server, one.life, one.feed[partition].nonce);
        let name = one.names[partition].unwrap_or_default();
        let mut sync = one.task(partition).sync.take().unwrap();
        let is_named = named == name || !rules.owners_ask_the_feed;
        let name = Announced { life, nonce: name };
        let (position, watermark) = (sync.cursor.position, sync.cursor.log_time);
        let early = !rules.cursor_moves_last && !sync.has_advanced;
        let last = sync.next == sync.months.len();
        let keyspace = &mut self.servers[server].keyspaces[partition];
        let is_told = is_named
            && if early || last {
                sync.has_advanced = true;
                keyspace.advance(&rules, name, position, watermark)
            } else {
                let month = &sync.months[sync.next];
                sync.next += 1;
                // Broken variant: the latest one is always the newer one.
                self.nonces += 1;
                let label = Offset::new(1 << 32 | self.nonces);
                let label = if rules.totals_have_a_cursor { position } else { label };
                keyspace.settle(&self.setup, name, month, label)
            };
        let task = self.aggregators[at].task(partition);
        if !is_told {
            task.serving = Serving::No;
            self.mark("the counter serves under another name");
        } else if !last {
            task.sync = Some(sync);
            return;
        }
        if let Progress::Answered(pending, answer) =
            self.aggregators[at].task(partition).stage.clone()
        {
            self.hear(at, partition, pending, answer);
        }
    }

    /// The counter has failed for too long: counting goes on, and it is brought up to date later.
    pub(crate) fn fall_behind(&mut self, at: usize, partition: usize) {
        self.mark("fell behind");
        let task = self.aggregators[at].task(partition);
        (task.sync, task.serving) = (None, Serving::New);
        if let Progress::Answered(pending, answer) = task.stage.clone() {
            self.hear(at, partition, pending, answer);
        }
    }

    pub(crate) fn close(&mut self, at: usize, partition: usize) {
        let task = self.aggregators[at].task(partition);
        if matches!(task.serving, Serving::Open) {
            self.setup.shape.forced -= 1;
            self.mark("rebuilt without need");
        }
        self.nonces += 1;
        let one = &mut self.aggregators[at];
        let name = Announced { life: one.life, nonce: self.nonces };
        self.servers[one.server].keyspaces[partition].close(name.life, name.nonce);
        let waits = !self.setup.rules.announced_before_the_wait;
        let since = waits.then_some(self.now);
        let task = one.task(partition);
        task.sync = None;
        task.serving = Serving::Rebuilding(Rebuild { name, is_announced: false, since, end: None });
    }

    pub(crate) fn announce(&mut self, at: usize, partition: usize) {
        let now = self.now;
        let one = &mut self.aggregators[at];
        let Serving::Rebuilding(rebuild) = &mut one.task(partition).serving else { unreachable!() };
        rebuild.is_announced = true;
        rebuild.since.get_or_insert(now);
        let name = rebuild.name;
        one.names[partition] = Some(name.nonce);
        one.feed[partition] = name;
        self.books[partition].announced = name;
    }

    pub(crate) fn read_end(&mut self, at: usize, partition: usize) {
        let end = self.end_of(partition);
        let task = self.aggregators[at].task(partition);
        let Serving::Rebuilding(rebuild) = &mut task.serving else { unreachable!() };
        rebuild.end = Some(end);
    }

    pub(crate) fn open(&mut self, at: usize, partition: usize) {
        let one = &mut self.aggregators[at];
        let (server, task) = (one.server, one.tasks[partition].as_mut().unwrap());
        let Serving::Rebuilding(Rebuild { name, .. }) = task.serving else { unreachable!() };
        let (rules, cursor) = (&self.setup.rules, task.cursor);
        let keyspace = &mut self.servers[server].keyspaces[partition];
        let opened = keyspace.open(rules, name, cursor.position, cursor.log_time);
        task.serving = if opened { Serving::Open } else { Serving::No };
        self.mark(if opened { "opened anew" } else { "closed by another" });
    }

    /// Whether nothing that was let in before can count any more.
    pub(crate) fn has_waited(&self, rebuild: &Rebuild) -> bool {
        let wait = self.setup.rebuild_wait();
        rebuild.since.is_some_and(|since| wait.is_zero() || self.now.since(since) > wait)
    }
}

fn months(users: &[UserId], settled: &[Settled], totals: &BTreeMap<UserId, Totals>) -> Vec<Month> {
    let mut months = BTreeMap::<UserId, Month>::new();
    for user in users {
        let new = totals.get(user).copied().unwrap_or_default();
        let totals = Some(UserTotals { user_id: *user, period: period(), totals: new });
        months.insert(*user, Month { totals, settled: Vec::new() });
    }
    for one in settled {
        let none = || Month { totals: None, settled: Vec::new() };
        months.entry(one.user_id).or_insert_with(none).settled.push(*one);
    }
    months.into_values().collect()
}
