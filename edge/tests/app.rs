//! What surrounds every route, as a client sees it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use axum::body::Body;
use axum::routing::{get, post};
use edge::{App, Condition, Health, HealthCheck, Routes, SystemClock};
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

#[derive(serde::Deserialize)]
struct Named {
    name: String,
}

async fn greet(edge::json::Body(body): edge::json::Body<Named>) -> String {
    format!("hello {}", body.name)
}

async fn break_down() -> String {
    panic!("the secret of the house")
}

fn routes() -> Routes {
    Routes::new()
        .route("/greet", post(greet).get(async || "who?"))
        .route("/id", get(async || edge::request_id().unwrap().to_string()))
        .route("/trace", get(async || format!("{:?}", edge::trace_parent().map(|t| t.to_string()))))
        .route("/greet/{name}", get(async || "you"))
        .route("/panic", get(break_down))
}

fn app(origins: &[HeaderValue]) -> App {
    edge::app(routes(), origins, Arc::new(SystemClock))
}

fn app_of(routes: Routes) -> App {
    edge::app(routes, &[], Arc::new(SystemClock))
}

async fn call(app: &App, request: Request<Body>) -> (http::response::Parts, String) {
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts, String::from_utf8(body.to_vec()).unwrap())
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path)
}

#[tokio::test]
async fn refusals_of_the_router_are_problem_bodies() {
    let app = app(&[]);
    for (method, path, code) in
        [("GET", "/nowhere", "not_found"), ("PUT", "/greet", "method_not_allowed")]
    {
        let (parts, body) = call(&app, request(method, path).body(Body::empty()).unwrap()).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(parts.headers["content-type"], "application/problem+json");
        assert_eq!((&body["code"], &body["success"]), (&code.into(), &false.into()));
        assert_eq!(body["status"], parts.status.as_u16());
        assert_eq!(body["request_id"], parts.headers["x-request-id"].to_str().unwrap());
    }
    let (parts, _) = call(&app, request("PUT", "/greet").body(Body::empty()).unwrap()).await;
    assert_eq!(parts.headers["allow"], "POST,GET,HEAD");
}

#[tokio::test]
async fn a_panic_is_a_500_that_says_nothing() {
    let app = app(&[]);
    let (parts, body) = call(&app, request("GET", "/panic").body(Body::empty()).unwrap()).await;
    assert_eq!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body.contains("\"internal\"") && !body.contains("secret"), "{body}");
}

#[tokio::test]
async fn the_clients_request_id_is_kept() {
    let app = app(&[]);
    let given = request("GET", "/id").header("x-request-id", "abc-1").body(Body::empty()).unwrap();
    let (parts, body) = call(&app, given).await;
    assert_eq!(
        (body.as_str(), &parts.headers["x-request-id"]),
        ("abc-1", &"abc-1".parse().unwrap())
    );
    let bad = request("GET", "/id").header("x-request-id", "a b").body(Body::empty()).unwrap();
    let (parts, body) = call(&app, bad).await;
    assert_eq!(parts.headers["x-request-id"].to_str().unwrap(), body);
    assert_eq!((body.len(), &body[14..15]), (36, "7"));
}

#[tokio::test]
async fn the_callers_trace_is_known_and_a_doubtful_one_ignored() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let app = app(&[]);
    for (given, known) in [
        (&[TRACE][..], Some(TRACE)),
        (&[], None),
        (&[""], None),
        (&["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"], None),
        (&[TRACE, OTHER], None),
    ] {
        let mut asking = request("GET", "/trace");
        for value in given {
            asking = asking.header("TraceParent", *value);
        }
        let (parts, body) = call(&app, asking.body(Body::empty()).unwrap()).await;
        assert_eq!((parts.status.as_u16(), body), (200, format!("{known:?}")), "{given:?}");
    }
    assert!(edge::trace_parent().is_none(), "outside of a request");
}

#[tokio::test]
async fn a_body_of_another_type_says_what_is_accepted() {
    let app = app(&[]);
    let plain = request("POST", "/greet").header("content-type", "text/plain");
    let (parts, body) = call(&app, plain.body(Body::from("{}")).unwrap()).await;
    assert_eq!(
        (parts.status.as_u16(), &parts.headers["accept-post"]),
        (415, &"application/json".parse().unwrap())
    );
    assert!(body.contains("unsupported_media_type"));
    let brotli = request("POST", "/greet").header("content-type", "application/json");
    let brotli = brotli.header("content-encoding", "br").body(Body::from("{}")).unwrap();
    let (parts, _) = call(&app, brotli).await;
    assert_eq!(parts.status, 415);
    assert_eq!(parts.headers["accept-encoding"], "gzip, zstd, identity");
    let large = request("POST", "/greet").header("content-type", "application/json");
    let large = large.body(Body::from(vec![b' '; edge::json::BODY_BYTES_MAX + 1])).unwrap();
    assert_eq!(call(&app, large).await.0.status, 413);
}

fn preflight(origin: &'static str) -> Request<Body> {
    request("OPTIONS", "/greet")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type")
        .body(Body::empty())
        .unwrap()
}

fn allowed<T>(response: &Response<T>) -> Option<&HeaderValue> {
    response.headers().get("access-control-allow-origin")
}

#[tokio::test]
async fn cors_is_for_the_named_origins_only() {
    let home = "https://dash.example";
    let open = app(&[HeaderValue::from_static(home)]);
    let response = open.clone().oneshot(preflight(home)).await.unwrap();
    assert_eq!(allowed(&response), Some(&HeaderValue::from_static(home)));
    let response = open.clone().oneshot(preflight("https://evil.example")).await.unwrap();
    assert_eq!(allowed(&response), None);
    let response = app(&[]).oneshot(preflight(home)).await.unwrap();
    assert_eq!((allowed(&response), response.status().as_u16()), (None, 405));
    let refused = request("GET", "/nowhere").header("origin", home).body(Body::empty()).unwrap();
    let response = open.oneshot(refused).await.unwrap();
    assert_eq!(allowed(&response), Some(&HeaderValue::from_static(home)), "problems too");
}

struct Check(&'static str, Condition);

#[async_trait::async_trait]
impl HealthCheck for Check {
    fn name(&self) -> &'static str {
        self.0
    }

    async fn check(&self) -> Condition {
        self.1.clone()
    }
}

#[tokio::test]
async fn readiness_names_what_failed_and_what_is_degraded() {
    let good = || Arc::new(Check("log", Condition::Good));
    let degraded = Arc::new(Check("feed", Condition::Degraded("late".into())));
    let failed = Arc::new(Check("ledger", Condition::Failed("stands still".into())));
    let ready = app_of(Health::new(vec![good(), degraded]).routes());
    let (parts, body) =
        call(&ready, request("GET", "/health/ready").body(Body::empty()).unwrap()).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((parts.status.as_u16(), &body["ready"]), (200, &true.into()));
    assert_eq!(body["degraded"], serde_json::json!(["feed"]));
    let broken = app_of(Health::new(vec![good(), failed]).routes());
    let (parts, body) =
        call(&broken, request("GET", "/health/ready").body(Body::empty()).unwrap()).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((parts.status.as_u16(), &body["success"]), (503, &false.into()));
    let expected = serde_json::json!({"name": "ledger", "ok": false, "detail": "stands still"});
    assert_eq!(body["checks"][1], expected);
    let live = call(&broken, request("GET", "/health/live").body(Body::empty()).unwrap()).await;
    assert_eq!(live.0.status, 200);
}

#[tokio::test]
async fn requests_are_measured_by_route_and_class() {
    let recorder = edge::telemetry::builder().unwrap().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    edge::telemetry::describe();
    edge::telemetry::announce("1.2.3", metering::time::Timestamp::from_millis(1_500));
    let app = app(&[]);
    for path in ["/id", "/id", "/no/1", "/no/2", "/greet/a", "/greet/b%20c?d"] {
        call(&app, request("GET", path).body(Body::empty()).unwrap()).await;
    }
    let ops = app_of(edge::ops::routes(handle, &Health::default()));
    let (parts, text) = call(&ops, request("GET", "/metrics").body(Body::empty()).unwrap()).await;
    assert!(parts.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    for line in [
        r#"tokenmeter_http_requests_total{route="/id",method="GET",status="2xx"} 2"#,
        r#"tokenmeter_http_requests_total{route="/greet/{name}",method="GET",status="2xx"} 2"#,
        r#"tokenmeter_http_requests_total{route="unmatched",method="GET",status="4xx"} 2"#,
        r#"tokenmeter_http_request_seconds_bucket{route="/id",le="5"} 2"#,
        r#"tokenmeter_problems_total{code="not_found"} 2"#,
        r#"tokenmeter_build_info{version="1.2.3"} 1"#,
        "process_start_time_seconds 1.5",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("/no/1"));
    assert!(text.contains("process_resident_memory_bytes"));
}
