//! Asks the running server over its operations listener.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::data_dir::RunningServer;

/// Reading all of the counter, or appending many dead letters, takes seconds at most.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What `GET` of that path answers.
pub(crate) fn get(server: &RunningServer, path: &str) -> anyhow::Result<Value> {
    let url = format!("http://{}{path}", server.ops_listen);
    read(agent().get(&url).call(), &url)
}

/// What `POST` of that path answers, without a body.
pub(crate) fn post(server: &RunningServer, path: &str) -> anyhow::Result<Value> {
    let url = format!("http://{}{path}", server.ops_listen);
    read(agent().post(&url).send_empty(), &url)
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder();
    config.http_status_as_error(false).timeout_global(Some(TIMEOUT)).build().new_agent()
}

/// The body of a 200, or of a 503 that explains itself.
fn read(
    answered: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    url: &str,
) -> anyhow::Result<Value> {
    let mut response = answered.with_context(|| format!("{url} does not answer"))?;
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(u64::MAX).read_to_string()?;
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    if !matches!(status, 200 | 503) || body == Value::Null {
        bail!("{url} answers {status}");
    }
    Ok(body)
}
