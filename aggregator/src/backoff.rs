//! How long to wait before a store is asked again.

use std::time::Duration;

use metering::Unavailable;
use tokio::sync::watch;

/// The first wait. Shorter, and a store that restarts is hammered.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait: so long after its store is back, counting goes on.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits that double until something worked.
pub(crate) struct Backoff {
    next: Duration,
    stopping: watch::Receiver<bool>,
}

impl Backoff {
    pub(crate) fn new(stopping: watch::Receiver<bool>) -> Self {
        Self { next: FIRST, stopping }
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// Says what failed, and waits; not at all when the process is to stop.
    pub(crate) async fn pause(&mut self, step: &'static str, error: &Unavailable) {
        metrics::counter!("tokenmeter_store_errors_total", "store" => error.store).increment(1);
        tracing::warn!(step, %error, "counting waits for a store");
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        let stop = self.stopping.wait_for(|stopping| *stopping);
        // Either way it is tried again, or given up by the caller.
        drop(tokio::time::timeout(wait, stop).await);
    }
}
