//! A counter that is away, and an operator who would rather have events recorded than refused.

use std::num::NonZeroU32;
use std::sync::Arc;

use metering::quota::{Admission, QuotaCounter, Refused, Tier, Verdict};
use metering::time::Timestamp;
use metering::usage::{Flag, Flags, Offset, Partition};
use stores::redis::{CounterTime, OnOutage, RedisQuotaCounter};

use super::own_server::OwnServer;
use super::setting::Setting;
use crate::contract::quota_counter::{admit, chats, event, granted, limit, refused, user};

fn recording(setting: &mut Setting) -> Arc<RedisQuotaCounter> {
    setting.settings.on_outage = OnOutage::Record;
    setting.counter(CounterTime::Server)
}

async fn open(counter: &RedisQuotaCounter, partition: Partition, cursor: u64) {
    counter.close(partition).await.unwrap();
    assert!(counter.open(partition, Offset::new(cursor), Timestamp::MIN).await.unwrap());
}

/// Whether it was let in without a counter.
fn is_unmetered(verdict: &Verdict) -> bool {
    let unmetered = Flags::default().with(Flag::Unmetered);
    matches!(verdict, Verdict::Granted(grant) if grant.flags == unmetered)
}

#[tokio::test]
async fn while_redis_is_away_known_users_are_let_in_whatever_they_have_used() {
    let server = OwnServer::start();
    let mut setting = Setting::on(&server.url());
    setting.seeds.put(user(1), limit(100));
    let counter = recording(&mut setting);
    open(&counter, Partition::SINGLE, 0).await;
    assert!(granted(&admit(counter.as_ref(), event("a", 90)).await));
    assert_eq!(refused(&admit(counter.as_ref(), event("b", 90)).await), Some(Refused::TokenLimit));
    drop(server);
    setting.seeds.count(chats(90, 1), 1);
    let verdict = admit(counter.as_ref(), event("b", 90)).await;
    assert!(is_unmetered(&verdict), "{verdict:?}");
    let Verdict::Granted(grant) = verdict else { unreachable!() };
    assert_eq!(grant.standing.used, chats(180, 2), "the ledger's, and this");
    assert_eq!(grant.cursor, Offset::new(1));
    let nobody = Admission { user_id: user(2), ..event("c", 1) };
    assert_eq!(admit(counter.as_ref(), nobody).await, Verdict::UnknownUser);
}

#[tokio::test]
async fn without_the_counter_nothing_is_refused_for_it_may_be_on_its_way() {
    let server = OwnServer::start();
    let mut setting = Setting::on(&server.url());
    setting.seeds.put(user(1), limit(100));
    let counter = recording(&mut setting);
    drop(server);
    let barred = Admission { barred: true, ..event("a", 1) };
    let not_in_plan = Admission { tier: Tier(2), ..event("b", 1) };
    for asked in [barred, not_in_plan] {
        assert!(counter.admit(&[event("c", 1), asked]).await.is_err());
    }
    // Nor is anything let in that cannot be said of a user.
    setting.seeds.set_broken(true);
    assert!(counter.admit(&[event("c", 1)]).await.is_err());
}

#[tokio::test]
async fn nothing_is_let_in_any_more_once_the_log_is_left_for_another() {
    let mut setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = recording(&mut setting);
    assert!(is_unmetered(&admit(counter.as_ref(), event("a", 1)).await), "no epoch is open");
    setting.epochs.leave_the_log();
    assert!(counter.admit(&[event("a", 1)]).await.is_err());
}

#[tokio::test]
async fn a_partition_that_is_open_is_metered_beside_one_that_is_not() {
    let mut setting = Setting::fresh();
    setting.settings.partitions = NonZeroU32::new(2).unwrap();
    let of = |number| {
        let mut users = (1..=u8::MAX).map(user);
        users.find(|user| Partition::of(*user, setting.settings.partitions).number() == number)
    };
    let [here, there] = [of(0).unwrap(), of(1).unwrap()];
    setting.seeds.put(here, limit(100));
    setting.seeds.put(there, limit(100));
    let counter = recording(&mut setting);
    open(&counter, Partition::new(0), 0).await;
    let asked = [here, there].map(|user_id| Admission { user_id, ..event("a", 200) });
    let verdicts = counter.admit(&asked).await.unwrap();
    assert_eq!(refused(&verdicts[0]), Some(Refused::TokenLimit));
    assert!(is_unmetered(&verdicts[1]), "{verdicts:?}");
}

#[tokio::test]
async fn what_a_deposed_server_lets_in_is_unmetered() {
    let mut setting = Setting::fresh();
    setting.seeds.put(user(1), limit(100));
    let counter = recording(&mut setting);
    open(&counter, Partition::SINGLE, 0).await;
    let [metered, refused] = [event("a", 1), event("b", 101)];
    assert!(!is_unmetered(&admit(counter.as_ref(), metered.clone()).await));
    // Another server is in force; this one still says what it said.
    let mut other = Setting::fresh();
    other.epochs = setting.epochs.clone();
    open(&other.counter(CounterTime::Server), Partition::SINGLE, 0).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !is_unmetered(&admit(counter.as_ref(), metered.clone()).await) {
        assert!(std::time::Instant::now() < deadline, "the old epoch is still believed");
        tokio::task::yield_now().await;
    }
    assert!(is_unmetered(&admit(counter.as_ref(), refused).await));
}
