//! The caller's trace on its way into the log.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ingest::Parts;
use metering::accounts::Scope;
use metering::trace::TraceParent;
use metering::usage::{AdmittedEvent, AppendError, Appended, EventLog};
use serde_json::json;

use crate::house::{BATCH, FOR, House, OWN, chat, with};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACED: &[(&str, &str)] = &[("traceparent", TRACE)];

/// A log that keeps what each append was given beside its events.
struct Keeping {
    inner: Arc<dyn EventLog>,
    traces: Mutex<Vec<(usize, Option<String>)>>,
}

#[async_trait]
impl EventLog for Keeping {
    async fn append(
        &self,
        events: Vec<AdmittedEvent>,
        trace: Option<TraceParent>,
    ) -> Result<Vec<Appended>, AppendError> {
        let kept = (events.len(), trace.map(|trace| trace.to_string()));
        self.traces.lock().unwrap().push(kept);
        self.inner.append(events, trace).await
    }
}

impl Keeping {
    /// How many events each append since the last call had, and in which trace.
    fn appends(&self) -> Vec<(usize, Option<String>)> {
        std::mem::take(&mut *self.traces.lock().unwrap())
    }
}

async fn keeping() -> (House, Arc<Keeping>) {
    let mut keeping = None;
    let house = House::with(|parts, stores| {
        let log = Arc::new(Keeping { inner: stores.log.clone(), traces: Mutex::default() });
        keeping = Some(log.clone());
        Parts { log, ..parts }
    })
    .await;
    (house, keeping.unwrap())
}

fn traced(events: usize) -> Vec<(usize, Option<String>)> {
    vec![(events, Some(TRACE.to_owned()))]
}

#[tokio::test]
async fn the_trace_of_a_request_goes_with_all_that_it_appends() {
    let (house, log) = keeping().await;
    let user = house.user("professional").await;
    let key = house.key(&[Scope::Ingest]).await;
    let named = with(chat(1), json!({"user_id": user.id}));
    house.send(OWN, &user.token, TRACED, chat(1).to_string()).await.expect(201);
    assert_eq!(log.appends(), traced(1));
    house.send(FOR, &key, TRACED, named.to_string()).await.expect(201);
    assert_eq!(log.appends(), traced(1));

    let batch = json!([named, named, "bad"]).to_string();
    house.send(BATCH, &key, TRACED, batch).await.expect(200);
    assert_eq!(log.appends(), traced(2));
    let large = json!(vec![chat(1); 2000]).to_string();
    house.send(BATCH, &user.token, TRACED, large).await.expect(200);
    assert_eq!(log.appends(), traced(2000), "parsed on another thread");

    let hold = json!({
        "request_type": "chat", "model": "gpt-3.5-turbo", "tokens": 5, "reservation_id": "r",
    });
    house.post("/api/tokens/me/reservations", &user.token, &hold).await.expect(201);
    let settling = with(chat(5), json!({"reservation_id": "r"})).to_string();
    house.send(OWN, &user.token, TRACED, settling).await.expect(201);
    assert_eq!(log.appends(), traced(1));
}

#[tokio::test]
async fn a_request_without_a_trace_or_with_an_invalid_one_is_taken_alike() {
    let (house, log) = keeping().await;
    let user = house.user("professional").await;
    for headers in [&[][..], &[("traceparent", "00-no-trace-01")], &[TRACED[0], TRACED[0]]] {
        house.send(OWN, &user.token, headers, chat(1).to_string()).await.expect(201);
        assert_eq!(log.appends(), [(1, None)], "{headers:?}");
    }
}
