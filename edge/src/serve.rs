//! Serves a listener: bounded in connections and patience, drained at the end.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::Service;

use crate::client_address::{self, Network};
use crate::unread::Unread;

/// Read buffer of a connection. Heads beyond it are 431; a larger one lets idle clients hold more.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// How long to wait when no connection can be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener puts up with.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections; further ones wait in the system's queue.
    pub connections_max: usize,
    /// For a request's head to come, so also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// For requests in progress to end once `shutdown` is there.
    pub drain_timeout: Duration,
    /// Who may say in `X-Forwarded-For` where a request comes from.
    pub trusted_proxies: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            header_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
            trusted_proxies: vec![],
        }
    }
}

/// Serves HTTP/1.1 until `shutdown`; then takes no more connections, lets requests in progress end
/// within the drain timeout, and cuts what is left.
///
/// # Errors
/// None once the listener works; the result is for the caller's `?`.
pub async fn serve<App>(
    listener: TcpListener,
    app: App,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    App: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    App::Future: Send,
{
    let free = Arc::new(Semaphore::new(limits.connections_max));
    let trusted: Arc<[Network]> = limits.trusted_proxies.into();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        // What was asked is answered also when nothing more can be asked; and to look for the
        // client's end each time a request in progress goes on is not free.
        .half_close(true)
        // Most answers are short: to copy one behind its head costs less than two pieces do.
        .writev(false)
        .max_buf_size(READ_BUFFER_BYTES_MAX);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &free) => accepted,
        };
        while connections.try_join_next().is_some() {}
        let service =
            Connection { app: app.clone(), peer, trusted: Arc::clone(&trusted), _permit: permit };
        connections.spawn(service.run(stream, http.clone(), graceful.watcher()));
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(cut = connections.len(), "requests did not end within the drain timeout");
    }
    connections.shutdown().await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> (TcpStream, IpAddr, OwnedSemaphorePermit) {
    let mut told = false;
    loop {
        let Ok(permit) = Arc::clone(free).acquire_owned().await else {
            // Never closed.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip(), permit),
            Err(error) => {
                let about_the_client = matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                );
                if about_the_client {
                    continue;
                }
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "no connection can be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection<App> {
    app: App,
    peer: IpAddr,
    trusted: Arc<[Network]>,
    _permit: OwnedSemaphorePermit,
}

impl<App> Connection<App>
where
    App: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    App::Future: Send,
{
    async fn run(self, stream: TcpStream, http: http1::Builder, watcher: Watcher) {
        let open = metrics::gauge!("tokenmeter_http_connections");
        open.increment(1.0);
        // Answers are small: waiting for more to send only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let Self { app, peer, trusted, _permit } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let client = client_address::of_request(peer, request.headers(), &trusted);
            request.extensions_mut().insert(client);
            answer(app.clone(), request)
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "connection ended");
        }
        open.decrement(1.0);
    }
}

/// `app` is always ready, as a router is.
async fn answer<App>(mut app: App, request: Request<Incoming>) -> Result<Response, Infallible>
where
    App: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    if request.body().is_end_stream() {
        return app.call(request.map(|_| Body::empty())).await;
    }
    let unread = Unread::default();
    let mut response = app.call(request.map(|body| Body::new(unread.lend(body)))).await?;
    unread.finish(&mut response).await;
    Ok(response)
}
