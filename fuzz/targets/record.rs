//! Records of the event log: any bytes are records or an error, and what was read is written alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use record::{decode, encode, encode_delimited, split_delimited};

#[allow(dead_code, unreachable_pub, reason = "the stores use all of it")]
#[path = "../../stores/src/record/mod.rs"]
mod record;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(admitted) = decode(bytes) {
        let (mut value, mut delimited) = (Vec::new(), Vec::new());
        encode(&admitted, &mut value);
        assert_eq!(decode(&value).as_ref(), Ok(&admitted));
        encode_delimited(&admitted, &mut delimited);
        let mut stream = &*delimited;
        assert_eq!(split_delimited(&mut stream), Ok(&*value));
        assert!(stream.is_empty());
    }
    let mut stream = bytes;
    while !stream.is_empty() && split_delimited(&mut stream).is_ok() {}
});
