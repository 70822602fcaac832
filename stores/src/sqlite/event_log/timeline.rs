//! The log's own time: it never steps back, and the watermark is made of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metering::time::{Clock, Timestamp};

/// The log's time.
///
/// Why the watermark holds: a record is stored only when its log time is at most
/// `ADMISSION_WINDOW` after its admission. Time given out here, as a stamp or as a watermark, is
/// never followed by an earlier stamp; and while a commit is under way (however long its fsync
/// takes, or while it is not known whether it happened) the watermark stays at that commit's
/// stamp. So whatever becomes visible after a watermark `w` was read has a log time of at least
/// `w`, hence was admitted no earlier than `w - ADMISSION_WINDOW`. A caller reads the watermark
/// first and then the end: records below that end it sees, all others come after `w`.
pub(super) struct Timeline {
    clock: Arc<dyn Clock>,
    times: Mutex<Times>,
}

struct Times {
    /// The latest time that was given out.
    latest: Timestamp,
    /// The stamp of the commit that is under way or in doubt.
    committing: Option<Timestamp>,
}

impl Timeline {
    /// Goes on after `last`, the log time of the last record.
    pub(super) fn new(clock: Arc<dyn Clock>, last: Timestamp) -> Self {
        Self { clock, times: Mutex::new(Times { latest: last, committing: None }) }
    }

    /// The log time of the commit that begins now.
    pub(super) fn begin_commit(&self) -> Timestamp {
        let mut times = self.times();
        let now = times.advance(self.clock.now());
        times.committing = Some(now);
        now
    }

    /// It is known now what became of the last commit.
    pub(super) fn end_commit(&self) {
        self.times().committing = None;
    }

    /// See `EventSource::watermark`.
    pub(super) fn watermark(&self) -> Timestamp {
        let mut times = self.times();
        match times.committing {
            Some(stamp) => stamp,
            None => times.advance(self.clock.now()),
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Times {
    fn advance(&mut self, now: Timestamp) -> Timestamp {
        self.latest = self.latest.max(now);
        self.latest
    }
}

impl std::fmt::Debug for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timeline").field("latest", &self.times().latest).finish_non_exhaustive()
    }
}
