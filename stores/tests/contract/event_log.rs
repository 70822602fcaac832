//! The rules of the ports `EventLog` and `EventSource`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::{ADMISSION_WINDOW, MARGIN, PlanName};
use metering::time::Timestamp;
use metering::trace::TraceParent;
use metering::usage::{
    AdmittedEvent, AppendError, EventId, EventLog, EventSource, Flags, IdOrigin, LogRecord,
    ModelName, Offset, OffsetRange, Partition, Payload, RequestType, TokenCounts, UsageEvent,
    is_void,
};

macro_rules! event_log_contract {
    ($make:expr) => {
        rules!(
            event_log,
            event_log_rules,
            $make,
            [
                records_come_back_in_order_at_dense_offsets,
                an_append_answers_the_log_time_of_its_records,
                an_append_of_nothing_stores_nothing,
                a_trace_changes_nothing_that_is_read,
                everything_is_there_when_the_log_is_opened_again,
                concurrent_appends_are_all_stored_once_and_in_order,
                a_request_that_has_lapsed_is_not_counted,
                one_lapsed_event_lapses_its_request,
                a_read_gives_at_most_what_was_asked_for,
                a_read_at_the_end_waits_and_comes_back_empty,
                a_waiting_read_is_woken_by_an_append,
                a_read_beyond_the_end_is_refused,
                a_read_goes_wherever_it_is_asked_to,
                a_partition_of_others_is_refused,
                what_was_read_is_read_again_the_same,
            ]
        );
    };
}

/// A log under test, with its clock.
pub(crate) trait Subject {
    /// The adapter.
    type Log: EventLog + EventSource + 'static;
    fn log(&self) -> Arc<Self::Log>;
    /// The present by the log's clock.
    fn now(&self) -> Timestamp;
    /// As after a restart of the process. Nobody else may hold the log.
    fn reopen(&self);
    /// Lets a second pass, or waits for it.
    async fn second(&self);
}

pub(crate) const PARTITION: Partition = Partition::SINGLE;
pub(crate) const NO_PATIENCE: Duration = Duration::ZERO;
/// Longer than any append takes, so that a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn event(id: &str, admitted_at: Timestamp) -> AdmittedEvent {
    let event = UsageEvent {
        user_id: UserId::from_bytes([7; 16]),
        event_id: EventId::new(id).unwrap(),
        id_origin: IdOrigin::Client,
        request_type: RequestType::Chat,
        model: ModelName::new("gpt-4o"),
        tokens: TokenCounts { prompt: 100, completion: 20, cached: 3, reasoning: 4 },
        occurred_at: admitted_at,
        occurred_at_given: false,
        received_at: admitted_at,
        reservation_id: None,
        metadata: None,
    };
    AdmittedEvent {
        id_digest: event.id_digest(),
        content_digest: event.content_digest(),
        plan: PlanName::new("free"),
        admitted_at,
        flags: Flags::default(),
        over_hold: 0,
        event,
    }
}

pub(crate) fn events(ids: &[&str], now: Timestamp) -> Vec<AdmittedEvent> {
    ids.iter().map(|id| event(id, now)).collect()
}

pub(crate) fn ids(records: &[LogRecord]) -> Vec<String> {
    let id = |record: &LogRecord| match &record.payload {
        Payload::Event(admitted) => admitted.event.event_id.to_string(),
        Payload::Tick(_) => "tick".to_owned(),
        Payload::Undecodable { reason, .. } => format!("undecodable: {reason}"),
    };
    records.iter().map(id).collect()
}

/// A caller's trace.
pub(crate) fn trace() -> TraceParent {
    TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap()
}

/// Everything that is in the log now.
pub(crate) async fn all(log: &impl EventSource) -> Vec<LogRecord> {
    let end = log.end(PARTITION).await.unwrap();
    let count = usize::try_from(end.number()).unwrap();
    stretch(log, PARTITION, Offset::default(), count).await
}

/// So many records from `from` on, in as many reads as it takes.
pub(crate) async fn stretch(
    log: &impl EventSource,
    partition: Partition,
    from: Offset,
    count: usize,
) -> Vec<LogRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        let next = from.plus(records.len().try_into().unwrap());
        let rest = count - records.len();
        let read = log.read(partition, next, rest, PATIENCE).await.unwrap();
        assert!((1..=rest).contains(&read.len()), "{} of {rest} at {next}", read.len());
        records.extend(read);
    }
    records
}

pub(crate) fn offsets(records: &[LogRecord]) -> Vec<u64> {
    records.iter().map(|record| record.offset.number()).collect()
}

pub(crate) async fn records_come_back_in_order_at_dense_offsets(subject: &impl Subject) {
    let (log, now) = (subject.log(), subject.now());
    log.append(events(&["a", "b", "c"], now), None).await.unwrap();
    log.append(events(&["d"], now), None).await.unwrap();
    log.append(events(&["e", "f"], now), None).await.unwrap();
    let records = all(&*log).await;
    assert_eq!(ids(&records), ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(offsets(&records), [0, 1, 2, 3, 4, 5]);
    assert_eq!(records[1].payload, Payload::Event(Box::new(event("b", now))));
    assert_eq!(log.end(PARTITION).await.unwrap(), Offset::new(6));
    assert_eq!(log.assigned(&BTreeSet::new()).await, BTreeSet::from([PARTITION]));
}

pub(crate) async fn an_append_answers_the_log_time_of_its_records(subject: &impl Subject) {
    let log = subject.log();
    let mut answered = log.append(events(&["a", "b"], subject.now()), None).await.unwrap();
    subject.second().await;
    answered.extend(log.append(events(&["c"], subject.now()), None).await.unwrap());
    let records = all(&*log).await;
    let stored: Vec<_> = records.iter().map(|record| record.log_time).collect();
    assert_eq!(answered.iter().map(|one| one.log_time).collect::<Vec<_>>(), stored);
    assert!(stored[0] < stored[2]);
}

pub(crate) async fn an_append_of_nothing_stores_nothing(subject: &impl Subject) {
    let log = subject.log();
    assert_eq!(log.append(Vec::new(), None).await.unwrap(), []);
    assert_eq!(log.end(PARTITION).await.unwrap(), Offset::default());
}

pub(crate) async fn a_trace_changes_nothing_that_is_read(subject: &impl Subject) {
    let (log, now) = (subject.log(), subject.now());
    log.append(events(&["a", "b"], now), Some(trace())).await.unwrap();
    log.append(events(&["c"], now), None).await.unwrap();
    let records = all(&*log).await;
    assert_eq!(offsets(&records), [0, 1, 2]);
    for (record, id) in records.iter().zip(["a", "b", "c"]) {
        assert_eq!(record.payload, Payload::Event(Box::new(event(id, now))));
    }
    let range = OffsetRange { start: Offset::default(), end: Offset::new(3) };
    assert_eq!(log.read_again(PARTITION, range, 10).await.unwrap(), records);
}

pub(crate) async fn everything_is_there_when_the_log_is_opened_again(subject: &impl Subject) {
    let now = subject.now();
    subject.log().append(events(&["a", "b"], now), None).await.unwrap();
    let before = all(&*subject.log()).await;
    subject.reopen();
    let log = subject.log();
    assert_eq!(all(&*log).await, before);
    log.append(events(&["c"], now), None).await.unwrap();
    let records = all(&*log).await;
    assert_eq!((ids(&records), offsets(&records)), (vec_of(&["a", "b", "c"]), vec![0, 1, 2]));
}

fn vec_of(ids: &[&str]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

pub(crate) async fn concurrent_appends_are_all_stored_once_and_in_order(subject: &impl Subject) {
    let (log, now) = (subject.log(), subject.now());
    let appends: Vec<_> = (0..100)
        .map(|number| {
            let log = log.clone();
            let batch = (0..3).map(|place| event(&format!("{number}-{place}"), now)).collect();
            tokio::spawn(async move { log.append(batch, None).await })
        })
        .collect();
    for append in appends {
        assert_eq!(append.await.unwrap().unwrap().len(), 3);
    }
    let records = all(&*log).await;
    assert_eq!(offsets(&records), (0..300).collect::<Vec<_>>());
    let ids = ids(&records);
    let place = |id: String| ids.iter().position(|one| *one == id).unwrap();
    for number in 0..100 {
        let places: Vec<_> = (0..3).map(|event| place(format!("{number}-{event}"))).collect();
        assert!(places.is_sorted(), "{number}: {places:?}");
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 300);
}

/// What the fold counts of it.
fn counted(records: Vec<LogRecord>) -> Vec<String> {
    let is_counted = |record: &LogRecord| match &record.payload {
        Payload::Event(admitted) => !is_void(admitted, record.log_time),
        Payload::Tick(_) | Payload::Undecodable { .. } => false,
    };
    ids(&records.into_iter().filter(is_counted).collect::<Vec<_>>())
}

fn long_ago(subject: &impl Subject) -> Timestamp {
    subject.now().minus(ADMISSION_WINDOW + MARGIN)
}

pub(crate) async fn a_request_that_has_lapsed_is_not_counted(subject: &impl Subject) {
    let log = subject.log();
    let lapsed = log.append(events(&["late"], long_ago(subject)), None).await;
    assert!(matches!(lapsed, Err(AppendError::Lapsed)), "{lapsed:?}");
    log.append(events(&["a"], subject.now()), None).await.unwrap();
    assert_eq!(counted(all(&*log).await), ["a"]);
}

pub(crate) async fn one_lapsed_event_lapses_its_request(subject: &impl Subject) {
    let log = subject.log();
    let mut request = events(&["a", "b"], subject.now());
    request[1].admitted_at = long_ago(subject);
    let lapsed = log.append(request, None).await;
    assert!(matches!(lapsed, Err(AppendError::Lapsed)), "{lapsed:?}");
    assert!(!counted(all(&*log).await).contains(&"b".to_owned()));
}

pub(crate) async fn a_read_gives_at_most_what_was_asked_for(subject: &impl Subject) {
    let (log, now) = (subject.log(), subject.now());
    log.append(events(&["a", "b", "c"], now), None).await.unwrap();
    log.append(events(&["d", "e"], now), None).await.unwrap();
    let read = async |from, count| stretch(&*log, PARTITION, Offset::new(from), count).await;
    assert_eq!(ids(&read(0, 2).await), ["a", "b"]);
    assert_eq!(ids(&read(2, 2).await), ["c", "d"]);
    let rest = log.read(PARTITION, Offset::new(4), 2, PATIENCE).await.unwrap();
    assert_eq!(ids(&rest), ["e"]);
    assert_eq!(offsets(&read(1, 3).await), [1, 2, 3]);
}

pub(crate) async fn a_read_at_the_end_waits_and_comes_back_empty(subject: &impl Subject) {
    let log = subject.log();
    let none = log.read(PARTITION, Offset::default(), 10, Duration::from_millis(5)).await;
    assert_eq!(none.unwrap(), []);
    log.append(events(&["a"], subject.now()), None).await.unwrap();
    assert_eq!(log.read(PARTITION, Offset::new(1), 10, NO_PATIENCE).await.unwrap(), []);
}

pub(crate) async fn a_waiting_read_is_woken_by_an_append(subject: &impl Subject) {
    let log = subject.log();
    let waiting = {
        let log = log.clone();
        tokio::spawn(async move { log.read(PARTITION, Offset::default(), 10, PATIENCE).await })
    };
    tokio::task::yield_now().await;
    log.append(events(&["a"], subject.now()), None).await.unwrap();
    assert_eq!(ids(&waiting.await.unwrap().unwrap()), ["a"]);
}

pub(crate) async fn a_read_beyond_the_end_is_refused(subject: &impl Subject) {
    let log = subject.log();
    log.append(events(&["a"], subject.now()), None).await.unwrap();
    let error = log.read(PARTITION, Offset::new(2), 10, NO_PATIENCE).await.unwrap_err();
    assert!(error.reason.contains("ends at 1"), "{error}");
}

pub(crate) async fn a_read_goes_wherever_it_is_asked_to(subject: &impl Subject) {
    let (log, now) = (subject.log(), subject.now());
    let names: Vec<_> = (0..20).map(|number| format!("e{number}")).collect();
    log.append(names.iter().map(|name| event(name, now)).collect(), None).await.unwrap();
    for from in [0, 15, 3, 4, 19, 0, 7] {
        let read = stretch(&*log, PARTITION, Offset::new(from), 1).await;
        assert_eq!(ids(&read), [format!("e{from}")]);
    }
}

pub(crate) async fn a_partition_of_others_is_refused(subject: &impl Subject) {
    let log = subject.log();
    let foreign = Partition::new(1_000);
    assert!(log.read(foreign, Offset::default(), 10, NO_PATIENCE).await.is_err());
    assert!(log.end(foreign).await.is_err());
    assert!(log.watermark(foreign).await.is_err());
}

pub(crate) async fn what_was_read_is_read_again_the_same(subject: &impl Subject) {
    let (log, now) = (subject.log(), subject.now());
    log.append(events(&["a", "b", "c", "d", "e"], now), None).await.unwrap();
    let first = stretch(&*log, PARTITION, Offset::default(), 3).await;
    let again = async |start, end, max| {
        let range = OffsetRange { start: Offset::new(start), end: Offset::new(end) };
        log.read_again(PARTITION, range, max).await.unwrap()
    };
    assert_eq!(again(0, 3, 10).await, first, "to the end of the range, no further");
    assert_eq!(again(0, 3, 2).await, first[..2], "at most what was asked for");
    assert_eq!(again(2, 3, 10).await, first[2..]);
    assert_eq!(again(1, 1, 10).await, []);
    let rest = stretch(&*log, PARTITION, Offset::new(3), 2).await;
    assert_eq!(ids(&rest), ["d", "e"], "it goes on where it stood");
}
