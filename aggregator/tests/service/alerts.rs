//! Alerts: raised with the count, and sent to whoever is to be told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aggregator::{AlertReceiver, AlertSender, Message};
use async_trait::async_trait;
use metering::accounts::{
    Accounts as _, NewUser, PreferenceStore as _, PreferencesChange, Role, UserId,
};
use metering::quota::PlanName;
use metering::time::Clock as _;
use metering::usage::{
    AdmittedEvent, AlertQuery, Alerts as _, Delivery, DeliveryState, EventLog as _,
    EventSource as _, ListedAlert, TokenCounts,
};
use serde_json::{Value, json};
use stores::sqlite::SqliteAccounts;
use tokio::task::JoinHandle;

use crate::rig::{PARTITION, Rig, until, user};

/// A receiver that can be told to refuse.
#[derive(Default)]
struct Receiver {
    refuses: Mutex<Option<&'static str>>,
    heard: Mutex<Vec<Message>>,
}

#[async_trait]
impl AlertReceiver for Receiver {
    async fn send(&self, message: &Message) -> Result<(), String> {
        self.heard.lock().unwrap().push(message.clone());
        self.refuses.lock().unwrap().map_or(Ok(()), |why| Err(why.to_owned()))
    }
}

impl Receiver {
    fn heard(&self) -> Vec<Message> {
        self.heard.lock().unwrap().clone()
    }

    fn refuse(&self, why: Option<&'static str>) {
        *self.refuses.lock().unwrap() = why;
    }
}

struct Scene {
    rig: Rig,
    accounts: Arc<SqliteAccounts>,
    receiver: Arc<Receiver>,
}

impl Scene {
    /// One user, known to a service as `customer-9`.
    async fn new() -> Self {
        let rig = Rig::new();
        let accounts = Arc::new(SqliteAccounts::open(&rig.file("accounts.db")).unwrap());
        let new = NewUser {
            id: user(),
            name: None,
            email: None,
            external_id: Some("customer-9".to_owned()),
            role: Role::User,
            password: None,
            plan: PlanName::new("free"),
            payment_method_id: None,
            now: rig.clock.now(),
        };
        accounts.create(new).await.unwrap();
        Self { rig, accounts, receiver: Arc::default() }
    }

    fn event(&self, id: &str, prompt: u32) -> AdmittedEvent {
        let mut admitted = self.rig.event(id);
        admitted.plan = PlanName::new("free");
        admitted.event.tokens = TokenCounts { prompt, ..TokenCounts::default() };
        admitted.content_digest = admitted.event.content_digest();
        admitted
    }

    /// The user has used this much of their 100 000 tokens, and it is counted.
    async fn uses(&self, id: &str, prompt: u32) {
        self.count(vec![self.event(id, prompt)]).await;
    }

    async fn count(&self, events: Vec<AdmittedEvent>) {
        self.rig.log.append(events, None).await.unwrap();
        let end = self.rig.log.end(PARTITION).await.unwrap();
        let running = self.rig.start();
        self.rig.until_counted_to(end.number()).await;
        running.stop().await.unwrap();
    }

    fn start(&self) -> JoinHandle<()> {
        let sender = AlertSender {
            alerts: Arc::new(self.rig.ledger.clone()),
            accounts: self.accounts.clone(),
            preferences: self.accounts.clone(),
            receiver: self.receiver.clone(),
            clock: self.rig.clock.clone(),
        };
        tokio::spawn(sender.run())
    }

    async fn alerts(&self) -> Vec<ListedAlert> {
        let query = AlertQuery { rows_max: 99, ..AlertQuery::default() };
        self.rig.ledger.alerts(&query).await.unwrap()
    }

    async fn delivery(&self) -> Delivery {
        self.alerts().await.remove(0).delivery
    }

    async fn until_state(&self, state: DeliveryState) {
        until(state.as_str(), async || self.delivery().await.state == state).await;
    }

    async fn until_attempts(&self, attempts: usize) {
        until("it was tried", async || self.receiver.heard().len() >= attempts).await;
        until("it was noted", async || self.delivery().await.last_error.is_some()).await;
    }
}

#[tokio::test]
async fn each_part_of_a_limit_is_told_once_however_often_its_records_are_counted() {
    let scene = Scene::new().await;
    let _sender = scene.start();
    for (id, prompt) in [("a", 79_999), ("b", 1), ("b", 1), ("c", 15_000)] {
        scene.uses(id, prompt).await;
    }
    until("both are sent", async || {
        let alerts = scene.alerts().await;
        alerts.len() == 2 && alerts.iter().all(|one| one.delivery.state == DeliveryState::Sent)
    })
    .await;
    let heard = scene.receiver.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    let alerts = scene.alerts().await;
    let alert = &alerts.iter().find(|one| one.alert.percent == 80).unwrap().alert;
    let message = heard.iter().find(|message| message.id == alert.id().to_string()).unwrap();
    let body: Value = serde_json::from_str(&message.body).unwrap();
    let expected = json!({
        "type": "usage.threshold_reached",
        "timestamp": alert.raised_at,
        "data": {
            "id": message.id, "user_id": user(), "external_user_id": "customer-9",
            "period": "2026-09", "plan": "free", "meter": "tokens", "percent": 80,
            "limit": 100_000, "used": 80_000, "raised_at": alert.raised_at,
        },
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_commit_without_an_answer_raises_its_alerts_once() {
    let scene = Scene::new().await;
    for fault in [&scene.rig.faults.answers_lost, &scene.rig.faults.commits_lost] {
        fault.store(1, std::sync::atomic::Ordering::SeqCst);
    }
    scene.uses("a", 80_000).await;
    assert_eq!(scene.alerts().await.len(), 1);
}

#[tokio::test]
async fn a_receiver_that_refuses_is_asked_again_less_and_less_often_with_the_same_id() {
    let scene = Scene::new().await;
    scene.receiver.refuse(Some("it answered 500"));
    scene.uses("a", 80_000).await;
    let _sender = scene.start();
    for (attempt, pause) in [(1, 5), (2, 20), (3, 80)] {
        scene.until_attempts(attempt).await;
        let due = async || scene.delivery().await.attempts as usize == attempt;
        until("the attempt is noted", due).await;
        let delivery = scene.delivery().await;
        assert_eq!(delivery.last_error.as_deref(), Some("it answered 500"));
        // A second too early it is not tried.
        scene.rig.clock.advance(Duration::from_secs(pause - 1));
        let now = scene.rig.clock.now();
        assert_eq!(scene.rig.ledger.take_due(now, now, 9).await.unwrap(), []);
        if attempt == 3 {
            scene.receiver.refuse(None);
        }
        scene.rig.clock.advance(Duration::from_secs(1));
    }
    scene.until_state(DeliveryState::Sent).await;
    let heard = scene.receiver.heard();
    assert_eq!(heard.len(), 4);
    assert!(heard.iter().all(|message| *message == heard[0]), "{heard:?}");
    let delivery = scene.delivery().await;
    assert_eq!((delivery.attempts, delivery.last_error), (4, None));
}

#[tokio::test]
async fn after_three_days_it_is_given_up_until_somebody_asks() {
    let scene = Scene::new().await;
    scene.receiver.refuse(Some("refused"));
    scene.uses("a", 80_000).await;
    let sender = scene.start();
    scene.until_attempts(1).await;
    scene.rig.clock.advance(Duration::from_secs(3 * 86_400 + 1));
    scene.until_state(DeliveryState::GivenUp).await;
    assert_eq!(scene.receiver.heard().len(), 2);
    scene.receiver.refuse(None);
    assert_eq!(scene.rig.ledger.retry(scene.rig.clock.now()).await.unwrap(), 1);
    scene.until_state(DeliveryState::Sent).await;
    assert_eq!(scene.receiver.heard().len(), 3);
    sender.abort();
}

#[tokio::test]
async fn a_receiver_that_comes_later_is_not_told_of_what_is_old() {
    let scene = Scene::new().await;
    scene.uses("a", 80_000).await;
    scene.rig.clock.advance(Duration::from_secs(3 * 86_400 + 1));
    scene.uses("b", 15_000).await;
    let _sender = scene.start();
    until("the young one is sent, the old one is not", async || {
        let alerts = scene.alerts().await;
        let states: Vec<_> = alerts.iter().map(|one| one.delivery.state).collect();
        states == [DeliveryState::Sent, DeliveryState::GivenUp]
    })
    .await;
    assert_eq!(scene.receiver.heard().len(), 1);
    let old = scene.alerts().await.remove(1).delivery;
    assert!(old.last_error.unwrap().contains("three days"));
    // Who wants it all the same asks.
    scene.rig.ledger.retry(scene.rig.clock.now()).await.unwrap();
    until("it is sent", async || scene.receiver.heard().len() == 2).await;
}

#[tokio::test]
async fn who_wants_no_notifications_or_is_erased_is_not_told_of() {
    for erased in [false, true] {
        let scene = Scene::new().await;
        let now = scene.rig.clock.now();
        if erased {
            scene.accounts.erase(user(), now).await.unwrap();
        } else {
            let change =
                PreferencesChange { notifications: Some(false), ..PreferencesChange::default() };
            scene.accounts.change(user(), &change, now).await.unwrap();
        }
        scene.uses("a", 80_000).await;
        let _sender = scene.start();
        scene.until_state(DeliveryState::Muted).await;
        assert_eq!(scene.receiver.heard(), []);
    }
}

#[tokio::test]
async fn more_than_are_sent_at_once_are_all_sent() {
    let scene = Scene::new().await;
    let users: Vec<_> = (10..60).map(|number| UserId::from_bytes([number; 16])).collect();
    let mut events = Vec::new();
    for id in users {
        let new = NewUser {
            id,
            name: None,
            email: None,
            external_id: None,
            role: Role::User,
            password: None,
            plan: PlanName::new("free"),
            payment_method_id: None,
            now: scene.rig.clock.now(),
        };
        scene.accounts.create(new).await.unwrap();
        let mut event = scene.event("a", 80_000);
        event.event.user_id = id;
        event.id_digest = event.event.id_digest();
        events.push(event);
    }
    scene.count(events).await;
    let _sender = scene.start();
    until("all are sent", async || scene.receiver.heard().len() == 50).await;
    let ids: std::collections::BTreeSet<_> =
        scene.receiver.heard().into_iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), 50);
}
