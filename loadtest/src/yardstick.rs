//! The yardstick: the least an HTTP service can do with the same requests. A bare axum handler
//! that parses the same bodies and answers; nothing is checked, kept or counted.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};

use crate::client::Address;

/// The argument that makes this program the yardstick's server.
pub(crate) const SERVE: &str = "serve-yardstick";

#[derive(Deserialize)]
struct Tracked<'a> {
    user_id: &'a str,
    event_id: &'a str,
    request_type: &'a str,
    model: &'a str,
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: Option<u64>,
}

#[derive(Serialize)]
struct Reply<'a> {
    success: bool,
    event_id: &'a str,
    total_tokens: u64,
    flags: [&'a str; 0],
}

#[derive(Serialize)]
struct BatchReply {
    success: bool,
    accepted: usize,
    duplicates: usize,
    rejected: usize,
    results: [(); 0],
}

/// The two calls that the load uses.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/api/tokens/track", post(track))
        .route("/api/tokens/track/batch", post(track_batch))
}

async fn track(body: Bytes) -> Response {
    let Some(event) = serde_json::from_slice::<Tracked<'_>>(&body).ok().filter(plausible) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let total_tokens = event.prompt_tokens + event.completion_tokens;
    let reply = Reply { success: true, event_id: event.event_id, total_tokens, flags: [] };
    json(StatusCode::CREATED, &reply)
}

async fn track_batch(body: Bytes) -> Response {
    let Ok(events) = serde_json::from_slice::<Vec<Tracked<'_>>>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let accepted = events.iter().filter(|event| plausible(event)).count();
    let rejected = events.len() - accepted;
    let reply = BatchReply { success: true, accepted, duplicates: 0, rejected, results: [] };
    json(StatusCode::OK, &reply)
}

/// Looks at every field, so that none of the parsing is left out.
fn plausible(event: &Tracked<'_>) -> bool {
    !event.user_id.is_empty()
        && !event.event_id.is_empty()
        && !event.request_type.is_empty()
        && !event.model.is_empty()
        && event.cached_tokens.unwrap_or(0) <= event.prompt_tokens
}

fn json(status: StatusCode, reply: &impl Serialize) -> Response {
    match serde_json::to_vec(reply) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Serves the yardstick on a free port, says where on standard output, and ends with standard
/// input: when the process that started it does.
///
/// # Errors
/// When nothing can be bound.
pub(crate) fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
        let parent_ended = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
        tokio::select! {
            served = axum::serve(listener, router()) => served?,
            ended = parent_ended => { ended?; }
        }
        Ok(())
    })
}

/// The yardstick in a process of its own, so that its CPU time is its own. Ends when dropped.
pub(crate) struct Yardstick {
    child: Child,
    /// Where it listens.
    pub(crate) address: Address,
}

impl Yardstick {
    /// Starts it.
    ///
    /// # Errors
    /// When this program cannot be started again.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own path")?;
        let mut child = Command::new(program)
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the yardstick")?;
        let mut authority = String::new();
        let output = child.stdout.take().context("the yardstick's output")?;
        BufReader::new(output).read_line(&mut authority)?;
        anyhow::ensure!(!authority.is_empty(), "the yardstick did not start");
        Ok(Self { child, address: Address { authority: authority.trim().to_owned() } })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::traffic;

    #[tokio::test]
    async fn it_parses_what_the_load_sends() {
        let traffic = traffic(3, 0.0, 0.0);
        let mut body = Vec::new();
        traffic.write_event(5, &mut body);
        assert_eq!(track(body.clone().into()).await.status(), StatusCode::CREATED);
        let batch = [b"[", body.as_slice(), b",", body.as_slice(), b"]"].concat();
        assert_eq!(track_batch(batch.into()).await.status(), StatusCode::OK);
        assert_eq!(track("{}".into()).await.status(), StatusCode::BAD_REQUEST);
        assert_eq!(track_batch("[1]".into()).await.status(), StatusCode::BAD_REQUEST);
    }
}
