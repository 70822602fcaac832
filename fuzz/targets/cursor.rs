//! Cursors of lists: what was not made for these filters is the client's error.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the service uses all of it")]
#[path = "../../api/src/cursor.rs"]
mod cursor;

type Position = (i64, u64);

fuzz_target!(|input: (Position, &str)| {
    let (position, text) = input;
    let made = cursor::encode(&position, &text).expect("a position is JSON");
    assert_eq!(cursor::decode::<Position>(&made, &text).ok(), Some(position));
    assert!(cursor::decode::<Position>(&made, &(text, 1)).is_err());
    if let Err(problem) = cursor::decode::<Position>(text, &()) {
        assert!(problem.code().status().is_client_error());
    }
    use base64::Engine;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    drop(cursor::decode::<Position>(&json, &()));
});
