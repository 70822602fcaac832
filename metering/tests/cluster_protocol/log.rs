//! The event log, and what each of its records comes to: judged here by a second reading of the rules,
//! with unlimited memory and without batches.

use std::collections::BTreeMap;
use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::ADMISSION_WINDOW;
use metering::time::Timestamp;
use metering::usage::{
    AdmittedEvent, Flag, Horizon, IdDigest, LogRecord, Payload, STAMP_AHEAD_MAX, Tick, is_void,
};

use super::setup::Rules;
use super::world::{Stage, World, offset};

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Counted,
    Duplicate,
    Reused,
    Void,
    Tick,
}

/// An admitted event on its way to the log.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) request: u32,
    pub(crate) partition: usize,
    pub(crate) admitted: AdmittedEvent,
}

/// One partition.
pub(crate) struct Log {
    pub(crate) records: Vec<LogRecord>,
    pub(crate) fates: Vec<Fate>,
    /// In force at the end.
    horizon: Duration,
    /// The largest log time up to each record.
    pub(crate) latest: Vec<Timestamp>,
    /// Tokens of counted events, the unmetered aside.
    tokens: BTreeMap<UserId, u64>,
}

impl Log {
    pub(crate) fn new(horizon: Duration) -> Self {
        let (records, fates, latest) = (Vec::new(), Vec::new(), Vec::new());
        Self { records, fates, horizon, latest, tokens: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Counted records of an id, with their places.
    pub(crate) fn counted(
        &self,
        id: IdDigest,
    ) -> impl DoubleEndedIterator<Item = (usize, &LogRecord, &AdmittedEvent)> {
        let records = self.records.iter().zip(&self.fates).enumerate();
        records.filter_map(move |(place, (record, fate))| match &record.payload {
            Payload::Event(admitted) if *fate == Fate::Counted && admitted.id_digest == id => {
                Some((place, record, &**admitted))
            }
            Payload::Event(_) | Payload::Tick(_) | Payload::Undecodable { .. } => None,
        })
    }

    fn judge(&self, rules: &Rules, admitted: &AdmittedEvent, log_time: Timestamp) -> Fate {
        if is_late(rules, self, admitted, log_time) {
            return Fate::Void;
        }
        let margin = STAMP_AHEAD_MAX + metering::quota::MARGIN;
        let reach = log_time.minus(self.horizon);
        let outlived = stamp_of(admitted).is_some_and(|stamp| stamp < reach.plus(margin));
        let repeated = self
            .counted(admitted.id_digest)
            .rfind(|(_, first, _)| first.log_time >= reach || outlived);
        match repeated {
            None => Fate::Counted,
            Some((_, _, first)) if first.content_digest == admitted.content_digest => {
                Fate::Duplicate
            }
            Some(_) => Fate::Reused,
        }
    }
}

/// Whether a record that the log takes now has lost its window.
fn is_late(rules: &Rules, log: &Log, admitted: &AdmittedEvent, log_time: Timestamp) -> bool {
    let latest = log.latest.last().copied().unwrap_or(Timestamp::MIN);
    let time = if rules.void_by_its_own_time { log_time } else { log_time.max(latest) };
    let is_metered = !admitted.flags.has(Flag::Unmetered);
    is_metered && rules.late_records_are_void && time > admitted.admitted_at.plus(ADMISSION_WINDOW)
}

/// The events of these schedules have no UUIDs.
fn stamp_of(admitted: &AdmittedEvent) -> Option<Timestamp> {
    admitted.event.occurred_at_given.then_some(admitted.event.occurred_at)
}

impl World {
    pub(crate) fn log_time(&self) -> Timestamp {
        self.now.minus(self.log_back)
    }

    /// The log takes a record that is on its way.
    pub(crate) fn append(&mut self, number: u32, is_reported: bool) {
        let place = self.sending.iter().position(|one| one.request == number).unwrap();
        let Sending { partition, admitted, .. } = self.sending.remove(place);
        let log_time = self.log_time();
        let lapsed = is_void(&admitted, log_time);
        let fate = self.logs[partition].judge(&self.setup.rules, &admitted, log_time);
        match fate {
            Fate::Counted => self.check_counted(partition, &admitted),
            Fate::Duplicate => self.mark("twice in the log"),
            Fate::Reused => self.mark("an id used again"),
            Fate::Void => self.mark("void"),
            Fate::Tick => {}
        }
        self.push(partition, Payload::Event(Box::new(admitted)), fate);
        if !self.requests.iter().any(|one| one.number == number) {
            self.mark("stored after its request gave up");
        } else if is_reported {
            self.request(number).stage = Stage::Stored { lapsed };
        }
    }

    pub(crate) fn append_tick(&mut self, partition: usize, horizon: Duration) {
        if horizon != self.logs[partition].horizon {
            self.mark("another horizon");
        }
        self.logs[partition].horizon = horizon;
        let tick = Tick { horizon: Horizon::Within(horizon) };
        self.push(partition, Payload::Tick(tick), Fate::Tick);
    }

    /// In force at the end of the log.
    pub(crate) fn horizon(&self, partition: usize) -> Duration {
        self.logs[partition].horizon
    }

    fn push(&mut self, partition: usize, payload: Payload, fate: Fate) {
        let log_time = self.log_time();
        let log = &mut self.logs[partition];
        let latest = log.latest.last().copied().unwrap_or(log_time).max(log_time);
        log.records.push(LogRecord { offset: offset(log.records.len()), log_time, payload });
        log.fates.push(fate);
        log.latest.push(latest);
    }

    /// I2 and I3, as soon as a record is in the log that will be counted.
    fn check_counted(&mut self, partition: usize, admitted: &AdmittedEvent) {
        let limit = self.setup.shape.token_limit;
        let log = &mut self.logs[partition];
        let before = log.counted(admitted.id_digest).count();
        let tokens = log.tokens.entry(admitted.event.user_id).or_default();
        if admitted.flags.has(Flag::Unmetered) {
            self.marks.push("counted unmetered");
        } else {
            *tokens += admitted.event.tokens.total();
        }
        let tokens = *tokens;
        if tokens > limit {
            self.violate(format!("I3: {tokens} tokens are in the log of a plan of {limit}"));
        }
        if before > 0 {
            self.mark("counted again after the horizon");
            if admitted.event.occurred_at_given {
                let id = admitted.event.event_id.as_str();
                self.violate(format!("I2: event {id} is counted twice though it has a time"));
            }
        }
    }
}
