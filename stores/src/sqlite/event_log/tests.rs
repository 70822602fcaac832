//! What can only be seen with a hand on the writer's own connection.

use metering::time::{ManualClock, Timestamp};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::*;

struct Rig {
    jobs: Sender<Job>,
    end: watch::Receiver<Offset>,
    timeline: Arc<Timeline>,
    clock: Arc<ManualClock>,
    _directory: tempfile::TempDir,
}

/// A writer on a connection that `prepare` has changed.
fn rig(change: impl FnOnce(&Connection)) -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let connection = LOG.open(&directory.path().join("log.db")).unwrap();
    let last = writer::prepare(&connection).unwrap();
    change(&connection);
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let timeline = Arc::new(Timeline::new(clock.clone(), last.log_time));
    let (published, end) = watch::channel(last.end);
    let (jobs, waiting) = channel();
    let failing = Arc::default();
    let writer = Writer::new(connection, last.end, published, timeline.clone(), failing);
    std::thread::spawn(move || writer.run(&waiting));
    Rig { jobs, end, timeline, clock, _directory: directory }
}

impl Rig {
    async fn append(&self, body: Vec<u8>) -> Result<Timestamp, AppendError> {
        let (answer, answered) = oneshot::channel();
        let reserved = Arc::new(Queue::default()).reserve(body.len()).unwrap();
        let oldest = Timestamp::from_millis(1_000_000);
        self.jobs
            .send(Job::Append(Request { body, records: 1, oldest, reserved, answer }))
            .unwrap();
        answered.await.unwrap()
    }
}

#[tokio::test]
async fn a_full_disk_is_unavailable_until_there_is_room() {
    let rig = rig(|connection| connection.pragma_update(None, "max_page_count", 40).unwrap());
    let large = rig.append(vec![0; 1 << 20]).await;
    assert!(
        matches!(&large, Err(AppendError::Unavailable(error)) if error.reason.contains("full"))
    );
    assert_eq!(*rig.end.borrow(), Offset::default());
    rig.append(vec![0; 100]).await.unwrap();
    assert_eq!(*rig.end.borrow(), Offset::new(1));
}

#[tokio::test]
async fn the_watermark_stands_at_a_commit_that_is_under_way() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000)));
    let timeline = Timeline::new(clock.clone(), Timestamp::MIN);
    assert_eq!(timeline.begin_commit(), Timestamp::from_millis(1_000));
    clock.set(Timestamp::from_millis(60_000));
    assert_eq!(timeline.watermark(), Timestamp::from_millis(1_000));
    timeline.end_commit();
    assert_eq!(timeline.watermark(), Timestamp::from_millis(60_000));
}

#[tokio::test]
async fn a_failed_commit_does_not_hold_the_watermark_once_its_fate_is_known() {
    let rig = rig(|connection| connection.pragma_update(None, "max_page_count", 40).unwrap());
    rig.append(vec![0; 1 << 20]).await.unwrap_err();
    rig.clock.set(Timestamp::from_millis(1_005_000));
    assert_eq!(rig.timeline.watermark(), Timestamp::from_millis(1_005_000));
}

#[test]
fn the_queue_has_room_for_one_request_of_any_size() {
    let queue = Arc::new(Queue::default());
    let large = queue.reserve(QUEUE_BYTES_MAX * 2).unwrap();
    assert!(queue.reserve(1).is_none());
    drop(large);
    assert!(queue.reserve(1).is_some());
    assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn there_is_room_until_too_many_records_wait_to_be_counted() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let mut log = SqliteEventLog::open(&directory.path().join("log.db"), clock).unwrap();
    log.waiting_records_max = 3;
    let append = async |log: &SqliteEventLog| {
        let (answer, answered) = oneshot::channel();
        let reserved = log.queue.reserve(1).unwrap();
        let oldest = Timestamp::from_millis(1_000_000);
        let request = Request { body: vec![0], records: 1, oldest, reserved, answer };
        log.send(Job::Append(request)).unwrap();
        answered.await.unwrap().unwrap();
    };
    for _ in 0..3 {
        log.has_room().unwrap();
        append(&log).await;
    }
    assert_eq!(log.has_room().unwrap_err().reason, "3 records wait to be counted");
    // Who counts asks for what comes after it.
    log.read(Partition::SINGLE, Offset::new(1), 1, Duration::ZERO).await.unwrap();
    log.has_room().unwrap();
}
