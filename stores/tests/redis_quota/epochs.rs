//! What keeps a limit when Redis is lost, restarted, replaced or lives on deposed.

use std::time::{Duration, Instant};

use metering::quota::{
    ADMISSION_WINDOW, Admission, MARGIN, QuotaCounter, Refused, Synced, Totals, Verdict,
};
use metering::time::{Clock, Timestamp};
use metering::usage::{Offset, Partition};
use stores::redis::{CounterTime, RedisQuotaCounter};

use super::own_server::OwnServer;
use super::setting::Setting;
use crate::contract::quota_counter::{
    admit, chats, event, granted, hold, hold_id, limit, october, refused, repeated, synced, user,
};

const SINGLE: Partition = Partition::SINGLE;

async fn open(counter: &RedisQuotaCounter, cursor: u64) {
    counter.close(SINGLE).await.unwrap();
    assert!(counter.open(SINGLE, Offset::new(cursor), Timestamp::MIN).await.unwrap());
}

/// What `counter` says to one event once it says anything: a connection may have to be made anew.
async fn admit_in_the_end(counter: &RedisQuotaCounter, asked: Admission) -> Verdict {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match counter.admit(std::slice::from_ref(&asked)).await {
            Ok(mut verdicts) => return verdicts.remove(0),
            Err(reason) => assert!(Instant::now() < deadline, "{reason}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Whether `what` becomes true before long.
async fn in_the_end(what: impl AsyncFn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if what().await {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn a_server_that_lost_everything_refuses_until_it_is_opened_anew() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open(&counter, 0).await;
    assert!(granted(&admit(counter.as_ref(), event("a", 60)).await));
    setting.lose_everything();
    assert!(counter.admit(&[event("b", 1)]).await.is_err());
    assert!(!counter.sync(&synced(1, chats(60, 1), &["a"])).await.unwrap());
    assert_eq!(counter.take_over(SINGLE).await.unwrap(), None);
    assert!(!counter.open(SINGLE, Offset::new(1), Timestamp::MIN).await.unwrap());
    setting.seeds.count(chats(60, 1), 1);
    open(&counter, 1).await;
    assert_eq!(refused(&admit(counter.as_ref(), event("b", 41)).await), Some(Refused::TokenLimit));
    assert!(granted(&admit(counter.as_ref(), event("c", 40)).await));
}

#[tokio::test]
async fn a_server_that_comes_back_with_old_data_refuses_until_it_is_opened_anew() {
    let mut server = OwnServer::start();
    let setting = Setting::on(&server.url());
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open(&counter, 0).await;
    server.run(&["SAVE"]);
    assert!(granted(&admit(counter.as_ref(), event("a", 60)).await));
    server.kill_and_start();
    assert!(!setting.keys().is_empty(), "it came back with what it had saved");
    let fresh = setting.counter(CounterTime::Server);
    for counter in [&counter, &fresh] {
        assert!(in_the_end(async || counter.ping().await.is_ok()).await);
        assert!(counter.admit(&[event("b", 60)]).await.is_err());
        assert_eq!(counter.take_over(SINGLE).await.unwrap(), None);
        assert!(counter.audit().await.is_err());
    }
    assert!(!counter.sync(&synced(1, chats(60, 1), &["a"])).await.unwrap());
    assert!(!counter.open(SINGLE, Offset::new(0), Timestamp::MIN).await.unwrap());
    open(&counter, 0).await;
    assert!(granted(&admit(fresh.as_ref(), event("b", 60)).await));
}

#[tokio::test]
async fn a_partition_closed_before_a_restart_is_not_opened_after_it() {
    let mut server = OwnServer::start();
    let setting = Setting::on(&server.url());
    let counter = setting.counter(CounterTime::Server);
    counter.close(SINGLE).await.unwrap();
    server.run(&["SAVE"]);
    server.kill_and_start();
    assert!(in_the_end(async || counter.ping().await.is_ok()).await);
    assert!(!counter.open(SINGLE, Offset::new(0), Timestamp::MIN).await.unwrap());
}

#[tokio::test]
async fn what_a_deposed_server_lets_in_is_not_passed_on() {
    // Two servers that know nothing of each other, as after a fail-over.
    let (old, new) = (OwnServer::start(), OwnServer::start());
    let mut setting = Setting::on(&old.url());
    setting.settings.feed_poll = Duration::from_secs(3600);
    setting.seeds.put(user(1), limit(100));
    let mut promoted = setting.clone();
    promoted.settings.url = new.url();
    let (deposed, owner) =
        (setting.counter(CounterTime::Clock), setting.counter(CounterTime::Clock));
    open(&owner, 0).await;
    assert!(granted(&admit(deposed.as_ref(), event("a", 60)).await));
    deposed.hold(&hold_now(&setting, "h", 10)).await.unwrap();
    let next = promoted.counter(CounterTime::Clock);
    open(&next, 0).await;
    // It was paused, or polls rarely: what it knows of the feed is too old to rely on.
    setting.clock.advance(Duration::from_millis(1001));
    let reads = setting.epochs.reads();
    assert!(deposed.admit(&[event("b", 1)]).await.is_err());
    assert!(setting.epochs.reads() > reads);
    // From now on it knows.
    assert!(deposed.admit(&[event("a", 60)]).await.is_err());
    assert_eq!(deposed.admit_at_once(&[event("c", 1)]).await, [None]);
    assert!(deposed.hold(&hold_now(&setting, "i", 1)).await.is_err());
    assert!(deposed.release(user(1), hold_id("h")).await.is_err());
    assert!(deposed.usage(user(1), october()).await.is_err());
    assert!(deposed.set_terms(user(1), Some(limit(1))).await.is_err());
    assert_eq!(deposed.take_over(SINGLE).await.unwrap(), None);
    assert!(deposed.in_touch());
    // The owner hears of it at its next look.
    assert!(owner.admit(&[event("b", 1)]).await.is_err());
    assert!(!owner.sync(&synced(1, chats(60, 1), &["a"])).await.unwrap());
    assert!(granted(&admit(next.as_ref(), event("b", 100)).await));
}

fn hold_now(setting: &Setting, name: &str, tokens: u64) -> metering::quota::Hold {
    hold(&setting.fixture(CounterTime::Clock), name, tokens)
}

#[tokio::test]
async fn a_recent_look_at_the_feed_serves_many_admissions() {
    let mut setting = Setting::fresh();
    setting.settings.feed_poll = Duration::from_secs(3600);
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Clock);
    open(&counter, 0).await;
    admit(counter.as_ref(), event("first", 0)).await;
    setting.clock.advance(Duration::from_millis(1001));
    admit(counter.as_ref(), event("looks", 0)).await;
    let reads = setting.epochs.reads();
    for number in 0..20 {
        setting.clock.advance(Duration::from_millis(50));
        assert!(granted(&admit(counter.as_ref(), event(&format!("{number}"), 1)).await));
    }
    assert_eq!(setting.epochs.reads(), reads);
    setting.clock.advance(Duration::from_millis(1));
    admit(counter.as_ref(), event("last", 0)).await;
    assert_eq!(setting.epochs.reads(), reads + 1);
}

#[tokio::test]
async fn a_process_cut_off_from_the_feed_goes_on_with_what_it_knows() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Clock);
    open(&counter, 0).await;
    assert!(granted(&admit(counter.as_ref(), event("a", 1)).await));
    setting.epochs.set_broken(true);
    assert!(in_the_end(async || !counter.in_touch()).await);
    setting.clock.advance(Duration::from_secs(60));
    assert!(granted(&admit(counter.as_ref(), event("b", 1)).await));
    // Whoever has never seen the feed knows no name to go on with.
    let blind = setting.counter(CounterTime::Clock);
    assert!(blind.admit(&[event("c", 1)]).await.is_err());
    setting.epochs.set_broken(false);
    assert!(granted(&admit_in_the_end(&blind, event("d", 1)).await));
    assert!(in_the_end(async || counter.in_touch()).await);
}

#[tokio::test]
async fn who_is_cut_off_decides_nothing_at_once_under_a_name_that_it_does_not_know() {
    let mut setting = Setting::fresh();
    setting.settings.feed_poll = Duration::from_secs(3600);
    setting.seeds.put(user(1), limit(100));
    let owner = setting.counter(CounterTime::Clock);
    open(&owner, 0).await;
    admit(owner.as_ref(), event("a", 1)).await;
    setting.epochs.set_broken(true);
    let blind = setting.counter(CounterTime::Clock);
    assert!(in_the_end(async || !blind.in_touch()).await);
    let reads = setting.epochs.reads();
    assert_eq!(blind.admit_at_once(&[event("b", 1)]).await, [None]);
    assert_eq!(setting.epochs.reads(), reads, "a look would hold up everybody");
    let told = owner.admit_at_once(&[event("c", 1)]).await;
    assert!(granted(told[0].as_ref().unwrap()), "it knows the name");
}

#[tokio::test]
async fn a_close_that_is_not_announced_leaves_the_partition_closed() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open(&counter, 0).await;
    setting.epochs.set_broken(true);
    assert!(counter.close(SINGLE).await.is_err());
    setting.epochs.set_broken(false);
    assert!(counter.admit(&[event("a", 1)]).await.is_err());
    assert!(!counter.open(SINGLE, Offset::new(0), Timestamp::MIN).await.unwrap());
    open(&counter, 0).await;
    assert!(granted(&admit(counter.as_ref(), event("a", 1)).await));
}

#[tokio::test]
async fn a_close_says_how_long_what_was_let_in_may_take() {
    let setting = Setting::fresh();
    let counter = setting.counter(CounterTime::Server);
    let first = counter.close(SINGLE).await.unwrap();
    assert_eq!(first, Duration::ZERO, "under no name before anything could be published");
    let wait = counter.close(SINGLE).await.unwrap();
    let settings = &setting.settings;
    assert!(wait > ADMISSION_WINDOW + settings.feed_delay + MARGIN + settings.clock_bound);
    let named = setting.epochs.named(SINGLE).unwrap();
    assert!(named.incarnation.contains(':'), "run id and replication id: {named:?}");
}

#[tokio::test]
async fn of_two_that_close_the_later_one_opens() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let (first, second) =
        (setting.counter(CounterTime::Server), setting.counter(CounterTime::Server));
    first.close(SINGLE).await.unwrap();
    second.close(SINGLE).await.unwrap();
    assert!(!first.open(SINGLE, Offset::new(0), Timestamp::MIN).await.unwrap());
    assert!(second.open(SINGLE, Offset::new(0), Timestamp::MIN).await.unwrap());
    assert!(granted(&admit(first.as_ref(), event("a", 1)).await));
    // The answer was lost, so it asks again: what was let in meanwhile stays.
    assert!(second.open(SINGLE, Offset::new(0), Timestamp::MIN).await.unwrap());
    assert!(repeated(&admit(first.as_ref(), event("a", 1)).await));
}

#[tokio::test]
async fn a_sync_under_an_old_name_changes_nothing() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let (old, owner) = (setting.counter(CounterTime::Server), setting.counter(CounterTime::Server));
    open(&old, 0).await;
    open(&owner, 3).await;
    setting.seeds.count(chats(10, 1), 3);
    admit(owner.as_ref(), event("a", 60)).await;
    let before = owner.audit().await.unwrap();
    // Whether the process has heard of the new name already or not.
    for _ in 0..2 {
        assert!(!old.sync(&synced(9, chats(99, 9), &["a"])).await.unwrap());
        assert_eq!(owner.audit().await.unwrap(), before);
        assert_eq!(owner.take_over(SINGLE).await.unwrap(), Some(Offset::new(3)));
        old.admit(&[event("b", 1)]).await.unwrap();
        owner.withdraw(&synced(0, Totals::default(), &["b"]).settled).await.unwrap();
    }
    assert!(owner.sync(&synced(9, chats(70, 2), &["a"])).await.unwrap());
    assert_eq!(owner.take_over(SINGLE).await.unwrap(), Some(Offset::new(9)));
}

#[tokio::test]
async fn a_new_owner_goes_on_with_what_is_open() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let (first, second) =
        (setting.counter(CounterTime::Server), setting.counter(CounterTime::Server));
    assert_eq!(second.take_over(SINGLE).await.unwrap(), None);
    open(&first, 4).await;
    setting.seeds.count(chats(5, 1), 4);
    admit(first.as_ref(), event("a", 60)).await;
    assert!(!second.sync(&synced(5, chats(65, 2), &["a"])).await.unwrap(), "it owns nothing yet");
    assert_eq!(second.take_over(SINGLE).await.unwrap(), Some(Offset::new(4)));
    assert!(second.sync(&synced(5, chats(65, 2), &["a"])).await.unwrap());
    let used = first.usage(user(1), october()).await.unwrap().unwrap().used;
    assert_eq!(used, chats(65, 2));
    second.close(SINGLE).await.unwrap();
    assert_eq!(first.take_over(SINGLE).await.unwrap(), None);
}

#[tokio::test]
async fn seeds_read_for_an_earlier_epoch_are_dropped() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    open(&counter, 0).await;
    let go_on = setting.seeds.slow_totals();
    let anew = async {
        while setting.seeds.totals_reads().is_empty() {
            tokio::task::yield_now().await;
        }
        setting.seeds.count(chats(90, 1), 0);
        open(&counter, 0).await;
        go_on.send(()).unwrap();
    };
    let (verdict, ()) = tokio::join!(admit(counter.as_ref(), event("a", 50)), anew);
    assert_eq!(refused(&verdict), Some(Refused::TokenLimit));
    assert_eq!(setting.seeds.totals_reads().len(), 2);
}

#[tokio::test]
async fn a_snapshot_older_than_the_epoch_is_dropped() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Server);
    setting.seeds.count(chats(90, 1), 7);
    open(&counter, 7).await;
    setting.seeds.answer_once(Totals::default(), 6);
    let verdict = admit(counter.as_ref(), event("a", 50)).await;
    assert_eq!(refused(&verdict), Some(Refused::TokenLimit));
}

#[tokio::test]
async fn cursor_and_watermark_never_go_back() {
    let setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = setting.counter(CounterTime::Clock);
    open(&counter, 0).await;
    let now = setting.clock.now();
    let at = |cursor: u64, watermark| Synced {
        watermark,
        totals: vec![],
        ..synced(cursor, Totals::default(), &[])
    };
    // A new generation of the log has its number in the high bits.
    let far = (3 << 60) + 1;
    for (cursor, watermark) in [(far, now.plus(MARGIN)), (far - 1, now), (5, Timestamp::MIN)] {
        assert!(counter.sync(&at(cursor, watermark)).await.unwrap());
        assert_eq!(counter.take_over(SINGLE).await.unwrap(), Some(Offset::new(far)));
    }
    setting.seeds.count(Totals::default(), far);
    let Verdict::Granted(grant) = admit(counter.as_ref(), event("a", 1)).await else {
        panic!("fits")
    };
    assert_eq!((grant.cursor, grant.admitted_at), (Offset::new(far), now.plus(MARGIN)));
}
