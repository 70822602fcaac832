//! What a counter in Redis is told.

use std::num::NonZeroU32;
use std::time::Duration;

/// Whose time decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CounterTime {
    /// The Redis server's: all processes share it.
    #[default]
    Server,
    /// This process's clock, told with every call: for tests in which time passes at will.
    Clock,
}

/// What becomes of events while their partition's counter is away: Redis does not answer, or its
/// epoch is being opened anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOutage {
    /// Nothing is let in: no limit is ever passed.
    #[default]
    Refuse,
    /// Events of known users are let in, flagged as unmetered. Limits hold again once the counter is
    /// open and those events are counted.
    Record,
}

/// Where the counter is, and the bounds that its safety rests on.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://[user:password@]host:port[/database]`.
    pub url: String,
    /// What every key begins with; without braces. Installations that share a server differ in it.
    pub prefix: String,
    /// How many partitions the event log has; fixed when the log is made.
    pub partitions: NonZeroU32,
    /// Which generation of the event log is counted. A process that writes to another one admits
    /// nothing.
    pub generation: u16,
    /// How far the clocks of all machines may lie apart. Too small: a limit may be passed when a
    /// server is replaced. Too large: a replaced server is back later.
    pub clock_bound: Duration,
    /// How old the last look at the epoch feed may be when something is passed on. Must be well
    /// above [`Self::feed_poll`], or admissions wait for a look of their own.
    pub feed_delay: Duration,
    /// How often the epoch feed is looked at.
    pub feed_poll: Duration,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub response_timeout: Duration,
    /// Whose time decides.
    pub time: CounterTime,
    /// What becomes of events while the counter is away.
    pub on_outage: OnOutage,
}

impl RedisSettings {
    /// The bounds of the design, for this server and number of partitions.
    pub fn new(url: impl Into<String>, partitions: NonZeroU32) -> Self {
        Self {
            url: url.into(),
            prefix: "tm:".into(),
            partitions,
            generation: 0,
            clock_bound: Duration::from_secs(1),
            feed_delay: Duration::from_secs(1),
            feed_poll: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
            time: CounterTime::Server,
            on_outage: OnOutage::Refuse,
        }
    }
}
