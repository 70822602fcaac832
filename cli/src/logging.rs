//! Logs go to standard error: text for people, JSON for machines.

use tracing_subscriber::filter::LevelFilter;

use crate::settings::LogFormat;

/// Begins to write logs. A second call changes nothing.
pub(crate) fn start(format: LogFormat) {
    let builder =
        tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Only tests start twice.
    drop(started);
}
