//! Every rule of the HTTP contract on the form of an event.

use std::time::Duration;

use serde_json::{Value, json};

use crate::time::Timestamp;
use crate::usage::{
    EventId, EventInput, Rejection, RequestType, TimeWindow, TokenCounts, UserRef, read_event,
    read_event_value,
};

fn good() -> Value {
    json!({"request_type": "chat", "model": "gpt-4", "prompt_tokens": 100, "completion_tokens": 20})
}

fn with(name: &str, value: Value) -> Value {
    let mut event = good();
    event[name] = value;
    event
}

fn without(name: &str) -> Value {
    let mut event = good();
    event.as_object_mut().unwrap().remove(name);
    event
}

/// Read on both ways, which must agree.
fn read(event: &Value) -> Result<EventInput, Rejection> {
    let read = read_event(event.to_string().as_bytes());
    assert_eq!(read, read_event_value(event));
    read
}

/// The bad fields of an `invalid_request`: pointer and code.
fn invalid(event: &Value) -> Vec<(String, &'static str)> {
    match read(event) {
        Err(Rejection::Invalid(errors)) => {
            errors.into_iter().map(|error| (error.pointer, error.code)).collect()
        }
        other => panic!("{event}: {other:?}"),
    }
}

/// The bad fields of an `impossible_tokens`.
fn impossible(event: &Value) -> Vec<(String, &'static str)> {
    match read(event) {
        Err(Rejection::Impossible(errors)) => {
            errors.into_iter().map(|error| (error.pointer, error.code)).collect()
        }
        other => panic!("{event}: {other:?}"),
    }
}

fn at(pointer: &str, code: &'static str) -> Vec<(String, &'static str)> {
    vec![(pointer.to_owned(), code)]
}

#[test]
fn an_event_with_every_field_is_read_as_it_stands() {
    let event = json!({
        "event_id": "evt-1", "request_type": "plagiarism", "model": "gpt-4o",
        "prompt_tokens": 1_000_000_000, "completion_tokens": 20, "cached_tokens": 7,
        "reasoning_tokens": 3, "occurred_at": "2026-11-01T01:00:00+02:00",
        "reservation_id": "res-1", "metadata": {"a": [1]}, "external_user_id": "them",
        "colour": "blue",
    });
    let input = read(&event).unwrap();
    assert_eq!(input.event_id, Some(EventId::new("evt-1").unwrap()));
    assert_eq!((input.request_type, input.model.as_str()), (RequestType::Plagiarism, "gpt-4o"));
    let tokens = TokenCounts { prompt: 1_000_000_000, completion: 20, cached: 7, reasoning: 3 };
    assert_eq!(input.tokens, tokens);
    assert_eq!(input.occurred_at.unwrap().to_string(), "2026-10-31T23:00:00.000Z");
    assert_eq!(input.reservation_id.unwrap().as_str(), "res-1");
    assert_eq!(input.metadata.unwrap().as_str(), r#"{"a":[1]}"#);
    assert_eq!(input.user, Ok(Some(UserRef::External("them".into()))));
}

#[test]
fn four_fields_are_enough_and_null_is_left_out() {
    let mut nulls = good();
    for name in [
        "event_id",
        "cached_tokens",
        "reasoning_tokens",
        "occurred_at",
        "reservation_id",
        "metadata",
        "user_id",
        "external_user_id",
    ] {
        nulls[name] = Value::Null;
    }
    let input = read(&good()).unwrap();
    assert_eq!((&input.event_id, &input.metadata, &input.user), (&None, &None, &Ok(None)));
    assert_eq!((input.tokens.cached, input.tokens.reasoning), (0, 0));
    assert_eq!(read(&nulls).unwrap(), input);
}

#[test]
fn a_required_field_that_is_missing_is_named() {
    for name in ["request_type", "model", "prompt_tokens", "completion_tokens"] {
        let pointer = format!("#/{name}");
        assert_eq!(invalid(&without(name)), at(&pointer, "required"));
        assert_eq!(invalid(&with(name, Value::Null)), at(&pointer, "required"));
    }
}

#[test]
fn all_bad_fields_are_named_at_once() {
    let event = json!({"request_type": "poem", "prompt_tokens": -1, "completion_tokens": 1.5,
        "cached_tokens": "7", "occurred_at": 5, "metadata": []});
    let mut pointers: Vec<_> = invalid(&event).into_iter().map(|(pointer, _)| pointer).collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "#/cached_tokens",
            "#/completion_tokens",
            "#/metadata",
            "#/model",
            "#/occurred_at",
            "#/prompt_tokens",
            "#/request_type",
        ]
    );
}

#[test]
fn request_types_are_the_three_and_prompt() {
    let type_of = |text: &str| read(&with("request_type", json!(text))).unwrap().request_type;
    assert_eq!(type_of("chat"), RequestType::Chat);
    assert_eq!(type_of("plagiarism"), RequestType::Plagiarism);
    assert_eq!(type_of("prompt_generation"), RequestType::PromptGeneration);
    assert_eq!(type_of("prompt"), RequestType::PromptGeneration);
    for other in ["Chat", "", "chat "] {
        let bad = with("request_type", json!(other));
        assert_eq!(invalid(&bad), at("#/request_type", "not_allowed"));
    }
}

#[test]
fn counts_are_integers_from_0_to_a_thousand_million() {
    for name in ["prompt_tokens", "completion_tokens"] {
        let pointer = format!("#/{name}");
        for right in [0_u64, 1, 1_000_000_000] {
            read(&with(name, json!(right))).unwrap();
        }
        for wrong in [json!(-1), json!(1.5), json!(1.0), json!("1"), json!(true), json!([1])] {
            assert_eq!(invalid(&with(name, wrong)), at(&pointer, "wrong_type"));
        }
        for large in [json!(1_000_000_001), json!(u64::MAX), json!(1e30)] {
            assert_eq!(impossible(&with(name, large)), at(&pointer, "out_of_range"));
        }
    }
}

#[test]
fn an_integer_of_any_length_is_too_large_not_wrong() {
    let text = br#"{"request_type":"chat","model":"gpt-4","prompt_tokens":99999999999999999999999,"completion_tokens":0}"#;
    let Err(Rejection::Impossible(errors)) = read_event(text) else { panic!("not impossible") };
    assert_eq!(errors[0].pointer, "#/prompt_tokens");
}

#[test]
fn zero_tokens_in_all_are_a_request() {
    let mut event = good();
    (event["prompt_tokens"], event["completion_tokens"]) = (json!(0), json!(0));
    assert_eq!(read(&event).unwrap().tokens.total(), 0);
}

#[test]
fn a_part_is_at_most_its_whole() {
    assert!(read(&with("cached_tokens", json!(100))).is_ok());
    assert!(read(&with("reasoning_tokens", json!(20))).is_ok());
    let cached = with("cached_tokens", json!(101));
    assert_eq!(impossible(&cached), at("#/cached_tokens", "contradiction"));
    let reasoning = with("reasoning_tokens", json!(21));
    assert_eq!(impossible(&reasoning), at("#/reasoning_tokens", "contradiction"));
}

#[test]
fn a_wrong_form_is_told_before_impossible_counts() {
    let mut event = with("cached_tokens", json!(101));
    event["model"] = json!(7);
    assert_eq!(invalid(&event), at("#/model", "wrong_type"));
}

#[test]
fn ids_have_1_to_128_bytes() {
    for name in ["event_id", "reservation_id"] {
        let pointer = format!("#/{name}");
        read(&with(name, json!("x"))).unwrap();
        read(&with(name, json!("x".repeat(128)))).unwrap();
        // 64 characters of 2 bytes fit, 65 do not.
        read(&with(name, json!("ä".repeat(64)))).unwrap();
        for long in [json!(""), json!("x".repeat(129)), json!("ä".repeat(65))] {
            assert_eq!(invalid(&with(name, long)), at(&pointer, "too_long"));
        }
        assert_eq!(invalid(&with(name, json!(7))), at(&pointer, "wrong_type"));
    }
}

#[test]
fn no_string_contains_nul() {
    for name in ["event_id", "reservation_id", "request_type", "model", "occurred_at"] {
        let nul = with(name, json!("a\u{0}b"));
        assert_eq!(invalid(&nul), at(&format!("#/{name}"), "not_allowed"), "{name}");
    }
    for metadata in [json!({"a": "\u{0}"}), json!({"\u{0}": 1}), json!({"a": [{"b": "c\u{0}"}]})] {
        assert_eq!(invalid(&with("metadata", metadata)), at("#/metadata", "not_allowed"));
    }
    let user = read(&with("external_user_id", json!("a\u{0}"))).unwrap().user.unwrap_err();
    assert_eq!((&*user.pointer, user.code), ("#/external_user_id", "not_allowed"));
}

#[test]
fn a_backslash_before_u0000_is_only_text() {
    let text = r#"{"request_type":"chat","model":"m","prompt_tokens":1,"completion_tokens":1,"metadata":{"a":"\\u0000"}}"#;
    assert!(read_event(text.as_bytes()).unwrap().metadata.is_some());
}

#[test]
fn models_have_1_to_128_bytes() {
    read(&with("model", json!("x".repeat(128)))).unwrap();
    for model in [String::new(), "x".repeat(129)] {
        assert_eq!(invalid(&with("model", json!(model))), at("#/model", "too_long"));
    }
}

#[test]
fn metadata_is_an_object_of_at_most_4_kib() {
    let of = |bytes: usize| json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())});
    read(&with("metadata", of(4096))).unwrap();
    assert_eq!(invalid(&with("metadata", of(4097))), at("#/metadata", "too_long"));
    for wrong in [json!([]), json!("{}"), json!(1), json!(false)] {
        assert_eq!(invalid(&with("metadata", wrong)), at("#/metadata", "wrong_type"));
    }
}

#[test]
fn escapes_in_strings_are_understood() {
    let text = br#"{"request_type":"\u0063hat","model":"gpt\u002d4","prompt_tokens":1,"completion_tokens":1,"event_id":"\u00e4"}"#;
    let input = read_event(text).unwrap();
    assert_eq!((input.request_type, input.model.as_str()), (RequestType::Chat, "gpt-4"));
    assert_eq!(input.event_id.unwrap().as_str(), "ä");
}

#[test]
fn a_time_is_rfc_3339() {
    for text in ["yesterday", "2026-10-31", "2026-10-31T10:00:00", "2026-02-30T00:00:00Z", ""] {
        let bad = with("occurred_at", json!(text));
        assert_eq!(invalid(&bad), at("#/occurred_at", "wrong_type"), "{text}");
    }
}

#[test]
fn a_user_is_named_one_way() {
    let id = "0198c0de-0000-7000-8000-000000000001";
    let user = |event: &Value| read(event).unwrap().user;
    assert_eq!(user(&with("user_id", json!(id))), Ok(Some(UserRef::Id(id.parse().unwrap()))));
    assert_eq!(user(&with("user_id", json!("them"))), Ok(Some(UserRef::Nobody)));
    let mut both = with("user_id", json!(id));
    both["external_user_id"] = json!("them");
    assert_eq!(user(&both).unwrap_err().code, "contradiction");
    assert_eq!(user(&with("user_id", json!(7))).unwrap_err().code, "wrong_type");
    assert_eq!(user(&with("external_user_id", json!(7))).unwrap_err().code, "wrong_type");
}

#[test]
fn only_objects_are_events() {
    for other in [json!([]), json!("chat"), json!(1), Value::Null] {
        assert_eq!(invalid(&other), at("#", "wrong_type"));
    }
    for text in ["", "{", "{}x", "{'a':1}", "\u{feff}{}"] {
        let read = read_event(text.as_bytes());
        assert!(matches!(read, Err(Rejection::MalformedJson(_))), "{text}");
    }
    assert!(matches!(read_event(b"{\"a\":\"\xff\"}"), Err(Rejection::MalformedJson(_))));
}

#[test]
fn the_windows_of_time_include_their_edges() {
    let now: Timestamp = "2026-10-31T12:00:00Z".parse().unwrap();
    let (minutes, days) = (Duration::from_secs(300), Duration::from_secs(35 * 86_400));
    let instant = Duration::from_millis(1);
    for (window, back) in [(TimeWindow::USER, minutes), (TimeWindow::SERVICE, days)] {
        assert!(window.holds(now.minus(back), now));
        assert!(!window.holds(now.minus(back + instant), now));
    }
    for window in [TimeWindow::USER, TimeWindow::SERVICE, TimeWindow::BACKFILL] {
        assert!(window.holds(now.plus(minutes), now));
        assert!(!window.holds(now.plus(minutes + instant), now));
    }
    assert!(TimeWindow::BACKFILL.holds(Timestamp::default(), now));
    assert!(!TimeWindow::BACKFILL.holds(Timestamp::from_millis(-1), now));
}
