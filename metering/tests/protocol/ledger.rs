//! What happens behind the log: fold, commit, sync, crash, restart.

use std::collections::HashMap;

use metering::accounts::UserId;
use metering::quota::{Synced, Totals, UserTotals};
use metering::time::{Period, Timestamp};
use metering::usage::{
    Flush, Horizon, KnownEvent, LogRecord, Partition, Payload, Seen, SeenIds, SummaryKey, Sums,
    fold,
};

use super::world::{Folded, World, empty_counter, offset};

/// How many of its latest commits a ledger may lose.
const COMMITS_AT_RISK: usize = 2;

impl World {
    pub(crate) fn fold(&mut self, count: usize) {
        let cursor = self.ledger.cursor;
        let records = self.log[cursor..cursor + count].to_vec();
        let reaches_end = cursor + count == self.log.len();
        // Read before the records: what comes later is no older than this.
        let watermark = if reaches_end || !self.setup.rules.watermark_waits_for_the_count {
            self.watermark()
        } else {
            self.log[..cursor + count].iter().map(|record| record.log_time).max().unwrap()
        };
        let known = if self.setup.rules.counted_ids_are_known {
            self.ledger.known.iter().map(|(id, event)| (*id, seen(event))).collect()
        } else {
            SeenIds::new()
        };
        let flush = fold(Partition::SINGLE, Horizon::Ever, records, &known).unwrap();
        self.folded = Some(Folded { flush, watermark });
    }

    pub(crate) fn commit(&mut self) {
        let Folded { flush, watermark } = self.folded.take().unwrap();
        if self.ledgers.len() == COMMITS_AT_RISK {
            self.ledgers.pop_front();
        }
        self.ledgers.push_back(self.ledger.clone());
        let before = self.totals_of(&flush);
        let end = flush.range.end;
        for counted in &flush.counted {
            let admitted = &counted.admitted;
            let known = KnownEvent { offset: counted.offset, content: admitted.content_digest };
            self.ledger.known.insert(admitted.id_digest, known);
        }
        for (key, more) in &flush.statistics {
            let totals = self.ledger.totals.entry(*key).or_default();
            *totals = totals.plus(*more).unwrap();
        }
        for (key, more) in &flush.daily {
            let sums = self.ledger.daily.entry(key.clone()).or_default();
            *sums = sums.plus(*more).unwrap();
        }
        let reached = usize::try_from(end.number()).unwrap();
        if self.setup.rules.commits_are_atomic {
            self.ledger.cursor = reached;
            self.check_ledger();
        } else {
            self.cursor_to_move = Some(reached);
        }
        if self.is_open {
            let after = self.totals_of(&flush);
            let totals =
                if self.setup.rules.totals_are_those_of_the_cursor { after } else { before };
            let (partition, cursor, settled) = (flush.partition, end, flush.settled);
            if !self.setup.rules.watermark_moves_last {
                let (totals, settled) = (vec![], vec![]);
                self.syncs.push_back(Synced { partition, cursor, watermark, totals, settled });
            }
            self.syncs.push_back(Synced { partition, cursor, watermark, totals, settled });
        }
    }

    fn totals_of(&self, flush: &Flush) -> Vec<UserTotals> {
        let of = |key: &(UserId, Period)| {
            let totals = self.ledger.totals.get(key).copied().unwrap_or_default();
            UserTotals { user_id: key.0, period: key.1, totals }
        };
        flush.statistics.keys().map(of).collect()
    }

    pub(crate) fn move_cursor(&mut self) {
        self.ledger.cursor = self.cursor_to_move.take().unwrap();
        self.check_ledger();
    }

    pub(crate) fn sync(&mut self) {
        let synced = self.syncs.pop_front().unwrap();
        self.counter.sync(&synced).unwrap();
    }

    pub(crate) fn idle(&mut self) {
        let watermark = self.watermark();
        let (cursor, totals, settled) = (offset(self.ledger.cursor), vec![], vec![]);
        let partition = Partition::SINGLE;
        self.counter.sync(&Synced { partition, cursor, watermark, totals, settled }).unwrap();
    }

    pub(crate) fn crash(&mut self, commits_lost: usize) {
        self.crashes -= 1;
        self.mark("crashed");
        for _ in 0..commits_lost {
            self.mark("ledger lost commits");
            self.ledger = self.ledgers.pop_back().unwrap();
        }
        self.counter = empty_counter(&self.setup);
        self.is_open = false;
        self.requests.clear();
        self.folded = None;
        self.cursor_to_move = None;
        self.syncs.clear();
        self.holds_made.fill(false);
        self.first_admitted.clear();
        if self.setup.rules.the_dead_store_nothing {
            self.on_its_way.clear();
        }
    }

    pub(crate) fn open(&mut self) {
        let watermark = self.watermark();
        self.counter.open(Partition::SINGLE, offset(self.ledger.cursor), watermark);
        self.is_open = true;
    }

    /// The ledger is what the log below its cursor says, counted one by one.
    pub(crate) fn check_ledger(&mut self) {
        let mut seen = HashMap::new();
        let mut totals = std::collections::BTreeMap::<(UserId, Period), Totals>::new();
        for record in &self.log[..self.ledger.cursor] {
            let Payload::Event(admitted) = &record.payload else { unreachable!() };
            if seen.insert(admitted.id_digest, admitted.content_digest).is_none() {
                let event = &admitted.event;
                let month = totals.entry((event.user_id, event.period())).or_default();
                let more = Totals::of(event.request_type, event.tokens.total());
                *month = month.plus(more).unwrap();
            }
        }
        if totals != self.ledger.totals {
            self.violate("the ledger is not what its log says".into());
        }
    }

    /// The whole log folded at once, for comparison.
    pub(crate) fn fold_whole_log(&self) -> std::collections::BTreeMap<SummaryKey, Sums> {
        let records: Vec<LogRecord> = self.log.clone();
        fold(Partition::SINGLE, Horizon::Ever, records, &SeenIds::new()).unwrap().daily
    }

    pub(crate) fn set_clock(&mut self, back: std::time::Duration) {
        if back > self.set_back {
            self.mark("clock set back");
        }
        self.set_back = back;
    }

    pub(crate) fn pass(&mut self, span: std::time::Duration) -> Timestamp {
        self.now = self.now.plus(span);
        self.now
    }
}

/// Ids are remembered for ever here: when it was does not matter.
fn seen(event: &KnownEvent) -> Seen {
    Seen { content: event.content, log_time: Timestamp::MIN }
}
