//! What surrounds every route: request ids, metrics, fallbacks, panics, CORS.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use axum::routing::future::RouteFuture;
use futures::FutureExt;
use futures::future::CatchUnwind;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER,
};
use http::{HeaderValue, Method};
use metering::time::Clock;
use pin_project_lite::pin_project;
use tokio::task::futures::TaskLocalFuture;
use tower::{Layer, Service};
use tower_http::cors::CorsLayer;

use crate::code::Code;
use crate::problem::Problem;
use crate::request_id::{NAMES, Names, TRACEPARENT, X_REQUEST_ID};
use crate::telemetry::RouteMetrics;

/// How long a browser may remember what CORS allowed.
const CORS_MAX_AGE: Duration = Duration::from_secs(3600);

/// Surrounds the routes of a listener: a request id, metrics by route, problem bodies for unknown
/// paths, wrong methods and panics, and CORS for exactly these origins (none: no CORS at all).
pub fn app(routes: Router, cors_origins: &[HeaderValue], clock: Arc<dyn Clock>) -> Router {
    let surround = Surround { clock, metrics: Arc::default() };
    let routes =
        routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed).layer(surround);
    if cors_origins.is_empty() { routes } else { routes.layer(cors(cors_origins)) }
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let header = HeaderName::from_static;
    CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            ACCEPT,
            AUTHORIZATION,
            CONTENT_ENCODING,
            CONTENT_TYPE,
            header("idempotency-key"),
            TRACEPARENT,
            X_REQUEST_ID,
        ])
        .expose_headers([
            RETRY_AFTER,
            header("ratelimit"),
            header("ratelimit-policy"),
            header("x-should-retry"),
            X_REQUEST_ID,
        ])
        .max_age(CORS_MAX_AGE)
}

/// The layer around each route.
///
/// By hand and not as a middleware function: that would box the rest of the way and the answer anew
/// for each request.
#[derive(Clone)]
struct Surround {
    clock: Arc<dyn Clock>,
    metrics: Arc<RouteMetrics>,
}

impl Layer<Route> for Surround {
    type Service = Surrounded;

    fn layer(&self, route: Route) -> Surrounded {
        Surrounded { route, surround: self.clone() }
    }
}

#[derive(Clone)]
struct Surrounded {
    route: Route,
    surround: Surround,
}

impl Service<Request> for Surrounded {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A route is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answering {
        let started = Instant::now();
        let names = Names::of(request.headers(), self.surround.clock.now());
        let path = request.extensions().get::<MatchedPath>().cloned();
        let method = request.method().clone();
        let answer = AssertUnwindSafe(self.route.call(request)).catch_unwind();
        let answer = NAMES.scope(names.clone(), answer);
        let metrics = Arc::clone(&self.surround.metrics);
        Answering { answer, names, path, method, started, metrics }
    }
}

pin_project! {
    /// A request on its way.
    struct Answering {
        #[pin]
        answer: TaskLocalFuture<Names, CatchUnwind<AssertUnwindSafe<RouteFuture<Infallible>>>>,
        names: Names,
        path: Option<MatchedPath>,
        method: Method,
        started: Instant,
        metrics: Arc<RouteMetrics>,
    }
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match ready!(this.answer.poll(context)) {
            Ok(answer) => answer?,
            Err(panic) => NAMES.sync_scope(this.names.clone(), || broken(panic.as_ref())),
        };
        response.headers_mut().insert(X_REQUEST_ID, this.names.id.header());
        let path = this.path.as_ref().map_or("unmatched", MatchedPath::as_str);
        this.metrics.record(path, this.method, response.status(), this.started.elapsed());
        Poll::Ready(Ok(response))
    }
}

fn broken(panic: &(dyn Any + Send)) -> Response {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Problem::internal(message.unwrap_or("panic")).into_response()
}

async fn not_found() -> Problem {
    Problem::new(Code::NotFound, "there is nothing here")
}

/// The router itself adds `Allow`.
async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this path does not take this method: see Allow")
}
