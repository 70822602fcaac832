//! A trace for `tokenmeter replay`, behind a good header and without one.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../../cli/src/replay/trace.rs"]
mod trace;

fuzz_target!(|content: &[u8]| {
    let mut with_header = b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n".to_vec();
    with_header.extend_from_slice(content);
    for content in [content, &with_header] {
        if let Ok(trace) = trace::Trace::read(content) {
            assert!(!trace.rows.is_empty());
            assert_eq!(trace.first().plus(trace.span()), trace.last());
        }
    }
});
