//! A corner of the test server that nobody else uses, and epochs that a test can name.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use metering::Unavailable;
use metering::quota::{Epoch, Epochs};
use metering::time::{Clock, ManualClock, Timestamp};
use metering::usage::Partition;
use redis::Commands;
use stores::redis::{CounterTime, RedisQuotaCounter, RedisSettings};

use crate::contract::quota_counter::{Fixture, ScriptedSeeds};
use crate::servers;

/// Keys of tests that ran longer ago are removed.
const LEFT_OVER_SECONDS: u64 = 600;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Epochs as Postgres keeps them.
#[derive(Default)]
pub(crate) struct ScriptedEpochs {
    state: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    announced: BTreeMap<Partition, Epoch>,
    log_is_left: bool,
    broken: bool,
    reads: usize,
}

impl ScriptedEpochs {
    pub(crate) fn set_broken(&self, broken: bool) {
        self.state.lock().unwrap().broken = broken;
    }

    pub(crate) fn leave_the_log(&self) {
        self.state.lock().unwrap().log_is_left = true;
    }

    pub(crate) fn reads(&self) -> usize {
        self.state.lock().unwrap().reads
    }

    pub(crate) fn named(&self, partition: Partition) -> Option<Epoch> {
        self.state.lock().unwrap().announced.get(&partition).cloned()
    }
}

#[async_trait]
impl Epochs for ScriptedEpochs {
    async fn announce(&self, partition: Partition, epoch: &Epoch) -> Result<bool, Unavailable> {
        let mut state = self.state.lock().unwrap();
        if state.broken {
            return Err(Unavailable::new("accounts", "scripted"));
        }
        Ok(state.announced.insert(partition, epoch.clone()).is_none())
    }

    async fn announced(&self) -> Result<BTreeMap<Partition, Epoch>, Unavailable> {
        let mut state = self.state.lock().unwrap();
        state.reads += 1;
        if state.broken {
            return Err(Unavailable::new("accounts", "scripted"));
        }
        Ok(state.announced.clone())
    }

    async fn log_is_left(&self) -> Result<bool, Unavailable> {
        Ok(self.state.lock().unwrap().log_is_left)
    }
}

/// This machine's time: the server under test runs on it.
struct MachineClock;

impl Clock for MachineClock {
    #[allow(clippy::disallowed_methods, reason = "it is compared with the server's own time")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
    }
}

/// A prefix of its own on a server, with what a counter needs beside it.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) settings: RedisSettings,
    pub(crate) seeds: Arc<ScriptedSeeds>,
    pub(crate) epochs: Arc<ScriptedEpochs>,
    pub(crate) clock: Arc<ManualClock>,
}

impl Setting {
    /// On the test server.
    pub(crate) fn fresh() -> Self {
        Self::on(&servers::url("REDIS_URL"))
    }

    /// On another server.
    pub(crate) fn on(url: &str) -> Self {
        let minute = MachineClock.now().as_seconds();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut settings = RedisSettings::new(url, NonZeroU32::MIN);
        settings.prefix = format!("test:{minute}:{}:{number}:", std::process::id());
        if number == 0 {
            remove_left_overs(url);
        }
        Self {
            settings,
            seeds: Arc::default(),
            epochs: Arc::default(),
            clock: Arc::new(ManualClock::at(Timestamp::from_millis(1_791_000_000_000))),
        }
    }

    /// One more process on the same keys.
    pub(crate) fn counter(&self, time: CounterTime) -> Arc<RedisQuotaCounter> {
        let settings = RedisSettings { time, ..self.settings.clone() };
        let clock: Arc<dyn Clock> = match time {
            CounterTime::Server => Arc::new(MachineClock),
            CounterTime::Clock => self.clock.clone(),
        };
        let (seeds, epochs) = (self.seeds.clone(), self.epochs.clone());
        Arc::new(RedisQuotaCounter::connect(settings, seeds, epochs, clock).unwrap())
    }

    pub(crate) fn fixture(&self, time: CounterTime) -> Fixture {
        let (showing, moving) = (self.clock.clone(), self.clock.clone());
        Fixture {
            counter: self.counter(time),
            seeds: self.seeds.clone(),
            now: match time {
                CounterTime::Server => Box::new(|| MachineClock.now()),
                CounterTime::Clock => Box::new(move || showing.now()),
            },
            pass: Box::new(move |span| moving.advance(span)),
        }
    }

    /// A connection for looking into the server, and for doing it harm.
    pub(crate) fn connection(&self) -> redis::Connection {
        redis::Client::open(self.settings.url.as_str()).unwrap().get_connection().unwrap()
    }

    /// Everything that this setting's counters keep.
    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        let pattern = format!("{}*", self.settings.prefix);
        self.connection().scan_match(pattern).unwrap().map(Result::unwrap).collect()
    }

    /// As if the server had lost everything.
    pub(crate) fn lose_everything(&self) {
        let keys = self.keys();
        if !keys.is_empty() {
            let _: () = self.connection().del(keys).unwrap();
        }
    }
}

fn remove_left_overs(url: &str) {
    let client = redis::Client::open(url).unwrap();
    let mut scanning = client.get_connection().unwrap();
    let mut deleting = client.get_connection().unwrap();
    let now = u64::try_from(MachineClock.now().as_seconds()).unwrap();
    let keys: Vec<Vec<u8>> = scanning.scan_match("test:*").unwrap().map(Result::unwrap).collect();
    for key in keys {
        let text = String::from_utf8_lossy(&key).into_owned();
        let made: Option<u64> = text.split(':').nth(1).and_then(|made| made.parse().ok());
        if made.is_some_and(|made| made + LEFT_OVER_SECONDS < now) {
            let _: () = deleting.del(key).unwrap();
        }
    }
}
