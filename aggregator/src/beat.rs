//! When flushes are due.

use std::time::Duration;

use tokio::time::Instant;

/// From one flush to the next, unless a whole one waits: a flush of few records costs almost as much
/// as one of many. An event after a quiet moment does not wait.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// The beat at which all partitions of a process flush, so that the ledger commits them together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    first: Instant,
}

impl Beat {
    pub(crate) fn from_now_on() -> Self {
        Self { first: Instant::now() }
    }

    /// The first beat after that time.
    pub(crate) fn next(self, time: Instant) -> Instant {
        let passed = time.saturating_duration_since(self.first).as_nanos();
        let into = passed % FLUSH_INTERVAL.as_nanos();
        time + FLUSH_INTERVAL.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_flushed_when_flushes_next_at_the_same_beat() {
        let beat = Beat::from_now_on();
        let second = beat.first + FLUSH_INTERVAL * 2;
        let shortly = Duration::from_millis(1);
        for time in [second - FLUSH_INTERVAL, second - FLUSH_INTERVAL + shortly, second - shortly] {
            assert_eq!(beat.next(time), second);
        }
        assert_eq!(beat.next(second), second + FLUSH_INTERVAL);
    }
}
