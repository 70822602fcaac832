//! Two Redis servers: in each the product's own counter, in a shell that stands for the rules of epochs.

use std::num::NonZeroU32;

use metering::quota::{Counter, Synced, UserTotals};
use metering::time::Timestamp;
use metering::usage::{Offset, Partition};

use super::setup::{Rules, Setup, period};
use super::world::Announced;

/// Under which name, and how far counted, a partition's counter serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    /// In which life of which server it was made.
    pub(crate) life: u64,
    pub(crate) nonce: u64,
    pub(crate) is_open: bool,
    pub(crate) cursor: Offset,
    pub(crate) watermark: Timestamp,
}

/// What a server keeps of one partition. The counter stands for the users' hashes under the epoch's
/// nonce: those under another one are as if they were not there.
#[derive(Clone)]
pub(crate) struct Keyspace {
    pub(crate) epoch: Option<Epoch>,
    pub(crate) counter: Counter,
}

pub(crate) struct Server {
    /// Which life of which server: no two are the same.
    pub(crate) life: u64,
    pub(crate) keyspaces: Vec<Keyspace>,
}

/// A user's part of a sync.
#[derive(Clone, Debug)]
pub(crate) struct Month {
    pub(crate) totals: Option<UserTotals>,
    pub(crate) settled: Vec<metering::usage::Settled>,
}

impl Keyspace {
    pub(crate) fn none(partitions: usize) -> Vec<Self> {
        let empty = Self { epoch: None, counter: Counter::new(NonZeroU32::MIN) };
        vec![empty; partitions]
    }

    pub(crate) fn open_at_the_start(name: Announced) -> Self {
        let mut keyspace = Self { epoch: None, counter: Counter::new(NonZeroU32::MIN) };
        keyspace.close(name.life, name.nonce);
        keyspace.open(&Rules::default(), name, Offset::default(), Timestamp::MIN);
        keyspace
    }

    /// The open epoch, if it is of this life.
    pub(crate) fn serving(&self, life: u64) -> Option<&Epoch> {
        self.epoch.as_ref().filter(|epoch| epoch.is_open && epoch.life == life)
    }

    /// Whoever has it.
    pub(crate) fn close(&mut self, life: u64, nonce: u64) {
        let (cursor, watermark) = (Offset::default(), Timestamp::MIN);
        self.epoch = Some(Epoch { life, nonce, is_open: false, cursor, watermark });
        self.counter.close(Partition::SINGLE);
    }

    /// Unless somebody else has closed it since.
    pub(crate) fn open(
        &mut self,
        rules: &Rules,
        name: Announced,
        cursor: Offset,
        watermark: Timestamp,
    ) -> bool {
        let Announced { life, nonce } = name;
        let mine = |epoch: &Epoch| epoch.nonce == nonce && epoch.life == life;
        let stands = self.epoch.as_ref().filter(|epoch| mine(epoch));
        if stands.is_none() && rules.opened_by_compare_and_set {
            return false;
        }
        if stands.is_none_or(|epoch| !epoch.is_open) {
            self.epoch = Some(Epoch { life, nonce, is_open: true, cursor, watermark });
            self.counter.open(Partition::SINGLE, cursor, watermark);
        }
        true
    }

    /// Totals become the newer ones and entries leave; `false`: the partition is not open under this
    /// name.
    pub(crate) fn settle(
        &mut self,
        setup: &Setup,
        name: Announced,
        month: &Month,
        label: Offset,
    ) -> bool {
        let rules = &setup.rules;
        let Some(epoch) = self.serving(name.life).cloned() else { return false };
        if rules.sync_names_the_epoch && epoch.nonce != name.nonce {
            return false;
        }
        let totals: Vec<_> = month.totals.into_iter().collect();
        if !rules.sync_never_creates {
            for new in &totals {
                self.counter.seed_terms(new.user_id, setup.terms());
                let cursor = label.max(epoch.cursor);
                self.counter.seed_totals(new.user_id, period(), new.totals, cursor);
            }
        }
        let (cursor, watermark) = (label, epoch.watermark);
        let settled = month.settled.clone();
        let synced = Synced { partition: Partition::SINGLE, cursor, watermark, totals, settled };
        self.counter.settle(&synced).unwrap();
        true
    }

    /// Cursor and watermark move forward; `false` as above.
    pub(crate) fn advance(
        &mut self,
        rules: &Rules,
        name: Announced,
        cursor: Offset,
        watermark: Timestamp,
    ) -> bool {
        if self.serving(name.life).is_none() {
            return false;
        }
        let Some(epoch) = &mut self.epoch else { return false };
        if rules.sync_names_the_epoch && epoch.nonce != name.nonce {
            return false;
        }
        epoch.cursor = epoch.cursor.max(cursor);
        epoch.watermark = epoch.watermark.max(watermark);
        self.counter.advance(Partition::SINGLE, cursor, watermark).unwrap();
        true
    }
}
