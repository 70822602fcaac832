//! The one thread that writes the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use metering::Unavailable;
use metering::quota::ADMISSION_WINDOW;
use metering::time::Timestamp;
use metering::usage::{AppendError, Offset};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{oneshot, watch};

use super::{Queue, Timeline, unavailable};

/// What one commit takes at most: bounds how long everybody in it waits.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Where a segment is cut. Smaller ones cost a row each, larger ones are read whole to get at one
/// record. A request is never split, so a large batch makes a large segment.
const SEGMENT_BYTES: usize = 256 << 10;

/// Segments that one transaction of a trim deletes: appends wait for it.
const TRIM_SEGMENTS_MAX: usize = 256;

/// Pages of the WAL after which the writer copies them into the file, 8 MiB: every commit that
/// meets this waits for it (some 20 ms), so not larger; smaller ones copy the same page more often.
const CHECKPOINT_PAGES: u32 = 2048;

/// To this size the WAL is cut back after a reader held up its reuse.
const WAL_BYTES_MAX: u32 = 64 << 20;

/// Something for the writer to do.
pub(super) enum Job {
    Append(Request),
    Trim(TrimRequest),
}

/// The events of one `append`, encoded.
pub(super) struct Request {
    /// Records, each after its length.
    pub(super) body: Vec<u8>,
    pub(super) records: u64,
    /// The earliest `admitted_at`: it lapses first.
    pub(super) oldest: Timestamp,
    pub(super) reserved: Reserved,
    /// The caller may be gone: then nobody is told.
    pub(super) answer: oneshot::Sender<Result<Timestamp, AppendError>>,
}

/// Deletes what lies below an offset and before a time.
pub(super) struct TrimRequest {
    pub(super) below: Offset,
    pub(super) before: Timestamp,
    pub(super) answer: oneshot::Sender<Result<Trimmed, Unavailable>>,
}

/// What one transaction of a trim did.
pub(super) struct Trimmed {
    pub(super) records: u64,
    /// Perhaps there is more to delete.
    pub(super) more: bool,
}

/// Room in the queue; given back when dropped.
pub(super) struct Reserved {
    pub(super) queue: Arc<Queue>,
    pub(super) bytes: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.queue.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.queue.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the log ends, as the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) end: Offset,
    pub(super) log_time: Timestamp,
}

/// Settings of the writing connection; answers where the log ends.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<Last> {
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    last(connection)
}

fn last(connection: &Connection) -> rusqlite::Result<Last> {
    let last = connection
        .prepare_cached(include_str!("end.sql"))?
        .query_row([], |row| {
            Ok(Last {
                end: Offset::new(row.get(0)?),
                log_time: Timestamp::from_millis(row.get(1)?),
            })
        })
        .optional()?;
    Ok(last.unwrap_or(Last { end: Offset::default(), log_time: Timestamp::MIN }))
}

/// Owns the connection that writes.
pub(super) struct Writer {
    connection: Connection,
    end: Offset,
    /// Whether `end` may be wrong: the last commit failed, and the file was not asked since.
    in_doubt: bool,
    published: watch::Sender<Offset>,
    timeline: Arc<Timeline>,
    /// Whether the last commit failed.
    failing: Arc<AtomicBool>,
    /// Where small requests are put together.
    segment: Vec<u8>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        end: Offset,
        published: watch::Sender<Offset>,
        timeline: Arc<Timeline>,
        failing: Arc<AtomicBool>,
    ) -> Self {
        Self { connection, end, in_doubt: false, published, timeline, failing, segment: Vec::new() }
    }

    /// Works until nobody can send any more and the queue is empty.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            // Who is about to ask for a commit does so first: a commit costs the same for one request and
            // for many. An idle machine goes on at once.
            std::thread::yield_now();
            let mut group = Vec::new();
            let mut trims = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Append(request) => {
                        bytes += request.body.len();
                        group.push(request);
                    }
                    Job::Trim(request) => trims.push(request),
                }
                next = if bytes < GROUP_BYTES_MAX { jobs.try_recv().ok() } else { None };
            }
            if !group.is_empty() {
                self.append(group);
            }
            for TrimRequest { below, before, answer } in trims {
                let trimmed = self.trim(below, before).map_err(unavailable);
                // The caller may be gone.
                drop(answer.send(trimmed));
            }
        }
    }

    /// One commit, then an answer to each request.
    fn append(&mut self, group: Vec<Request>) {
        if let Some(request) = group.first() {
            metrics::gauge!("tokenmeter_log_queue_requests").set(request.reserved.queue.requests());
        }
        let started = Instant::now();
        let before = self.end;
        let stored = self.store(&group);
        match &stored {
            Ok(_) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the event log commits again");
                }
                let records = self.end.number().saturating_sub(before.number());
                let records = u32::try_from(records).map_or(f64::MAX, f64::from);
                metrics::histogram!("tokenmeter_log_commit_records").record(records);
                metrics::histogram!("tokenmeter_log_commit_seconds").record(started.elapsed());
            }
            Err(error) => {
                // A full disk fails every commit, and fills up with what is said about it.
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, requests = group.len(), "the event log does not commit");
                }
                self.in_doubt = true;
                // At once, so that readers see what was stored after all; else before the next try.
                if let Err(error) = self.resolve_doubt() {
                    tracing::warn!(%error, "the event log's end is in doubt");
                }
            }
        }
        for Request { oldest, reserved, answer, .. } in group {
            let result = match &stored {
                Ok(log_time) if lapsed(oldest, *log_time) => Err(AppendError::Lapsed),
                Ok(log_time) => Ok(*log_time),
                Err(error) => Err(unavailable(error).into()),
            };
            drop(reserved);
            // The caller may be gone.
            drop(answer.send(result));
        }
    }

    /// Stores every request that has not lapsed, in one transaction; answers its log time.
    fn store(&mut self, group: &[Request]) -> rusqlite::Result<Timestamp> {
        self.resolve_doubt()?;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // After the wait for the lock: from here on only the commit itself takes time.
        let log_time = self.timeline.begin_commit();
        let mut segments = Segments { transaction: &transaction, log_time, end: self.end };
        let mut gathered = 0;
        self.segment.clear();
        for request in group.iter().filter(|request| !lapsed(request.oldest, log_time)) {
            if gathered > 0 && self.segment.len() + request.body.len() > SEGMENT_BYTES {
                segments.insert(gathered, &self.segment)?;
                self.segment.clear();
                gathered = 0;
            }
            if request.body.len() > SEGMENT_BYTES {
                segments.insert(request.records, &request.body)?;
                continue;
            }
            self.segment.extend_from_slice(&request.body);
            gathered += request.records;
        }
        if gathered > 0 {
            segments.insert(gathered, &self.segment)?;
        }
        let end = segments.end;
        transaction.commit()?;
        self.timeline.end_commit();
        self.end = end;
        self.published.send_replace(end);
        Ok(log_time)
    }

    /// After a failed commit: whether it happened is read from the file, so that offsets stay dense
    /// and nothing is written over.
    fn resolve_doubt(&mut self) -> rusqlite::Result<()> {
        if !self.in_doubt {
            return Ok(());
        }
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.end = last(&self.connection)?.end;
        self.published.send_replace(self.end);
        self.timeline.end_commit();
        self.in_doubt = false;
        Ok(())
    }

    fn trim(&mut self, below: Offset, before: Timestamp) -> rusqlite::Result<Trimmed> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut cut = None;
        let mut trimmed = Trimmed { records: 0, more: false };
        {
            let mut oldest = transaction.prepare_cached(include_str!("oldest.sql"))?;
            let mut rows = oldest.query([TRIM_SEGMENTS_MAX])?;
            let mut seen = 0;
            while let Some(row) = rows.next()? {
                let (first, records): (u64, u64) = (row.get(0)?, row.get(1)?);
                let log_time = Timestamp::from_millis(row.get(2)?);
                if Offset::new(first).plus(records) > below || log_time >= before {
                    break;
                }
                cut = Some(first);
                trimmed.records += records;
                seen += 1;
            }
            trimmed.more = seen == TRIM_SEGMENTS_MAX;
        }
        if let Some(cut) = cut {
            transaction
                .prepare_cached("DELETE FROM segments WHERE first_offset <= ?1")?
                .execute([cut])?;
        }
        transaction.commit()?;
        Ok(trimmed)
    }
}

/// Puts segments one after the other.
struct Segments<'t> {
    transaction: &'t Transaction<'t>,
    log_time: Timestamp,
    end: Offset,
}

impl Segments<'_> {
    fn insert(&mut self, records: u64, body: &[u8]) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached(
                "INSERT INTO segments (first_offset, records, log_time, body) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![self.end.number(), records, self.log_time.as_millis(), body])?;
        self.end = self.end.plus(records);
        Ok(())
    }
}

/// The rule that lets the counter forget: later than this it is not stored.
fn lapsed(oldest: Timestamp, log_time: Timestamp) -> bool {
    oldest.plus(ADMISSION_WINDOW) < log_time
}
