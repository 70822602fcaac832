//! When each request is to be sent.
//!
//! With a rate the load is open: request `k` is due at `start + k × interval` whether or not earlier
//! ones were answered, and its latency counts from there. A server that stalls is charged for all
//! that was due meanwhile, so the percentiles are free of coordinated omission.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Requests are released at least this far apart in time, several together when more are due:
/// waking for each one would cost the server's cores more than the jitter is worth.
const RELEASE_GAP: Duration = Duration::from_micros(100);

/// What is still due so long after the end is given up, and reported.
const GRACE: Duration = Duration::from_secs(30);

/// Hands out turns to send, to any number of connections.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    span: Duration,
    /// `None`: whenever a connection is free.
    interval: Option<Duration>,
    next: AtomicU64,
    due: Semaphore,
}

/// The right to send one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Which one, from 0.
    pub(crate) request: u64,
    /// When it should be sent: latencies count from here.
    pub(crate) intended: Instant,
}

impl Schedule {
    /// From `start` for `span`, at that many requests a second or as fast as answers come.
    pub(crate) fn new(start: Instant, span: Duration, rate: Option<f64>) -> Self {
        let interval = rate
            .and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok())
            .map(|interval| interval.max(Duration::from_nanos(1)));
        Self { start, span, interval, next: AtomicU64::new(0), due: Semaphore::new(0) }
    }

    /// When the last request is due.
    pub(crate) fn end(&self) -> Instant {
        self.start + self.span
    }

    /// The next turn; waits until one is due. `None` when there are no more.
    pub(crate) async fn next(&self) -> Option<Turn> {
        let Some(interval) = self.interval else {
            let now = Instant::now();
            return (now < self.end()).then(|| Turn {
                request: self.next.fetch_add(1, Ordering::Relaxed),
                intended: now,
            });
        };
        self.due.acquire().await.ok()?.forget();
        if Instant::now() > self.end() + GRACE {
            return None;
        }
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        if request >= self.planned() {
            return None;
        }
        let after = u32::try_from(request).map_or_else(
            |_| interval.mul_f64(request as f64),
            |request| interval.saturating_mul(request),
        );
        Some(Turn { request, intended: self.start + after })
    }

    /// Releases turns as they fall due, then one more for each of `connections`, which ends them.
    /// Blocks for the whole span: it needs a thread of its own, since the timers of the runtime
    /// are too coarse.
    pub(crate) fn release(&self, connections: usize) {
        let mut released = 0;
        while released < self.planned() {
            let due = self.due_after(self.start.elapsed());
            if due > released {
                self.due.add_permits(usize::try_from(due - released).unwrap_or(0));
                released = due;
            }
            std::thread::sleep(self.interval.unwrap_or_default().clamp(RELEASE_GAP, GRACE));
        }
        self.due.add_permits(connections);
    }

    /// How many requests there are in all; 0 without a rate.
    pub(crate) fn planned(&self) -> u64 {
        self.count_in(self.span)
    }

    /// How many turns were handed out; at least as many as were sent.
    pub(crate) fn handed_out(&self) -> u64 {
        let next = self.next.load(Ordering::Relaxed);
        if self.interval.is_some() { next.min(self.planned()) } else { next }
    }

    fn due_after(&self, elapsed: Duration) -> u64 {
        (self.count_in(elapsed) + 1).min(self.planned())
    }

    fn count_in(&self, span: Duration) -> u64 {
        let Some(interval) = self.interval else { return 0 };
        u64::try_from(span.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_requests_are_due_as_the_rate_says() {
        let schedule = Schedule::new(Instant::now(), Duration::from_secs(10), Some(20_000.0));
        assert_eq!(schedule.planned(), 200_000);
        assert_eq!(schedule.due_after(Duration::ZERO), 1);
        assert_eq!(schedule.due_after(Duration::from_millis(1)), 21);
        assert_eq!(schedule.due_after(Duration::from_secs(11)), 200_000);
    }

    #[tokio::test]
    async fn a_turn_taken_late_keeps_the_time_it_was_due() {
        let start = Instant::now() - Duration::from_secs(1);
        let schedule = Schedule::new(start, Duration::from_secs(1), Some(4.0));
        schedule.release(1);
        for request in 0..4_u32 {
            let turn = schedule.next().await.unwrap();
            assert_eq!(turn.request, u64::from(request));
            assert_eq!(turn.intended, start + Duration::from_millis(250) * request);
        }
        assert_eq!(schedule.next().await, None);
        assert_eq!(schedule.handed_out(), 4);
    }

    #[tokio::test]
    async fn without_a_rate_turns_come_until_the_end() {
        let start = Instant::now();
        let schedule = Schedule::new(start, Duration::from_secs(60), None);
        assert_eq!(schedule.next().await.map(|turn| turn.request), Some(0));
        assert_eq!(schedule.next().await.map(|turn| turn.request), Some(1));
        let over = Schedule::new(start, Duration::ZERO, None);
        assert_eq!(over.next().await, None);
        assert_eq!((schedule.handed_out(), over.handed_out()), (2, 0));
    }
}
