//! A process that counts: taking partitions over, folding, and what it remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::MARGIN;
use metering::time::Timestamp;
use metering::usage::{
    Cursor, Flush, Horizon, IdDigest, LogRecord, Offset, Partition, Payload, Seen, SeenIds,
    Settled, SummaryKey, fold, is_void,
};

use super::log::Fate;
use super::serving::{Serving, Syncing};
use super::stores::{Answer, Group, Running};
use super::world::{Announced, World, offset, place};

/// One process: its ledger, which remembers partitions, and a task for each that is assigned to it.
#[derive(Clone)]
pub(crate) struct Aggregator {
    pub(crate) server: usize,
    pub(crate) life: u64,
    /// What it last saw of the feed, and under which names it serves.
    pub(crate) feed: Vec<Announced>,
    pub(crate) names: Vec<Option<u64>>,
    pub(crate) owned: Vec<Option<Owned>>,
    pub(crate) tasks: Vec<Option<Task>>,
    pub(crate) group: Option<Group>,
}

/// What the ledger of a process remembers of a partition.
#[derive(Clone)]
pub(crate) struct Owned {
    pub(crate) cursor: Cursor,
    /// Until the next take-over nobody knows where the partition stands.
    pub(crate) in_doubt: bool,
    pub(crate) ids: BTreeMap<IdDigest, Seen>,
    /// Every id counted at this log time or later is in memory.
    pub(crate) floor: Timestamp,
    pub(crate) totals: BTreeMap<SummaryKey, Running>,
}

/// The counting of one partition.
#[derive(Clone)]
pub(crate) struct Task {
    /// An answer for an earlier task of the same partition is not for this one.
    pub(crate) serial: u32,
    pub(crate) stage: Progress,
    pub(crate) cursor: Cursor,
    pub(crate) serving: Serving,
    pub(crate) sync: Option<Syncing>,
}

/// How far a task is.
#[derive(Clone)]
pub(crate) enum Progress {
    /// The ledger must be asked where the partition stands: at the start, and after doubt.
    Beginning(Option<Pending>),
    /// It was asked; its memory is not loaded yet.
    Loading(Cursor, Option<Pending>),
    Counting,
    /// A flush is with the ledger. Of the one before the counter is perhaps still being told.
    Waiting(Pending),
    /// The ledger has answered; the task hears it when the counter is told.
    Answered(Pending, Answer),
    /// It was committed after all, and the totals must be read.
    Resolved(Pending),
}

/// A flush whose commit is not known yet.
#[derive(Clone)]
pub(crate) struct Pending {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) settled: Vec<Settled>,
    pub(crate) users: Vec<UserId>,
}

/// What is counted up to `position`.
pub(crate) fn cursor(partition: usize, position: Offset, horizon: Duration) -> Cursor {
    let partition = Partition::new(u32::try_from(partition).unwrap());
    Cursor { partition, position, log_time: Timestamp::MIN, horizon: Horizon::Within(horizon) }
}

pub(crate) fn length(horizon: Horizon) -> Duration {
    match horizon {
        Horizon::Within(length) => length,
        Horizon::Ever => unreachable!(),
    }
}

impl Aggregator {
    pub(crate) fn new(partitions: usize, first: Announced) -> Self {
        Self {
            server: 0,
            life: first.life,
            feed: vec![first; partitions],
            names: vec![None; partitions],
            owned: vec![None; partitions],
            tasks: vec![None; partitions],
            group: None,
        }
    }

    pub(crate) fn task(&mut self, partition: usize) -> &mut Task {
        self.tasks[partition].as_mut().unwrap()
    }
}

impl World {
    pub(crate) fn assign(&mut self, at: usize, partition: usize) {
        if self.is_assigned(partition) {
            self.setup.shape.crashes -= 1;
            self.mark("two owners");
        }
        self.serials += 1;
        let start = cursor(partition, Offset::default(), Duration::ZERO);
        self.aggregators[at].tasks[partition] = Some(Task {
            serial: self.serials,
            stage: Progress::Beginning(None),
            cursor: start,
            serving: Serving::New,
            sync: None,
        });
    }

    pub(crate) fn is_assigned(&self, partition: usize) -> bool {
        self.aggregators.iter().any(|one| one.tasks[partition].is_some())
    }

    /// The task is let go of at once; what it has given to the ledger goes on.
    pub(crate) fn revoke(&mut self, at: usize, partition: usize) {
        self.setup.shape.crashes -= 1;
        self.aggregators[at].tasks[partition] = None;
    }

    pub(crate) fn crash(&mut self, at: usize) {
        self.mark("crashed");
        self.setup.shape.crashes = self.setup.shape.crashes.saturating_sub(1);
        let (partitions, first) = (self.setup.shape.partitions, self.books[0].announced);
        self.aggregators[at] = Aggregator::new(partitions, first);
        self.connect_aggregator(at);
        self.aggregators[at].feed = self.feed();
    }

    /// Where the partition stands; what the ledger remembers stays if that is still so.
    pub(crate) fn take_over(&mut self, at: usize, partition: usize) {
        let mut found = self.books[partition].cursor;
        if !self.setup.rules.the_horizon_is_in_the_row {
            let horizons = &self.setup.shape.horizons;
            found.horizon = Horizon::Within(horizons[at % horizons.len()]);
        }
        let one = &mut self.aggregators[at];
        let stage = std::mem::replace(&mut one.task(partition).stage, Progress::Counting);
        let Progress::Beginning(pending) = stage else { unreachable!() };
        if let Some(owned) = one.owned[partition].as_mut().filter(|owned| owned.cursor == found) {
            owned.in_doubt = false;
            owned.totals.clear();
            self.taken_over(at, partition, found, pending);
        } else {
            one.task(partition).stage = Progress::Loading(found, pending);
        }
    }

    /// Loads the ids counted below the cursor: as far back as the horizon, or further.
    pub(crate) fn load(&mut self, at: usize, partition: usize, everything: bool) {
        let stage = self.aggregators[at].task(partition).stage.clone();
        let Progress::Loading(found, pending) = stage else { unreachable!() };
        let reach = length(found.horizon).saturating_add(MARGIN);
        let floor = if everything { Timestamp::MIN } else { found.log_time.minus(reach) };
        let ids = self.stored_ids(partition, found.position, floor);
        let owned = Owned { cursor: found, in_doubt: false, ids, floor, totals: BTreeMap::new() };
        self.aggregators[at].owned[partition] = Some(owned);
        self.taken_over(at, partition, found, pending);
    }

    fn taken_over(&mut self, at: usize, partition: usize, found: Cursor, pending: Option<Pending>) {
        let task = self.aggregators[at].task(partition);
        let Some(pending) = pending else {
            (task.cursor, task.stage) = (found, Progress::Counting);
            (task.serving, task.sync) = (Serving::New, None);
            return;
        };
        if found.position == pending.end {
            task.cursor = found;
            task.stage = Progress::Resolved(pending);
            self.mark("committed after all");
        } else if found.position == pending.start {
            task.stage = Progress::Counting;
            self.mark("not committed");
        } else {
            task.stage = Progress::Beginning(None);
        }
    }

    fn stored_ids(
        &self,
        partition: usize,
        below: Offset,
        floor: Timestamp,
    ) -> BTreeMap<IdDigest, Seen> {
        let mut below = place(below);
        if !self.setup.rules.loaded_below_the_cursor {
            below = usize::MAX;
        }
        let rows = self.raw.range((partition, 0)..(partition, below));
        let rows = rows.filter(|(_, row)| row.seen.log_time >= floor);
        rows.map(|(_, row)| (row.id, row.seen)).collect()
    }

    /// Folds the next records with the product's own fold, and hands the flush to the ledger.
    pub(crate) fn fold(&mut self, at: usize, partition: usize, count: usize) {
        let task = self.aggregators[at].task(partition);
        let (begins, horizon, serial) = (task.cursor.position, task.cursor.horizon, task.serial);
        let start = place(begins);
        let records: Vec<_> =
            (start..start + count).map(|place| self.disguised(partition, place)).collect();
        let Some(seen) = self.seen(at, partition, horizon, &records) else {
            self.mark("the ledger stands elsewhere");
            if self.setup.rules.failed_look_ups_take_over {
                self.aggregators[at].task(partition).stage = Progress::Beginning(None);
            }
            return;
        };
        let number = Partition::new(u32::try_from(partition).unwrap());
        let mut flush = fold(number, horizon, records, &seen).unwrap();
        if !self.setup.rules.void_leaves_the_entry {
            let void = self.void_in(partition, start, count);
            flush.settled.extend(void.into_iter().map(|(_, settled)| settled));
        }
        let pending = Pending {
            start: flush.range.start,
            end: flush.range.end,
            settled: flush.settled.clone(),
            users: flush.statistics.keys().map(|(user, _)| *user).collect(),
        };
        let one = &mut self.aggregators[at];
        one.task(partition).stage = Progress::Waiting(pending);
        one.group.get_or_insert_default().add(partition, serial, flush);
    }

    /// What the ledger says of the ids in `records`; `None`: it stands elsewhere.
    fn seen(
        &mut self,
        at: usize,
        partition: usize,
        mut horizon: Horizon,
        records: &[LogRecord],
    ) -> Option<SeenIds> {
        let first = records[0].offset;
        let owned = self.aggregators[at].owned[partition].as_ref();
        let owned = owned.filter(|one| one.cursor.position == first && !one.in_doubt)?;
        let (position, floor) = (owned.cursor.position, owned.floor);
        let (mut ids, mut outlived, mut reach) = (vec![], BTreeSet::new(), Timestamp::MAX);
        for record in records {
            match &record.payload {
                Payload::Tick(tick) => horizon = tick.horizon,
                Payload::Undecodable { .. } => {}
                Payload::Event(admitted) => {
                    ids.push(admitted.id_digest);
                    let reaches = record.log_time.minus(length(horizon));
                    let old = if self.setup.rules.stamps_have_an_allowance {
                        horizon.outlived_by(admitted, record.log_time)
                    } else {
                        admitted.stamp().is_some_and(|stamp| stamp < reaches)
                    };
                    if old {
                        outlived.insert(admitted.id_digest);
                    }
                    reach = reach.min(reaches);
                }
            }
        }
        if reach < floor && self.setup.rules.a_growing_horizon_reads_again {
            self.mark("the horizon has grown");
            let floor = reach.minus(MARGIN);
            let ids = self.stored_ids(partition, position, floor);
            let owned = self.aggregators[at].owned[partition].as_mut()?;
            (owned.ids, owned.floor) = (ids, floor);
        }
        let owned = self.aggregators[at].owned[partition].as_ref()?;
        let known = ids.iter().filter_map(|id| Some((*id, *owned.ids.get(id)?)));
        let mut seen: SeenIds = known.collect();
        if !self.setup.rules.stamped_ids_are_looked_up {
            return Some(seen);
        }
        outlived.retain(|id| !seen.contains_key(id));
        for id in outlived {
            self.mark("looked up");
            let all = !self.setup.rules.looked_up_below_the_offset;
            let below = if all { usize::MAX } else { place(first) };
            let rows = self.raw.range((partition, 0)..(partition, below));
            if let Some((_, row)) = rows.rev().find(|(_, row)| row.id == id) {
                seen.insert(id, row.seen);
            }
        }
        Some(seen)
    }

    /// A record as the fold reads it; under broken rules, so that the product's fold decides as they do.
    fn disguised(&self, partition: usize, place: usize) -> LogRecord {
        let log = &self.logs[partition];
        let mut record = log.records[place].clone();
        let rules = &self.setup.rules;
        if rules.late_records_are_void && rules.void_by_its_own_time {
            return record;
        }
        let Payload::Event(admitted) = &mut record.payload else { return record };
        match log.fates[place] {
            Fate::Void => admitted.admitted_at = Timestamp::MIN,
            Fate::Counted | Fate::Duplicate | Fate::Reused
                if is_void(admitted, record.log_time) =>
            {
                admitted.admitted_at = record.log_time;
            }
            Fate::Counted | Fate::Duplicate | Fate::Reused | Fate::Tick => {}
        }
        record
    }

    /// Broken variants: void records of a stretch.
    pub(crate) fn void_in(
        &self,
        partition: usize,
        start: usize,
        count: usize,
    ) -> Vec<(Seen, Settled)> {
        let log = &self.logs[partition];
        let void = (start..start + count).filter(|place| log.fates[*place] == Fate::Void);
        let of = |place: usize| {
            let record = &log.records[place];
            let Payload::Event(admitted) = &record.payload else { unreachable!() };
            let (user_id, id_digest) = (admitted.event.user_id, admitted.id_digest);
            let seen = Seen { content: admitted.content_digest, log_time: record.log_time };
            (seen, Settled { user_id, period: super::setup::period(), id_digest })
        };
        void.map(of).collect()
    }

    /// Forgets what the horizon does not reach any more.
    pub(crate) fn evict(&mut self, at: usize, partition: usize) {
        let lags = self.setup.rules.eviction_lags;
        let Some(owned) = &mut self.aggregators[at].owned[partition] else { return };
        let horizon = length(owned.cursor.horizon);
        let kept = if lags { horizon + MARGIN } else { horizon / 2 };
        let floor = owned.cursor.log_time.minus(kept);
        if floor > owned.floor {
            owned.ids.retain(|_, seen| seen.log_time >= floor);
            owned.floor = floor;
        }
    }

    /// What a committed flush adds to memory.
    pub(crate) fn remember(&mut self, at: usize, partition: usize, flush: &Flush) {
        let (start, count) = (place(flush.range.start), place(flush.range.end));
        let void = if self.setup.rules.void_is_not_remembered {
            Vec::new()
        } else {
            self.void_in(partition, start, count - start)
        };
        let Some(owned) = &mut self.aggregators[at].owned[partition] else { return };
        for counted in &flush.counted {
            let content = counted.admitted.content_digest;
            let seen = Seen { content, log_time: counted.log_time };
            owned.ids.insert(counted.admitted.id_digest, seen);
        }
        owned.ids.extend(void.into_iter().map(|(seen, settled)| (settled.id_digest, seen)));
    }

    /// Where the log ends.
    pub(crate) fn end_of(&self, partition: usize) -> Offset {
        offset(self.logs[partition].len())
    }
}
