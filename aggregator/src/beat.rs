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

    /// The beat for the flush after one that took from `started` to `ended`: the first after a rest
    /// of the same length. So where flushes are slow, on servers that have much to do, counting leaves
    /// them half of the time.
    pub(crate) fn next(self, started: Instant, ended: Instant) -> Instant {
        let rested = ended + (ended - started).min(FLUSH_INTERVAL);
        let passed = rested.saturating_duration_since(self.first).as_nanos();
        let into = passed % FLUSH_INTERVAL.as_nanos();
        let into = Duration::from_nanos(u64::try_from(into).unwrap_or(0));
        rested + FLUSH_INTERVAL.saturating_sub(into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTLY: Duration = Duration::from_millis(1);

    #[test]
    fn whoever_flushed_when_flushes_next_at_the_same_beat() {
        let beat = Beat::from_now_on();
        let second = beat.first + FLUSH_INTERVAL * 2;
        for time in [second - FLUSH_INTERVAL, second - FLUSH_INTERVAL + SHORTLY, second - SHORTLY] {
            assert_eq!(beat.next(time, time), second);
        }
        assert_eq!(beat.next(second, second), second + FLUSH_INTERVAL);
    }

    #[test]
    fn a_flush_is_followed_by_a_rest_as_long_as_itself_and_no_longer_than_a_beat() {
        let beat = Beat::from_now_on();
        let took = |time: Duration| beat.next(beat.first, beat.first + time) - beat.first;
        assert_eq!(took(FLUSH_INTERVAL / 2 - SHORTLY), FLUSH_INTERVAL);
        assert_eq!(took(FLUSH_INTERVAL / 2), FLUSH_INTERVAL * 2);
        assert_eq!(took(FLUSH_INTERVAL * 2 - SHORTLY), FLUSH_INTERVAL * 3);
    }
}
