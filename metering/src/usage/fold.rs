//! The fold: what a stretch of the event log adds to the ledger. A pure function of the log.

use std::collections::BTreeMap;

use hashbrown::{Equivalent, HashMap, HashSet};

use super::{
    AdmittedEvent, Flag, Horizon, IdDigest, LogRecord, ModelName, Offset, OffsetRange, Partition,
    Payload, RequestType, Seen, SeenIds, Watched,
};
use crate::accounts::UserId;
use crate::quota::{ADMISSION_WINDOW, PlanName, Totals};
use crate::time::{Day, Hour, Period, Timestamp};

/// Sums of counted events. Checked: an overflow is an error, never a wrong figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many events.
    pub events: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of completions.
    pub completion_tokens: u64,
    /// Prompt tokens that came from a cache.
    pub cached_tokens: u64,
    /// Completion tokens that were reasoning.
    pub reasoning_tokens: u64,
}

impl Sums {
    /// The sums of one event.
    pub fn of(admitted: &AdmittedEvent) -> Self {
        let tokens = admitted.event.tokens;
        Self {
            events: 1,
            prompt_tokens: tokens.prompt.into(),
            completion_tokens: tokens.completion.into(),
            cached_tokens: tokens.cached.into(),
            reasoning_tokens: tokens.reasoning.into(),
        }
    }

    /// Both together; `None` when a sum does not fit.
    pub fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            events: self.events.checked_add(other.events)?,
            prompt_tokens: self.prompt_tokens.checked_add(other.prompt_tokens)?,
            completion_tokens: self.completion_tokens.checked_add(other.completion_tokens)?,
            cached_tokens: self.cached_tokens.checked_add(other.cached_tokens)?,
            reasoning_tokens: self.reasoning_tokens.checked_add(other.reasoning_tokens)?,
        })
    }
}

/// What both summaries are split by, besides time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Breakdown {
    /// Which counter.
    pub request_type: RequestType,
    /// The model called.
    pub model: ModelName,
    /// The plan at admission.
    pub plan: PlanName,
}

/// The key of a daily summary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SummaryKey {
    /// Whose.
    pub user_id: UserId,
    /// The UTC day of `occurred_at`.
    pub day: Day,
    /// The rest.
    pub breakdown: Breakdown,
}

/// An event that the fold counted.
#[derive(Clone, Debug, PartialEq)]
pub struct CountedEvent {
    /// Its place in the log.
    pub offset: Offset,
    /// When the log took it.
    pub log_time: Timestamp,
    /// What it is.
    pub admitted: Box<AdmittedEvent>,
}

/// Why a record was not counted though it is no duplicate.
#[derive(Clone, Debug, PartialEq)]
pub enum DeadLetterReason {
    /// No version of the codec reads it.
    Undecodable {
        /// The record's value.
        bytes: Vec<u8>,
        /// What the codec said.
        reason: String,
    },
    /// Its id was counted with another content.
    EventIdReused(Box<AdmittedEvent>),
}

impl DeadLetterReason {
    /// The stable name of the reason: shown, stored, and a metric label.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Undecodable { .. } => "undecodable",
            Self::EventIdReused(_) => "event_id_reused",
        }
    }
}

/// A record set aside: listed, and replayable.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its place in the log.
    pub offset: Offset,
    /// When the log took it.
    pub log_time: Timestamp,
    /// Why, and what it was.
    pub reason: DeadLetterReason,
}

/// What became of the records of a range: they add up to its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Counted.
    pub counted: u64,
    /// Counted before.
    pub duplicates: u64,
    /// Set aside.
    pub dead_letters: u64,
    /// Taken by the log later than [`ADMISSION_WINDOW`] after their admission, and therefore
    /// never acknowledged.
    pub void: u64,
    /// Ticks, which hold no event.
    pub ticks: u64,
}

impl Tallies {
    /// How many records these are; `None` when that does not fit.
    pub fn records(&self) -> Option<u64> {
        let Self { counted, duplicates, dead_letters, void, ticks } = *self;
        [duplicates, dead_letters, void, ticks].into_iter().try_fold(counted, u64::checked_add)
    }
}

/// An entry of the quota counter that is in flight no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Whose.
    pub user_id: UserId,
    /// In which period's entries it stands.
    pub period: Period,
    /// Which event.
    pub id_digest: IdDigest,
}

/// What `[range)` of one partition adds to the ledger: committed whole or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Flush {
    /// Of which partition.
    pub partition: Partition,
    /// Which records.
    pub range: OffsetRange,
    /// The largest log time in the range.
    pub log_time: Timestamp,
    /// How long counted ids are remembered from the end of the range on.
    pub horizon: Horizon,
    /// First occurrences, in the order of the log.
    pub counted: Vec<CountedEvent>,
    /// Added to the daily summaries.
    pub daily: BTreeMap<SummaryKey, Sums>,
    /// Added to the hourly summaries.
    pub hourly: BTreeMap<(Hour, Breakdown), Sums>,
    /// Added to the statistics that limits are checked against.
    pub statistics: BTreeMap<(UserId, Period), Totals>,
    /// Records set aside.
    pub dead_letters: Vec<DeadLetter>,
    /// What became of each record.
    pub tallies: Tallies,
    /// Entries of counted and duplicate records, which leave the quota counter.
    pub settled: Vec<Settled>,
    /// Whose usage may raise alerts: none, until somebody asks `AlertRules`.
    pub watched: Vec<Watched>,
}

/// A sum of token counts no longer fits 64 bits: the partition must stop, a person must look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sum of token counts of the records from offset {0} on does not fit 64 bits")]
pub struct SumOverflow(pub Offset);

/// Folds `records` (dense, in order, not empty) into what they add to the ledger.
///
/// `horizon` is in force at the first of them. `known` holds, of the ids in `records`, the latest
/// event that was counted below the first of them: at least what the horizon reaches, and what
/// outlived it (see [`Horizon`]); what it holds beyond that changes nothing. Cutting the same records
/// into other batches gives the same rows.
///
/// # Errors
/// [`SumOverflow`] names the first of records whose sums do not fit.
pub fn fold(
    partition: Partition,
    horizon: Horizon,
    records: Vec<LogRecord>,
    known: &SeenIds,
) -> Result<Flush, SumOverflow> {
    let mut folding = Folding::new(partition, horizon, &records);
    let mut counted_here = SeenIds::with_capacity(records.len());
    for LogRecord { offset, log_time, payload } in records {
        folding.flush.log_time = folding.flush.log_time.max(log_time);
        let admitted = match payload {
            Payload::Event(admitted) => admitted,
            Payload::Tick(tick) => {
                folding.flush.tallies.ticks += 1;
                folding.flush.horizon = tick.horizon;
                continue;
            }
            Payload::Undecodable { bytes, reason } => {
                let reason = DeadLetterReason::Undecodable { bytes, reason };
                folding.set_aside(DeadLetter { offset, log_time, reason });
                continue;
            }
        };
        if is_void(&admitted, log_time) {
            // Nobody was told that it counts. Its entry stays: another record of it may come.
            folding.flush.tallies.void += 1;
            continue;
        }
        let id = admitted.id_digest;
        let seen = counted_here.get(&id).or_else(|| known.get(&id));
        let repeated = seen
            .filter(|seen| folding.flush.horizon.recognises(seen.log_time, log_time, &admitted))
            .map(|seen| seen.content);
        match repeated {
            None => {
                counted_here.insert(id, Seen { content: admitted.content_digest, log_time });
                folding.count(CountedEvent { offset, log_time, admitted });
            }
            Some(content) if content == admitted.content_digest => folding.repeat(&admitted),
            Some(_) => {
                let reason = DeadLetterReason::EventIdReused(admitted);
                folding.set_aside(DeadLetter { offset, log_time, reason });
            }
        }
    }
    folding.finish()
}

/// Whether the log took a record too late for it to count: both the ingest, before it acknowledges,
/// and the fold look at the same two numbers. What no counter let in has no entry that could be
/// forgotten before the record comes, so it is never too late.
pub fn is_void(admitted: &AdmittedEvent, log_time: Timestamp) -> bool {
    !admitted.flags.has(Flag::Unmetered) && log_time > admitted.admitted_at.plus(ADMISSION_WINDOW)
}

/// The smallest sum that every summary is made of: most events fall into one that is there already.
#[derive(PartialEq, Eq, Hash)]
struct Cell {
    user_id: UserId,
    hour: Hour,
    breakdown: Breakdown,
}

/// The cell of an event, which is looked for far more often than made. Its fields are those of
/// [`Cell`] in the same order, for they must hash alike.
#[derive(Hash)]
struct CellOf<'a> {
    user_id: UserId,
    hour: Hour,
    request_type: RequestType,
    model: &'a ModelName,
    plan: &'a PlanName,
}

impl<'a> CellOf<'a> {
    fn event(admitted: &'a AdmittedEvent) -> Self {
        let event = &admitted.event;
        Self {
            user_id: event.user_id,
            hour: event.occurred_at.hour(),
            request_type: event.request_type,
            model: &event.model,
            plan: &admitted.plan,
        }
    }

    fn to_cell(&self) -> Cell {
        let (model, plan) = (self.model.clone(), self.plan.clone());
        let breakdown = Breakdown { request_type: self.request_type, model, plan };
        Cell { user_id: self.user_id, hour: self.hour, breakdown }
    }
}

impl Equivalent<Cell> for CellOf<'_> {
    fn equivalent(&self, cell: &Cell) -> bool {
        let Breakdown { request_type, model, plan } = &cell.breakdown;
        self.user_id == cell.user_id
            && self.hour == cell.hour
            && self.request_type == *request_type
            && self.model == model
            && self.plan == plan
    }
}

struct Folding {
    flush: Flush,
    /// The sums of each cell; `None` once they do not fit.
    cells: HashMap<Cell, Option<Sums>>,
    left: HashSet<(Period, IdDigest)>,
}

impl Folding {
    fn new(partition: Partition, horizon: Horizon, records: &[LogRecord]) -> Self {
        let start = records.first().map_or(Offset::default(), |record| record.offset);
        let end = records.last().map_or(start, |record| record.offset.plus(1));
        let flush = Flush {
            partition,
            range: OffsetRange { start, end },
            log_time: Timestamp::MIN,
            horizon,
            counted: Vec::with_capacity(records.len()),
            daily: BTreeMap::new(),
            hourly: BTreeMap::new(),
            statistics: BTreeMap::new(),
            dead_letters: Vec::new(),
            tallies: Tallies::default(),
            settled: Vec::with_capacity(records.len()),
            watched: Vec::new(),
        };
        let left = HashSet::with_capacity(records.len());
        Self { flush, cells: HashMap::new(), left }
    }

    fn count(&mut self, counted: CountedEvent) {
        let admitted = &counted.admitted;
        let (cell, more) = (CellOf::event(admitted), Sums::of(admitted));
        match self.cells.get_mut(&cell) {
            Some(sums) => *sums = sums.and_then(|sums| sums.plus(more)),
            None => drop(self.cells.insert(cell.to_cell(), Some(more))),
        }
        self.flush.tallies.counted += 1;
        self.leave(&counted.admitted);
        self.flush.counted.push(counted);
    }

    /// Adds the cells up to the three kinds of sums.
    fn finish(mut self) -> Result<Flush, SumOverflow> {
        let added = self.cells.into_iter().try_for_each(|(cell, sums)| {
            let (flush, sums) = (&mut self.flush, sums?);
            let Cell { user_id, hour, breakdown } = cell;
            let (day, period) = (hour.start().day(), Period::of(hour.start()));
            let month = flush.statistics.entry((user_id, period)).or_default();
            *month = month.plus(totals(breakdown.request_type, sums)?)?;
            let hourly = flush.hourly.entry((hour, breakdown.clone())).or_default();
            *hourly = hourly.plus(sums)?;
            let daily = flush.daily.entry(SummaryKey { user_id, day, breakdown }).or_default();
            *daily = daily.plus(sums)?;
            Some(())
        });
        added.ok_or(SumOverflow(self.flush.range.start))?;
        Ok(self.flush)
    }

    fn repeat(&mut self, admitted: &AdmittedEvent) {
        self.flush.tallies.duplicates += 1;
        self.leave(admitted);
    }

    /// The entry of a counted or duplicate record leaves the counter, once.
    fn leave(&mut self, admitted: &AdmittedEvent) {
        let (period, id_digest) = (admitted.event.period(), admitted.id_digest);
        if self.left.insert((period, id_digest)) {
            self.flush.settled.push(Settled { user_id: admitted.event.user_id, period, id_digest });
        }
    }

    fn set_aside(&mut self, letter: DeadLetter) {
        self.flush.tallies.dead_letters += 1;
        self.flush.dead_letters.push(letter);
    }
}

/// What events of one type add to a month; `None` when it does not fit.
fn totals(request_type: RequestType, sums: Sums) -> Option<Totals> {
    let mut requests = [0; 3];
    requests[request_type.index()] = sums.events;
    Some(Totals { tokens: sums.prompt_tokens.checked_add(sums.completion_tokens)?, requests })
}
