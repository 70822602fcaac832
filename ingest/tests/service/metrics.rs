//! What the service counts.

use serde_json::json;

use crate::house::{BATCH, House, OWN, chat, with};

#[tokio::test]
async fn every_event_is_counted_by_what_became_of_it() {
    let recorder = edge::telemetry::builder().unwrap().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    ingest::describe();
    let house = House::new().await;
    let user = house.user("free").await;
    let known = with(chat(1), json!({"event_id": "known"}));
    for event in [&known, &known, &chat(200_000), &json!({})] {
        house.post(OWN, &user.token, event).await;
    }
    let batch = json!([known, chat(1), with(chat(1), json!({"model": "none"}))]);
    house.post(BATCH, &user.token, &batch).await.expect(200);
    let hold = json!({"model": "gpt-4o-mini", "request_type": "chat", "tokens": 1});
    house.post("/api/tokens/me/reservations", &user.token, &hold).await.expect(201);

    let text = handle.render();
    for line in [
        r#"tokenmeter_track_events_total{outcome="accepted"} 2"#,
        r#"tokenmeter_track_events_total{outcome="duplicate"} 2"#,
        r#"tokenmeter_track_events_total{outcome="rejected"} 3"#,
        r#"tokenmeter_track_events_total{outcome="unavailable"} 0"#,
        r#"tokenmeter_refusals_total{code="token_limit_reached"} 1"#,
        r#"tokenmeter_refusals_total{code="invalid_request"} 1"#,
        r#"tokenmeter_refusals_total{code="unknown_model"} 1"#,
        r#"tokenmeter_track_seconds_count{call="single"} 4"#,
        r#"tokenmeter_track_seconds_count{call="batch"} 1"#,
        "tokenmeter_track_batch_records_sum 3",
        r#"tokenmeter_reservations_total{outcome="held"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let named = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for name in named.filter(|name| name.starts_with("tokenmeter_track")) {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help text");
    }
}
