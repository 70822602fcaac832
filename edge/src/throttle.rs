//! Log lines that must not become as many as there are requests.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// At most one line in so long: an outage under load would otherwise fill the disk that perhaps
/// caused it.
const INTERVAL_MILLIS: u64 = 1000;

/// Lets one line through a second, and counts the others.
pub(crate) struct Throttle {
    started: OnceLock<Instant>,
    /// Milliseconds after `started` from which on the next line may pass.
    next: AtomicU64,
    unsaid: AtomicU64,
}

impl Throttle {
    pub(crate) const fn new() -> Self {
        Self { started: OnceLock::new(), next: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }

    /// How many lines went unsaid since the last one; `None`: this one too.
    pub(crate) fn pass(&self) -> Option<u64> {
        let elapsed = self.started.get_or_init(Instant::now).elapsed().as_millis();
        self.pass_at(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn pass_at(&self, now: u64) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        let passes = now >= next
            && self
                .next
                .compare_exchange(
                    next,
                    now.saturating_add(INTERVAL_MILLIS),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if passes {
            return Some(self.unsaid.swap(0, Ordering::Relaxed));
        }
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_passes_and_says_how_many_did_not() {
        let throttle = Throttle::new();
        assert_eq!(throttle.pass_at(0), Some(0));
        assert_eq!(throttle.pass_at(1), None);
        assert_eq!(throttle.pass_at(999), None);
        assert_eq!(throttle.pass_at(1000), Some(2));
        assert_eq!(throttle.pass_at(1999), None);
        assert_eq!(throttle.pass_at(5000), Some(1));
    }
}
