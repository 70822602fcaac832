//! What may happen next: every source of chance is an action.

use std::time::Duration;

use super::setup::Occurred;
use super::world::{Stage, World};

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Time passes.
    Pass(Duration),
    /// The machine's clock is set: behind by this much from now on.
    SetClock(Duration),
    /// The log's time is behind by this much from now on.
    SetLogTime(Duration),
    /// A client sends an event, perhaps again, perhaps with other content; barred: too late.
    Send { event: usize, content: usize, barred: bool },
    /// The door asks the ledger whether it knows the event.
    Look(u32),
    /// The door asks the counter.
    Admit(u32),
    /// Totals are read for the counter.
    ReadTotals(u32),
    /// They arrive at the counter.
    Seed(u32),
    /// The ledger is asked once more after a grant.
    LookAgain(u32),
    /// The ledger is asked once more before a refusal.
    LookBeforeRefusal(u32),
    /// The event is handed to the log.
    Publish(u32),
    /// The client hears that it is recorded.
    Acknowledge(u32),
    /// The client stops waiting.
    GiveUp(u32),
    /// The log takes the record, if it is not too late; its report may be lost.
    Store { request: u32, is_reported: bool },
    /// The record never reaches the log.
    Lose(u32),
    /// The aggregator folds so many records.
    Fold(usize),
    /// It commits them.
    Commit,
    /// Broken variant: the cursor of a commit follows its effects.
    MoveCursor,
    /// The counter hears of the oldest commit that it has not heard of.
    Sync,
    /// Nothing to count: the counter hears how late it is.
    Idle,
    /// The process dies; a power loss may take so many commits of the ledger with it.
    Crash(usize),
    /// The next one has counted the log and opens the counter.
    Open,
    /// A client makes a hold.
    Hold(usize),
    /// A client releases it.
    Release(usize),
}

impl Action {
    pub(crate) const KINDS: usize = 25;

    /// Its place in a table of weights.
    pub(crate) fn kind(&self) -> usize {
        match self {
            Self::Pass(_) => 0,
            Self::SetClock(_) => 1,
            Self::SetLogTime(_) => 2,
            Self::Send { content: 0, .. } => 3,
            Self::Send { .. } => 24,
            Self::Look(_) => 4,
            Self::Admit(_) => 5,
            Self::ReadTotals(_) => 6,
            Self::Seed(_) => 7,
            Self::LookAgain(_) => 8,
            Self::LookBeforeRefusal(_) => 9,
            Self::Publish(_) => 10,
            Self::Acknowledge(_) => 11,
            Self::GiveUp(_) => 12,
            Self::Store { .. } => 13,
            Self::Lose(_) => 14,
            Self::Fold(_) => 15,
            Self::Commit => 16,
            Self::MoveCursor => 17,
            Self::Sync => 18,
            Self::Idle => 19,
            Self::Crash(_) => 20,
            Self::Open => 21,
            Self::Hold(_) => 22,
            Self::Release(_) => 23,
        }
    }

    /// The request that it carries on: some are slow while others are fast.
    pub(crate) fn request(&self) -> Option<u32> {
        match *self {
            Self::Look(request)
            | Self::Admit(request)
            | Self::ReadTotals(request)
            | Self::Seed(request)
            | Self::LookAgain(request)
            | Self::LookBeforeRefusal(request)
            | Self::Publish(request)
            | Self::Acknowledge(request)
            | Self::GiveUp(request)
            | Self::Store { request, .. }
            | Self::Lose(request) => Some(request),
            Self::Pass(_)
            | Self::SetClock(_)
            | Self::SetLogTime(_)
            | Self::Send { .. }
            | Self::Fold(_)
            | Self::Commit
            | Self::MoveCursor
            | Self::Sync
            | Self::Idle
            | Self::Crash(_)
            | Self::Open
            | Self::Hold(_)
            | Self::Release(_) => None,
        }
    }

    /// How likely it is beside others of its state; a schedule's own weights come on top.
    pub(crate) fn weight(&self) -> f32 {
        match self {
            Self::Pass(_) => 0.12,
            Self::SetClock(_) | Self::GiveUp(_) | Self::Lose(_) | Self::Idle => 0.1,
            Self::SetLogTime(_) | Self::Release(_) => 0.06,
            Self::Crash(_) => 0.04,
            Self::Send { barred: false, .. } | Self::Hold(_) => 0.3,
            Self::Send { .. } => 0.1,
            Self::Look(_)
            | Self::Admit(_)
            | Self::ReadTotals(_)
            | Self::Seed(_)
            | Self::LookAgain(_)
            | Self::LookBeforeRefusal(_)
            | Self::Publish(_)
            | Self::Acknowledge(_)
            | Self::Store { .. }
            | Self::Fold(_)
            | Self::Commit
            | Self::MoveCursor
            | Self::Sync
            | Self::Open => 1.0,
        }
    }
}

/// Steps of time: within the window, about the margin, beyond both.
const PASS_MILLIS: [u64; 4] = [700, 3_000, 6_000, 16_000];

impl World {
    /// Everything that may happen now.
    pub(crate) fn actions(&self, found: &mut Vec<Action>) {
        found.clear();
        self.client_actions(found);
        self.door_actions(found);
        self.log_actions(found);
        self.aggregator_actions(found);
    }

    fn client_actions(&self, found: &mut Vec<Action>) {
        if self.is_calm {
            return;
        }
        found.extend(PASS_MILLIS.map(|millis| Action::Pass(Duration::from_millis(millis))));
        for &back in &self.setup.clock_set_back {
            found.push(Action::SetClock(if self.set_back == back { Duration::ZERO } else { back }));
        }
        for &back in &self.setup.log_steps_back {
            found.push(Action::SetLogTime(if self.log_back == back {
                Duration::ZERO
            } else {
                back
            }));
        }
        for (event, client) in self.clients.iter().enumerate().filter(|(_, one)| one.tries > 0) {
            found.push(Action::Send { event, content: 0, barred: false });
            if self.setup.other_contents {
                found.push(Action::Send { event, content: 1, barred: false });
            }
            if client.sent && self.setup.events[event].occurred != Occurred::Now {
                found.push(Action::Send { event, content: 0, barred: true });
            }
        }
        if self.is_open {
            for hold in 0..self.setup.holds.len() {
                if self.hold_tries[hold] > 0 {
                    found.push(Action::Hold(hold));
                }
                if self.holds_made[hold] {
                    found.push(Action::Release(hold));
                }
            }
        }
        if self.crashes > 0 {
            found.extend((0..=self.ledgers.len()).map(Action::Crash));
        }
    }

    fn door_actions(&self, found: &mut Vec<Action>) {
        for request in &self.requests {
            let number = request.number;
            found.push(match request.stage {
                Stage::Arrived => Action::Look(number),
                Stage::Looked(_) => Action::Admit(number),
                Stage::Missing(_) => Action::ReadTotals(number),
                Stage::Read { .. } => Action::Seed(number),
                Stage::Doubtful { .. } => Action::LookAgain(number),
                Stage::Refusing => Action::LookBeforeRefusal(number),
                Stage::Sound(_) => Action::Publish(number),
                Stage::Stored => Action::Acknowledge(number),
                Stage::Waiting => Action::GiveUp(number),
            });
        }
    }

    fn log_actions(&self, found: &mut Vec<Action>) {
        for sending in &self.on_its_way {
            found.push(Action::Store { request: sending.request, is_reported: true });
            if !self.is_calm {
                found.push(Action::Store { request: sending.request, is_reported: false });
                found.push(Action::Lose(sending.request));
            }
        }
    }

    fn aggregator_actions(&self, found: &mut Vec<Action>) {
        let waiting = self.log.len() - self.ledger.cursor;
        if self.cursor_to_move.is_some() {
            found.push(Action::MoveCursor);
        } else if self.folded.is_some() {
            found.push(Action::Commit);
        } else {
            found.extend((1..=waiting.min(3)).map(Action::Fold));
            if waiting > 3 {
                found.push(Action::Fold(waiting));
            }
        }
        if !self.is_open {
            if waiting == 0 || !self.setup.rules.opened_at_the_end {
                found.push(Action::Open);
            }
        } else if !self.syncs.is_empty() {
            found.push(Action::Sync);
        } else if waiting == 0 && self.folded.is_none() && !self.is_calm {
            found.push(Action::Idle);
        }
    }
}
