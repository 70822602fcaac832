//! Metrics of the HTTP edge and of the process.

use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use metering::time::Timestamp;
use metrics::{Counter, Histogram, Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Bounds of every `*_seconds` histogram: from a cached answer to a client's patience.
const SECONDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Bounds of every `*_records` histogram: sizes of batches, appends and flushes.
const RECORDS: [f64; 9] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0];

/// How often histograms are condensed, so that they do not grow while nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A Prometheus recorder with the product's buckets.
///
/// # Errors
/// Only when a bucket list is empty, which none is.
pub fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_records".into()), &RECORDS)
}

/// Makes the recorder the one of this process; to be called before anything is measured.
///
/// # Errors
/// When there is one already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    builder()?.install_recorder()
}

/// Condenses histograms for ever; to be run beside the listeners.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        handle.run_upkeep();
    }
}

/// Help texts and units of this crate's metrics.
pub fn describe() {
    describe_counter!(
        "tokenmeter_http_requests_total",
        "HTTP requests answered, by route, method and class of status."
    );
    describe_histogram!(
        "tokenmeter_http_request_seconds",
        Unit::Seconds,
        "Time from a request's head to its answer's head, by route."
    );
    describe_counter!("tokenmeter_problems_total", "Problem bodies answered, by code.");
    describe_counter!(
        "tokenmeter_store_errors_total",
        "Errors of stores that a request or a task met, by store."
    );
    describe_gauge!(
        "tokenmeter_http_connections",
        "Connections that are open on all listeners of this process."
    );
    describe_gauge!("tokenmeter_build_info", "1, with the version of the program.");
    describe_gauge!(
        "process_start_time_seconds",
        Unit::Seconds,
        "When the process started, in seconds since 1970."
    );
    describe_gauge!(
        "process_resident_memory_bytes",
        Unit::Bytes,
        "Memory of the process that is in RAM."
    );
}

/// Notes version and start of the process; once, after [`install`].
pub fn announce(version: &'static str, started_at: Timestamp) {
    metrics::gauge!("tokenmeter_build_info", "version" => version).set(1.0);
    let seconds = Duration::from_millis(u64::try_from(started_at.as_millis()).unwrap_or(0));
    metrics::gauge!("process_start_time_seconds").set(seconds.as_secs_f64());
}

/// Reads the process's memory, where the system shows it (Linux).
pub(crate) fn measure_memory() {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u32>().ok());
    if let Some(kib) = kib {
        metrics::gauge!("process_resident_memory_bytes").set(f64::from(kib) * 1024.0);
    }
}

/// Handles of the routes' metrics, resolved once: a look-up by labels for each request would cost
/// more than counting.
#[derive(Default)]
pub(crate) struct RouteMetrics {
    numbers: matchit::Router<RouteNumber>,
    routes: Vec<Handles>,
    unmatched: Handles,
}

/// Which of the routes.
pub(crate) type RouteNumber = usize;

/// Made at the first use, because a metric that exists is shown, and most of these never count
/// anything.
struct Handles {
    route: &'static str,
    seconds: OnceLock<Histogram>,
    /// By method, then by class of status.
    requests: [[OnceLock<Counter>; CLASSES.len()]; METHODS.len()],
}

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl RouteMetrics {
    /// For these paths, as a router takes them; any of them may be there more than once.
    pub(crate) fn of(paths: impl IntoIterator<Item = &'static str>) -> Self {
        let mut metrics = Self::default();
        for path in paths {
            // One that is there already has its number; the router has refused what contradicts another.
            if metrics.numbers.insert(path, metrics.routes.len()).is_ok() {
                metrics.routes.push(Handles::of(path));
            }
        }
        metrics
    }

    /// The route of a request's path; `None`: there is none.
    pub(crate) fn route(&self, path: &str) -> Option<RouteNumber> {
        self.numbers.at(path).ok().map(|found| *found.value)
    }

    pub(crate) fn record(
        &self,
        route: Option<RouteNumber>,
        method: &Method,
        status: StatusCode,
        elapsed: Duration,
    ) {
        let handles = route.and_then(|number| self.routes.get(number));
        handles.unwrap_or(&self.unmatched).record(method, status, elapsed);
    }
}

impl Default for Handles {
    fn default() -> Self {
        Self::of("unmatched")
    }
}

impl Handles {
    fn of(route: &'static str) -> Self {
        Self { route, seconds: OnceLock::new(), requests: Default::default() }
    }

    fn record(&self, method: &Method, status: StatusCode, elapsed: Duration) {
        let seconds = self.seconds.get_or_init(
            || metrics::histogram!("tokenmeter_http_request_seconds", "route" => self.route),
        );
        seconds.record(elapsed);
        let method = METHODS.iter().position(|name| *name == method.as_str());
        let method = method.unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        let counter = self.requests[method][class].get_or_init(|| {
            metrics::counter!(
                "tokenmeter_http_requests_total",
                "route" => self.route, "method" => METHODS[method],
                "status" => CLASSES[class]
            )
        });
        counter.increment(1);
    }
}
