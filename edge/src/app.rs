//! What surrounds every route: request ids, metrics, fallbacks, panics, CORS.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
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
use tower::util::Either;
use tower::{Layer, Service};
use tower_http::cors::{Cors, CorsLayer};

use crate::code::Code;
use crate::problem::Problem;
use crate::request_id::{NAMES, Names, TRACEPARENT, X_REQUEST_ID};
use crate::routes::Routes;
use crate::telemetry::{RouteMetrics, RouteNumber};

/// How long a browser may remember what CORS allowed.
const CORS_MAX_AGE: Duration = Duration::from_secs(3600);

/// The routes of a listener with all that surrounds them.
#[derive(Clone)]
pub struct App(Either<Cors<Surrounded>, Surrounded>);

/// Surrounds the routes of a listener: a request id, metrics by route, problem bodies for unknown
/// paths, wrong methods and panics, and CORS for exactly these origins (none: no CORS at all).
pub fn app(routes: Routes, cors_origins: &[HeaderValue], clock: Arc<dyn Clock>) -> App {
    let Routes { router, paths } = routes;
    let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
    let metrics = Arc::new(RouteMetrics::of(paths));
    let surrounded = Surrounded { router, clock, metrics };
    if cors_origins.is_empty() {
        return App(Either::Right(surrounded));
    }
    App(Either::Left(cors(cors_origins).layer(surrounded)))
}

impl Service<Request> for App {
    type Response = Response;
    type Error = Infallible;
    type Future = <Either<Cors<Surrounded>, Surrounded> as Service<Request>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.0.call(request)
    }
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

/// A router and what surrounds it.
///
/// Not as a layer of the router: that boxes each route once more, and its answer for each request.
#[derive(Clone)]
pub struct Surrounded {
    router: Router,
    clock: Arc<dyn Clock>,
    metrics: Arc<RouteMetrics>,
}

impl Service<Request> for Surrounded {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A router is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answering {
        let started = Instant::now();
        let names = Names::of(request.headers(), self.clock.now());
        let route = self.metrics.route(request.uri().path());
        let method = request.method().clone();
        let answer = AssertUnwindSafe(self.router.call(request)).catch_unwind();
        let answer = NAMES.scope(names.clone(), answer);
        Answering { answer, names, route, method, started, metrics: Arc::clone(&self.metrics) }
    }
}

pin_project! {
    /// A request on its way.
    pub struct Answering {
        #[pin]
        answer: TaskLocalFuture<Names, CatchUnwind<AssertUnwindSafe<RouteFuture<Infallible>>>>,
        names: Names,
        route: Option<RouteNumber>,
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
        this.metrics.record(*this.route, this.method, response.status(), this.started.elapsed());
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
