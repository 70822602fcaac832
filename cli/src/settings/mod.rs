//! Settings: flags before environment before file before defaults, each value with its origin.
//!
//! This is the only place that reads the environment.

mod cluster;
mod parse;
mod sources;
mod table;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use metering::quota::{ModelCatalogue, PlanCatalogue};
use metering::usage::AlertRules;
use serde::Serialize;

use crate::webhook::{self, WebhookSecret, WebhookSettings};
pub(crate) use cluster::ClusterSettings;
pub(crate) use sources::{add_server_flags, add_shared_flags};
pub(crate) use table::variable;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The flag of that name.
    Flag(String),
    /// The environment variable of that name.
    Environment(String),
    /// The file of that path.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting as it was found, for `config show`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Resolved {
    /// As the flag is called, without the dashes before it.
    pub(crate) name: String,
    /// As it was written; lists are joined with commas; `None` when nothing is set.
    pub(crate) value: Option<String>,
    /// Where it came from.
    #[serde(serialize_with = "origin_as_text")]
    pub(crate) origin: Origin,
}

fn origin_as_text<S: serde::Serializer>(origin: &Origin, into: S) -> Result<S::Ok, S::Error> {
    into.collect_str(origin)
}

/// A value that cannot be used.
#[derive(Clone, Debug)]
pub(crate) struct SettingError {
    /// Which setting, its value and its origin.
    pub(crate) found: Resolved,
    /// What it must be.
    pub(crate) detail: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resolved { name, value, origin } = &self.found;
        write!(f, "setting {name}")?;
        if let Some(value) = value {
            write!(f, " = {value:?}")?;
        }
        write!(f, " (from {origin}): {}", self.detail)
    }
}

/// Everything that is wrong with the settings.
#[derive(Clone, Debug)]
pub(crate) struct SettingErrors(pub(crate) Vec<SettingError>);

impl fmt::Display for SettingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingErrors {}

/// How logs are written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// How paid plans are had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaymentMode {
    /// Admins grant them.
    None,
    /// Whoever asks gets them: for trials.
    Trust,
}

/// Which parts a server runs; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Takes usage events.
    pub(crate) ingest: bool,
    /// Counts them.
    pub(crate) aggregator: bool,
    /// Everything else.
    pub(crate) api: bool,
}

impl Roles {
    const ALL: Self = Self { ingest: true, aggregator: true, api: true };
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where everything of a single node is kept.
    pub(crate) data_dir: PathBuf,
    /// The four servers; `None`: a single node.
    pub(crate) cluster: Option<ClusterSettings>,
    /// Which parts a server runs.
    pub(crate) roles: Roles,
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Where operators connect.
    pub(crate) ops_listen: SocketAddr,
    /// How paid plans are had.
    pub(crate) payments: PaymentMode,
    /// How long an access token is valid.
    pub(crate) access_token_ttl: Duration,
    /// How long a login lasts without being used.
    pub(crate) refresh_token_ttl: Duration,
    /// Web origins whose pages may call the API.
    pub(crate) cors_origins: Vec<String>,
    /// Proxies whose word on the client address counts.
    pub(crate) trusted_proxies: Vec<edge::Network>,
    /// The plans.
    pub(crate) plans: Arc<PlanCatalogue>,
    /// The models.
    pub(crate) models: Arc<ModelCatalogue>,
    /// How long counted records stay in the log.
    pub(crate) log_retention: Duration,
    /// From one commit of counted events to the next; `None`: as suits the stores.
    pub(crate) flush_interval: Option<Duration>,
    /// Who is told of alerts.
    pub(crate) webhook: Option<WebhookSettings>,
    /// Open client connections.
    pub(crate) max_connections: usize,
    /// How often the books are compared by themselves.
    pub(crate) reconcile_interval: Duration,
    /// How logs are written.
    pub(crate) log_format: LogFormat,
}

impl Settings {
    /// Reads the settings of a command line: `levels` are the matches of the program, of its
    /// command, of that command's command …; of two flags the inner one wins.
    ///
    /// The list has every setting with its value and origin, whether or not all are good.
    pub(crate) fn read(levels: &[&ArgMatches]) -> (Result<Self, SettingErrors>, Vec<Resolved>) {
        let (found, errors) = sources::resolve(levels);
        let mut reader = Reader { found, errors };
        let settings = reader.settings();
        let Reader { found, errors } = reader;
        match settings {
            Some(settings) if errors.is_empty() => (Ok(settings), found),
            _ => (Err(SettingErrors(errors)), found),
        }
    }

    /// Which alerts the plans ask for.
    pub(crate) fn alert_rules(&self) -> Arc<AlertRules> {
        Arc::new(AlertRules::of(&self.plans))
    }

    /// From one commit of counted events to the next.
    ///
    /// An insert costs ClickHouse some milliseconds for each of five tables, however little is in it,
    /// and it asks for one in a second at most
    /// (<https://clickhouse.com/docs/optimize/bulk-inserts>); SQLite has no such price.
    pub(crate) fn flush_interval(&self) -> Duration {
        let auto = if self.cluster.is_some() { 1000 } else { 500 };
        self.flush_interval.unwrap_or(Duration::from_millis(auto))
    }
}

struct Reader {
    found: Vec<Resolved>,
    errors: Vec<SettingError>,
}

impl Reader {
    fn settings(&mut self) -> Option<Settings> {
        // Every value is read before any is missed, so that all errors are told at once.
        let data_dir = self.one("data-dir", |text| Ok(PathBuf::from(text)));
        let listen = self.one("listen", parse::address);
        let ops_listen = self.one("ops-listen", parse::address);
        let cluster = self.cluster();
        let roles = self.one("role", roles);
        let payments = self.one("payments", payment_mode);
        let access_token_ttl = self.one("access-token-ttl", parse::positive_duration);
        let refresh_token_ttl = self.one("refresh-token-ttl", parse::positive_duration);
        let cors_origins = self.many("cors-origin", parse::origin);
        let trusted_proxies = self.many("trusted-proxy", parse::network);
        let catalogues = self.catalogues();
        let log_retention = self.one("log-retention", parse::positive_duration);
        let flush_interval = self.one("flush-interval", flush_interval);
        let webhook = self.webhook();
        let max_connections = self.one("max-connections", parse::count);
        let reconcile_interval = self.one("reconcile-interval", parse::positive_duration);
        let log_format = self.one("log-format", log_format);
        let (cluster, roles) = (cluster?, roles?);
        if cluster.is_none() && roles != Roles::ALL {
            let detail = "a single node has its quota counters in the process, so it runs all roles: \
                          ingest,aggregator,api";
            self.wrong("role", detail.to_owned());
        }
        let (plans, models) = catalogues?;
        Some(Settings {
            data_dir: data_dir?,
            cluster,
            roles,
            listen: listen?,
            ops_listen: ops_listen?,
            payments: payments?,
            access_token_ttl: access_token_ttl?,
            refresh_token_ttl: refresh_token_ttl?,
            cors_origins,
            trusted_proxies,
            plans: Arc::new(plans),
            models: Arc::new(models),
            log_retention: log_retention?,
            flush_interval: flush_interval?,
            webhook: webhook?,
            max_connections: max_connections?,
            reconcile_interval: reconcile_interval?,
            log_format: log_format?,
        })
    }

    /// The inner `None`: nobody is told. The outer one: something is wrong.
    fn webhook(&mut self) -> Option<Option<WebhookSettings>> {
        const URL: &str = "alert-webhook";
        const SECRET: &str = "alert-webhook-secret-file";
        match [URL, SECRET].map(|name| self.value(name)) {
            [None, None] => Some(None),
            [Some(_), Some(_)] => {
                let (url, secret) =
                    (self.one(URL, webhook::url), self.one(SECRET, WebhookSecret::read));
                Some(Some(WebhookSettings { url: url?, secret: secret? }))
            }
            [Some(_), None] => {
                self.wrong(URL, format!("its messages must be signed: name a --{SECRET}"));
                None
            }
            [None, Some(_)] => {
                self.wrong(SECRET, format!("is used with --{URL} only"));
                None
            }
        }
    }

    fn value(&self, name: &str) -> Option<String> {
        self.found.iter().find(|found| found.name == name).and_then(|found| found.value.clone())
    }

    fn wrong(&mut self, name: &str, detail: String) {
        if let Some(found) = self.found.iter().find(|found| found.name == name) {
            self.errors.push(SettingError { found: found.clone(), detail });
        }
    }

    fn noted<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|detail| self.wrong(name, detail)).ok()
    }

    fn one<T>(&mut self, name: &str, read: fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.value(name).unwrap_or_default();
        self.noted(name, read(&text))
    }

    fn many<T>(&mut self, name: &str, read: fn(&str) -> Result<T, String>) -> Vec<T> {
        let text = self.value(name).unwrap_or_default();
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.filter_map(|item| self.noted(name, read(item))).collect()
    }

    fn catalogues(&mut self) -> Option<(PlanCatalogue, ModelCatalogue)> {
        let models = self.catalogue("models", ModelCatalogue::DEFAULT_TOML, |text| {
            ModelCatalogue::from_toml(text).map_err(|error| error.to_string())
        });
        let mut models = models?;
        if let Some(tier) = self.value("unknown-model-tier") {
            let placed = models.with_unknown_in(&tier).map_err(|error| error.to_string());
            models = self.noted("unknown-model-tier", placed)?;
        }
        let plans = self.catalogue("plans", PlanCatalogue::DEFAULT_TOML, |text| {
            PlanCatalogue::from_toml(text, &models).map_err(|error| error.to_string())
        });
        Some((plans?, models))
    }

    fn catalogue<T>(
        &mut self,
        name: &str,
        built_in: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = match self.value(name) {
            None => Ok(built_in.to_owned()),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("the file cannot be read: {error}")),
        };
        let made = text.and_then(|text| read(&text));
        self.noted(name, made)
    }
}

/// Longer ones would keep users waiting for what they have just used.
fn flush_interval(text: &str) -> Result<Option<Duration>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let wrong = || "must be auto, or a duration from 50ms to 10s".to_owned();
    let span = parse::duration(text).map_err(|_| wrong())?;
    let bearable = Duration::from_millis(50)..=Duration::from_secs(10);
    bearable.contains(&span).then_some(Some(span)).ok_or_else(wrong)
}

fn roles(text: &str) -> Result<Roles, String> {
    let mut roles = Roles { ingest: false, aggregator: false, api: false };
    for role in text.split(',').map(str::trim) {
        match role {
            "ingest" => roles.ingest = true,
            "aggregator" => roles.aggregator = true,
            "api" => roles.api = true,
            _ => {
                return Err(format!(
                    "there is no role {role:?}; there are ingest, aggregator, api"
                ));
            }
        }
    }
    Ok(roles)
}

fn payment_mode(text: &str) -> Result<PaymentMode, String> {
    match text {
        "none" => Ok(PaymentMode::None),
        "trust" => Ok(PaymentMode::Trust),
        "stripe" => Err("stripe is not in this version: use none or trust".to_owned()),
        _ => Err("must be none or trust".to_owned()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    use std::io::IsTerminal as _;
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "auto" if std::io::stderr().is_terminal() => Ok(LogFormat::Text),
        "auto" => Ok(LogFormat::Json),
        _ => Err("must be auto, text or json".to_owned()),
    }
}

#[cfg(test)]
mod tests;
