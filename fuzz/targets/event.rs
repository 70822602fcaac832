//! One event as a client writes it: the fast path and the tree must read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metering::usage::{METADATA_BYTES_MAX, Rejection, read_event, read_event_value};
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let read = read_event(text);
    let Ok(tree) = serde_json::from_slice::<Value>(text) else {
        match read {
            Err(Rejection::MalformedJson(_)) => {}
            // Fields that are ignored may have what no tree holds, such as 1e999; not the others.
            Ok(input) if serde_json::from_slice::<IgnoredAny>(text).is_ok() => {
                let metadata = input.metadata.map(|text| text.as_str().to_owned());
                assert!(metadata.is_none_or(|text| serde_json::from_str::<Value>(&text).is_ok()));
            }
            _ => panic!("not JSON, and yet {read:?}"),
        }
        return;
    };
    match (read, read_event_value(&tree)) {
        (Ok(mut fast), Ok(mut slow)) => {
            // The fast path keeps the client's white space and order of keys.
            let value = |text: Option<metering::usage::Metadata>| {
                text.map(|text| serde_json::from_str::<Value>(text.as_str()).expect("JSON"))
            };
            assert_eq!(value(fast.metadata.take()), value(slow.metadata.take()));
            assert_eq!(fast, slow);
        }
        // Numbers may be longer when they are written again: the client's own text is measured.
        (Ok(fast), Err(_)) if fast.metadata.is_some() && text.len() > METADATA_BYTES_MAX / 16 => {}
        (fast, slow) => assert_eq!(fast, slow),
    }
});
