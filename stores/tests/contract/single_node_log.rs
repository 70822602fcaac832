//! The rules of a log that has one partition, its own clock, and lets go of records when told to.

use std::time::Duration;

use metering::quota::{ADMISSION_WINDOW, MARGIN};
use metering::time::Timestamp;
use metering::usage::{AppendError, EventLog, EventSource, Offset, Payload};

use super::event_log::{NO_PATIENCE, PARTITION, Subject, event, events, ids, offsets};

macro_rules! single_node_log_contract {
    ($make:expr) => {
        rules!(
            single_node_log,
            single_node_log_rules,
            $make,
            [
                what_has_lapsed_is_not_even_stored,
                trim_lets_go_of_what_is_below_and_older,
                a_log_trimmed_to_its_end_goes_on_there,
                what_comes_after_a_watermark_was_admitted_after_it,
            ]
        );
    };
}

pub(crate) async fn what_has_lapsed_is_not_even_stored(subject: &impl Subject) {
    let log = subject.log();
    let mut request = events(&["a", "b"], subject.now());
    request[1].admitted_at = subject.now().minus(ADMISSION_WINDOW + MARGIN);
    let lapsed = log.append(request, None).await;
    assert!(matches!(lapsed, Err(AppendError::Lapsed)), "{lapsed:?}");
    assert_eq!(log.end(PARTITION).await.unwrap(), Offset::default());
}

pub(crate) async fn trim_lets_go_of_what_is_below_and_older(subject: &impl Subject) {
    let log = subject.log();
    log.append(events(&["a", "b"], subject.now()), None).await.unwrap();
    subject.second().await;
    log.append(events(&["c"], subject.now()), None).await.unwrap();
    subject.second().await;
    let later = subject.now();
    log.append(events(&["d"], later), None).await.unwrap();
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
    subject.log().append(events(&["a"], subject.now()), None).await.unwrap();
    subject.log().append(events(&["b"], subject.now()), None).await.unwrap();
    subject.log().trim(PARTITION, Offset::new(2), Timestamp::MAX).await.unwrap();
    subject.reopen();
    let log = subject.log();
    assert_eq!(log.end(PARTITION).await.unwrap(), Offset::new(2));
    log.append(events(&["c"], subject.now()), None).await.unwrap();
    let read = log.read(PARTITION, Offset::new(2), 10, NO_PATIENCE).await.unwrap();
    assert_eq!((ids(&read), offsets(&read)), (vec!["c".to_owned()], vec![2]));
}

pub(crate) async fn what_comes_after_a_watermark_was_admitted_after_it(subject: &impl Subject) {
    let log = subject.log();
    for number in 0..10 {
        let watermark = log.watermark(PARTITION).await.unwrap().unwrap();
        let end = log.end(PARTITION).await.unwrap();
        // Some lapse and are not stored; what is stored must keep the promise.
        let admitted_at = watermark.minus(Duration::from_secs(2 * number));
        log.append(vec![event(&format!("e{number}"), admitted_at)], None).await.ok();
        for record in log.read(PARTITION, end, 10, NO_PATIENCE).await.unwrap() {
            let Payload::Event(admitted) = record.payload else { panic!("not an event") };
            assert!(admitted.admitted_at.plus(ADMISSION_WINDOW + MARGIN) >= watermark);
        }
    }
    assert!(log.end(PARTITION).await.unwrap() >= Offset::new(5), "most were stored");
}
