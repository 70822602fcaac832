//! The port of alerts: what was raised, and the outbox from which it is sent.

use async_trait::async_trait;

use super::{Alert, AlertId};
use crate::Unavailable;
use crate::accounts::UserId;
use crate::time::Timestamp;

/// What became of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not sent yet.
    Waiting,
    /// The receiver has taken it.
    Sent,
    /// Its user wants no notifications, or was erased: it is listed only.
    Muted,
    /// The receiver did not take it for too long.
    GivenUp,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Sent, Self::Muted, Self::GivenUp];

    /// As JSON shows it and stores keep it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Muted => "muted",
            Self::GivenUp => "given_up",
        }
    }
}

impl std::str::FromStr for DeliveryState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// How far the delivery of an alert is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Delivery {
    /// What became of it.
    pub state: DeliveryState,
    /// How often it was taken to be sent.
    pub attempts: u32,
    /// When it got its state; `None` while it waits.
    pub ended_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// An alert as it is listed.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ListedAlert {
    /// What was raised.
    #[serde(flatten)]
    pub alert: Alert,
    /// And whether it was told.
    pub delivery: Delivery,
}

/// Which alerts to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlertQuery {
    /// Of one user only.
    pub user_id: Option<UserId>,
    /// Of one state only.
    pub state: Option<DeliveryState>,
    /// Only those older than this one.
    pub after: Option<(Timestamp, AlertId)>,
    /// At most so many.
    pub rows_max: usize,
}

/// What came of an attempt to send an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It needs no other: sent, muted or given up, then; and why, if something went wrong.
    Ended(DeliveryState, Timestamp, Option<String>),
    /// It failed, is so explained, and is due again then.
    Again(String, Timestamp),
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlertBacklog {
    /// How many alerts.
    pub waiting: u64,
    /// When the oldest was raised.
    pub oldest: Option<Timestamp>,
}

/// The alerts that commits of the ledger have raised, each in the transaction that counted what it is
/// about, and their outbox. An alert that is taken and not noted, because its process died, is due
/// again later: it is sent at least once, always with the same id.
#[async_trait]
pub trait Alerts: Send + Sync {
    /// A page of alerts, newest first; of the same time, the larger id first.
    async fn alerts(&self, query: &AlertQuery) -> Result<Vec<ListedAlert>, Unavailable>;

    /// Takes alerts that are due at `now` to send them, at most `alerts_max`: nobody else gets them
    /// before `until`. With each, how often it was taken, this time included.
    async fn take_due(
        &self,
        now: Timestamp,
        until: Timestamp,
        alerts_max: usize,
    ) -> Result<Vec<(Alert, u32)>, Unavailable>;

    /// Notes what came of an attempt. One that has ended meanwhile stays as it is.
    async fn note(&self, id: AlertId, attempt: &Attempt) -> Result<(), Unavailable>;

    /// Lets those that were given up be sent again, from `now` on; answers how many.
    async fn retry(&self, now: Timestamp) -> Result<u64, Unavailable>;

    /// What waits to be sent.
    async fn backlog(&self) -> Result<AlertBacklog, Unavailable>;
}
