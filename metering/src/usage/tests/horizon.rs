//! What a log in which ids are remembered for a time, and in which records come late, folds into.

use std::time::Duration;

use proptest::prelude::*;

use crate::accounts::UserId;
use crate::quota::{ADMISSION_WINDOW, PlanName};
use crate::time::Timestamp;
use crate::usage::{
    AdmittedEvent, EventId, Flag, Flags, Flush, Horizon, IdOrigin, LogRecord, ModelName, Offset,
    Partition, Payload, RequestType, STAMP_AHEAD_MAX, Seen, SeenIds, Tallies, Tick, TokenCounts,
    UsageEvent, fold,
};

fn second(number: i64) -> Timestamp {
    Timestamp::from_millis(1_790_812_800_000 + number * 1000)
}

const fn within(seconds: u64) -> Horizon {
    Horizon::Within(Duration::from_secs(seconds))
}

/// Let in at `at`; made then too when it says so.
fn event(id: &str, at: i64, occurred_at: Option<i64>) -> Box<AdmittedEvent> {
    let event = UsageEvent {
        user_id: UserId::from_bytes([1; 16]),
        event_id: EventId::new(id).unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::Chat,
        model: ModelName::new("gpt-4"),
        tokens: TokenCounts { prompt: 3, ..TokenCounts::default() },
        occurred_at: second(occurred_at.unwrap_or(at)),
        occurred_at_given: occurred_at.is_some(),
        received_at: second(at),
        reservation_id: None,
        metadata: None,
    };
    Box::new(AdmittedEvent {
        id_digest: event.id_digest(),
        content_digest: event.content_digest(),
        plan: PlanName::new("free"),
        admitted_at: second(at),
        flags: Flags::default(),
        over_hold: 0,
        event,
    })
}

fn record(offset: u64, log_time: i64, payload: Payload) -> LogRecord {
    LogRecord { offset: Offset::new(offset), log_time: second(log_time), payload }
}

fn sent(offset: u64, id: &str, at: i64) -> LogRecord {
    record(offset, at, Payload::Event(event(id, at, None)))
}

fn folded(horizon: Horizon, records: Vec<LogRecord>) -> Flush {
    fold(Partition::SINGLE, horizon, records, &SeenIds::new()).unwrap()
}

#[test]
fn what_the_log_took_too_late_is_not_counted_and_leaves_its_entry() {
    let window = i64::try_from(ADMISSION_WINDOW.as_secs()).unwrap();
    let late = record(0, window + 1, Payload::Event(event("a", 0, None)));
    let in_time = record(1, window, Payload::Event(event("a", 0, None)));
    let flush = folded(Horizon::Ever, vec![late.clone()]);
    assert_eq!(flush.tallies, Tallies { void: 1, ..Tallies::default() });
    assert_eq!((flush.counted.len(), flush.settled.len()), (0, 0));
    let flush = folded(Horizon::Ever, vec![late, in_time]);
    assert_eq!((flush.tallies.void, flush.tallies.counted), (1, 1), "it is not remembered");
    assert_eq!(flush.tallies.records(), Some(2));
}

#[test]
fn what_no_counter_let_in_is_never_too_late() {
    let mut unmetered = event("a", 0, None);
    unmetered.flags = unmetered.flags.with(Flag::Unmetered);
    let repeated = record(1, 0, Payload::Event(event("a", 0, None)));
    let records = vec![record(0, 1_000_000, Payload::Event(unmetered)), repeated];
    let flush = folded(Horizon::Ever, records);
    assert_eq!((flush.tallies.counted, flush.tallies.void, flush.tallies.duplicates), (1, 0, 1));
}

#[test]
fn an_id_is_remembered_as_long_as_the_horizon_says() {
    let flush = folded(within(60), vec![sent(0, "a", 0), sent(1, "a", 60)]);
    assert_eq!((flush.tallies.counted, flush.tallies.duplicates), (1, 1));
    let flush = folded(within(60), vec![sent(0, "a", 0), sent(1, "a", 61)]);
    assert_eq!((flush.tallies.counted, flush.tallies.duplicates), (2, 0));
}

#[test]
fn a_tick_changes_the_horizon_from_its_offset_on() {
    let shorter = record(2, 40, Payload::Tick(Tick { horizon: within(30) }));
    let log = vec![sent(0, "a", 0), sent(1, "a", 40), shorter, sent(3, "a", 41)];
    let flush = folded(within(60), log);
    assert_eq!((flush.tallies.duplicates, flush.tallies.ticks, flush.tallies.counted), (1, 1, 2));
    assert_eq!(flush.horizon, within(30));
}

#[test]
fn a_stamp_older_than_the_horizon_is_recognised_for_ever() {
    let year = 365 * 86_400;
    let uuid = crate::accounts::uuid_at(second(0)).to_string();
    let plain = |id: &str, at| Payload::Event(event(id, at, None));
    let dated = |at| Payload::Event(event("b", at, Some(0)));
    let log = vec![
        record(0, 0, plain(&uuid, 0)),
        record(1, 0, dated(0)),
        record(2, year, plain(&uuid, year)),
        record(3, year, dated(year)),
    ];
    let flush = folded(within(60), log);
    assert_eq!((flush.tallies.counted, flush.tallies.duplicates), (2, 2));
}

#[test]
fn the_ledger_is_asked_for_what_the_door_may_have_let_in_early() {
    let ahead = i64::try_from(STAMP_AHEAD_MAX.as_secs()).unwrap();
    let admitted = event("a", 0, Some(1000 + ahead));
    assert!(within(60).outlived_by(&admitted, second(1061)));
    assert!(!within(60).outlived_by(&event("a", 0, None), second(1061)));
    assert!(!Horizon::Ever.outlived_by(&admitted, second(1061)));
}

/// Seconds to the next record, how far back its log time is, what it holds.
type Choice = (i64, i64, u8, Option<i64>, bool);

fn log() -> impl Strategy<Value = Vec<LogRecord>> {
    let choice = (0..25_i64, 0..5_i64, 0..7_u8, prop::option::of(-400..0_i64), any::<bool>());
    prop::collection::vec(choice, 1..60).prop_map(|choices: Vec<Choice>| {
        let mut now = 0;
        let record = |(offset, (step, back, what, made, late)): (u64, Choice)| {
            now += step;
            let log_time = now - back;
            let payload = match what {
                0 => Payload::Tick(Tick { horizon: within(20 * (1 + offset % 3)) }),
                id => {
                    let admitted_at = log_time - if late { 11 } else { 3 };
                    let made = made.map(|made| log_time + made);
                    Payload::Event(event(&id.to_string(), admitted_at, made))
                }
            };
            record(offset, log_time, payload)
        };
        (0..).zip(choices).map(record).collect()
    })
}

proptest! {
    #[test]
    fn any_cut_of_the_log_decides_alike(log in log(), sizes in prop::collection::vec(1..9_usize, 60)) {
        let whole = folded(within(60), log.clone());
        let (mut known, mut horizon) = (SeenIds::new(), within(60));
        let (mut counted, mut tallies, mut rest) = (vec![], Tallies::default(), &log[..]);
        for size in sizes {
            if rest.is_empty() { break }
            let (batch, after) = rest.split_at(size.min(rest.len()));
            let flush = fold(Partition::SINGLE, horizon, batch.to_vec(), &known).unwrap();
            (rest, horizon) = (after, flush.horizon);
            for one in &flush.counted {
                let content = one.admitted.content_digest;
                known.insert(one.admitted.id_digest, Seen { content, log_time: one.log_time });
            }
            counted.extend(flush.counted);
            let part = flush.tallies;
            tallies.counted += part.counted;
            tallies.duplicates += part.duplicates;
            tallies.dead_letters += part.dead_letters;
            tallies.void += part.void;
            tallies.ticks += part.ticks;
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(horizon, whole.horizon);
        prop_assert_eq!(tallies, whole.tallies);
        prop_assert_eq!(tallies.records(), Some(log.len() as u64));
        prop_assert_eq!(counted, whole.counted);
    }
}
