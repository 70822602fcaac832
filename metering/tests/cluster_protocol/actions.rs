//! Everything that may happen: every source of chance is an action.

use std::time::Duration;

use super::stores::Written;
use super::world::World;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Time passes.
    Pass(Duration),
    /// The log's time is behind by this much from now on.
    SetLogTime(Duration),
    /// A client sends an event, perhaps again, perhaps with other content.
    Send { event: usize, content: usize, ingest: usize },
    /// The door asks the counter; the answer may be lost.
    Admit { request: u32, is_answered: bool },
    /// Totals are read for the counter.
    ReadTotals(u32),
    /// They arrive at the counter.
    Seed(u32),
    /// The ledger is asked before a refusal.
    LookUp(u32),
    /// The event is handed to the log, if the feed allows it.
    Publish(u32),
    /// The client hears that it is recorded, if it was in time.
    Acknowledge(u32),
    /// The client stops waiting.
    GiveUp(u32),
    /// The log takes the record; its report may be lost.
    Append { request: u32, is_reported: bool },
    /// The record never reaches the log.
    Drop(u32),
    /// An ingest connects to the master.
    Connect(usize),
    /// An ingest looks at the feed.
    Look(usize),
    /// What a server may come back with later.
    Snapshot,
    /// The master restarts: empty, or with a snapshot.
    Restart(usize),
    /// The other server becomes the master: empty, or with a snapshot. The old one lives on.
    Replace(usize),
    /// An aggregator dies.
    Crash(usize),
    /// It connects to the master.
    ConnectAggregator(usize),
    /// It looks at the feed.
    LookAggregator(usize),
    /// Its ledger goes on with a group of flushes.
    Ledger { at: usize, step: LedgerStep },
    /// It goes on with a partition.
    Owner { at: usize, partition: usize, step: OwnerStep },
    /// ClickHouse does, or never does, what nobody has heard of.
    LateInsert(usize, bool),
    /// So does Postgres.
    LateCommit(usize, bool),
}

/// What the ledger of a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LedgerStep {
    Begin,
    Insert(Written),
    GiveUp,
    Commit(Written),
}

/// What the owner of a partition does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerStep {
    Assign,
    Revoke,
    TakeOver,
    Load { everything: bool },
    Resolve,
    Fold(usize),
    Adopt,
    AskFeed,
    ReadBetween,
    ReadBetweenTotals,
    Close,
    Announce,
    ReadEnd,
    Open,
    Idle,
    Sync,
    FallBehind,
    Tick(Duration),
    Evict,
    Uncache,
}

impl Action {
    pub(crate) const KINDS: usize = 35;

    /// Its place in a table of weights.
    pub(crate) fn kind(&self) -> usize {
        match self {
            Self::Pass(_) => 0,
            Self::SetLogTime(_) => 1,
            Self::Send { .. } => 2,
            Self::Admit { .. } => 3,
            Self::ReadTotals(_) => 4,
            Self::Seed(_) => 5,
            Self::LookUp(_) => 6,
            Self::Publish(_) => 7,
            Self::Acknowledge(_) => 8,
            Self::GiveUp(_) | Self::Drop(_) => 9,
            Self::Append { .. } => 10,
            Self::Connect(_) => 11,
            Self::Look(_) => 12,
            Self::Snapshot => 13,
            Self::Restart(_) | Self::Replace(_) => 14,
            Self::Crash(_) => 15,
            Self::ConnectAggregator(_) => 16,
            Self::LookAggregator(_) => 17,
            Self::LateInsert(..) => 18,
            Self::LateCommit(..) => 19,
            Self::Ledger { step, .. } => match step {
                LedgerStep::Begin => 20,
                LedgerStep::Insert(_) | LedgerStep::GiveUp => 21,
                LedgerStep::Commit(_) => 22,
            },
            Self::Owner { step, .. } => step.kind(),
        }
    }

    /// Who goes on: some are slow while others are fast.
    pub(crate) fn request(&self) -> Option<u32> {
        match *self {
            Self::Admit { request, .. }
            | Self::ReadTotals(request)
            | Self::Seed(request)
            | Self::LookUp(request)
            | Self::Publish(request)
            | Self::Acknowledge(request)
            | Self::GiveUp(request)
            | Self::Append { request, .. }
            | Self::Drop(request) => Some(request),
            Self::Connect(ingest) | Self::Look(ingest) => u32::try_from(ingest).ok(),
            Self::ConnectAggregator(at)
            | Self::LookAggregator(at)
            | Self::Ledger { at, .. }
            | Self::Owner { at, .. } => u32::try_from(at + 5).ok(),
            Self::Pass(_)
            | Self::SetLogTime(_)
            | Self::Send { .. }
            | Self::Snapshot
            | Self::Restart(_)
            | Self::Replace(_)
            | Self::Crash(_)
            | Self::LateInsert(..)
            | Self::LateCommit(..) => None,
        }
    }

    /// How likely it is beside others of its state; a schedule's own weights come on top.
    pub(crate) fn weight(&self) -> f32 {
        match self {
            Self::Pass(_) => 0.2,
            Self::SetLogTime(_) | Self::Snapshot | Self::GiveUp(_) | Self::Drop(_) => 0.08,
            Self::Admit { is_answered: false, .. } => 0.06,
            Self::Append { is_reported: false, .. } => 0.3,
            Self::Send { .. } => 0.1,
            Self::Restart(_) | Self::Replace(_) | Self::Crash(_) => 0.05,
            Self::LateInsert(..) | Self::LateCommit(..) => 0.25,
            Self::Ledger { step, .. } => match step {
                LedgerStep::Insert(Written::Confirmed)
                | LedgerStep::Commit(Written::Confirmed)
                | LedgerStep::Begin => 1.0,
                LedgerStep::Insert(_) | LedgerStep::Commit(_) | LedgerStep::GiveUp => 0.12,
            },
            Self::Owner { step, .. } => match step {
                OwnerStep::Revoke => 0.05,
                OwnerStep::Close | OwnerStep::Assign => 0.5,
                OwnerStep::Idle | OwnerStep::FallBehind => 0.15,
                OwnerStep::Tick(_) => 0.3,
                OwnerStep::Evict | OwnerStep::Uncache => 0.4,
                OwnerStep::TakeOver
                | OwnerStep::Load { .. }
                | OwnerStep::Resolve
                | OwnerStep::Fold(_)
                | OwnerStep::Adopt
                | OwnerStep::AskFeed
                | OwnerStep::ReadBetween
                | OwnerStep::ReadBetweenTotals
                | OwnerStep::Announce
                | OwnerStep::ReadEnd
                | OwnerStep::Open
                | OwnerStep::Sync => 1.0,
            },
            Self::Admit { .. }
            | Self::ReadTotals(_)
            | Self::Seed(_)
            | Self::LookUp(_)
            | Self::Publish(_)
            | Self::Acknowledge(_)
            | Self::Append { .. }
            | Self::Connect(_)
            | Self::Look(_)
            | Self::ConnectAggregator(_)
            | Self::LookAggregator(_) => 1.0,
        }
    }
}

impl OwnerStep {
    fn kind(self) -> usize {
        match self {
            Self::Assign | Self::Revoke => 23,
            Self::TakeOver | Self::Load { .. } => 24,
            Self::Resolve | Self::Adopt => 25,
            Self::Fold(_) => 26,
            Self::AskFeed | Self::ReadBetween | Self::ReadBetweenTotals => 27,
            Self::Close => 28,
            Self::Announce => 29,
            Self::ReadEnd => 30,
            Self::Open => 31,
            Self::Idle | Self::Sync | Self::FallBehind => 32,
            Self::Evict | Self::Uncache => 33,
            Self::Tick(_) => 34,
        }
    }
}

impl World {
    /// Does one thing.
    pub(crate) fn apply(&mut self, action: &Action) {
        match *action {
            Action::Pass(span) => self.now = self.now.plus(span),
            Action::SetLogTime(back) => self.log_back = back,
            Action::Send { event, content, ingest } => self.send(event, content, ingest),
            Action::Admit { request, is_answered } => self.admit(request, is_answered),
            Action::ReadTotals(number) => self.read_totals(number),
            Action::Seed(number) => self.seed(number),
            Action::LookUp(number) => self.look_up(number),
            Action::Publish(number) => self.publish(number),
            Action::Acknowledge(number) => self.acknowledge(number),
            Action::GiveUp(number) => self.end(number),
            Action::Append { request, is_reported } => self.append(request, is_reported),
            Action::Drop(number) => self.sending.retain(|one| one.request != number),
            Action::Connect(ingest) => self.connect(ingest),
            Action::Look(ingest) => self.look_at_feed(ingest),
            Action::Snapshot => self.snapshot(),
            Action::Restart(number) => self.restart(number),
            Action::Replace(number) => self.replace(number),
            Action::Crash(at) => self.crash(at),
            Action::ConnectAggregator(at) => self.connect_aggregator(at),
            Action::LookAggregator(at) => self.aggregators[at].feed = self.feed(),
            Action::Ledger { at, step } => match step {
                LedgerStep::Begin => self.begin(at),
                LedgerStep::Insert(written) => self.insert(at, written),
                LedgerStep::GiveUp => self.give_up(at),
                LedgerStep::Commit(written) => self.commit(at, written),
            },
            Action::Owner { at, partition, step } => self.go_on(at, partition, step),
            Action::LateInsert(number, is_stored) => self.late_insert(number, is_stored),
            Action::LateCommit(number, happens) => self.late_commit(number, happens),
        }
    }

    fn go_on(&mut self, at: usize, partition: usize, step: OwnerStep) {
        match step {
            OwnerStep::Assign => self.assign(at, partition),
            OwnerStep::Revoke => self.revoke(at, partition),
            OwnerStep::TakeOver => self.take_over(at, partition),
            OwnerStep::Load { everything } => self.load(at, partition, everything),
            OwnerStep::Resolve => self.resolve(at, partition),
            OwnerStep::Fold(count) => self.fold(at, partition, count),
            OwnerStep::Adopt => self.adopt(at, partition),
            OwnerStep::AskFeed => self.ask_feed(at, partition),
            OwnerStep::ReadBetween => self.read_between(at, partition),
            OwnerStep::ReadBetweenTotals => self.read_between_totals(at, partition),
            OwnerStep::Close => self.close(at, partition),
            OwnerStep::Announce => self.announce(at, partition),
            OwnerStep::ReadEnd => self.read_end(at, partition),
            OwnerStep::Open => self.open(at, partition),
            OwnerStep::Idle => self.idle(at, partition),
            OwnerStep::Sync => self.sync(at, partition),
            OwnerStep::FallBehind => self.fall_behind(at, partition),
            OwnerStep::Tick(horizon) => self.tick(at, partition, horizon),
            OwnerStep::Evict => self.evict(at, partition),
            OwnerStep::Uncache => {
                if let Some(owned) = &mut self.aggregators[at].owned[partition] {
                    owned.totals.clear();
                }
            }
        }
    }

    fn tick(&mut self, at: usize, partition: usize, horizon: Duration) {
        self.ticks = self.ticks.saturating_sub(1);
        if self.setup.rules.the_horizon_is_in_the_log {
            self.append_tick(partition, horizon);
        } else {
            self.change_horizon(at, partition, horizon);
        }
    }
}
