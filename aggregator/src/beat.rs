//! When flushes are due.

use std::time::Duration;

use tokio::time::Instant;

/// A flush of so many is worth what it costs, and to rest after it would only let more of them wait.
const RESTING_RECORDS_MAX: usize = 10_000;

/// The beat at which all partitions of a process flush, so that the ledger commits them together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    first: Instant,
    interval: Duration,
}

impl Beat {
    pub(crate) fn from_now_on(interval: Duration) -> Self {
        Self { first: Instant::now(), interval: interval.max(Duration::from_millis(1)) }
    }

    /// The beat for the flush after one of so many records that took from `started` to `ended`: after a
    /// small one the first after a rest of the same length. So where flushes are slow, on servers that
    /// have much to do, counting leaves them half of the time.
    pub(crate) fn after(self, started: Instant, ended: Instant, records: usize) -> Instant {
        let rests = records < RESTING_RECORDS_MAX;
        let from = if rests { ended + (ended - started).min(self.interval) } else { started };
        let passed = from.saturating_duration_since(self.first).as_nanos();
        let into = passed % self.interval.as_nanos();
        from + self.interval.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As no backend has it by default.
    const FLUSH_INTERVAL: Duration = Duration::from_millis(700);
    const SHORTLY: Duration = Duration::from_millis(1);

    #[test]
    fn whoever_flushed_when_flushes_next_at_the_same_beat() {
        let beat = Beat::from_now_on(FLUSH_INTERVAL);
        let second = beat.first + FLUSH_INTERVAL * 2;
        for time in [second - FLUSH_INTERVAL, second - FLUSH_INTERVAL + SHORTLY, second - SHORTLY] {
            assert_eq!(beat.after(time, time, 1), second);
        }
        assert_eq!(beat.after(second, second, 1), second + FLUSH_INTERVAL);
    }

    #[test]
    fn a_small_flush_is_followed_by_a_rest_as_long_as_itself_and_no_longer_than_a_beat() {
        let beat = Beat::from_now_on(FLUSH_INTERVAL);
        let rest = |took| beat.after(beat.first, beat.first + took, 1) - beat.first;
        assert_eq!(rest(FLUSH_INTERVAL / 2 - SHORTLY), FLUSH_INTERVAL);
        assert_eq!(rest(FLUSH_INTERVAL / 2), FLUSH_INTERVAL * 2);
        assert_eq!(rest(FLUSH_INTERVAL * 2 - SHORTLY), FLUSH_INTERVAL * 3);
    }

    #[test]
    fn a_large_flush_is_followed_by_the_next_beat() {
        let beat = Beat::from_now_on(FLUSH_INTERVAL);
        let ended = beat.first + FLUSH_INTERVAL * 2;
        assert_eq!(beat.after(beat.first, ended, RESTING_RECORDS_MAX), beat.first + FLUSH_INTERVAL);
    }
}
