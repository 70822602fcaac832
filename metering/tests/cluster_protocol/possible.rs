//! What may happen next.

use std::time::Duration;

use metering::quota::MARGIN;
use metering::usage::HORIZON_MAX;

use super::actions::{Action, LedgerStep, OwnerStep};
use super::owner::{Progress, Task};
use super::serving::{Rebuild, Serving};
use super::stores::{GroupStage, Written};
use super::world::{Stage, World, place};

/// What stores do that fail.
const FAULTS: [Written; 3] = [Written::Unheard, Written::Lost, Written::Late];

/// At most so many writes that nobody has heard of, and snapshots.
const KEPT_MAX: usize = 2;

impl World {
    /// Everything that may happen now.
    pub(crate) fn actions(&self, found: &mut Vec<Action>) {
        found.clear();
        if !self.is_calm {
            self.clients_may(found);
            self.servers_may(found);
        }
        self.door_may(found);
        self.log_may(found);
        self.ingests_may(found);
        for number in 0..self.late_inserts.len() {
            found.extend([true, false].map(|happens| Action::LateInsert(number, happens)));
        }
        for number in 0..self.late_commits.len() {
            found.extend([true, false].map(|happens| Action::LateCommit(number, happens)));
        }
        let aggregators = if self.is_calm { 1 } else { self.aggregators.len() };
        (0..aggregators).for_each(|at| self.aggregator_may(at, found));
    }

    fn clients_may(&self, found: &mut Vec<Action>) {
        let shape = &self.setup.shape;
        found.extend(shape.passes.iter().map(|span| Action::Pass(*span)));
        if !shape.back.is_zero() {
            let backs = [Duration::ZERO, shape.back / 2, shape.back];
            let others = backs.into_iter().filter(|back| *back != self.log_back);
            found.extend(others.map(Action::SetLogTime));
        }
        let contents = if shape.other_contents { 2 } else { 1 };
        for (event, _) in self.clients.iter().enumerate().filter(|(_, one)| one.tries > 0) {
            for content in 0..contents {
                let to = |ingest| Action::Send { event, content, ingest };
                found.extend((0..self.ingests.len()).map(to));
            }
        }
    }

    fn servers_may(&self, found: &mut Vec<Action>) {
        let shape = &self.setup.shape;
        if shape.losses + shape.failovers == 0 {
            return;
        }
        if self.snapshots.len() < KEPT_MAX {
            found.push(Action::Snapshot);
        }
        for number in 0..=self.snapshots.len() {
            if shape.losses > 0 {
                found.push(Action::Restart(number));
            }
            if shape.failovers > 0 {
                found.push(Action::Replace(number));
            }
        }
    }

    fn door_may(&self, found: &mut Vec<Action>) {
        let loses = self.setup.shape.losing_ways && !self.is_calm;
        for request in &self.requests {
            let number = request.number;
            let next = match request.stage {
                Stage::Arrived => {
                    if loses {
                        found.push(Action::Admit { request: number, is_answered: false });
                    }
                    Action::Admit { request: number, is_answered: true }
                }
                Stage::Missing { .. } => Action::ReadTotals(number),
                Stage::Read { .. } => Action::Seed(number),
                Stage::Granted { .. } | Stage::Unmetered { .. } => Action::Publish(number),
                Stage::Refusing => Action::LookUp(number),
                Stage::Stored { .. } => Action::Acknowledge(number),
                Stage::Waiting => {
                    let on_its_way = self.sending.iter().any(|one| one.request == number);
                    if on_its_way && !loses {
                        continue;
                    }
                    Action::GiveUp(number)
                }
            };
            found.push(next);
        }
    }

    fn log_may(&self, found: &mut Vec<Action>) {
        for sending in &self.sending {
            let request = sending.request;
            let is_full = self.logs[sending.partition].len() >= self.setup.shape.log_max;
            if self.is_calm || !is_full {
                found.push(Action::Append { request, is_reported: true });
            }
            if !self.is_calm && self.setup.shape.losing_ways {
                if !is_full {
                    found.push(Action::Append { request, is_reported: false });
                }
                found.push(Action::Drop(request));
            }
        }
    }

    fn ingests_may(&self, found: &mut Vec<Action>) {
        for (number, ingest) in self.ingests.iter().enumerate() {
            if ingest.server != self.master || !self.is_linked(ingest.server, ingest.life) {
                found.push(Action::Connect(number));
            }
            let differs = || {
                let mut pairs = ingest.feed.iter().zip(&self.books);
                pairs.any(|(seen, book)| *seen != book.announced)
            };
            if !self.is_calm && ingest.looked_at < self.now || differs() {
                found.push(Action::Look(number));
            }
        }
    }

    fn aggregator_may(&self, at: usize, found: &mut Vec<Action>) {
        let (one, crashes) = (&self.aggregators[at], self.setup.shape.crashes);
        let may_crash = !self.is_calm && crashes > 0;
        for (partition, task) in one.tasks.iter().enumerate() {
            let mut may = |step| found.push(Action::Owner { at, partition, step });
            match task {
                Some(task) => self.owner_may(at, partition, task, found),
                None if !self.is_assigned(partition) || may_crash => may(OwnerStep::Assign),
                None => {}
            }
        }
        if may_crash && one.tasks.iter().any(Option::is_some) {
            found.push(Action::Crash(at));
        }
        if one.server != self.master || !self.reaches(at) {
            found.push(Action::ConnectAggregator(at));
        }
        if one.feed.iter().zip(&self.books).any(|(seen, book)| *seen != book.announced) {
            found.push(Action::LookAggregator(at));
        }
        let Some(group) = &one.group else { return };
        let mut may = |step| found.push(Action::Ledger { at, step });
        let fails = self.setup.shape.stores_fail && !self.is_calm;
        let faults = FAULTS.into_iter().filter(|fault| {
            let kept = self.late_inserts.len().max(self.late_commits.len());
            fails && (*fault != Written::Late || kept < KEPT_MAX)
        });
        match group.stage {
            GroupStage::Gathering => may(LedgerStep::Begin),
            GroupStage::Raw | GroupStage::Summaries => {
                may(LedgerStep::Insert(Written::Confirmed));
                faults.map(LedgerStep::Insert).for_each(&mut may);
                if fails {
                    may(LedgerStep::GiveUp);
                }
            }
            GroupStage::Commit => {
                may(LedgerStep::Commit(Written::Confirmed));
                faults.map(LedgerStep::Commit).for_each(&mut may);
            }
        }
    }

    fn owner_may(&self, at: usize, partition: usize, task: &Task, found: &mut Vec<Action>) {
        let mut may = |step| found.push(Action::Owner { at, partition, step });
        let shape = &self.setup.shape;
        if !self.is_calm && shape.crashes > 0 && shape.aggregators > 1 {
            may(OwnerStep::Revoke);
        }
        match &task.stage {
            Progress::Beginning(_) => return may(OwnerStep::TakeOver),
            Progress::Loading(..) => {
                may(OwnerStep::Load { everything: false });
                return may(OwnerStep::Load { everything: true });
            }
            Progress::Resolved(_) => return may(OwnerStep::Resolve),
            Progress::Waiting(_) | Progress::Answered(..) | Progress::Counting => {}
        }
        let reaches = self.reaches(at);
        let counts = matches!(task.stage, Progress::Counting);
        if let Some(sync) = &task.sync {
            if reaches {
                may(OwnerStep::Sync);
            }
            if !self.is_calm {
                may(OwnerStep::FallBehind);
            }
            if counts && !sync.catches_up {
                self.folding_may(at, partition, task, &mut may);
            }
            return;
        }
        if !counts {
            return;
        }
        match &task.serving {
            Serving::New if reaches => may(OwnerStep::Adopt),
            Serving::Found { .. } => return may(OwnerStep::AskFeed),
            Serving::Named { .. } => return may(OwnerStep::ReadBetween),
            Serving::Behind { .. } => return may(OwnerStep::ReadBetweenTotals),
            Serving::No if reaches => may(OwnerStep::Close),
            Serving::Rebuilding(rebuild) => self.rebuild_may(at, task, rebuild, &mut may),
            Serving::Open => {
                if !self.is_calm || self.is_behind(at, partition, task) {
                    may(OwnerStep::Idle);
                }
                if !self.is_calm && shape.forced > 0 && reaches {
                    may(OwnerStep::Close);
                }
            }
            Serving::New | Serving::No => {}
        }
        self.counting_may(at, partition, task, &mut may);
        if let Serving::Rebuilding(rebuild) = &task.serving
            && self.is_calm
            && rebuild.since.is_some()
            && !self.has_waited(rebuild)
        {
            found.push(Action::Pass(Duration::from_secs(60)));
        }
    }

    fn folding_may(
        &self,
        at: usize,
        partition: usize,
        task: &Task,
        may: &mut impl FnMut(OwnerStep),
    ) {
        let (one, shape) = (&self.aggregators[at], &self.setup.shape);
        let waiting = self.logs[partition].len().saturating_sub(place(task.cursor.position));
        let has_room = one.group.as_ref().is_none_or(|group| {
            let gathers = group.stage == GroupStage::Gathering;
            gathers && group.entries.iter().all(|entry| entry.partition != partition)
        });
        if has_room {
            (1..=waiting.min(shape.batch_max)).map(OwnerStep::Fold).for_each(&mut *may);
        }
    }

    fn counting_may(
        &self,
        at: usize,
        partition: usize,
        task: &Task,
        may: &mut impl FnMut(OwnerStep),
    ) {
        self.folding_may(at, partition, task, may);
        let (one, shape) = (&self.aggregators[at], &self.setup.shape);
        let end = self.logs[partition].len();
        let waiting = end.saturating_sub(place(task.cursor.position));
        if self.is_calm {
            return;
        }
        if self.ticks > 0 && end < shape.log_max {
            if shape.horizons.len() > 1 {
                shape.horizons.iter().map(|one| OwnerStep::Tick(*one)).for_each(&mut *may);
            } else if waiting == 0 {
                may(OwnerStep::Tick(self.horizon(partition)));
            }
        }
        let Some(owned) = &one.owned[partition] else { return };
        if !owned.totals.is_empty() {
            may(OwnerStep::Uncache);
        }
        let reach = owned.cursor.log_time.minus(self.horizon(partition) + MARGIN);
        if shape.horizons[0] < HORIZON_MAX && owned.floor < reach {
            may(OwnerStep::Evict);
        }
    }

    fn rebuild_may(
        &self,
        at: usize,
        task: &Task,
        rebuild: &Rebuild,
        may: &mut impl FnMut(OwnerStep),
    ) {
        let rules = &self.setup.rules;
        let (named, ended) = (rebuild.is_announced, rebuild.end.is_some());
        let waited = self.has_waited(rebuild);
        if !named && (rules.announced_before_the_wait || ended) {
            may(OwnerStep::Announce);
        }
        let in_order = named || !rules.announced_before_the_wait;
        if !ended && in_order && (waited || !rules.the_end_is_read_after_the_wait) {
            may(OwnerStep::ReadEnd);
        }
        let counted = rebuild.end.is_some_and(|end| task.cursor.position >= end);
        let is_ready = counted || ended && !rules.opened_at_the_end;
        if waited && named && is_ready && self.reaches(at) {
            may(OwnerStep::Open);
        }
    }

    /// Whether the counter does not know yet what its owner knows, or serves under another name.
    pub(crate) fn is_behind(&self, at: usize, partition: usize, task: &Task) -> bool {
        let one = &self.aggregators[at];
        let epoch = self.servers[one.server].keyspaces[partition].serving(one.life);
        let is_up_to_date = epoch.is_some_and(|epoch| {
            Some(epoch.nonce) == one.names[partition]
                && epoch.nonce == one.feed[partition].nonce
                && epoch.cursor >= task.cursor.position
                && epoch.watermark >= task.cursor.log_time
        });
        !is_up_to_date
    }
}
