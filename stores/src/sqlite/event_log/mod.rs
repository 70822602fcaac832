//! The single node's event log: a SQLite file, one thread that writes, group commit.
//!
//! Callers encode their events and queue them; the writer takes whatever waits, commits it with one
//! fsync, and answers everybody. There is no timer: an idle log commits at once, a busy one commits
//! what came in during the last fsync. Readers have a connection of their own and never wait for
//! the writer.

mod reader;
#[cfg(test)]
mod tests;
mod timeline;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::time::{Clock, Timestamp};
use metering::trace::TraceParent;
use metering::usage::{
    AdmittedEvent, AppendError, Appended, EventLog, EventSource, LogRecord, Offset, OffsetRange,
    Partition, Tick,
};
use tokio::sync::{oneshot, watch};

use super::database::{Database, Durability, OpenError};
use crate::record;
use reader::Reader;
use timeline::Timeline;
use writer::{Job, Request, Reserved, TrimRequest, Writer};

const LOG: Database = Database {
    migrations: &[include_str!("../../../../migrations/sqlite/log/0001_segments.sql")],
    durability: Durability::Full,
    // Only another program's write lock makes the writer wait. Longer, and admissions lapse while
    // their callers still hope.
    busy_timeout: Duration::from_secs(2),
};

/// Requests that wait for their answer. More would wait longer than a client does: they are told to
/// come back instead.
const QUEUE_REQUESTS_MAX: usize = 4096;

/// Bytes of their encoded events: bounds memory when the disk stalls.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Records that may wait to be counted. More would take more than some 25 s to count after a crash, which
/// admissions wait for, and more than the 350 MB that the quota counter keeps of these.
const WAITING_RECORDS_MAX: u64 = 2_000_000;

/// The single node's event log in one SQLite file (`log.db`).
///
/// Dropping it finishes what is queued and closes the file.
#[derive(Debug)]
pub struct SqliteEventLog {
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    queue: Arc<Queue>,
    timeline: Arc<Timeline>,
    failing: Arc<AtomicBool>,
    end: watch::Receiver<Offset>,
    reader: Arc<Reader>,
    /// From where records were last asked for: those before are counted, or as good as.
    read_from: AtomicU64,
    waiting_records_max: u64,
}

/// What waits for the writer or is in its commit.
#[derive(Debug, Default)]
struct Queue {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

impl SqliteEventLog {
    /// Opens the file, or makes it, and starts the writer.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let failed = |source| OpenError::sqlite(path, source);
        let connection = LOG.open(path)?;
        let last = writer::prepare(&connection).map_err(failed)?;
        let reader = Arc::new(Reader::new(LOG.open_reader(path)?));
        let timeline = Arc::new(Timeline::new(clock, last.log_time));
        let queue = Arc::new(Queue::default());
        let (jobs, waiting) = channel();
        let (published, end) = watch::channel(last.end);
        let failing = Arc::new(AtomicBool::new(false));
        let writer =
            Writer::new(connection, last.end, published, timeline.clone(), failing.clone());
        let writer = std::thread::Builder::new()
            .name("event-log".to_owned())
            .spawn(move || writer.run(&waiting))
            .map_err(|error| {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOMEM);
                failed(rusqlite::Error::SqliteFailure(code, Some(error.to_string())))
            })?;
        Ok(Self {
            jobs: Some(jobs),
            writer: Some(writer),
            queue,
            timeline,
            failing,
            // Who reads begins wherever counting stands: until then nothing is known to wait.
            read_from: AtomicU64::new(last.end.number()),
            end,
            reader,
            waiting_records_max: WAITING_RECORDS_MAX,
        })
    }

    /// Whether the last commit failed, so that the next append probably does too.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Describes this log's metrics.
    pub fn describe() {
        metrics::describe_histogram!(
            "tokenmeter_log_commit_records",
            "Records that one commit of the event log made durable"
        );
        metrics::describe_histogram!(
            "tokenmeter_log_commit_seconds",
            metrics::Unit::Seconds,
            "Time that one commit of the event log took, fsync included"
        );
        metrics::describe_gauge!(
            "tokenmeter_log_queue_requests",
            "Requests that wait for the event log's next commit"
        );
    }

    fn send(&self, job: Job) -> Result<(), Unavailable> {
        let Some(jobs) = &self.jobs else {
            return Err(stopped());
        };
        jobs.send(job).map_err(|_| stopped())
    }
}

impl Drop for SqliteEventLog {
    fn drop(&mut self) {
        // The writer closes its connection last: only one that may write moves the journal into the
        // file.
        self.reader.close();
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the event log's writer panicked");
        }
    }
}

#[async_trait]
impl EventLog for SqliteEventLog {
    /// The trace is dropped: the records have no headers, and only this process reads them.
    async fn append(
        &self,
        events: Vec<AdmittedEvent>,
        _trace: Option<TraceParent>,
    ) -> Result<Vec<Appended>, AppendError> {
        let Some(oldest) = events.iter().map(|event| event.admitted_at).min() else {
            return Ok(Vec::new());
        };
        // Here and not in the writer: there is one writer, and many callers.
        let mut body = Vec::with_capacity(events.len() * 256);
        for event in &events {
            record::encode_delimited(event, &mut body);
        }
        let records = events.len();
        drop(events);
        let reserved = self.queue.reserve(body.len()).ok_or_else(|| {
            metrics::gauge!("tokenmeter_log_queue_requests").set(self.queue.requests());
            unavailable("its queue is full")
        })?;
        let (answer, answered) = oneshot::channel();
        self.send(Job::Append(Request {
            body,
            records: u64::try_from(records).unwrap_or(u64::MAX),
            oldest,
            reserved,
            answer,
        }))?;
        let log_time = answered.await.map_err(|_| stopped())??;
        Ok(vec![Appended { log_time }; records])
    }

    fn has_room(&self) -> Result<(), Unavailable> {
        let end = self.end.borrow().number();
        let waiting = end.saturating_sub(self.read_from.load(Ordering::Relaxed));
        if waiting < self.waiting_records_max {
            return Ok(());
        }
        Err(unavailable(format!("{waiting} records wait to be counted")))
    }
}

#[async_trait]
impl EventSource for SqliteEventLog {
    async fn assigned(&self, unlike: &BTreeSet<Partition>) -> BTreeSet<Partition> {
        let only = BTreeSet::from([Partition::SINGLE]);
        if *unlike == only { std::future::pending().await } else { only }
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        records_max: usize,
        patience: Duration,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        only(partition)?;
        self.read_from.store(from.number(), Ordering::Relaxed);
        let mut ends = self.end.clone();
        let end = *ends.borrow_and_update();
        if from > end {
            return Err(unavailable(format!("it ends at {end}, before {from}")));
        }
        if from == end {
            let more = ends.wait_for(|end| *end > from);
            match tokio::time::timeout(patience, more).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(stopped()),
                Err(_) => return Ok(Vec::new()),
            }
        }
        let end = *self.end.borrow();
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || reader.read(from, end, records_max))
            .await
            .map_err(unavailable)?
    }

    async fn read_again(
        &self,
        partition: Partition,
        range: OffsetRange,
        records_max: usize,
    ) -> Result<Vec<LogRecord>, Unavailable> {
        only(partition)?;
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || reader.read(range.start, range.end, records_max))
            .await
            .map_err(unavailable)?
    }

    async fn end(&self, partition: Partition) -> Result<Offset, Unavailable> {
        only(partition)?;
        Ok(*self.end.borrow())
    }

    async fn watermark(&self, partition: Partition) -> Result<Option<Timestamp>, Unavailable> {
        only(partition)?;
        Ok(Some(self.timeline.watermark()))
    }

    async fn tick(&self, partition: Partition, _: Tick) -> Result<(), Unavailable> {
        only(partition)
    }

    async fn trim(
        &self,
        partition: Partition,
        below: Offset,
        before: Timestamp,
    ) -> Result<u64, Unavailable> {
        only(partition)?;
        let mut gone = 0;
        loop {
            let (answer, answered) = oneshot::channel();
            self.send(Job::Trim(TrimRequest { below, before, answer }))?;
            let trimmed = answered.await.map_err(|_| stopped())??;
            gone += trimmed.records;
            if !trimmed.more {
                return Ok(gone);
            }
        }
    }
}

impl Queue {
    /// Room for a request; given back when the answer is on its way. A single request that is
    /// larger than all the room passes when nothing else waits.
    fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let requests = self.requests.fetch_add(1, Ordering::Relaxed);
        let reserved = Reserved { queue: self.clone(), bytes };
        let room = before == 0 || before.saturating_add(bytes) <= QUEUE_BYTES_MAX;
        (room && requests < QUEUE_REQUESTS_MAX).then_some(reserved)
    }

    fn requests(&self) -> f64 {
        u32::try_from(self.requests.load(Ordering::Relaxed)).map_or(f64::MAX, f64::from)
    }
}

fn only(partition: Partition) -> Result<(), Unavailable> {
    if partition == Partition::SINGLE {
        return Ok(());
    }
    Err(unavailable(format!("it has partition 0 only, not {partition}")))
}

fn unavailable(reason: impl std::fmt::Display) -> Unavailable {
    Unavailable::new("event_log", reason)
}

fn stopped() -> Unavailable {
    unavailable("its writer has stopped")
}
