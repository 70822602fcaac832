//! Many at once, broken connections, and what is kept where.

use std::num::NonZeroU32;
use std::time::Duration;

use metering::quota::{Admission, QuotaCounter, Terms};
use metering::time::{Clock, Period, Timestamp};
use metering::usage::{Offset, Partition};
use redis::Commands;
use stores::redis::{CounterTime, RedisQuotaCounter};
use tokio::task::JoinSet;

use super::own_server::OwnServer;
use super::setting::Setting;
use crate::contract::quota_counter::{
    admit, chats, event, granted, hold, limit, october, repeated, synced, user,
};

async fn open_all(counter: &RedisQuotaCounter, partitions: u32) {
    for number in 0..partitions {
        let partition = Partition::new(number);
        counter.close(partition).await.unwrap();
        assert!(counter.open(partition, Offset::new(0), Timestamp::MIN).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_shares_calls_and_every_limit_holds() {
    let server = OwnServer::start();
    let setting = Setting::on(&server.url());
    let counter = setting.counter(CounterTime::Server);
    open_all(&counter, 1).await;
    for number in 1..=4 {
        setting.seeds.put(user(number), limit(95));
        admit(counter.as_ref(), of(number, "first", 0)).await;
    }
    let before = calls(&server);
    let mut asking = JoinSet::new();
    for number in 0..800_u16 {
        let counter = counter.clone();
        let asked = of(u8::try_from(number % 4).unwrap() + 1, &format!("{number}"), 10);
        asking.spawn(async move { counter.admit(&[asked]).await.unwrap().remove(0) });
    }
    let verdicts = asking.join_all().await;
    assert_eq!(verdicts.iter().filter(|one| granted(one)).count(), 4 * 9);
    let calls = calls(&server) - before;
    assert!(calls < 400, "{calls} calls for 800 events");
}

fn of(number: u8, name: &str, tokens: u32) -> Admission {
    let mut asked = Admission { user_id: user(number), ..event(name, tokens) };
    asked.id_digest.0[0] = number;
    asked
}

/// Function calls that the server has run.
fn calls(server: &OwnServer) -> u64 {
    let stats: String =
        redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:calls="));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap()
}

#[tokio::test]
async fn partitions_are_opened_counted_and_closed_alone() {
    let mut setting = Setting::fresh();
    setting.settings.partitions = NonZeroU32::new(4).unwrap();
    let counter = setting.counter(CounterTime::Server);
    for number in 1..=40 {
        setting.seeds.put(user(number), limit(100));
    }
    let everybody: Vec<_> = (1..=40).map(|number| of(number, "a", 60)).collect();
    assert!(counter.admit(&everybody).await.is_err());
    open_all(&counter, 4).await;
    assert!(counter.admit(&everybody).await.unwrap().iter().all(granted));
    assert!(counter.admit(&everybody).await.unwrap().iter().all(repeated));
    assert_eq!(counter.audit().await.unwrap().len(), 40);
    let entry = |number: u8| metering::usage::Settled {
        user_id: user(number),
        period: october(),
        id_digest: of(number, "a", 60).id_digest,
    };
    let half: Vec<_> = (1..=20).map(entry).collect();
    counter.withdraw(&half).await.unwrap();
    let verdicts = counter.admit(&everybody).await.unwrap();
    assert!(verdicts[..20].iter().all(granted) && verdicts[20..].iter().all(repeated));
    counter.close(Partition::new(2)).await.unwrap();
    let (mut served, mut refused) = (0, 0);
    for one in everybody {
        let closed = Partition::of(one.user_id, setting.settings.partitions).number() == 2;
        let answer = counter.admit(&[one]).await;
        assert_eq!(answer.is_err(), closed);
        *(if closed { &mut refused } else { &mut served }) += 1;
    }
    assert!(served > 0 && refused > 0, "{served} users served, {refused} refused");
}

#[tokio::test]
async fn all_keys_of_a_partition_share_a_slot() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open_all(&counter, 1).await;
    admit(counter.as_ref(), event("a", 1)).await;
    let keys = setting.keys();
    assert_eq!(keys.len(), 3, "epoch, user, month");
    let tagged = format!("{}{{p0}}", setting.settings.prefix).into_bytes();
    assert!(keys.iter().all(|key| key.starts_with(&tagged)));
}

#[tokio::test]
async fn a_large_sync_comes_in_portions() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), Terms { token_limit: None, request_limits: [None; 3], ..limit(0) });
    let counter = setting.counter(CounterTime::Server);
    open_all(&counter, 1).await;
    let names: Vec<_> = (0..1500).map(|number| format!("{number}")).collect();
    let asked: Vec<_> = names.iter().map(|name| event(name, 1)).collect();
    assert!(counter.admit(&asked).await.unwrap().iter().all(granted));
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert!(counter.sync(&synced(1500, chats(1500, 1500), &names)).await.unwrap());
    let known = counter.audit().await.unwrap().remove(0);
    assert_eq!((known.ledger.totals, known.in_flight.len()), (chats(1500, 1500), 0));
}

#[tokio::test]
async fn a_great_many_entries_are_forgotten_together() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), Terms { token_limit: None, request_limits: [None; 3], ..limit(0) });
    let counter = setting.counter(CounterTime::Clock);
    open_all(&counter, 1).await;
    let asked: Vec<_> = (0..10_000).map(|number| event(&format!("{number}"), 1)).collect();
    assert!(counter.admit(&asked).await.unwrap().iter().all(granted));
    setting.clock.advance(Duration::from_secs(16));
    let mut sync = synced(1, chats(3, 3), &[]);
    sync.watermark = setting.clock.now();
    assert!(counter.sync(&sync).await.unwrap());
    let standing = counter.usage(user(1), october()).await.unwrap().unwrap();
    assert_eq!(standing.used, chats(3, 3));
    assert!(counter.audit().await.unwrap()[0].in_flight.is_empty());
}

#[tokio::test]
async fn only_a_closed_month_without_anything_in_flight_may_expire() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Clock);
    open_all(&counter, 1).await;
    let now = Period::of(setting.clock.now());
    let in_period = |period: Period, name: &str| Admission { period, ..event(name, 1) };
    let expires = |period: Period| {
        let mut key = format!("{}{{p0}}m", setting.settings.prefix).into_bytes();
        key.extend(user(1).as_bytes());
        key.extend(period.number().to_le_bytes());
        let left: i64 = setting.connection().ttl(key).unwrap();
        assert!(left == -1 || (86_000..=86_400).contains(&left), "{left}");
        left > 0
    };
    for (period, closes) in [(now.previous(), true), (now, false)] {
        counter.usage(user(1), period).await.unwrap();
        assert_eq!(expires(period), closes, "read only");
        admit(counter.as_ref(), in_period(period, "a")).await;
        assert!(!expires(period), "in flight");
        let mut entries = synced(0, chats(0, 0), &["a"]).settled;
        entries[0].period = period;
        counter.withdraw(&entries).await.unwrap();
        assert_eq!(expires(period), closes, "nothing in flight");
    }
    // A month that ends while it is quiet goes when the user comes back in the next one.
    admit(counter.as_ref(), in_period(now, "b")).await;
    let mut entries = synced(0, chats(0, 0), &["b"]).settled;
    entries[0].period = now;
    counter.withdraw(&entries).await.unwrap();
    assert!(!expires(now));
    setting.clock.advance(Duration::from_secs(31 * 86_400));
    admit(counter.as_ref(), in_period(now.next(), "c")).await;
    assert!(expires(now) && !expires(now.next()));
}

#[tokio::test]
async fn months_of_an_earlier_epoch_are_removed_when_the_user_returns() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open_all(&counter, 1).await;
    admit(counter.as_ref(), event("a", 1)).await;
    let november = Admission { period: october().next(), ..event("b", 1) };
    admit(counter.as_ref(), november).await;
    assert_eq!(setting.keys().len(), 4);
    open_all(&counter, 1).await;
    admit(counter.as_ref(), event("c", 1)).await;
    assert_eq!(setting.keys().len(), 3);
}

#[tokio::test]
async fn flushed_functions_are_loaded_again() {
    let server = OwnServer::start();
    let setting = Setting::on(&server.url());
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open_all(&counter, 1).await;
    admit(counter.as_ref(), event("a", 1)).await;
    server.run(&["FUNCTION", "FLUSH"]);
    assert!(granted(&admit(counter.as_ref(), event("b", 1)).await));
    assert!(counter.sync(&synced(1, chats(1, 1), &["a"])).await.unwrap());
}

#[tokio::test]
async fn an_admission_in_doubt_is_unavailable_and_can_be_asked_again() {
    let server = OwnServer::start();
    let mut setting = Setting::on(&server.url());
    setting.settings.response_timeout = Duration::from_millis(200);
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open_all(&counter, 1).await;
    admit(counter.as_ref(), event("first", 1)).await;
    server.run(&["CLIENT", "PAUSE", "1000"]);
    assert!(counter.admit(&[event("a", 60)]).await.is_err());
    server.run(&["CLIENT", "UNPAUSE"]);
    let again = counter.admit(&[event("a", 60)]).await.unwrap().remove(0);
    assert!(granted(&again) || repeated(&again), "{again:?}");
    let used = counter.usage(user(1), october()).await.unwrap().unwrap().used;
    assert_eq!(used, chats(61, 2));
}

#[tokio::test]
async fn a_broken_connection_is_made_anew() {
    let server = OwnServer::start();
    let setting = Setting::on(&server.url());
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open_all(&counter, 1).await;
    server.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while let Err(reason) = counter.admit(&[event("a", 60)]).await {
        assert!(std::time::Instant::now() < deadline, "{reason}");
    }
    assert!(repeated(&admit(counter.as_ref(), event("a", 60)).await));
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let server = OwnServer::start();
    let setting = Setting::on(&server.url());
    drop(server);
    let counter = setting.counter(CounterTime::Server);
    assert!(counter.ping().await.is_err());
    assert!(counter.admit(&[event("a", 1)]).await.is_err());
    let asked = hold(&setting.fixture(CounterTime::Server), "h", 1);
    assert!(counter.hold(&asked).await.is_err());
    assert!(counter.close(Partition::SINGLE).await.is_err());
    assert!(counter.take_over(Partition::SINGLE).await.is_err());
    assert!(counter.audit().await.is_err());
}

#[tokio::test]
async fn syncs_give_memory_back_when_there_is_none_left() {
    let server = OwnServer::start();
    let setting = Setting::on(&server.url());
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open_all(&counter, 1).await;
    admit(counter.as_ref(), event("a", 60)).await;
    server.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(counter.admit(&[event("b", 1)]).await.is_err());
    assert!(counter.sync(&synced(1, chats(60, 1), &["a"])).await.unwrap());
    server.run(&["CONFIG", "SET", "maxmemory", "0"]);
    assert!(granted(&admit(counter.as_ref(), event("b", 40)).await));
}

#[tokio::test]
async fn token_sums_are_exact_where_numbers_of_lua_are_not() {
    let setting = Setting::fresh();
    let counter = setting.counter(CounterTime::Server);
    open_all(&counter, 1).await;
    // Around half of 64 bits, around what a double holds, and at the end of both.
    for (number, bound) in (1..).zip([1 << 32, 1 << 53, (1 << 53) + (1 << 32), u64::MAX]) {
        setting.seeds.put(user(number), limit(bound));
        let of = |name, tokens| Admission { tokens, ..of(number, name, 0) };
        assert!(granted(&admit(counter.as_ref(), of("a", bound - 1)).await), "{bound}");
        assert!(!granted(&admit(counter.as_ref(), of("b", 2)).await), "{bound}");
        assert!(granted(&admit(counter.as_ref(), of("c", 1)).await), "{bound}");
        assert!(!granted(&admit(counter.as_ref(), of("d", 1)).await), "{bound}");
        let used = counter.usage(user(number), october()).await.unwrap().unwrap().used;
        assert_eq!(used, chats(bound, 2));
        let mut entries = synced(0, chats(0, 0), &["a"]).settled;
        (entries[0].user_id, entries[0].id_digest) = (user(number), of("a", 0).id_digest);
        counter.withdraw(&entries).await.unwrap();
        let used = counter.usage(user(number), october()).await.unwrap().unwrap().used;
        assert_eq!(used, chats(1, 1));
    }
}
