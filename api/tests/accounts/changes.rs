//! What the command line changes beside a running server.

use api::accounts::create_key;
use api::changes::{ChangeFollower, Followed};
use edge::Condition;
use metering::accounts::{Accounts, ApiKeys, Scope, SubscriptionChange, Subscriptions, UserId};
use metering::quota::PlanName;
use metering::time::Clock;

use crate::service::Service;

async fn follower(service: &Service) -> ChangeFollower {
    let followed = Followed {
        feed: service.store.clone(),
        subscriptions: service.store.clone(),
        counter: service.api.counter.clone(),
        plans: service.api.plans.clone(),
        verifier: service.api.verifier.clone(),
        clock: service.clock.clone(),
    };
    ChangeFollower::start(followed).await.unwrap()
}

#[tokio::test]
async fn a_lock_by_another_process_is_taken_over() {
    let service = Service::start().await;
    let mut follower = follower(&service).await;
    let user = service.register("ada@example.com").await;
    let me = || service.call("GET", "/api/users/me").bearer(&user.access_token).send();
    assert_eq!(me().await.status, 200);
    let id = user.id.parse().unwrap();
    service.store.update(id, None, Some(true), service.clock.now()).await.unwrap();
    follower.step().await.unwrap();
    assert_eq!(me().await.status, 401);
}

#[tokio::test]
async fn a_revocation_by_another_process_is_taken_over() {
    let service = Service::start().await;
    let mut follower = follower(&service).await;
    let (now, scopes) = (service.clock.now(), [Scope::Admin].into_iter().collect());
    let (key, text) = create_key(&*service.store, "k", scopes, None, now).await.unwrap();
    let list = || service.call("GET", "/api/users").bearer(&text).send();
    assert_eq!(list().await.status, 200);
    service.store.revoke(&key.id, now).await.unwrap();
    follower.step().await.unwrap();
    assert_eq!(list().await.status, 401);
}

#[tokio::test]
async fn terms_and_erasures_by_another_process_reach_the_counter() {
    let service = Service::start().await;
    let mut follower = follower(&service).await;
    let user = service.register("ada@example.com").await.id;
    let id: UserId = user.parse().unwrap();
    assert!(!service.track(&user, "gpt-4", 1).await);
    let plan = Some(PlanName::new("basic"));
    let change = SubscriptionChange { plan, ..SubscriptionChange::default() };
    Subscriptions::change(&*service.store, id, &change, service.clock.now()).await.unwrap();
    follower.step().await.unwrap();
    assert!(service.track(&user, "gpt-4", 1).await);
    service.store.erase(id, service.clock.now()).await.unwrap();
    follower.step().await.unwrap();
    assert!(!service.track(&user, "gpt-4", 1).await);
}

#[tokio::test]
async fn it_follows_until_it_is_told_to_stop() {
    let service = Service::start().await;
    let follower = follower(&service).await;
    let health = follower.health();
    let user = service.register("ada@example.com").await;
    let id = user.id.parse().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(follower.run(async move { stopped.await.unwrap() }));
    let me = || service.call("GET", "/api/users/me").bearer(&user.access_token).send();
    assert_eq!(me().await.status, 200);
    service.store.update(id, None, Some(true), service.clock.now()).await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(1);
    while me().await.status != 401 {
        assert!(tokio::time::Instant::now() < deadline, "a lock is in force within 1 s");
    }
    assert_eq!(health.check().await, Condition::Good);
    stop.send(()).unwrap();
    running.await.unwrap();
}
