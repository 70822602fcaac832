//! The fold under any cut of the log into batches.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::accounts::UserId;
use crate::quota::{PlanName, Totals};
use crate::time::{Hour, Period, Timestamp};
use crate::usage::{
    AdmittedEvent, Breakdown, CountedEvent, DeadLetter, EventId, Flags, Flush, Horizon, IdDigest,
    IdOrigin, LogRecord, ModelName, Offset, Partition, Payload, RequestType, Seen, SeenIds,
    SummaryKey, Sums, Tallies, TokenCounts, UsageEvent, fold,
};

const OCTOBER: i64 = 1_790_812_800_000;

/// What an event of these tests varies in: user, id, tokens, type, minutes since October.
type Choice = (u8, u8, u32, u64, i64);

fn admitted((user, id, prompt, request_type, minutes): Choice) -> AdmittedEvent {
    let event = UsageEvent {
        user_id: UserId::from_bytes([user; 16]),
        event_id: EventId::new(&id.to_string()).unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::from_number(request_type).unwrap(),
        model: ModelName::new(["gpt-4", "gpt-4o"][usize::from(id % 2)]),
        tokens: TokenCounts { prompt, completion: 2 * prompt, cached: prompt / 2, reasoning: 1 },
        occurred_at: Timestamp::from_millis(OCTOBER + minutes * 60_000),
        occurred_at_given: true,
        received_at: Timestamp::from_millis(OCTOBER),
        reservation_id: None,
        metadata: None,
    };
    AdmittedEvent {
        id_digest: event.id_digest(),
        content_digest: event.content_digest(),
        plan: PlanName::new(["free", "basic"][usize::from(user % 2)]),
        admitted_at: event.received_at,
        flags: Flags::default(),
        over_hold: 0,
        event,
    }
}

/// Few users, ids and contents, so that many are repeated or reused; around the month's end.
fn choice() -> impl Strategy<Value = Choice> {
    (0..3_u8, 0..12_u8, 1..3_u32, 0..3_u64, -2000..2000_i64)
}

fn payload() -> impl Strategy<Value = Payload> {
    let undecodable = any::<[u8; 4]>()
        .prop_map(|bytes| Payload::Undecodable { bytes: bytes.into(), reason: "odd".into() });
    let event = choice().prop_map(|choice| Payload::Event(Box::new(admitted(choice))));
    prop_oneof![9 => event, 1 => undecodable]
}

fn log() -> impl Strategy<Value = Vec<LogRecord>> {
    prop::collection::vec((payload(), -4000..4000_i64), 1..80).prop_map(|payloads| {
        let record = |(number, (payload, jitter)): (u64, (Payload, i64))| LogRecord {
            offset: Offset::new(1000 + number),
            log_time: Timestamp::from_millis(OCTOBER + jitter),
            payload,
        };
        (0..).zip(payloads).map(record).collect()
    })
}

/// What a ledger holds after some flushes.
#[derive(Debug, Default, PartialEq)]
struct Ledger {
    counted: Vec<CountedEvent>,
    daily: BTreeMap<SummaryKey, Sums>,
    hourly: BTreeMap<(Hour, Breakdown), Sums>,
    statistics: BTreeMap<(UserId, Period), Totals>,
    dead_letters: Vec<DeadLetter>,
    tallies: Tallies,
    settled: BTreeSet<(UserId, Period, IdDigest)>,
    known: SeenIds,
    log_time: Option<Timestamp>,
    end: Offset,
}

impl Ledger {
    fn add(&mut self, flush: Flush) {
        for (key, sums) in flush.daily {
            let row = self.daily.entry(key).or_default();
            *row = row.plus(sums).unwrap();
        }
        for (key, sums) in flush.hourly {
            let row = self.hourly.entry(key).or_default();
            *row = row.plus(sums).unwrap();
        }
        for (key, totals) in flush.statistics {
            let row = self.statistics.entry(key).or_default();
            *row = row.plus(totals).unwrap();
        }
        self.known.extend(flush.counted.iter().map(|event| {
            let content = event.admitted.content_digest;
            (event.admitted.id_digest, Seen { content, log_time: event.log_time })
        }));
        self.counted.extend(flush.counted);
        self.dead_letters.extend(flush.dead_letters);
        self.tallies.counted += flush.tallies.counted;
        self.tallies.duplicates += flush.tallies.duplicates;
        self.tallies.dead_letters += flush.tallies.dead_letters;
        self.settled.extend(flush.settled.iter().map(|s| (s.user_id, s.period, s.id_digest)));
        self.log_time = self.log_time.max(Some(flush.log_time));
        self.end = flush.range.end;
    }

    /// Counts the log in batches of these sizes, round and round.
    fn of(log: &[LogRecord], sizes: &[usize]) -> Self {
        let (mut ledger, mut rest) = (Self::default(), log);
        for size in sizes.iter().cycle() {
            let (batch, later) = rest.split_at(rest.len().min(*size));
            if batch.is_empty() {
                break;
            }
            let flush =
                fold(Partition::SINGLE, Horizon::Ever, batch.to_vec(), &ledger.known).unwrap();
            assert_eq!(flush.range.start, batch[0].offset);
            ledger.add(flush);
            rest = later;
        }
        ledger
    }
}

proptest! {
    #[test]
    fn the_cut_into_batches_does_not_matter(
        log in log(),
        sizes in prop::collection::vec(1..30_usize, 1..6),
    ) {
        prop_assert_eq!(Ledger::of(&log, &sizes), Ledger::of(&log, &[log.len()]));
    }

    #[test]
    fn every_record_is_in_one_tally(log in log()) {
        let flush = fold(Partition::SINGLE, Horizon::Ever, log.clone(), &SeenIds::new()).unwrap();
        let Tallies { counted, duplicates, dead_letters, .. } = flush.tallies;
        prop_assert_eq!(counted + duplicates + dead_letters, flush.range.count());
        prop_assert_eq!(flush.range.count(), log.len() as u64);
        prop_assert_eq!(counted, flush.counted.len() as u64);
        prop_assert_eq!(dead_letters, flush.dead_letters.len() as u64);
    }

    #[test]
    fn each_id_is_counted_once_and_with_its_first_content(log in log()) {
        let flush = fold(Partition::SINGLE, Horizon::Ever, log.clone(), &SeenIds::new()).unwrap();
        let mut first = BTreeMap::new();
        for record in &log {
            if let Payload::Event(admitted) = &record.payload {
                first.entry(admitted.id_digest).or_insert(record.offset);
            }
        }
        let mut expected: Vec<_> = first.into_values().collect();
        expected.sort_unstable();
        let counted: Vec<_> = flush.counted.iter().map(|event| event.offset).collect();
        prop_assert_eq!(counted, expected);
    }

    #[test]
    fn all_sums_are_those_of_the_counted_events(log in log()) {
        let flush = fold(Partition::SINGLE, Horizon::Ever, log, &SeenIds::new()).unwrap();
        let tokens: u64 =
            flush.counted.iter().map(|event| event.admitted.event.tokens.total()).sum();
        let of = |sums: &Sums| sums.prompt_tokens + sums.completion_tokens;
        prop_assert_eq!(flush.daily.values().map(of).sum::<u64>(), tokens);
        prop_assert_eq!(flush.hourly.values().map(of).sum::<u64>(), tokens);
        prop_assert_eq!(flush.statistics.values().map(|totals| totals.tokens).sum::<u64>(), tokens);
        let requests: u64 =
            flush.statistics.values().flat_map(|totals| totals.requests).sum();
        prop_assert_eq!(requests, flush.tallies.counted);
    }

    #[test]
    fn folding_a_counted_log_again_counts_nothing(log in log()) {
        let ledger = Ledger::of(&log, &[7]);
        let again = fold(Partition::SINGLE, Horizon::Ever, log, &ledger.known).unwrap();
        prop_assert_eq!(again.tallies.counted, 0);
        prop_assert!(again.daily.is_empty() && again.hourly.is_empty());
        prop_assert!(again.statistics.is_empty());
    }
}

fn record(offset: u64, choice: Choice) -> LogRecord {
    let payload = Payload::Event(Box::new(admitted(choice)));
    let log_time = Timestamp::from_millis(OCTOBER);
    LogRecord { offset: Offset::new(offset), log_time, payload }
}

fn fold_all(records: Vec<LogRecord>) -> Flush {
    fold(Partition::SINGLE, Horizon::Ever, records, &SeenIds::new()).unwrap()
}

#[test]
fn time_and_metadata_do_not_make_another_event() {
    let flush = fold_all(vec![record(0, (1, 1, 5, 0, 0)), record(1, (1, 1, 5, 0, 90))]);
    assert_eq!((flush.tallies.counted, flush.tallies.duplicates), (1, 1));
    assert_eq!(flush.counted[0].offset, Offset::new(0));
}

#[test]
fn the_same_id_with_other_tokens_is_set_aside() {
    let flush = fold_all(vec![record(0, (1, 1, 5, 0, 0)), record(1, (1, 1, 6, 0, 0))]);
    assert_eq!((flush.tallies.counted, flush.tallies.dead_letters), (1, 1));
    assert_eq!(flush.dead_letters[0].offset, Offset::new(1));
    assert_eq!(flush.dead_letters[0].reason.code(), "event_id_reused");
}

#[test]
fn the_entry_of_a_reused_id_is_left_to_be_forgotten() {
    let reused = fold_all(vec![record(0, (1, 1, 5, 0, 0)), record(1, (1, 1, 6, 0, 0))]);
    assert_eq!(reused.settled.len(), 1);
}

#[test]
fn a_duplicate_in_another_month_leaves_the_counter_there_too() {
    let minutes_of_november = 31 * 24 * 60;
    let retry = record(1, (1, 1, 5, 0, minutes_of_november));
    let flush = fold_all(vec![record(0, (1, 1, 5, 0, 0)), retry]);
    let periods: Vec<_> = flush.settled.iter().map(|entry| entry.period.to_string()).collect();
    assert_eq!(periods, ["2026-10", "2026-11"]);
    assert_eq!(flush.statistics.len(), 1);
}

#[test]
fn the_same_id_of_two_users_is_two_events() {
    let flush = fold_all(vec![record(0, (1, 1, 5, 0, 0)), record(1, (2, 1, 5, 0, 0))]);
    assert_eq!(flush.tallies.counted, 2);
}

#[test]
fn a_sum_that_leaves_64_bits_is_no_sum() {
    let full = Sums { prompt_tokens: u64::MAX, ..Sums::default() };
    assert_eq!(full.plus(Sums { prompt_tokens: 1, ..Sums::default() }), None);
    assert_eq!(full.plus(Sums { completion_tokens: 1, ..Sums::default() }).unwrap().events, 0);
}
