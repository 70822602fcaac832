//! What the service counts and measures.

use edge::Code;
use metrics::{Counter, Histogram, Unit, describe_counter, describe_histogram};

/// Handles of the metrics on the fast path, resolved once.
pub(crate) struct Handles {
    accepted: Counter,
    unmetered: Counter,
    duplicate: Counter,
    rejected: Counter,
    unavailable: Counter,
    pub(crate) single_seconds: Histogram,
    pub(crate) batch_seconds: Histogram,
    pub(crate) batch_records: Histogram,
}

impl Handles {
    pub(crate) fn new() -> Self {
        let events =
            |outcome| metrics::counter!("tokenmeter_track_events_total", "outcome" => outcome);
        let seconds = |call| metrics::histogram!("tokenmeter_track_seconds", "call" => call);
        Self {
            accepted: events("accepted"),
            unmetered: metrics::counter!("tokenmeter_unmetered_events_total"),
            duplicate: events("duplicate"),
            rejected: events("rejected"),
            unavailable: events("unavailable"),
            single_seconds: seconds("single"),
            batch_seconds: seconds("batch"),
            batch_records: metrics::histogram!("tokenmeter_track_batch_records"),
        }
    }

    pub(crate) fn accepted(&self, count: u64) {
        self.accepted.increment(count);
    }

    /// Events that were let in while the counter was away.
    pub(crate) fn unmetered(&self, count: u64) {
        self.unmetered.increment(count);
    }

    pub(crate) fn duplicates(&self, count: u64) {
        self.duplicate.increment(count);
    }

    /// One event that was not taken. Failures of stores are told apart from refusals.
    pub(crate) fn refused(&self, code: Code) {
        if code == Code::Unavailable {
            self.unavailable.increment(1);
            return;
        }
        self.rejected.increment(1);
        metrics::counter!("tokenmeter_refusals_total", "code" => code.as_str()).increment(1);
    }

    /// All events of a batch that was not acknowledged.
    pub(crate) fn unavailable(&self, count: u64) {
        self.unavailable.increment(count);
    }
}

/// What became of a hold: the label of `tokenmeter_reservations_total`.
pub(crate) fn reservation(outcome: &'static str) {
    metrics::counter!("tokenmeter_reservations_total", "outcome" => outcome).increment(1);
}

/// Help texts and units of this crate's metrics.
pub fn describe() {
    describe_counter!(
        "tokenmeter_track_events_total",
        "Usage events reported, by outcome: accepted, duplicate, rejected or unavailable."
    );
    describe_counter!(
        "tokenmeter_unmetered_events_total",
        "Usage events accepted while the quota counter was away: no limit was looked at."
    );
    describe_counter!("tokenmeter_refusals_total", "Usage events rejected, by problem code.");
    describe_counter!(
        "tokenmeter_reservations_total",
        "Reservations asked for or given back, by outcome."
    );
    describe_histogram!(
        "tokenmeter_track_seconds",
        Unit::Seconds,
        "Time from a track call's head to its answer, by kind of call."
    );
    describe_histogram!("tokenmeter_track_batch_records", "Events in a batch.");
}
