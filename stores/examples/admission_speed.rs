//! How fast the admission in Redis is, with nothing around it:
//! `cargo run -p stores --release --example admission_speed -- REDIS_URL [BATCH] [CALLERS] [USERS] [SECONDS]`.
//!
//! CALLERS at a time admit BATCH events each, again and again, of USERS users, as an ingest does for
//! as many connections: the yardstick for what a whole request costs. Keys of its own, which it
//! removes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for developers, which measures real time and ends at the first error"
)]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::UserId;
use metering::quota::{
    Admission, Epoch, Epochs, OverLimit, PlanName, QuotaCounter, QuotaSeeds, Terms, Tier, Totals,
    Trust, Verdict,
};
use metering::time::{Clock, Period, Timestamp};
use metering::usage::{ContentDigest, IdDigest, Offset, Partition, RequestType, TotalsAt};
use rand::RngExt as _;
use redis::Commands as _;
use stores::redis::{RedisQuotaCounter, RedisSettings};

/// As many as `loadtest/cluster` makes.
const PARTITIONS: NonZeroU32 = NonZeroU32::new(4).unwrap();

const PREFIX: &str = "admission-speed:";

struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
    }
}

#[derive(Default)]
struct Named(Mutex<BTreeMap<Partition, Epoch>>);

#[async_trait]
impl Epochs for Named {
    async fn announce(&self, partition: Partition, epoch: &Epoch) -> Result<bool, Unavailable> {
        Ok(self.0.lock().unwrap().insert(partition, epoch.clone()).is_none())
    }

    async fn announced(&self) -> Result<BTreeMap<Partition, Epoch>, Unavailable> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn log_is_left(&self) -> Result<bool, Unavailable> {
        Ok(false)
    }
}

/// Everybody has used nothing yet, and may use much.
struct Everybody;

#[async_trait]
impl QuotaSeeds for Everybody {
    async fn terms(&self, users: &[UserId]) -> Result<Vec<Option<Terms>>, Unavailable> {
        let terms = Terms {
            plan: PlanName::new("professional"),
            version: 1,
            valid_until: None,
            tier: Tier(9),
            over_limit: OverLimit::Reject,
            token_limit: Some(u64::MAX / 2),
            request_limits: [None; 3],
        };
        Ok(vec![Some(terms); users.len()])
    }

    async fn totals(&self, users: &[(UserId, Period)]) -> Result<Vec<TotalsAt>, Unavailable> {
        let none = TotalsAt { cursor: Offset::default(), totals: Totals::default() };
        Ok(vec![none; users.len()])
    }
}

fn batch(users: &[UserId], size: usize) -> Vec<Admission> {
    let mut random = rand::rng();
    let period = Period::of(MachineClock.now());
    let one = |_| Admission {
        user_id: users[random.random_range(0..users.len())],
        period,
        id_digest: IdDigest(random.random()),
        content_digest: ContentDigest(random.random()),
        request_type: RequestType::Chat,
        tokens: 150,
        tier: Tier(1),
        trust: Trust::Service,
        settles: None,
        barred: false,
    };
    (0..size).map(one).collect()
}

async fn open(counter: &RedisQuotaCounter) {
    for partition in (0..PARTITIONS.get()).map(Partition::new) {
        let wait = counter.close(partition).await.unwrap();
        tokio::time::sleep(wait).await;
        assert!(counter.open(partition, Offset::default(), MachineClock.now()).await.unwrap());
    }
}

fn remove_keys(url: &str) {
    let client = redis::Client::open(url).unwrap();
    let (mut scanning, mut deleting) =
        (client.get_connection().unwrap(), client.get_connection().unwrap());
    for key in scanning.scan_match::<_, Vec<u8>>(format!("{PREFIX}*")).unwrap() {
        let _: () = deleting.unlink(key.unwrap()).unwrap();
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = arguments.first().unwrap();
    let number = |place: usize, otherwise: usize| {
        arguments.get(place).map_or(otherwise, |text| text.parse().unwrap())
    };
    let (size, callers) = (number(1, 100), number(2, 16));
    let (users, seconds) = (number(3, 1000), number(4, 5));
    let mut settings = RedisSettings::new(url, PARTITIONS);
    settings.prefix = PREFIX.into();
    let counter = RedisQuotaCounter::connect(
        settings,
        Arc::new(Everybody),
        Arc::new(Named::default()),
        Arc::new(MachineClock),
    );
    let counter = Arc::new(counter.unwrap());
    remove_keys(url);
    open(&counter).await;
    let users: Arc<[UserId]> = (0..users).map(|_| UserId::from_bytes(rand::random())).collect();
    let (ended, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (counter, users) = (counter.clone(), users.clone());
            let (ended, admitted) = (ended.clone(), admitted.clone());
            tokio::spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    let verdicts = counter.admit(&batch(&users, size)).await.unwrap();
                    assert!(verdicts.iter().all(|one| matches!(one, Verdict::Granted(_))));
                    admitted.fetch_add(u64::try_from(size).unwrap(), Ordering::Relaxed);
                }
            })
        })
        .collect();
    // Everybody is known then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, started) = (admitted.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(u64::try_from(seconds).unwrap())).await;
    let events = admitted.load(Ordering::Relaxed) - before;
    println!("{:.0}", events as f64 / started.elapsed().as_secs_f64());
    ended.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    remove_keys(url);
}
