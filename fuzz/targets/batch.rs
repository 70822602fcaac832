//! A batch as it comes over the wire: decompressed within its bound, taken apart into events.
//!
//! The first byte chooses the encoding and the format, the rest is the body.
#![no_main]

use axum::body::Body;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use split::{Format, Item};

#[allow(dead_code, reason = "the service uses all of it")]
#[path = "../../ingest/src/batch/split.rs"]
mod split;

/// Small, so that too many events are within reach.
const EVENTS_MAX: usize = 20;

const BYTES_MAX: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else { return };
    let encoding = ["identity", "gzip", "zstd"][usize::from(choice % 3)];
    let format = if choice & 0x80 == 0 { Format::Array } else { Format::Lines };
    let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(encoding))]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let decoded = runtime.expect("a runtime").block_on(edge::body::read(
        Body::from(body.to_vec()),
        &headers,
        BYTES_MAX,
    ));
    let items = decoded.and_then(|body| {
        assert!(body.len() <= BYTES_MAX);
        split::read(&body, format)
    });
    match items {
        Ok(items) => {
            assert!(items.len() <= EVENTS_MAX);
            for item in items {
                if let Item::Bad { problem, .. } = item {
                    assert!(problem.code().status().is_client_error());
                }
            }
        }
        Err(problem) => assert!(problem.code().status().is_client_error(), "{:?}", problem.code()),
    }
});
