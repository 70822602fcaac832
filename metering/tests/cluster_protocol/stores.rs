//! ClickHouse and Postgres, and the commit that goes through both.

use std::collections::BTreeMap;
use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::Totals;
use metering::time::Timestamp;
use metering::usage::{
    CountedEvent, Cursor, Flush, Horizon, IdDigest, Offset, Seen, SummaryKey, Sums,
};

use super::owner::{Owned, Pending, Progress, cursor};
use super::world::{Announced, World, place};

/// A counted event in ClickHouse.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RawRow {
    pub(crate) id: IdDigest,
    pub(crate) seen: Seen,
}

/// A summary row: absolute, and up to which offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) sums: Sums,
    pub(crate) version: Offset,
}

/// A partition's rows in Postgres.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    pub(crate) cursor: Cursor,
    pub(crate) announced: Announced,
    pub(crate) totals: BTreeMap<UserId, Totals>,
    /// Records that are in one of the tallies.
    pub(crate) tallied: u64,
}

/// Flushes that are committed together.
#[derive(Clone, Default)]
pub(crate) struct Group {
    pub(crate) entries: Vec<Entry>,
    pub(crate) stage: GroupStage,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) partition: usize,
    pub(crate) serial: u32,
    pub(crate) flush: Flush,
    /// Running totals of this process, then also those that were read back, then the new ones.
    pub(crate) totals: BTreeMap<SummaryKey, Running>,
    pub(crate) rows: Vec<(SummaryKey, Running)>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GroupStage {
    /// More flushes may come in.
    #[default]
    Gathering,
    Raw,
    Summaries,
    Commit,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Confirmed,
    /// Stored, and the answer was lost.
    Unheard,
    /// Not stored.
    Lost,
    /// Perhaps stored later.
    Late,
}

/// An insert that ClickHouse may still do.
#[derive(Clone)]
pub(crate) struct LateInsert {
    raw: Vec<((usize, usize), RawRow)>,
    summaries: Vec<(SummaryKey, Running)>,
}

/// A transaction of which nobody has heard.
#[derive(Clone)]
pub(crate) struct LateCommit(Vec<Entry>);

impl Book {
    pub(crate) fn new(partition: usize, horizon: Duration, announced: Announced) -> Self {
        let cursor = cursor(partition, Offset::default(), horizon);
        Self { cursor, announced, totals: BTreeMap::new(), tallied: 0 }
    }
}

impl Group {
    pub(crate) fn add(&mut self, partition: usize, serial: u32, flush: Flush) {
        let (totals, rows) = (BTreeMap::new(), Vec::new());
        self.entries.push(Entry { partition, serial, flush, totals, rows });
    }
}

impl World {
    /// A group's turn: whose memory stands elsewhere is turned away; summary rows are read back.
    pub(crate) fn begin(&mut self, at: usize) {
        let mut group = self.aggregators[at].group.take().unwrap();
        let (mine, strange): (Vec<_>, Vec<_>) =
            group.entries.into_iter().partition(|entry| self.stands_at(at, entry));
        for entry in strange {
            self.finished(at, &entry, Outcome::InDoubt);
        }
        if mine.is_empty() {
            return;
        }
        group.entries = mine;
        for entry in &mut group.entries {
            let owned = self.aggregators[at].owned[entry.partition].as_mut().unwrap();
            entry.totals = std::mem::take(&mut owned.totals);
            for (key, more) in &entry.flush.daily {
                let read = self.summaries.get(key).copied().unwrap_or_default();
                let before = *entry.totals.entry(key.clone()).or_insert(read);
                let after = self.added(&entry.flush, key, before, *more);
                if after.sums != before.sums {
                    entry.rows.push((key.clone(), after));
                    entry.totals.insert(key.clone(), after);
                }
            }
        }
        if group.entries.len() > 1 {
            self.mark("several partitions");
        }
        let first = self.setup.rules.clickhouse_comes_first;
        group.stage = if first { GroupStage::Raw } else { GroupStage::Commit };
        self.aggregators[at].group = Some(group);
    }

    fn stands_at(&self, at: usize, entry: &Entry) -> bool {
        let owned = self.aggregators[at].owned[entry.partition].as_ref();
        let start = entry.flush.range.start;
        owned.is_some_and(|owned: &Owned| !owned.in_doubt && owned.cursor.position == start)
    }

    /// A summary row with what a flush adds to it.
    fn added(&mut self, flush: &Flush, key: &SummaryKey, before: Running, more: Sums) -> Running {
        let skips = self.setup.rules.summaries_skip_what_they_hold;
        let mut more = more;
        if before.version > flush.range.start && skips {
            self.mark("a summary is ahead");
            let missing =
                |event: &&CountedEvent| event.offset >= before.version && &key_of(event) == key;
            let missing = flush.counted.iter().filter(missing);
            let sum =
                |sums: Sums, event: &CountedEvent| sums.plus(Sums::of(&event.admitted)).unwrap();
            more = missing.fold(Sums::default(), sum);
        }
        let sums = before.sums.plus(more).unwrap();
        Running { sums, version: before.version.max(flush.range.end) }
    }

    /// One of the two inserts of a group.
    pub(crate) fn insert(&mut self, at: usize, written: Written) {
        let group = self.aggregators[at].group.as_mut().unwrap();
        let mut late = LateInsert { raw: Vec::new(), summaries: Vec::new() };
        for entry in &group.entries {
            if group.stage == GroupStage::Summaries {
                late.summaries.extend(entry.rows.iter().cloned());
                continue;
            }
            late.raw.extend(entry.flush.counted.iter().map(|event| {
                let content = event.admitted.content_digest;
                let seen = Seen { content, log_time: event.log_time };
                let row = RawRow { id: event.admitted.id_digest, seen };
                ((entry.partition, place(event.offset)), row)
            }));
        }
        if written == Written::Confirmed || !self.setup.rules.inserts_are_confirmed {
            group.stage = match group.stage {
                GroupStage::Raw => GroupStage::Summaries,
                GroupStage::Summaries | GroupStage::Gathering | GroupStage::Commit => {
                    GroupStage::Commit
                }
            };
        }
        match written {
            Written::Confirmed | Written::Unheard => self.stored(late),
            Written::Lost => {}
            Written::Late => self.late_inserts.push(late),
        }
    }

    pub(crate) fn late_insert(&mut self, number: usize, is_stored: bool) {
        let late = self.late_inserts.remove(number);
        if is_stored {
            self.mark("stored late");
            self.stored(late);
        }
    }

    fn stored(&mut self, insert: LateInsert) {
        for (key, row) in insert.raw {
            self.raw.insert(key, row);
        }
        for (key, new) in insert.summaries {
            let row = self.summaries.entry(key.clone()).or_default();
            if new.version >= row.version || !self.setup.rules.summaries_have_versions {
                *row = new;
                self.check_summary(&key, new);
            }
        }
    }

    /// ClickHouse did not confirm in time: the ledger gives a group up.
    pub(crate) fn give_up(&mut self, at: usize) {
        let group = self.aggregators[at].group.take().unwrap();
        for entry in group.entries {
            self.finished(at, &entry, Outcome::InDoubt);
        }
    }

    /// The transaction in Postgres.
    pub(crate) fn commit(&mut self, at: usize, written: Written) {
        let group = self.aggregators[at].group.take().unwrap();
        if written == Written::Late {
            self.late_commits.push(LateCommit(group.entries.clone()));
        }
        let happens = matches!(written, Written::Confirmed | Written::Unheard);
        let won = if happens {
            self.transaction(&group.entries)
        } else {
            vec![false; group.entries.len()]
        };
        for (entry, won) in group.entries.iter().zip(won) {
            let outcome = match (written, won) {
                (Written::Confirmed, true) => Outcome::Won,
                (Written::Confirmed, false) => Outcome::Lost,
                (Written::Unheard | Written::Lost | Written::Late, _) => Outcome::InDoubt,
            };
            self.finished(at, entry, outcome);
        }
    }

    pub(crate) fn late_commit(&mut self, number: usize, happens: bool) {
        let LateCommit(entries) = self.late_commits.remove(number);
        if happens {
            let won = self.transaction(&entries);
            if won.contains(&true) {
                self.mark("committed late");
            }
        }
    }

    /// Which partitions were won.
    fn transaction(&mut self, entries: &[Entry]) -> Vec<bool> {
        let rules = self.setup.rules.clone();
        let mut won = Vec::new();
        for Entry { partition, flush, .. } in entries {
            let book = &mut self.books[*partition];
            let stands = book.cursor.position == flush.range.start;
            let moves = stands || !rules.cursors_compare_and_set;
            won.push(moves);
            if moves {
                book.cursor.position = flush.range.end;
                book.cursor.log_time = book.cursor.log_time.max(flush.log_time);
                book.cursor.horizon = flush.horizon;
                book.tallied += flush.tallies.records().unwrap();
            } else if rules.only_the_won_is_applied {
                continue;
            }
            for ((user, _), more) in &flush.statistics {
                let totals = book.totals.entry(*user).or_default();
                *totals = totals.plus(*more).unwrap();
            }
        }
        for (entry, won) in entries.iter().zip(&won) {
            self.check_book(entry.partition, won.then_some(&entry.flush));
        }
        won
    }

    /// The ledger answers, if the task that asked is still there.
    fn finished(&mut self, at: usize, entry: &Entry, outcome: Outcome) {
        let partition = entry.partition;
        let book = &self.books[partition];
        let (cursor, totals) = (book.cursor, book.totals.clone());
        match outcome {
            Outcome::Won => {
                self.remember(at, partition, &entry.flush);
                if let Some(owned) = &mut self.aggregators[at].owned[partition] {
                    (owned.cursor, owned.totals) = (cursor, entry.totals.clone());
                }
            }
            Outcome::Lost => {
                self.mark("lost a partition");
                self.aggregators[at].owned[partition] = None;
            }
            Outcome::InDoubt => {
                self.mark("in doubt");
                if let Some(owned) = &mut self.aggregators[at].owned[partition] {
                    owned.in_doubt = true;
                }
            }
        }
        let task = self.aggregators[at].tasks[partition].as_mut();
        let Some(task) = task.filter(|task| task.serial == entry.serial) else {
            return self.mark("nobody asks any more");
        };
        let stage = std::mem::replace(&mut task.stage, Progress::Beginning(None));
        let Progress::Waiting(pending) = stage else { unreachable!() };
        let answer = Answer { outcome, cursor, totals, log_time: entry.flush.log_time };
        if task.sync.is_some() {
            task.stage = Progress::Answered(pending, answer);
            self.mark("committed before the counter was told of the flush before");
        } else {
            self.hear(at, partition, pending, answer);
        }
    }

    /// The task hears what became of its flush.
    pub(crate) fn hear(&mut self, at: usize, partition: usize, pending: Pending, answer: Answer) {
        let Answer { outcome, cursor, totals, log_time } = answer;
        let assumes = outcome == Outcome::InDoubt && !self.setup.rules.doubt_asks_the_cursor;
        let task = self.aggregators[at].task(partition);
        match outcome {
            Outcome::Won => {
                (task.stage, task.cursor) = (Progress::Counting, cursor);
                self.tell(at, partition, &pending, &totals);
            }
            Outcome::Lost => task.stage = Progress::Beginning(None),
            Outcome::InDoubt if assumes => {
                task.cursor.position = pending.end;
                task.cursor.log_time = task.cursor.log_time.max(log_time);
                task.stage = Progress::Resolved(pending);
            }
            Outcome::InDoubt => task.stage = Progress::Beginning(Some(pending)),
        }
    }

    /// Broken variant: the horizon changes by itself, at a commit.
    pub(crate) fn change_horizon(&mut self, at: usize, partition: usize, horizon: Duration) {
        let horizon = Horizon::Within(horizon);
        self.books[partition].cursor.horizon = horizon;
        let one = &mut self.aggregators[at];
        one.task(partition).cursor.horizon = horizon;
        if let Some(owned) = &mut one.owned[partition] {
            owned.cursor.horizon = horizon;
        }
    }
}

/// What the ledger says of a flush.
#[derive(Clone)]
pub(crate) struct Answer {
    outcome: Outcome,
    /// What the transaction has answered.
    cursor: Cursor,
    totals: BTreeMap<UserId, Totals>,
    log_time: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Won,
    Lost,
    InDoubt,
}

/// The summary row of an event.
pub(crate) fn key_of(event: &CountedEvent) -> SummaryKey {
    let (plan, event) = (event.admitted.plan.clone(), &event.admitted.event);
    let (request_type, model) = (event.request_type, event.model.clone());
    let breakdown = metering::usage::Breakdown { request_type, model, plan };
    SummaryKey { user_id: event.user_id, day: event.occurred_at.day(), breakdown }
}
