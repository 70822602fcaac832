//! The caller's trace on its way into the log.

use ingest::LookUp;
use metering::accounts::Scope;
use serde_json::json;

use crate::house::{BATCH, FOR, OWN, chat, with};
use crate::watched::Watched;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACED: &[(&str, &str)] = &[("traceparent", TRACE)];

fn traced(events: usize) -> Vec<(usize, Option<String>)> {
    vec![(events, Some(TRACE.to_owned()))]
}

#[tokio::test]
async fn the_trace_of_a_request_goes_with_all_that_it_appends() {
    let (house, log) = Watched::in_a_house(LookUp::Every).await;
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
    let (house, log) = Watched::in_a_house(LookUp::Every).await;
    let user = house.user("professional").await;
    for headers in [&[][..], &[("traceparent", "00-no-trace-01")], &[TRACED[0], TRACED[0]]] {
        house.send(OWN, &user.token, headers, chat(1).to_string()).await.expect(201);
        assert_eq!(log.appends(), [(1, None)], "{headers:?}");
    }
}
