//! What became of the records of one request: one answer when the last of them is confirmed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use metering::Unavailable;
use metering::time::Timestamp;
use metering::usage::Partition;
use metrics::{Gauge, Histogram};
use tokio::sync::oneshot;

use super::unavailable;

/// Records of all requests that are on their way. More would wait longer than a client does.
const RECORDS_MAX: usize = 262_144;

/// Bytes of their values and headers: bounds memory while no broker answers.
const BYTES_MAX: usize = 64 << 20;

/// What is on its way through one producer.
#[derive(Debug)]
pub(super) struct Room {
    records: AtomicUsize,
    bytes: AtomicUsize,
    meters: Meters,
}

/// Resolved once: to look a metric up by its name for each request is not cheap.
#[derive(Debug)]
struct Meters {
    queue: Gauge,
    commit_records: Histogram,
    commit_seconds: Histogram,
}

/// A request's share; given back when Kafka has let go of its last record.
#[derive(Debug)]
struct Reserved {
    room: Arc<Room>,
    records: usize,
    bytes: usize,
}

impl Default for Room {
    /// The recorder must be installed before.
    fn default() -> Self {
        let meters = Meters {
            queue: metrics::gauge!("tokenmeter_log_queue_records"),
            commit_records: metrics::histogram!("tokenmeter_log_commit_records"),
            commit_seconds: metrics::histogram!("tokenmeter_log_commit_seconds"),
        };
        Self { records: AtomicUsize::default(), bytes: AtomicUsize::default(), meters }
    }
}

impl Room {
    /// A single request that is larger than all the room passes when nothing else is on its way.
    fn reserve(self: &Arc<Self>, records: usize, bytes: usize) -> Option<Reserved> {
        let records_before = self.records.fetch_add(records, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meters.queue.increment(gauged(records));
        let reserved = Reserved { room: self.clone(), records, bytes };
        let fits = records_before.saturating_add(records) <= RECORDS_MAX
            && bytes_before.saturating_add(bytes) <= BYTES_MAX;
        (fits || records_before == 0).then_some(reserved)
    }
}

/// Below [`RECORDS_MAX`], except for a request of more.
fn gauged(records: usize) -> f64 {
    f64::from(u32::try_from(records).unwrap_or(u32::MAX))
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.room.records.fetch_sub(self.records, Ordering::Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.room.meters.queue.decrement(gauged(self.records));
    }
}

/// The log times of a request's records, in its order.
pub(super) type Confirmed = Result<Vec<Timestamp>, Unavailable>;

/// A request whose records are on their way.
#[derive(Debug)]
pub(super) struct Request {
    state: Mutex<State>,
    started: Instant,
    reserved: Reserved,
}

#[derive(Debug)]
struct State {
    missing: usize,
    log_times: Vec<Timestamp>,
    /// Gone once the request is answered: by its last record, or by the first that failed.
    answer: Option<oneshot::Sender<Confirmed>>,
}

/// One record of a request: what Kafka hands back with its delivery report.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) request: Arc<Request>,
    pub(super) place: usize,
    pub(super) partition: Partition,
}

impl Record {
    pub(super) fn report(&self, outcome: Result<Timestamp, Unavailable>) {
        self.request.report(self.place, outcome);
    }
}

impl Request {
    /// A request of so many records and bytes, and its answer.
    ///
    /// # Errors
    /// [`Unavailable`]: too much is on its way already.
    pub(super) fn start(
        room: &Arc<Room>,
        records: usize,
        bytes: usize,
    ) -> Result<(Arc<Self>, oneshot::Receiver<Confirmed>), Unavailable> {
        let reserved = room
            .reserve(records, bytes)
            .ok_or_else(|| unavailable("its queue is full: too much waits for Kafka"))?;
        let (answer, answered) = oneshot::channel();
        let state = State {
            missing: records,
            log_times: vec![Timestamp::MIN; records],
            answer: Some(answer),
        };
        let request = Self { state: Mutex::new(state), started: Instant::now(), reserved };
        Ok((Arc::new(request), answered))
    }

    fn report(&self, place: usize, outcome: Result<Timestamp, Unavailable>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.missing = state.missing.saturating_sub(1);
        let confirmed = match outcome {
            Err(error) => Err(error),
            Ok(log_time) => {
                if let Some(noted) = state.log_times.get_mut(place) {
                    *noted = log_time;
                }
                if state.missing > 0 {
                    return;
                }
                Ok(std::mem::take(&mut state.log_times))
            }
        };
        let Some(answer) = state.answer.take() else { return };
        drop(state);
        if let Ok(log_times) = &confirmed {
            let records = u32::try_from(log_times.len()).unwrap_or(u32::MAX);
            let meters = &self.reserved.room.meters;
            meters.commit_records.record(records);
            meters.commit_seconds.record(self.started.elapsed());
        }
        // Nobody waits any more when the client has hung up.
        drop(answer.send(confirmed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(answered: &mut oneshot::Receiver<Confirmed>) -> Option<Confirmed> {
        answered.try_recv().ok()
    }

    #[test]
    fn a_request_is_answered_by_its_last_record_in_its_own_order() {
        let room = Arc::new(Room::default());
        let (request, mut answered) = Request::start(&room, 2, 10).unwrap();
        request.report(1, Ok(Timestamp::from_millis(8)));
        assert!(confirmed(&mut answered).is_none());
        request.report(0, Ok(Timestamp::from_millis(7)));
        let times = confirmed(&mut answered).unwrap().unwrap();
        assert_eq!(times, [Timestamp::from_millis(7), Timestamp::from_millis(8)]);
    }

    #[test]
    fn a_request_with_a_failed_record_is_never_confirmed() {
        let room = Arc::new(Room::default());
        let (request, mut answered) = Request::start(&room, 2, 10).unwrap();
        request.report(0, Err(unavailable("away")));
        request.report(1, Ok(Timestamp::from_millis(8)));
        assert!(confirmed(&mut answered).unwrap().is_err());
    }

    #[test]
    fn room_is_given_back_when_the_last_record_is_gone() {
        let room = Arc::new(Room::default());
        let (request, _answered) = Request::start(&room, 1, BYTES_MAX).unwrap();
        assert!(Request::start(&room, 1, 1).is_err());
        let record = Record { request, place: 0, partition: Partition::SINGLE };
        drop(record);
        assert!(Request::start(&room, RECORDS_MAX + 1, BYTES_MAX + 1).is_ok(), "alone it passes");
        assert_eq!(room.records.load(Ordering::Relaxed), 0);
    }
}
