//! Where the servers are that tests run on. A server that is absent fails the test.

#![allow(dead_code, reason = "each test program uses the servers that it needs")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is test code, though it stands outside of the test functions"
)]

pub(crate) mod clickhouse;
pub(crate) mod kafka;
pub(crate) mod postgres;

use std::path::Path;

/// The URL of the server that the program's setting `TOKENMETER_{name}` means, such as
/// `POSTGRES_URL`: from `TOKENMETER_TEST_{name}`, else from what `deploy/local/up` has started.
pub(crate) fn url(name: &str) -> String {
    if let Some(url) = std::env::var_os(format!("TOKENMETER_TEST_{name}")) {
        return url.into_string().unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/.state/env");
    let started = std::fs::read_to_string(file).unwrap_or_default();
    let setting = format!("TOKENMETER_{name}=");
    match started.lines().find_map(|line| line.strip_prefix(&setting)) {
        Some(url) => url.to_owned(),
        None => panic!("TOKENMETER_TEST_{name} is not set: start the servers: deploy/local/up"),
    }
}
