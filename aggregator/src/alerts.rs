//! Sends the alerts that wait in the outbox: at least once each, always with the same id.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metering::Unavailable;
use metering::accounts::{Accounts, PreferenceStore, User, uuid_at};
use metering::time::{Clock, Timestamp};
use metering::usage::{Alert, Alerts, Attempt, DeliveryState};
use serde_json::json;
use tokio::task::JoinSet;

/// How often the outbox is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often its metrics are.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(15);

/// Messages on their way at once: a receiver that is slow must not hold up too many, nor be flooded.
const ALERTS_AT_ONCE: usize = 16;

/// After that an alert that was taken belongs to whoever finds it: its process has died. Longer than a
/// receiver may take, or it is told twice.
const TAKEN_FOR: Duration = Duration::from_secs(30);

/// The pause after the first failed attempt, and after a store that failed; each further attempt waits
/// four times as long, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);

/// The longest pause: a receiver that is back is told within that.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// How old an alert may be to be tried again: the news of a month, and not of the month before.
const TRIED_FOR: Duration = Duration::from_secs(3 * 86_400);

/// What a receiver is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The same for each attempt: a receiver that has it already may pass it over.
    pub id: String,
    /// JSON: `{"type","timestamp","data"}`.
    pub body: String,
}

impl Message {
    /// One that says nothing but that messages arrive.
    pub fn test(now: Timestamp) -> Self {
        let id = format!("test_{}", uuid_at(now));
        let body = json!({"type": "test", "timestamp": now, "data": {"id": id}});
        Self { id, body: body.to_string() }
    }

    fn of(alert: &Alert, user: &User) -> Self {
        let mut data = json!(alert);
        data["external_user_id"] = json!(user.external_id);
        let body = json!({
            "type": "usage.threshold_reached",
            "timestamp": alert.raised_at,
            "data": data,
        });
        Self { id: alert.id().to_string(), body: body.to_string() }
    }
}

/// Who is told of alerts.
#[async_trait]
pub trait AlertReceiver: Send + Sync {
    /// Answers when it has taken the message for good. Well within half a minute.
    ///
    /// # Errors
    /// Why it has not, for people. It may have all the same.
    async fn send(&self, message: &Message) -> Result<(), String>;
}

/// Sends alerts. Cheap to clone; any number of processes may send from one outbox.
#[derive(Clone)]
pub struct AlertSender {
    /// The outbox.
    pub alerts: Arc<dyn Alerts>,
    /// Who the users are.
    pub accounts: Arc<dyn Accounts>,
    /// Whether they want to be notified.
    pub preferences: Arc<dyn PreferenceStore>,
    /// Who is told.
    pub receiver: Arc<dyn AlertReceiver>,
    /// The present.
    pub clock: Arc<dyn Clock>,
}

impl AlertSender {
    /// Sends until it is aborted. A store that fails is asked again.
    pub async fn run(self) {
        let mut observed_at: Option<tokio::time::Instant> = None;
        loop {
            match self.send_due().await {
                // There may be more.
                Ok(Sent { taken: ALERTS_AT_ONCE, failed: 0 }) => {}
                Ok(_) => tokio::time::sleep(POLL_INTERVAL).await,
                Err(error) => {
                    tracing::warn!(%error, "alerts are not sent");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if observed_at.is_none_or(|at| at.elapsed() >= OBSERVE_INTERVAL) {
                observed_at = Some(tokio::time::Instant::now());
                self.observe().await;
            }
        }
    }

    /// Takes what is due, some at a time, and sends it.
    async fn send_due(&self) -> Result<Sent, Unavailable> {
        let now = self.clock.now();
        let taken = self.alerts.take_due(now, now.plus(TAKEN_FOR), ALERTS_AT_ONCE).await?;
        let mut sent = Sent { taken: taken.len(), failed: 0 };
        let mut sending = JoinSet::new();
        for (alert, attempts) in taken {
            let sender = self.clone();
            sending.spawn(async move { sender.send(&alert, attempts).await });
        }
        while let Some(ended) = sending.join_next().await {
            // An alert whose task panicked, or could not be noted, is due again before long.
            let good = match ended {
                Ok(Ok(good)) => good,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "an alert was not noted: it is sent again");
                    false
                }
                Err(_) => false,
            };
            sent.failed += usize::from(!good);
        }
        Ok(sent)
    }

    /// Whether the alert needs nothing more.
    async fn send(&self, alert: &Alert, attempts: u32) -> Result<bool, Unavailable> {
        let attempt = self.attempt(alert, attempts).await?;
        let outcome = match &attempt {
            Attempt::Again(..) => "failed",
            Attempt::Ended(state, ..) => state.as_str(),
        };
        self.alerts.note(alert.id(), &attempt).await?;
        metrics::counter!("tokenmeter_alert_deliveries_total", "outcome" => outcome).increment(1);
        match &attempt {
            Attempt::Again(error, _) => {
                tracing::warn!(id = %alert.id(), attempts, error, "an alert was not taken");
            }
            Attempt::Ended(DeliveryState::GivenUp, _, error) => {
                tracing::error!(id = %alert.id(), attempts, error, "an alert is given up");
            }
            Attempt::Ended(..) => {}
        }
        Ok(matches!(attempt, Attempt::Ended(..)))
    }

    async fn attempt(&self, alert: &Alert, attempts: u32) -> Result<Attempt, Unavailable> {
        let now = self.clock.now();
        let is_old = now.since(alert.raised_at) > TRIED_FOR;
        if is_old && attempts <= 1 {
            let why = "nobody was there to be told for three days".to_owned();
            return Ok(Attempt::Ended(DeliveryState::GivenUp, now, Some(why)));
        }
        let Some(user) = self.notified(alert, now).await? else {
            return Ok(Attempt::Ended(DeliveryState::Muted, now, None));
        };
        let sent = self.receiver.send(&Message::of(alert, &user)).await;
        let now = self.clock.now();
        Ok(match sent {
            Ok(()) => Attempt::Ended(DeliveryState::Sent, now, None),
            Err(error) if is_old => Attempt::Ended(DeliveryState::GivenUp, now, Some(error)),
            Err(error) => Attempt::Again(error, now.plus(pause_after(attempts))),
        })
    }

    /// The user, unless they are gone or want no notifications.
    async fn notified(&self, alert: &Alert, now: Timestamp) -> Result<Option<User>, Unavailable> {
        let Some(user) = self.accounts.find(alert.user_id).await? else { return Ok(None) };
        let preferences = self.preferences.of_user(user.id, now).await?;
        Ok(preferences.is_some_and(|preferences| preferences.notifications).then_some(user))
    }

    async fn observe(&self) {
        let Ok(backlog) = self.alerts.backlog().await else { return };
        let now = self.clock.now();
        let age = backlog.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
        let waiting = u32::try_from(backlog.waiting).map_or(f64::MAX, f64::from);
        metrics::gauge!("tokenmeter_alerts_waiting").set(waiting);
        metrics::gauge!("tokenmeter_oldest_alert_waiting_seconds").set(age.as_secs_f64());
    }
}

/// What became of the alerts that were taken.
struct Sent {
    taken: usize,
    failed: usize,
}

fn pause_after(attempts: u32) -> Duration {
    let longer = 4_u32.saturating_pow(attempts.saturating_sub(1));
    PAUSE.saturating_mul(longer).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_an_hour() {
        let seconds = [1, 2, 3, 4, 5, 6, 40].map(|attempts| pause_after(attempts).as_secs());
        assert_eq!(seconds, [5, 20, 80, 320, 1280, 3600, 3600]);
    }
}
