//! What surrounds every route: request ids, metrics, fallbacks, panics, CORS.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER,
};
use http::{HeaderValue, Method};
use metering::time::Clock;
use tower_http::cors::CorsLayer;

use crate::code::Code;
use crate::problem::Problem;
use crate::request_id::{self, REQUEST_ID, X_REQUEST_ID};
use crate::telemetry::RouteMetrics;

/// How long a browser may remember what CORS allowed.
const CORS_MAX_AGE: Duration = Duration::from_secs(3600);

/// Surrounds the routes of a listener: a request id, metrics by route, problem bodies for unknown
/// paths, wrong methods and panics, and CORS for exactly these origins (none: no CORS at all).
pub fn app(routes: Router, cors_origins: &[HeaderValue], clock: Arc<dyn Clock>) -> Router {
    let surround = Surround { clock, metrics: Arc::default() };
    let routes = routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(surround, around));
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

#[derive(Clone)]
struct Surround {
    clock: Arc<dyn Clock>,
    metrics: Arc<RouteMetrics>,
}

async fn around(State(surround): State<Surround>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (id, header) = request_id::of_request(request.headers(), surround.clock.now());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let answer = async {
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => {
                let message = panic.downcast_ref::<&str>().map(ToString::to_string);
                let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
                Problem::internal(message.as_deref().unwrap_or("panic")).into_response()
            }
        }
    };
    let mut response = REQUEST_ID.scope(id, answer).await;
    response.headers_mut().insert(X_REQUEST_ID, header);
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    surround.metrics.record(route, &method, response.status(), started.elapsed());
    response
}

async fn not_found() -> Problem {
    Problem::new(Code::NotFound, "there is nothing here")
}

/// The router itself adds `Allow`.
async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this path does not take this method: see Allow")
}
