//! Speaks to the server: one request at a time, and again while the answer is "perhaps".

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// How long a request is sent again while nobody answers, or answers 503: a restart of the server
/// takes less.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request, its answer included. A batch of 10 000 takes a small part of it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A caller with an API key.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    authorization: String,
    retries: AtomicU64,
}

/// What the server said, unless it was "try again".
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    /// The problem's code and detail, for people.
    pub(super) fn problem(&self) -> String {
        let text = |name: &str| self.body.get(name).and_then(Value::as_str).unwrap_or("-");
        format!("{} {}: {}", self.status, text("code"), text("detail"))
    }
}

impl Client {
    pub(super) fn new(url: &str, api_key: &str) -> anyhow::Result<Self> {
        if !url.starts_with("http://") {
            bail!(
                "--url {url:?}: must begin with http://; for a server behind TLS, replay beside it"
            );
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .user_agent(concat!("tokenmeter/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            url: url.trim_end_matches('/').to_owned(),
            authorization: format!("Bearer {api_key}"),
            retries: AtomicU64::new(0),
        })
    }

    /// How often a request was sent again.
    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Posts `body` until the server says anything but 503, always the same bytes.
    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        let body = serde_json::to_vec(body)?;
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let trouble = match self.post_once(path, &body) {
                Ok(answer) if answer.status != 503 => return Ok(answer),
                Ok(answer) => answer.problem(),
                Err(error) => format!("{error:#}"),
            };
            if begun.elapsed() > PATIENCE {
                bail!("{}{path} does not answer: {trouble}", self.url);
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn post_once(&self, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
        let mut response = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .send(body)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().context("the answer was cut")?;
        Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }
}
