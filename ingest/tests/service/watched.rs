//! A log that a test can look at.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ingest::{LookUp, Parts};
use metering::Unavailable;
use metering::accounts::UserId;
use metering::trace::TraceParent;
use metering::usage::{AdmittedEvent, AppendError, Appended, EventLog, Partition};

use crate::house::House;

/// A log that notes what it is given, and fails for a partition.
pub(crate) struct Watched {
    inner: Arc<dyn EventLog>,
    /// How many events each append had, and in which trace.
    appends: Mutex<Vec<(usize, Option<String>)>>,
    /// Whose events go to a partition of their own, which fails.
    away_for: Mutex<Option<UserId>>,
}

#[async_trait]
impl EventLog for Watched {
    async fn append(
        &self,
        events: Vec<AdmittedEvent>,
        trace: Option<TraceParent>,
    ) -> Result<Vec<Appended>, AppendError> {
        let noted = (events.len(), trace.map(|trace| trace.to_string()));
        self.appends.lock().unwrap().push(noted);
        let away = *self.away_for.lock().unwrap();
        let fails = events.iter().any(|one| Some(one.event.user_id) == away);
        let appended = self.inner.append(events, trace).await?;
        if fails { Err(Unavailable::new("event_log", "no leader").into()) } else { Ok(appended) }
    }

    fn partition_of(&self, user: UserId) -> Partition {
        Partition::new(u32::from(*self.away_for.lock().unwrap() == Some(user)))
    }
}

impl Watched {
    pub(crate) async fn in_a_house(look_up: LookUp) -> (House, Arc<Self>) {
        let mut watched = None;
        let house = House::with(|parts, stores| {
            let (inner, appends) = (stores.log.clone(), Mutex::default());
            let log = Arc::new(Self { inner, appends, away_for: Mutex::default() });
            watched = Some(log.clone());
            Parts { log, look_up, ..parts }
        })
        .await;
        (house, watched.unwrap())
    }

    pub(crate) fn fails_for(&self, user: Option<UserId>) {
        *self.away_for.lock().unwrap() = user;
    }

    /// Since the last call.
    pub(crate) fn appends(&self) -> Vec<(usize, Option<String>)> {
        let mut appends = std::mem::take(&mut *self.appends.lock().unwrap());
        appends.sort_unstable();
        appends
    }

    /// How many events each append since the last call had.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.appends().into_iter().map(|(events, _)| events).collect()
    }
}
