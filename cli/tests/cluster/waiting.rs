//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine, a counter that is opened anew (17 s) included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Waits until `probe` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// Waits for so long until `probe` finds something.
#[track_caller]
pub(crate) fn within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came true that {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
