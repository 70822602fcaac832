//! The fast path and the tree read the same, whatever is written.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::usage::{EventInput, Rejection, read_event, read_event_value};

/// Values that a field may have: right ones, wrong ones, and ones that only the tree takes.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => Just(json!("chat")),
        1 => Just(json!("prompt")),
        3 => Just(json!("gpt-4")),
        2 => Just(json!("2026-10-31T23:59:59Z")),
        1 => Just(json!("0198c0de-0000-7000-8000-000000000001")),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(|flag| json!(flag)),
        3 => (0..2000_u64).prop_map(|count| json!(count)),
        1 => any::<i64>().prop_map(|count| json!(count)),
        1 => Just(json!(1_000_000_000_u64)),
        1 => Just(json!(1_000_000_001_u64)),
        1 => (-5.0..5.0).prop_map(|float: f64| json!(float)),
        1 => ".{0,5}".prop_map(|text| json!(text)),
        1 => (120..140_usize).prop_map(|length| json!("x".repeat(length))),
        1 => Just(json!({"a": [1, {"b": "c"}]})),
        1 => Just(json!({"a\u{0}": 1})),
        1 => Just(json!({"a": "x".repeat(4100)})),
        1 => Just(json!(["a"])),
    ]
}

/// A good event in which some fields are put in, changed or taken out.
fn event() -> impl Strategy<Value = Value> {
    const FIELDS: [&str; 13] = [
        "event_id",
        "request_type",
        "model",
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "occurred_at",
        "reservation_id",
        "metadata",
        "user_id",
        "external_user_id",
        "unknown",
    ];
    let change = (prop::sample::select(&FIELDS[..]), prop::option::weighted(0.8, value()));
    prop::collection::vec(change, 0..5).prop_map(|changes| {
        let mut event = json!({
            "event_id": "a", "request_type": "chat", "model": "gpt-4",
            "prompt_tokens": 100, "completion_tokens": 20,
        });
        let fields = event.as_object_mut().unwrap();
        for (name, value) in changes {
            match value {
                Some(value) => fields.insert(name.to_owned(), value),
                None => fields.remove(name),
            };
        }
        event
    })
}

/// Metadata as a value: the fast path keeps the client's white space.
fn plain(read: Result<EventInput, Rejection>) -> Result<(EventInput, Option<Value>), Rejection> {
    read.map(|mut input| {
        let metadata = input.metadata.take();
        let value = metadata.map(|text| serde_json::from_str(text.as_str()).unwrap());
        (input, value)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn both_paths_read_the_same(event in event(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_string_pretty(&event).unwrap()
        } else {
            event.to_string()
        };
        prop_assert_eq!(plain(read_event(text.as_bytes())), plain(read_event_value(&event)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // Random bytes are hardly ever an event; that they are none must be said, not crashed on.
        prop_assert!(read_event(&bytes).is_err());
    }

    #[test]
    fn a_cut_event_is_malformed(cut in 1..100_usize) {
        let whole = json!({
            "event_id": "a", "request_type": "chat", "model": "gpt-4",
            "prompt_tokens": 100, "completion_tokens": 20, "metadata": {"a": "b"},
        }).to_string();
        let cut = &whole.as_bytes()[..cut.min(whole.len() - 1)];
        prop_assert!(matches!(read_event(cut), Err(Rejection::MalformedJson(_))));
    }
}

#[test]
fn an_array_of_the_right_values_is_no_event() {
    let array = br#"["a","chat","gpt-4",1,2,null,null,null,null,null,null,null]"#;
    let Err(Rejection::Invalid(errors)) = read_event(array) else { panic!("it was read") };
    assert_eq!((&*errors[0].pointer, errors[0].code), ("#", "wrong_type"));
}

#[test]
fn of_a_field_written_twice_the_last_counts() {
    let text = br#"{"request_type":"chat","model":"a","model":"b","prompt_tokens":1,"completion_tokens":2}"#;
    assert_eq!(read_event(text).unwrap().model.as_str(), "b");
}

#[test]
fn metadata_that_other_parsers_do_not_take_is_refused() {
    for metadata in
        [r#"{"a":"\ud800"}"#, r#"{"a":1e999}"#, r#"{"a":["\u0000"]}"#, r#"{"\u0000":1}"#]
    {
        let text = format!(
            r#"{{"request_type":"chat","model":"a","prompt_tokens":1,"completion_tokens":2,"metadata":{metadata}}}"#
        );
        assert!(read_event(text.as_bytes()).is_err(), "{metadata}");
    }
    let escaped = r#"{"request_type":"chat","model":"a","prompt_tokens":1,"completion_tokens":2,"metadata":{"a":"\ud83d\ude00\\u0000 \n","b":-1e9}}"#;
    assert!(read_event(escaped.as_bytes()).unwrap().metadata.is_some());
}
