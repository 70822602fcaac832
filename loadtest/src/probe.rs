//! How long it takes until an acknowledged event is seen: a user of its own, one event at a time,
//! tracked and then asked for until it is there.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::client::Api;
use crate::latencies::{Latencies, LatencySummary};

/// Between two questions. It bounds how exactly the time is known, and a shorter one would be a load of
/// its own: of ClickHouse, a question takes some ten milliseconds.
const POLL_GAP: Duration = Duration::from_millis(25);

/// Between two events.
const PAUSE: Duration = Duration::from_millis(40);

/// Then an event counts as not seen.
const PATIENCE: Duration = Duration::from_secs(30);

const PROMPT_TOKENS: u64 = 100;
const COMPLETION_TOKENS: u64 = 11;
const TOKENS: u64 = PROMPT_TOKENS + COMPLETION_TOKENS;

/// Tracks and watches one user.
pub(crate) struct Probe {
    api: Api,
    user: String,
    run: u32,
    tracked: u64,
    unseen: u64,
    overcounted: u64,
    failed: u64,
    visible: Latencies,
    read: Latencies,
}

/// What it saw.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProbeReport {
    /// Events tracked, one after another.
    pub(crate) tracked: u64,
    /// Acknowledged and not seen for half a minute.
    pub(crate) unseen: u64,
    /// Times that more was seen than was sent.
    pub(crate) overcounted: u64,
    /// Calls that failed.
    pub(crate) failed: u64,
    /// From the acknowledgement to the first answer of `GET /api/users/{id}/tokens` with it.
    pub(crate) accepted_to_visible: LatencySummary,
    /// Of each such call by itself.
    pub(crate) read: LatencySummary,
}

impl Probe {
    /// For that user, whom nobody else uses.
    pub(crate) fn new(api: Api, user: String, run: u32) -> anyhow::Result<Self> {
        Ok(Self {
            api,
            user,
            run,
            tracked: 0,
            unseen: 0,
            overcounted: 0,
            failed: 0,
            visible: Latencies::new()?,
            read: Latencies::new()?,
        })
    }

    /// Tracks and watches until `until`.
    pub(crate) async fn run(&mut self, until: Instant) {
        while Instant::now() < until {
            if self.track().await {
                self.watch(Instant::now()).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tracks the next event; the same one again after a failure.
    async fn track(&mut self) -> bool {
        let (user, run, number) = (&self.user, self.run, self.tracked);
        let body = format!(
            "{{\"user_id\":\"{user}\",\"event_id\":\"probe-{run:08x}-{number}\",\
             \"request_type\":\"chat\",\"model\":\"gpt-4o-mini\",\
             \"prompt_tokens\":{PROMPT_TOKENS},\"completion_tokens\":{COMPLETION_TOKENS}}}"
        );
        let answer = self.api.post("/api/tokens/track", &body).await;
        let acknowledged = answer.is_ok_and(|answer| (200..300).contains(&answer.status));
        if acknowledged {
            self.tracked += 1;
        } else {
            self.failed += 1;
        }
        acknowledged
    }

    /// Asks until all that was tracked is there.
    async fn watch(&mut self, acknowledged_at: Instant) {
        let expected = self.tracked * TOKENS;
        let path = format!("/api/users/{}/tokens", self.user);
        while acknowledged_at.elapsed() < PATIENCE {
            let asked_at = Instant::now();
            let answer = self.api.get(&path, "application/json").await;
            let seen = answer.ok().and_then(|answer| tokens_used(&answer.json().ok()?));
            self.read.record(asked_at.elapsed());
            match seen {
                Some(seen) if seen >= expected => {
                    self.overcounted += u64::from(seen > expected);
                    self.visible.record(acknowledged_at.elapsed());
                    return;
                }
                Some(_) => {}
                None => self.failed += 1,
            }
            tokio::time::sleep(POLL_GAP).await;
        }
        self.unseen += 1;
    }

    /// What it saw so far.
    pub(crate) fn report(&self) -> ProbeReport {
        ProbeReport {
            tracked: self.tracked,
            unseen: self.unseen,
            overcounted: self.overcounted,
            failed: self.failed,
            accepted_to_visible: self.visible.summary(),
            read: self.read.summary(),
        }
    }
}

fn tokens_used(tokens: &Value) -> Option<u64> {
    tokens.pointer("/current_period/tokens_used")?.as_u64()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::{get, post};

    use super::*;
    use crate::client::Address;

    /// A server that shows an event from the third question on, and counts it `times` times.
    async fn server(times: u64) -> Address {
        let (tracked, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let show = {
            let tracked = Arc::clone(&tracked);
            move || async move {
                let late = asked.fetch_add(1, Ordering::SeqCst) % 3 < 2;
                let events = tracked.load(Ordering::SeqCst) - u64::from(late);
                let used = events * TOKENS * times;
                serde_json::json!({"current_period": {"tokens_used": used}}).to_string()
            }
        };
        let track = move || async move {
            tracked.fetch_add(1, Ordering::SeqCst);
            StatusCode::CREATED
        };
        let router = Router::new()
            .route("/api/tokens/track", post(track))
            .route("/api/users/{id}/tokens", get(show));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Address { authority }
    }

    async fn probed(times: u64) -> ProbeReport {
        let api = Api::new(server(times).await, "key");
        let mut probe = Probe::new(api, "u".to_owned(), 1).unwrap();
        probe.run(Instant::now() + Duration::from_millis(1)).await;
        probe.report()
    }

    #[tokio::test]
    async fn it_asks_until_the_event_is_seen() {
        let report = probed(1).await;
        assert_eq!((report.tracked, report.unseen, report.overcounted), (1, 0, 0));
        assert_eq!(report.read.count(), 3);
        assert_eq!(report.accepted_to_visible.count(), 1);
    }

    #[tokio::test]
    async fn it_notices_when_more_is_counted_than_was_sent() {
        assert_eq!(probed(2).await.overcounted, 1);
    }
}
