//! The listener, over real sockets.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use edge::{ClientAddress, Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start(app: Router, limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(listener, app, limits, async {
        stopped.await.ok();
    }));
    Running { address, stop, task }
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.9\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Reads until the answer's body ends with `end`.
async fn answer(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    timeout(PATIENCE, async {
        while !String::from_utf8_lossy(&read).ends_with(end) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "closed: {read:?}");
        }
    })
    .await
    .unwrap();
    String::from_utf8(read).unwrap()
}

/// Ended or reset: both close it.
async fn is_closed(stream: &mut TcpStream) {
    let mut rest = vec![];
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    if let Err(error) = ended {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

fn hello() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/address", get(async |ClientAddress(address): ClientAddress| address.to_string()))
}

#[tokio::test]
async fn the_address_is_that_of_the_socket_or_of_a_trusted_proxys_header() {
    for (trusted, expected) in
        [(vec![], "127.0.0.1"), (vec!["127.0.0.0/8".parse().unwrap()], "203.0.113.9")]
    {
        let limits = Limits { trusted_proxies: trusted, ..Limits::default() };
        let running = start(hello(), limits).await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        ask(&mut stream, "/address").await;
        answer(&mut stream, expected).await;
    }
}

#[tokio::test]
async fn a_slow_head_is_given_up() {
    let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
    let running = start(hello(), limits).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    is_closed(&mut stream).await;
}

/// Tells when a request has come, and answers it when it is told to.
fn late() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, release) = (entered.clone(), go.clone());
    let late = async move || {
        inside.notify_one();
        release.notified().await;
        "late"
    };
    (Router::new().route("/", get(late)), entered, go)
}

/// Refuses without a look at the body.
fn refusing() -> Router {
    hello().route("/refused", post(async || (StatusCode::UNAUTHORIZED, "refused")))
}

const REFUSED: &[u8] = b"POST /refused HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n";

#[tokio::test]
async fn a_connection_outlives_a_refusal_whose_body_comes_later() {
    let running = start(refusing(), Limits::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(REFUSED).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"body").await.unwrap();
    let refused = answer(&mut stream, "refused").await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    ask(&mut stream, "/").await;
    answer(&mut stream, "hello").await;
}

#[tokio::test]
async fn a_refusal_whose_body_does_not_come_ends_the_connection_and_says_so() {
    let running = start(refusing(), Limits::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(REFUSED).await.unwrap();
    let refused = answer(&mut stream, "refused").await;
    assert!(refused.contains("\r\nconnection: close\r\n"), "{refused}");
    is_closed(&mut stream).await;
}

#[tokio::test]
async fn what_was_asked_is_answered_though_the_client_has_closed_its_side() {
    let (app, entered, go) = late();
    let running = start(app, Limits::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    ask(&mut stream, "/").await;
    timeout(PATIENCE, entered.notified()).await.unwrap();
    stream.shutdown().await.unwrap();
    // Long enough for the server to see it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    go.notify_one();
    answer(&mut stream, "late").await;
    is_closed(&mut stream).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let running = start(hello(), Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    ask(&mut first, "/").await;
    answer(&mut first, "hello").await;
    let mut second = TcpStream::connect(running.address).await.unwrap();
    ask(&mut second, "/").await;
    let mut byte = [0];
    let waited = timeout(Duration::from_millis(100), second.read(&mut byte)).await;
    assert!(waited.is_err(), "served beyond the limit");
    drop(first);
    answer(&mut second, "hello").await;
}

#[tokio::test]
async fn requests_in_progress_are_answered_before_the_end() {
    let (app, entered, go) = late();
    let running = start(app, Limits::default()).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    // Accepted in order: once the busy one is served, the idle one is there too.
    let mut busy = TcpStream::connect(running.address).await.unwrap();
    ask(&mut busy, "/").await;
    timeout(PATIENCE, entered.notified()).await.unwrap();
    running.stop.send(()).unwrap();
    is_closed(&mut idle).await;
    go.notify_one();
    answer(&mut busy, "late").await;
    timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let (app, entered, _) = late();
    let limits = Limits { drain_timeout: Duration::from_millis(50), ..Limits::default() };
    let running = start(app, limits).await;
    let mut busy = TcpStream::connect(running.address).await.unwrap();
    ask(&mut busy, "/").await;
    timeout(PATIENCE, entered.notified()).await.unwrap();
    running.stop.send(()).unwrap();
    timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap();
    is_closed(&mut busy).await;
}
