//! The text of an API key. The checksum is put right, so that what lies behind it is reached.
#![no_main]

use edge::api_key;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(id) = api_key::parse(text) {
        assert!(text.starts_with(&format!("tm_{}_", id.0)));
    }
    let crc = crc32(text.as_bytes());
    if let Some(id) = api_key::parse(&format!("{text}{crc:08x}")) {
        assert!(text.starts_with(&format!("tm_{}_", id.0)));
    }
});

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}
