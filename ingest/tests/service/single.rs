//! `POST /api/tokens/me/track` and `POST /api/tokens/track`.

use metering::accounts::{Role, Scope};
use metering::usage::Payload;
use serde_json::{Value, json};

use crate::house::{FOR, House, OWN, chat, with};

#[tokio::test]
async fn an_event_is_recorded_and_answered_with_what_is_left() {
    let house = House::new().await;
    let user = house.user("free").await;
    let event = with(
        chat(70),
        json!({"event_id": "e1", "completion_tokens": 30, "cached_tokens": 20,
               "reasoning_tokens": 10, "metadata": {"a": [1]}, "unknown": true}),
    );
    let answer = house.post(OWN, &user.token, &event).await.expect(201);
    let expected = json!({
        "success": true, "event_id": "e1", "total_tokens": 100, "flags": [],
        "usage": {"used": 100, "limit": 100_000, "remaining": 99_900,
                  "reset_date": "2026-11-01T00:00:00.000Z"},
    });
    assert_eq!(answer.body, expected);
    assert_eq!(
        answer.header("ratelimit-policy"),
        r#""tokens";q=100000;w=2678400, "chat_messages";q=100;w=2678400"#
    );
    assert_eq!(
        answer.header("ratelimit"),
        r#""tokens";r=99900;t=1857600, "chat_messages";r=99;t=1857600"#
    );
    let records = house.stores.waiting().await;
    let Payload::Event(admitted) = &records[0].payload else { panic!("{records:?}") };
    assert_eq!(admitted.event.user_id, user.id);
    assert_eq!(admitted.plan.as_str(), "free");
    assert_eq!(admitted.event.metadata.as_ref().unwrap().as_str(), r#"{"a":[1]}"#);
    assert_eq!(admitted.event.tokens.cached, 20);
}

#[tokio::test]
async fn an_unlimited_plan_has_no_rate_limit_headers() {
    let house = House::new().await;
    let user = house.user("professional").await;
    let answer = house.post(OWN, &user.token, &chat(1_000_000_000)).await.expect(201);
    assert_eq!(answer.body["usage"]["limit"], Value::Null);
    assert_eq!(answer.body["usage"]["remaining"], Value::Null);
    assert!(answer.header("ratelimit").is_empty() && answer.header("ratelimit-policy").is_empty());
}

#[tokio::test]
async fn a_repeat_is_told_in_flight_and_counted_and_takes_nothing() {
    let house = House::new().await;
    let user = house.user("free").await;
    let event = with(chat(10), json!({"event_id": "e1"}));
    let other = with(chat(11), json!({"event_id": "e1"}));
    house.post(OWN, &user.token, &event).await.expect(201);
    for counted in [false, true] {
        if counted {
            house.stores.count().await;
        }
        let repeat = house.post(OWN, &user.token, &event).await.expect(200);
        assert_eq!(repeat.body["duplicate"], true, "{counted}");
        assert_eq!(repeat.body["usage"]["used"], 10);
        let reused = house.post(OWN, &user.token, &other).await;
        assert_eq!(reused.refused(), (409, "event_id_reused"), "{counted}");
    }
    let another = house.user("free").await;
    house.post(OWN, &another.token, &other).await.expect(201);
}

#[tokio::test]
async fn a_repeat_is_told_even_when_it_could_not_be_let_in_any_more() {
    let house = House::new().await;
    let user = house.user("free").await;
    let all = with(chat(100_000), json!({"event_id": "all", "occurred_at": house.at(0)}));
    house.post(OWN, &user.token, &all).await.expect(201);
    house.stores.count().await;
    house.post(OWN, &user.token, &all).await.expect(200);
    house.clock.advance(std::time::Duration::from_secs(3600));
    let too_old = house.post(OWN, &user.token, &all).await.expect(200);
    assert_eq!(too_old.body["duplicate"], true);
    let new = with(all, json!({"event_id": "new"}));
    let refused = house.post(OWN, &user.token, &new).await;
    assert_eq!(refused.refused(), (422, "timestamp_out_of_range"));
}

#[tokio::test]
async fn the_id_comes_from_the_body_the_header_or_the_server() {
    let house = House::new().await;
    let user = house.user("free").await;
    let key = [("idempotency-key", "\"k-1\"")];
    let body = with(chat(1), json!({"event_id": "e1"})).to_string();
    let answer = house.send(OWN, &user.token, &key, body).await.expect(201);
    assert_eq!(answer.body["event_id"], "e1");
    let answer = house.send(OWN, &user.token, &key, chat(1).to_string()).await.expect(201);
    assert_eq!(answer.body["event_id"], "k-1");
    let answer = house.send(OWN, &user.token, &key, chat(1).to_string()).await.expect(200);
    assert_eq!(answer.body["duplicate"], true);
    let made = house.post(OWN, &user.token, &chat(1)).await.expect(201);
    assert_eq!(made.body["event_id"].as_str().unwrap().len(), 36);
    let long = "k".repeat(129);
    let long = [("idempotency-key", long.as_str())];
    let bad = house.send(OWN, &user.token, &long, chat(1).to_string()).await;
    assert_eq!(bad.refused(), (422, "invalid_request"));
    assert_eq!(bad.body["errors"][0]["parameter"], "Idempotency-Key");
}

#[tokio::test]
async fn every_bad_form_has_its_answer_and_changes_nothing() {
    let house = House::new().await;
    let user = house.user("professional").await;
    let cases = [
        (json!(null), 422, "invalid_request", "#"),
        (json!([]), 422, "invalid_request", "#"),
        (json!({}), 422, "invalid_request", "#/request_type"),
        (with(chat(1), json!({"request_type": "song"})), 422, "invalid_request", "#/request_type"),
        (with(chat(1), json!({"model": ""})), 422, "invalid_request", "#/model"),
        (with(chat(1), json!({"model": "nobody-s-model"})), 422, "unknown_model", "#/model"),
        (with(chat(1), json!({"prompt_tokens": -1})), 422, "invalid_request", "#/prompt_tokens"),
        (with(chat(1), json!({"prompt_tokens": 1.5})), 422, "invalid_request", "#/prompt_tokens"),
        (with(chat(1), json!({"prompt_tokens": "1"})), 422, "invalid_request", "#/prompt_tokens"),
        (
            with(chat(1), json!({"prompt_tokens": 1_000_000_001u64})),
            422,
            "impossible_tokens",
            "#/prompt_tokens",
        ),
        (
            with(chat(1), json!({"prompt_tokens": 1e30})),
            422,
            "impossible_tokens",
            "#/prompt_tokens",
        ),
        (with(chat(1), json!({"cached_tokens": 2})), 422, "impossible_tokens", "#/cached_tokens"),
        (
            with(chat(1), json!({"reasoning_tokens": 1})),
            422,
            "impossible_tokens",
            "#/reasoning_tokens",
        ),
        (with(chat(1), json!({"event_id": ""})), 422, "invalid_request", "#/event_id"),
        (with(chat(1), json!({"event_id": "x".repeat(129)})), 422, "invalid_request", "#/event_id"),
        (with(chat(1), json!({"event_id": "a\u{0}b"})), 422, "invalid_request", "#/event_id"),
        (
            with(chat(1), json!({"occurred_at": "yesterday"})),
            422,
            "invalid_request",
            "#/occurred_at",
        ),
        (
            with(chat(1), json!({"occurred_at": house.at(-301)})),
            422,
            "timestamp_out_of_range",
            "#/occurred_at",
        ),
        (
            with(chat(1), json!({"occurred_at": house.at(301)})),
            422,
            "timestamp_out_of_range",
            "#/occurred_at",
        ),
        (with(chat(1), json!({"metadata": []})), 422, "invalid_request", "#/metadata"),
        (
            with(chat(1), json!({"metadata": {"a": "x".repeat(4096)}})),
            422,
            "invalid_request",
            "#/metadata",
        ),
    ];
    for (event, status, code, pointer) in cases {
        let answer = house.post(OWN, &user.token, &event).await;
        assert_eq!(answer.refused(), (status, code), "{event}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{event}: {}", answer.body);
    }
    assert!(house.logged().await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_as_an_event_is_refused() {
    let house = House::new().await;
    let user = house.user("professional").await;
    let positional = r#"["a","chat","gpt-4",1,1,null,null,null,null,null,null,null]"#;
    let answer = house.send(OWN, &user.token, &[], positional).await;
    assert_eq!(answer.refused(), (422, "invalid_request"));
    for (headers, body, status, code) in [
        (&[][..], "{", 400, "malformed_json"),
        (&[], "", 400, "malformed_json"),
        (&[("content-type", "text/plain")], "{}", 415, "unsupported_media_type"),
        (&[("content-encoding", "gzip")], "{}", 400, "malformed_encoding"),
        (&[("content-encoding", "br")], "{}", 415, "unsupported_media_type"),
    ] {
        let answer = house.send(OWN, &user.token, headers, body).await;
        assert_eq!(answer.refused(), (status, code), "{headers:?} {body}");
    }
    let large = house.send(OWN, &user.token, &[], vec![b' '; 65_537]).await;
    assert_eq!(large.refused(), (413, "body_too_large"));
    assert!(house.logged().await.is_empty());
}

#[tokio::test]
async fn a_refusal_of_the_plan_says_what_would_help() {
    let house = House::new().await;
    let user = house.user("free").await;
    house.post(OWN, &user.token, &chat(99_990)).await.expect(201);

    let tokens = house.post(OWN, &user.token, &chat(11)).await;
    assert_eq!(tokens.refused(), (429, "token_limit_reached"));
    assert_eq!(tokens.header("retry-after"), "1857600");
    assert_eq!(tokens.header("x-should-retry"), "false");
    assert!(tokens.header("ratelimit").starts_with(r#""tokens";r=10;t=1857600"#));
    assert_eq!(tokens.body["retryable"], false);
    let basic = json!({"plan": "basic", "token_limit": 500_000, "max_model_tier": "gpt-4"});
    assert_eq!(tokens.body["upgrade"], basic);

    let tier = with(chat(1), json!({"model": "gpt-4-turbo"}));
    let tier = house.post(OWN, &user.token, &tier).await;
    assert_eq!(tier.refused(), (403, "model_not_in_plan"));
    let pro = json!({"plan": "professional", "token_limit": null, "max_model_tier": "gpt-4-turbo"});
    assert_eq!(tier.body["upgrade"], pro);

    let check = with(chat(0), json!({"request_type": "plagiarism"}));
    for _ in 0..5 {
        house.post(OWN, &user.token, &check).await.expect(201);
    }
    let requests = house.post(OWN, &user.token, &check).await;
    assert_eq!(requests.refused(), (429, "request_limit_reached"));
    assert_eq!(requests.body["upgrade"], basic);
    assert_eq!(house.logged().await.len(), 6);
}

#[tokio::test]
async fn the_order_of_refusals_is_that_of_the_contract() {
    let house = House::new().await;
    let service = house.key(&[Scope::Ingest]).await;
    let user = house.user("free").await;
    let event = json!({
        "user_id": user.id, "event_id": "known", "request_type": "plagiarism",
        "model": "gpt-3.5-turbo", "prompt_tokens": 100_000, "completion_tokens": 0,
    });
    house.post(FOR, &service, &event).await.expect(201);
    house.stores.count().await;
    // Everything is wrong; one thing after the other is set right.
    let mut wrong = with(
        event,
        json!({"user_id": "nobody", "occurred_at": "2020-01-01T00:00:00Z", "model": "none",
               "prompt_tokens": -1, "completion_tokens": 1}),
    );
    let steps = [
        (json!({}), "unauthenticated"),
        (json!({}), "invalid_request"),
        (json!({"prompt_tokens": 1}), "unknown_user"),
        (json!({"user_id": user.id}), "event_id_reused"),
        (json!({"event_id": "new"}), "timestamp_out_of_range"),
        (json!({"occurred_at": house.at(0)}), "unknown_model"),
        (json!({"model": "gpt-4-turbo"}), "model_not_in_plan"),
        (json!({"model": "gpt-4o-mini"}), "token_limit_reached"),
    ];
    for (number, (fix, code)) in steps.into_iter().enumerate() {
        wrong = with(wrong, fix);
        let credential = if number == 0 { "" } else { &service };
        let answer = house.post(FOR, credential, &wrong).await;
        assert_eq!(answer.refused().1, code, "{wrong}");
    }
}

#[tokio::test]
async fn a_service_reports_on_anybody_by_either_id() {
    let house = House::new().await;
    let service = house.key(&[Scope::Ingest]).await;
    let user = house.create("free", Role::User, Some("crm-7")).await;
    let by_id = with(chat(1), json!({"user_id": user.id}));
    house.post(FOR, &service, &by_id).await.expect(201);
    let external = with(chat(1), json!({"external_user_id": "crm-7"}));
    let answer = house.post(FOR, &service, &external).await.expect(201);
    assert_eq!(answer.body["usage"]["used"], 2);
    for (named, status, code, pointer) in [
        (json!({}), 422, "invalid_request", "#/user_id"),
        (json!({"user_id": 7}), 422, "invalid_request", "#/user_id"),
        (
            json!({"user_id": user.id, "external_user_id": "crm-7"}),
            422,
            "invalid_request",
            "#/external_user_id",
        ),
        (json!({"user_id": "0190163d-8694-739b-aea5-966c26f8ad91"}), 422, "unknown_user", ""),
        (json!({"user_id": "nobody"}), 422, "unknown_user", ""),
        (json!({"external_user_id": "crm-8"}), 422, "unknown_user", ""),
    ] {
        let answer = house.post(FOR, &service, &with(chat(1), named.clone())).await;
        assert_eq!(answer.refused(), (status, code), "{named}");
        if !pointer.is_empty() {
            assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{named}");
        }
    }
}

#[tokio::test]
async fn who_may_report_on_whom() {
    let house = House::new().await;
    let user = house.user("free").await;
    let admin = house.create("free", Role::Admin, None).await;
    let other = house.user("free").await;
    let event = with(chat(1), json!({"user_id": other.id}));
    for (credential, own, on_other) in [
        (String::new(), 401, 401),
        ("nonsense".to_owned(), 401, 401),
        (user.token, 201, 403),
        (admin.token, 201, 201),
        (house.key(&[Scope::Ingest]).await, 403, 201),
        (house.key(&[Scope::Admin]).await, 403, 201),
        (house.key(&[Scope::Users, Scope::UsageRead, Scope::Backfill]).await, 403, 403),
    ] {
        assert_eq!(house.post(OWN, &credential, &event).await.status, own, "{credential}");
        assert_eq!(house.post(FOR, &credential, &event).await.status, on_other, "{credential}");
    }
    assert!(house.post(OWN, "", &event).await.header("www-authenticate").starts_with("Bearer"));
}

#[tokio::test]
async fn how_far_back_depends_on_the_caller() {
    const DAY: i64 = 86_400;
    let house = House::new().await;
    let user = house.user("professional").await;
    let service = house.key(&[Scope::Ingest]).await;
    let backfill = house.key(&[Scope::Ingest, Scope::Backfill]).await;
    for (path, credential, seconds, status) in [
        (OWN, &user.token, -299, 201),
        (OWN, &user.token, -301, 422),
        (FOR, &service, -34 * DAY, 201),
        (FOR, &service, -36 * DAY, 422),
        (FOR, &service, 301, 422),
        (FOR, &backfill, -900 * DAY, 201),
        (FOR, &backfill, 301, 422),
    ] {
        let event = with(chat(1), json!({"user_id": user.id, "occurred_at": house.at(seconds)}));
        let answer = house.post(path, credential, &event).await;
        assert_eq!(answer.status, status, "{path} {seconds}: {}", answer.body);
    }
    let past = with(chat(5), json!({"user_id": user.id, "occurred_at": "2024-02-10T00:00:00Z"}));
    let answer = house.post(FOR, &backfill, &past).await.expect(201);
    assert_eq!(answer.body["usage"]["reset_date"], "2024-03-01T00:00:00.000Z");
    assert_eq!(answer.body["usage"]["used"], 5, "the totals of the event's own month");
}

#[tokio::test]
async fn an_id_that_is_dated_ahead_is_refused() {
    let house = House::new().await;
    let user = house.user("free").await;
    let dated = |seconds| with(chat(1), json!({"event_id": house.uuid_at(seconds)}));
    let refused = house.post(OWN, &user.token, &dated(301)).await;
    assert_eq!(refused.refused(), (422, "timestamp_out_of_range"));
    assert_eq!(refused.body["errors"][0]["pointer"], "#/event_id");
    house.post(OWN, &user.token, &dated(299)).await.expect(201);
}
