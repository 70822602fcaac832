//! What may go wrong, how often, and how large everything is.

use std::time::Duration;

use metering::quota::MARGIN;
use metering::usage::HORIZON_MAX;

use super::rules::Rules;

/// Kinds of trouble. A schedule has one kind, so that it comes to the point; the seeds go through
/// all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Environment {
    /// One Redis that may lose its data; aggregators that crash; stores that fail.
    OneServer,
    /// … while events are recorded all the same.
    Outages,
    /// Clients use ids again for something else.
    Contents,
    /// Nothing fails; but the log is late, and its time steps back.
    Quiet,
    /// Rebuilds without need, and Redis that comes back empty or old.
    Rebuilds,
    /// Several processes believe that a partition is theirs.
    Owners,
    /// Several partitions in one commit.
    Partitions,
    /// Another server takes over, and the old one lives on.
    Servers,
    /// … while several processes believe that a partition is theirs.
    ServersAndOwners,
    /// ClickHouse and Postgres answer late, not at all, or not truly.
    Stores,
    /// Ids with and without a time in them, sent again and again.
    Duplicates,
    /// … while the horizon changes.
    Horizons,
}

/// How large everything is.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) partitions: usize,
    pub(crate) users: usize,
    pub(crate) ingests: usize,
    pub(crate) aggregators: usize,
    /// At most so many, and the tries of each.
    pub(crate) events: (usize, u8),
    pub(crate) token_limit: u64,
    pub(crate) feed_delay: Duration,
    /// How far clocks lie apart.
    pub(crate) clock_bound: Duration,
    /// How far the log's time steps back.
    pub(crate) back: Duration,
    /// How long counted ids are remembered: the first at the start.
    pub(crate) horizons: Vec<Duration>,
    /// Steps of time.
    pub(crate) passes: Vec<Duration>,
    /// Redis comes back empty or as it was once.
    pub(crate) losses: u8,
    /// Another server takes over.
    pub(crate) failovers: u8,
    /// Rebuilds without need.
    pub(crate) forced: u8,
    /// Crashes, and partitions given to one more process.
    pub(crate) crashes: u8,
    pub(crate) ticks: u8,
    pub(crate) other_contents: bool,
    pub(crate) stores_fail: bool,
    /// What no counter can decide is recorded.
    pub(crate) records_outages: bool,
    /// Requests and records are lost on the way, clients give up.
    pub(crate) losing_ways: bool,
    pub(crate) log_max: usize,
    pub(crate) batch_max: usize,
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Environment {
    pub(crate) const ALL: [Self; 12] = [
        Self::OneServer,
        Self::Outages,
        Self::Contents,
        Self::Quiet,
        Self::Rebuilds,
        Self::Owners,
        Self::Partitions,
        Self::Servers,
        Self::ServersAndOwners,
        Self::Stores,
        Self::Duplicates,
        Self::Horizons,
    ];

    pub(crate) fn shape_under(self, rules: &Rules) -> Shape {
        let mut shape = self.shape();
        if !rules.log_time_keeps_its_margin {
            shape.back += 8 * SECOND;
        }
        shape
    }

    fn shape(self) -> Shape {
        let usual = Shape::usual();
        match self {
            Self::OneServer => {
                Shape { losses: 2, forced: 1, crashes: 3, stores_fail: true, ..usual }
            }
            Self::Outages => Shape {
                losses: 2,
                failovers: 1,
                forced: 1,
                crashes: 2,
                records_outages: true,
                ..usual
            },
            Self::Contents => {
                Shape { other_contents: true, token_limit: 7, losses: 1, crashes: 1, ..usual }
            }
            Self::Quiet => Shape { aggregators: 1, ingests: 1, ticks: 4, ..usual },
            Self::Rebuilds => Shape { losses: 1, forced: 2, crashes: 1, ..usual.tight() },
            Self::Owners => {
                Shape { aggregators: 3, forced: 2, crashes: 5, events: (6, 2), ..usual.tight() }
            }
            Self::Partitions => Shape {
                partitions: 2,
                users: 3,
                events: (6, 3),
                losses: 1,
                crashes: 4,
                stores_fail: true,
                ..usual
            },
            Self::Servers => Shape {
                failovers: 1,
                aggregators: 1,
                feed_delay: 8 * SECOND,
                // Within the delay, and then beyond the window.
                passes: vec![4 * SECOND, 7 * SECOND],
                losing_ways: false,
                ..usual.tight()
            },
            Self::ServersAndOwners => {
                Shape { failovers: 2, losses: 1, aggregators: 3, crashes: 3, ..usual }
            }
            Self::Stores => Shape { crashes: 4, stores_fail: true, ..usual.tight() },
            Self::Duplicates => Shape { horizons: vec![10 * MINUTE], ..usual.repeating() },
            Self::Horizons => Shape {
                horizons: vec![10 * MINUTE, 4 * MINUTE, 8 * MINUTE],
                ticks: 5,
                ..usual.repeating()
            },
        }
    }
}

impl Shape {
    fn usual() -> Self {
        Self {
            partitions: 1,
            users: 1,
            ingests: 2,
            aggregators: 2,
            events: (4, 3),
            token_limit: 4,
            feed_delay: SECOND,
            clock_bound: SECOND,
            back: MARGIN,
            horizons: vec![HORIZON_MAX],
            passes: vec![SECOND, 4 * SECOND, 11 * SECOND],
            losses: 0,
            failovers: 0,
            forced: 0,
            crashes: 0,
            ticks: 2,
            other_contents: false,
            stores_fail: false,
            records_outages: false,
            losing_ways: true,
            log_max: 16,
            batch_max: 3,
        }
    }

    /// Without slack in the clocks: what waits and windows must cover shows sooner.
    fn tight(self) -> Self {
        Self {
            clock_bound: Duration::ZERO,
            back: Duration::ZERO,
            token_limit: 3,
            passes: vec![SECOND, 9 * SECOND],
            ..self
        }
    }

    /// Enough room for everything, and time to remember and to forget.
    fn repeating(self) -> Self {
        Self {
            token_limit: 999,
            events: (5, 6),
            crashes: 3,
            passes: vec![SECOND, 11 * SECOND, 150 * SECOND, 420 * SECOND],
            ..self
        }
    }
}
