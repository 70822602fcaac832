//! `X-Forwarded-For`, a header on each line; and networks as an operator writes them.
#![no_main]

use std::net::IpAddr;

use client_address::{Network, of_request};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unreachable_pub, reason = "the service uses all of it")]
#[path = "../../edge/src/client_address.rs"]
mod client_address;

fuzz_target!(|text: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let trusted: Network = "10.0.0.0/8".parse().expect("a network");
    let client = of_request(proxy, &headers, &[trusted]).0;
    // A proxy of ours, or what the last of them wrote; never what came before that.
    assert!(trusted.holds(client) || text.len() >= 2);
    assert_eq!(
        of_request(IpAddr::from([9, 9, 9, 9]), &headers, &[trusted]).0,
        IpAddr::from([9; 4])
    );
    assert_eq!(of_request(proxy, &headers, &[]).0, proxy);
    if let Ok(network) = String::from_utf8_lossy(text).parse::<Network>() {
        assert_eq!(network.holds(client), network.holds(client.to_canonical()));
    }
});
