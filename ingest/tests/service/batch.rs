//! `POST /api/tokens/track/batch`.

use std::io::Write;

use metering::accounts::{Role, Scope};
use serde_json::{Value, json};

use crate::house::{Answer, BATCH, House, OWN, chat, with};

fn counts(answer: &Answer) -> [u64; 3] {
    ["accepted", "duplicates", "rejected"].map(|name| answer.body[name].as_u64().unwrap())
}

fn named(id: &str, tokens: u64) -> Value {
    with(chat(tokens), json!({"event_id": id}))
}

#[tokio::test]
async fn what_is_not_plainly_accepted_is_listed() {
    let house = House::new().await;
    let user = house.user("free").await;
    house.post(OWN, &user.token, &named("known", 1)).await.expect(201);
    house.stores.count().await;
    house.post(OWN, &user.token, &named("in flight", 1)).await.expect(201);
    let batch = json!([
        named("a", 1),
        named("known", 1),
        named("in flight", 1),
        named("known", 2),
        named("a", 1),
        named("a", 2),
        with(named("b", 1), json!({"model": "none"})),
        with(named("c", 1), json!({"prompt_tokens": -1})),
        "text",
        named("d", 1_000_000),
        named("e", 1),
    ]);
    let answer = house.post(BATCH, &user.token, &batch).await.expect(200);
    assert_eq!(counts(&answer), [2, 3, 6]);
    let rows: Vec<_> = answer.body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
            (row["index"].as_u64().unwrap(), text("event_id"), text("status"), text("code"))
        })
        .collect();
    let row = |index, id: &str, status: &str, code: &str| {
        (index, id.to_owned(), status.to_owned(), code.to_owned())
    };
    let expected = [
        row(1, "known", "duplicate", "-"),
        row(2, "in flight", "duplicate", "-"),
        row(3, "known", "rejected", "event_id_reused"),
        row(4, "a", "duplicate", "-"),
        row(5, "a", "rejected", "event_id_reused"),
        row(6, "b", "rejected", "unknown_model"),
        row(7, "c", "rejected", "invalid_request"),
        row(8, "-", "rejected", "invalid_request"),
        row(9, "d", "rejected", "token_limit_reached"),
    ];
    assert_eq!(rows, expected);
    assert!(answer.body["results"][2]["detail"].is_string());
    assert_eq!(house.logged().await, ["in flight", "a", "in flight", "e"]);

    let verbose = format!("{BATCH}?verbose=true");
    let again = house.send(&verbose, &user.token, &[], batch.to_string()).await.expect(200);
    assert_eq!(counts(&again), [0, 5, 6], "sending it again is safe");
    assert_eq!(again.body["results"].as_array().unwrap().len(), 11);
    house.stores.count().await;
    let fresh = json!([named("f", 1)]);
    let fresh = house.send(&verbose, &user.token, &[], fresh.to_string()).await.expect(200);
    let row = &fresh.body["results"][0];
    assert_eq!(*row, json!({"index": 0, "event_id": "f", "status": "accepted"}));
}

#[tokio::test]
async fn every_format_and_encoding_is_understood() {
    let house = House::new().await;
    let user = house.user("professional").await;
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    for (number, (kind, encoding)) in [
        ("application/json", "identity"),
        ("application/json", "gzip"),
        ("application/x-ndjson", "identity"),
        ("application/x-ndjson", "zstd"),
    ]
    .into_iter()
    .enumerate()
    {
        let events: Vec<String> =
            (0..1000).map(|i| named(&format!("{number}-{i}"), 1).to_string()).collect();
        let text = match kind {
            "application/json" => format!("[{}]", events.join(",")),
            _ => events.join("\r\n"),
        };
        let body = match encoding {
            "gzip" => gzip(&text),
            "zstd" => zstd::encode_all(text.as_bytes(), 3).unwrap(),
            _ => text.into_bytes(),
        };
        let headers = [("content-type", kind), ("content-encoding", encoding)];
        let answer = house.send(BATCH, &user.token, &headers, body).await.expect(200);
        assert_eq!(counts(&answer), [1000, 0, 0], "{kind} {encoding}");
        assert_eq!(answer.body["results"], json!([]));
        assert!(answer.header("ratelimit").is_empty());
    }
    assert_eq!(house.logged().await.len(), 4000);
}

#[tokio::test]
async fn a_bad_line_is_refused_alone() {
    let house = House::new().await;
    let user = house.user("free").await;
    let headers = [("content-type", "application/x-ndjson")];
    let body = format!("{}\n{{\"event_id\":\n\n{}\n", named("a", 1), named("b", 1));
    let answer = house.send(BATCH, &user.token, &headers, body).await.expect(200);
    assert_eq!(counts(&answer), [2, 0, 1]);
    assert_eq!(answer.body["results"][0]["index"], 1);
    assert_eq!(answer.body["results"][0]["code"], "malformed_json");
}

#[tokio::test]
async fn a_batch_that_is_none_is_refused_whole() {
    let house = House::new().await;
    let user = house.user("free").await;
    let many = format!("[{}7]", "7,".repeat(ingest::EVENTS_MAX));
    let large = vec![b' '; ingest::BATCH_BYTES_MAX + 1];
    let bomb = zstd::encode_all(&*large, 3).unwrap();
    let ndjson = ("content-type", "application/x-ndjson");
    for (headers, body, status, code) in [
        (vec![], b"[]".to_vec(), 422, "invalid_request"),
        (vec![ndjson], b"\n\n".to_vec(), 422, "invalid_request"),
        (vec![], b"{}".to_vec(), 422, "invalid_request"),
        (vec![], b"[1".to_vec(), 400, "malformed_json"),
        (vec![], many.into_bytes(), 413, "too_many_events"),
        (vec![], large, 413, "body_too_large"),
        (vec![("content-encoding", "zstd")], bomb, 413, "body_too_large"),
        (vec![("content-type", "text/csv")], b"a".to_vec(), 415, "unsupported_media_type"),
    ] {
        let answer = house.send(BATCH, &user.token, &headers, body).await;
        assert_eq!(answer.refused(), (status, code), "{headers:?}");
    }
    let csv = house.send(BATCH, &user.token, &[("content-type", "text/csv")], "a").await;
    assert_eq!(csv.header("accept-post"), "application/json, application/x-ndjson");
    let parameter = house.send(&format!("{BATCH}?verbose=x"), &user.token, &[], "[]").await;
    assert_eq!(parameter.body["errors"][0]["parameter"], "verbose");
}

#[tokio::test]
async fn items_without_an_id_get_one_from_the_key_and_their_place() {
    let house = House::new().await;
    let user = house.user("free").await;
    let batch = json!([chat(1), named("own", 1), chat(1)]).to_string();
    let key = [("idempotency-key", "\"b7\"")];
    let first = house.send(BATCH, &user.token, &key, batch.clone()).await.expect(200);
    assert_eq!(counts(&first), [3, 0, 0]);
    assert_eq!(house.logged().await, ["b7-0", "own", "b7-2"]);
    let again = house.send(BATCH, &user.token, &key, batch).await.expect(200);
    assert_eq!(counts(&again), [0, 3, 0]);
    let long = "k".repeat(127);
    let batch = json!([chat(1), named("fits", 1)]).to_string();
    let answer = house.send(BATCH, &user.token, &[("idempotency-key", &long)], batch).await;
    assert_eq!(counts(&answer.expect(200)), [1, 0, 1]);
}

#[tokio::test]
async fn users_report_on_themselves_and_services_on_anybody() {
    let house = House::new().await;
    let user = house.create("free", Role::User, Some("mine")).await;
    let other = house.create("free", Role::User, Some("other")).await;
    let admin = house.create("free", Role::Admin, None).await;
    let batch = json!([
        chat(1),
        with(chat(1), json!({"user_id": user.id})),
        with(chat(1), json!({"user_id": other.id})),
        with(chat(1), json!({"external_user_id": "other"})),
        with(chat(1), json!({"external_user_id": "nobody"})),
        with(chat(1), json!({"user_id": "nobody"})),
        with(chat(1), json!({"user_id": 7})),
    ]);
    let service = house.key(&[Scope::Ingest]).await;
    let ok = "";
    for (credential, codes) in [
        (
            &user.token,
            [ok, ok, "forbidden", "forbidden", "forbidden", "forbidden", "invalid_request"],
        ),
        (&admin.token, [ok, ok, ok, ok, "unknown_user", "unknown_user", "invalid_request"]),
        (
            &service,
            ["invalid_request", ok, ok, ok, "unknown_user", "unknown_user", "invalid_request"],
        ),
    ] {
        let path = format!("{BATCH}?verbose=true");
        let answer = house.send(&path, credential, &[], batch.to_string()).await.expect(200);
        let rows = answer.body["results"].as_array().unwrap();
        let found: Vec<_> = rows.iter().map(|row| row["code"].as_str().unwrap_or(ok)).collect();
        assert_eq!(found, codes);
    }
    let reader = house.key(&[Scope::UsageRead]).await;
    assert_eq!(house.post(BATCH, &reader, &batch).await.refused(), (403, "forbidden"));
    assert_eq!(house.post(BATCH, "", &batch).await.refused(), (401, "unauthenticated"));
}

#[tokio::test]
async fn one_batch_never_passes_a_limit() {
    let house = House::new().await;
    let user = house.user("free").await;
    let batch: Vec<Value> = (0..150).map(|i| named(&format!("e{i}"), 1000)).collect();
    let answer = house.post(BATCH, &user.token, &json!(batch)).await.expect(200);
    assert_eq!(counts(&answer), [100, 0, 50]);
    house.stores.count().await;
    let again = house.post(BATCH, &user.token, &json!(batch)).await.expect(200);
    assert_eq!(counts(&again), [0, 100, 50]);
}

mod properties {
    use proptest::prelude::*;

    use super::{BATCH, House};

    /// A batch of pieces that are nearly events.
    fn nearly_a_batch() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(br#"{"request_type":"chat","model":"gpt-4","prompt_tokens":1,"completion_tokens":1}"#.to_vec()),
            Just(br#"{"request_type":"chat","model":"\ud800"}"#.to_vec()),
            Just(b"[".to_vec()),
            Just(b"]".to_vec()),
            Just(b",".to_vec()),
            Just(b"\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..8),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    #[test]
    fn no_body_whatever_is_an_error_of_the_server() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (house, user) = runtime.block_on(async {
            let house = House::new().await;
            let user = house.user("professional").await;
            (house, user)
        });
        let kinds = proptest::sample::select(vec!["application/json", "application/x-ndjson"]);
        let encodings = proptest::sample::select(vec!["identity", "gzip", "zstd"]);
        let mut runner = proptest::test_runner::TestRunner::default();
        runner
            .run(&(nearly_a_batch(), kinds, encodings), |(body, kind, encoding)| {
                let headers = [("content-type", kind), ("content-encoding", encoding)];
                let answer = runtime.block_on(house.send(BATCH, &user.token, &headers, body));
                prop_assert!(answer.status < 500, "{answer:?}");
                Ok(())
            })
            .unwrap();
    }
}
