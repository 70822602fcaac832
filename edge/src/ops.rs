//! The operations listener: metrics and health. Not for the public.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::health::Health;
use crate::routes::Routes;
use crate::telemetry;

/// `GET /metrics`, `/health/live` and `/health/ready`.
pub fn routes(prometheus: PrometheusHandle, health: &Health) -> Routes {
    let metrics = Routes::new().route("/metrics", get(render)).with_state(prometheus);
    metrics.merge(health.routes())
}

async fn render(State(prometheus): State<PrometheusHandle>) -> Response {
    telemetry::measure_memory();
    let mut response = prometheus.render().into_response();
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
