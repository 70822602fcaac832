//! What a Kafka client says goes to the program's log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A client that only speaks: for questions and for reading once more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain;

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        said(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Plain {}

/// Each client says it again at each attempt to connect, so of warnings at most one a second is
/// shown as such.
fn may_warn() -> bool {
    static START: OnceLock<Instant> = OnceLock::new();
    static QUIET_UNTIL: AtomicU64 = AtomicU64::new(0);
    let second = START.get_or_init(Instant::now).elapsed().as_secs();
    QUIET_UNTIL.fetch_max(second + 1, Ordering::Relaxed) <= second
}

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            if may_warn() {
                tracing::warn!(facility, "kafka: {message}");
            } else {
                tracing::debug!(facility, "kafka: {message}");
            }
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(facility, "kafka: {message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "kafka: {message}"),
    }
}

/// What came instead of an event of the consumer group.
pub(super) fn group_error(error: &KafkaError) {
    if may_warn() {
        tracing::warn!(%error, "the event log's consumer group");
    } else {
        tracing::debug!(%error, "the event log's consumer group");
    }
}

/// Errors of connections: the client goes on by itself, and what fails for it says so itself.
pub(super) fn said(error: &KafkaError, reason: &str) {
    tracing::debug!(%error, "kafka: {reason}");
}

/// A client that keeps why it cannot connect: nobody connected, a certificate that is not believed, a
/// wrong password.
#[derive(Debug, Default)]
pub(super) struct Listening(Mutex<Option<String>>);

impl Listening {
    /// What it heard first.
    pub(super) fn heard(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Listening {
    fn error(&self, error: KafkaError, reason: &str) {
        // Which follows from the others.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get_or_insert_with(|| reason.to_owned());
    }
}

impl rdkafka::consumer::ConsumerContext for Listening {}
