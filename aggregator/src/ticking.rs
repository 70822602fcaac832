//! Ticks: records without an event, by which a quiet log knows the time, and by which the memory of
//! counted ids changes its length.

use std::time::Duration;

use metering::usage::{Horizon, Tick};
use tokio::time::Instant;

use crate::counting::Counting;

/// A partition as quiet as that gets a tick. What was let in and never reached the log is held
/// against its user until the log's time has passed it.
const TICK_INTERVAL: Duration = Duration::from_secs(5);

/// When the partition last had a record.
#[derive(Debug)]
pub(crate) struct Ticking {
    quiet_since: Instant,
    /// The horizon of the last tick: once it is on its way it is not asked for again.
    told_of: Option<Horizon>,
}

impl Default for Ticking {
    fn default() -> Self {
        Self { quiet_since: Instant::now(), told_of: None }
    }
}

impl Ticking {
    /// Records came.
    pub(crate) fn came(&mut self) {
        self.quiet_since = Instant::now();
    }
}

impl Counting {
    /// Appends a tick when the partition was quiet for long, or when the ledger needs another
    /// horizon. Only to a log that does not know the time by itself.
    pub(crate) async fn tick(&mut self) {
        let horizon = self.aggregator.ledger.horizon(self.partition, self.cursor.horizon);
        let quiet = self.ticking.quiet_since.elapsed() >= TICK_INTERVAL;
        if self.is_stopping() || !quiet && horizon == self.cursor.horizon {
            return;
        }
        let source = &self.aggregator.source;
        if !quiet && self.ticking.told_of == Some(horizon) {
            return;
        }
        let ticked = match source.watermark(self.partition).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => source.tick(self.partition, Tick { horizon }).await,
            Err(error) => Err(error),
        };
        self.ticking.quiet_since = Instant::now();
        match ticked {
            Ok(()) => self.ticking.told_of = Some(horizon),
            Err(error) => {
                tracing::warn!(partition = %self.partition, %error, "no tick was appended");
            }
        }
    }
}
