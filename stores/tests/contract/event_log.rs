//! The rules of the ports `EventLog` and `EventSource`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metering::accounts::UserId;
use metering::quota::{ADMISSION_WINDOW, MARGIN, PlanName};
use metering::time::Timestamp;
use metering::usage::{
    AdmittedEvent, AppendError, EventId, EventLog, EventSource, Flags, IdOrigin, LogRecord,
    ModelName, Offset, Partition, Payload, RequestType, TokenCounts, UsageEvent,
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
                everything_is_there_when_the_log_is_opened_again,
                concurrent_appends_are_all_stored_once_and_whole,
                a_request_that_has_lapsed_is_not_stored,
                one_lapsed_event_lapses_its_request,
                a_read_gives_at_most_what_was_asked_for,
                a_read_at_the_end_waits_and_comes_back_empty,
                a_waiting_read_is_woken_by_an_append,
                a_read_beyond_the_end_is_refused,
                a_partition_of_others_is_refused,
                trim_lets_go_of_what_is_below_and_older,
                a_log_trimmed_to_its_end_goes_on_there,
                what_comes_after_a_watermark_was_admitted_after_it,
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

const PARTITION: Partition = Partition::SINGLE;
const NO_PATIENCE: Duration = Duration::ZERO;
/// Longer than any append takes, so that a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

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

fn events(ids: &[&str], now: Timestamp) -> Vec<AdmittedEvent> {
    ids.iter().map(|id| event(id, now)).collect()
}

pub(crate) fn ids(records: &[LogRecord]) -> Vec<String> {
    let id = |record: &LogRecord| match &record.payload {
        Payload::Event(admitted) => admitted.event.event_id.to_string(),
        Payload::Undecodable { reason, .. } => format!("undecodable: {reason}"),
    };
    records.iter().map(id).collect()
}

pub(crate) async fn all(log: &impl EventSource) -> Vec<LogRecord> {
    log.read(PARTITION, Offset::default(), 1_000_000, NO_PATIENCE).await.unwrap()
}

fn offsets(records: &[LogRecord]) -> Vec<u64> {
    records.iter().map(|record| record.offset.number()).collect()
}

pub(crate) async fn records_come_back_in_order_at_dense_offsets(subject: &impl Subject) {
    let (log, now) = (subject.log(), subject.now());
    log.append(events(&["a", "b", "c"], now)).await.unwrap();
    log.append(events(&["d"], now)).await.unwrap();
    log.append(events(&["e", "f"], now)).await.unwrap();
    let records = all(&*log).await;
    assert_eq!(ids(&records), ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(offsets(&records), [0, 1, 2, 3, 4, 5]);
    assert_eq!(records[1].payload, Payload::Event(Box::new(event("b", now))));
    assert_eq!(log.end(PARTITION).await.unwrap(), Offset::new(6));
    assert_eq!(log.assigned(&BTreeSet::new()).await, BTreeSet::from([PARTITION]));
}

pub(crate) async fn an_append_answers_the_log_time_of_its_records(subject: &impl Subject) {
    let log = subject.log();
    let mut answered = log.append(events(&["a", "b"], subject.now())).await.unwrap();
    subject.second().await;
    answered.extend(log.append(events(&["c"], subject.now())).await.unwrap());
    let records = all(&*log).await;
    let stored: Vec<_> = records.iter().map(|record| record.log_time).collect();
    assert_eq!(answered.iter().map(|one| one.log_time).collect::<Vec<_>>(), stored);
    assert!(stored[0] < stored[2]);
}

pub(crate) async fn an_append_of_nothing_stores_nothing(subject: &impl Subject) {
    let log = subject.log();
    assert_eq!(log.append(Vec::new()).await.unwrap(), []);
    assert_eq!(log.end(PARTITION).await.unwrap(), Offset::default());
}

pub(crate) async fn everything_is_there_when_the_log_is_opened_again(subject: &impl Subject) {
    let now = subject.now();
    subject.log().append(events(&["a", "b"], now)).await.unwrap();
    let before = all(&*subject.log()).await;
    subject.reopen();
    let log = subject.log();
    assert_eq!(all(&*log).await, before);
    log.append(events(&["c"], now)).await.unwrap();
    let records = all(&*log).await;
    assert_eq!((ids(&records), offsets(&records)), (vec_of(&["a", "b", "c"]), vec![0, 1, 2]));
}

fn vec_of(ids: &[&str]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

pub(crate) async fn concurrent_appends_are_all_stored_once_and_whole(subject: &impl Subject) {
    let (log, now) = (subject.log(), subject.now());
    let appends: Vec<_> = (0..100)
        .map(|number| {
            let log = log.clone();
            let batch = (0..3).map(|place| event(&format!("{number}-{place}"), now)).collect();
            tokio::spawn(async move { log.append(batch).await })
        })
        .collect();
    for append in appends {
        assert_eq!(append.await.unwrap().unwrap().len(), 3);
    }
    let records = all(&*log).await;
    assert_eq!(offsets(&records), (0..300).collect::<Vec<_>>());
    let ids = ids(&records);
    for request in ids.chunks(3) {
        let number = request[0].strip_suffix("-0").unwrap();
        assert_eq!(request[1..], [format!("{number}-1"), format!("{number}-2")]);
    }
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 300);
}

fn long_ago(subject: &impl Subject) -> Timestamp {
    subject.now().minus(ADMISSION_WINDOW + MARGIN)
}

pub(crate) async fn a_request_that_has_lapsed_is_not_stored(subject: &impl Subject) {
    let log = subject.log();
    let lapsed = log.append(events(&["late"], long_ago(subject))).await;
    assert!(matches!(lapsed, Err(AppendError::Lapsed)), "{lapsed:?}");
    log.append(events(&["a"], subject.now())).await.unwrap();
    assert_eq!(ids(&all(&*log).await), ["a"]);
}

pub(crate) async fn one_lapsed_event_lapses_its_request(subject: &impl Subject) {
    let log = subject.log();
    let mut request = events(&["a", "b"], subject.now());
    request[1].admitted_at = long_ago(subject);
    let lapsed = log.append(request).await;
    assert!(matches!(lapsed, Err(AppendError::Lapsed)), "{lapsed:?}");
    assert_eq!(log.end(PARTITION).await.unwrap(), Offset::default());
}

pub(crate) async fn a_read_gives_at_most_what_was_asked_for(subject: &impl Subject) {
    let (log, now) = (subject.log(), subject.now());
    log.append(events(&["a", "b", "c"], now)).await.unwrap();
    log.append(events(&["d", "e"], now)).await.unwrap();
    let read =
        async |from, max| log.read(PARTITION, Offset::new(from), max, NO_PATIENCE).await.unwrap();
    assert_eq!(ids(&read(0, 2).await), ["a", "b"]);
    assert_eq!(ids(&read(2, 2).await), ["c", "d"]);
    assert_eq!(ids(&read(4, 2).await), ["e"]);
    assert_eq!(offsets(&read(1, 3).await), [1, 2, 3]);
}

pub(crate) async fn a_read_at_the_end_waits_and_comes_back_empty(subject: &impl Subject) {
    let log = subject.log();
    let none = log.read(PARTITION, Offset::default(), 10, Duration::from_millis(5)).await;
    assert_eq!(none.unwrap(), []);
    log.append(events(&["a"], subject.now())).await.unwrap();
    assert_eq!(log.read(PARTITION, Offset::new(1), 10, NO_PATIENCE).await.unwrap(), []);
}

pub(crate) async fn a_waiting_read_is_woken_by_an_append(subject: &impl Subject) {
    let log = subject.log();
    let waiting = {
        let log = log.clone();
        tokio::spawn(async move { log.read(PARTITION, Offset::default(), 10, PATIENCE).await })
    };
    tokio::task::yield_now().await;
    log.append(events(&["a"], subject.now())).await.unwrap();
    assert_eq!(ids(&waiting.await.unwrap().unwrap()), ["a"]);
}

pub(crate) async fn a_read_beyond_the_end_is_refused(subject: &impl Subject) {
    let log = subject.log();
    log.append(events(&["a"], subject.now())).await.unwrap();
    let error = log.read(PARTITION, Offset::new(2), 10, NO_PATIENCE).await.unwrap_err();
    assert!(error.reason.contains("ends at 1"), "{error}");
}

pub(crate) async fn a_partition_of_others_is_refused(subject: &impl Subject) {
    let log = subject.log();
    let foreign = Partition::new(1_000);
    assert!(log.read(foreign, Offset::default(), 10, NO_PATIENCE).await.is_err());
    assert!(log.end(foreign).await.is_err());
    assert!(log.watermark(foreign).await.is_err());
}

pub(crate) async fn trim_lets_go_of_what_is_below_and_older(subject: &impl Subject) {
    let log = subject.log();
    log.append(events(&["a", "b"], subject.now())).await.unwrap();
    subject.second().await;
    log.append(events(&["c"], subject.now())).await.unwrap();
    subject.second().await;
    let later = subject.now();
    log.append(events(&["d"], later)).await.unwrap();
    let trim = async |below, before| log.trim(PARTITION, Offset::new(below), before).await.unwrap();
    assert_eq!(trim(0, later).await, 0, "all of it is still to be counted");
    assert_eq!(trim(4, Timestamp::MIN).await, 0, "all of it is young");
    assert_eq!(trim(2, later).await, 2);
    assert_eq!(trim(4, later).await, 1);
    let kept = log.read(PARTITION, Offset::new(3), 10, NO_PATIENCE).await.unwrap();
    assert_eq!(ids(&kept), ["d"]);
    let error = log.read(PARTITION, Offset::new(1), 10, NO_PATIENCE).await.unwrap_err();
    assert!(error.reason.contains("does not hold the record at 1"), "{error}");
}

pub(crate) async fn a_log_trimmed_to_its_end_goes_on_there(subject: &impl Subject) {
    subject.log().append(events(&["a"], subject.now())).await.unwrap();
    subject.log().append(events(&["b"], subject.now())).await.unwrap();
    subject.log().trim(PARTITION, Offset::new(2), Timestamp::MAX).await.unwrap();
    subject.reopen();
    let log = subject.log();
    assert_eq!(log.end(PARTITION).await.unwrap(), Offset::new(2));
    log.append(events(&["c"], subject.now())).await.unwrap();
    let read = log.read(PARTITION, Offset::new(2), 10, NO_PATIENCE).await.unwrap();
    assert_eq!((ids(&read), offsets(&read)), (vec_of(&["c"]), vec![2]));
}

pub(crate) async fn what_comes_after_a_watermark_was_admitted_after_it(subject: &impl Subject) {
    let log = subject.log();
    for number in 0..10 {
        let watermark = log.watermark(PARTITION).await.unwrap();
        let end = log.end(PARTITION).await.unwrap();
        // Some lapse and are not stored; what is stored must keep the promise.
        let admitted_at = watermark.minus(Duration::from_secs(2 * number));
        log.append(vec![event(&format!("e{number}"), admitted_at)]).await.ok();
        for record in log.read(PARTITION, end, 10, NO_PATIENCE).await.unwrap() {
            let Payload::Event(admitted) = record.payload else { panic!("not an event") };
            assert!(admitted.admitted_at.plus(ADMISSION_WINDOW + MARGIN) >= watermark);
        }
    }
    assert!(log.end(PARTITION).await.unwrap() >= Offset::new(5), "most were stored");
}
