//! What a request asks for in its URL, its headers or its form.

use hyper::Request;

use crate::request::Exception;
use crate::sessions::Session;

/// Parameters of the interface that are not settings of the engine.
const NOT_SETTINGS: &[&str] = &[
    "buffer_size",
    "client_protocol_version",
    "close_session",
    "decompress",
    "enable_http_compression",
    "password",
    "query_id",
    "quota_key",
    "role",
    "send_progress_in_http_headers",
    "stacktrace",
    "user",
    "wait_end_of_query",
];

/// Everything of a request but its body.
#[derive(Default)]
pub struct Parameters {
    /// The statement, or its beginning: the body follows it.
    pub query: String,
    /// The format of the answer where the statement names none.
    pub format: Option<String>,
    /// `{name:Type}` in the statement.
    pub bound: Vec<(String, String)>,
    pub session: Session,
}

impl Parameters {
    /// Reads headers and URL.
    pub fn read<Body>(request: &Request<Body>) -> Result<Self, Exception> {
        let mut read = Self::default();
        let header = |name: &str| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        read.format = header("x-clickhouse-format");
        read.session.database = header("x-clickhouse-database");
        if let Some(encoding) = header("content-encoding") {
            return Err(unsupported(&format!("content-encoding: {encoding}")));
        }
        let pairs = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        for (name, value) in pairs.into_owned() {
            read.set(name, value)?;
        }
        Ok(read)
    }

    /// Takes one parameter of the URL or of the form.
    pub fn set(&mut self, name: String, value: String) -> Result<(), Exception> {
        if let Some(bound) = name.strip_prefix("param_") {
            self.bound.push((bound.to_owned(), value));
            return Ok(());
        }
        match name.as_str() {
            "query" => self.query.push_str(&value),
            "default_format" => self.format = Some(value),
            "database" => self.session.database = Some(value).filter(|name| !name.is_empty()),
            "session_id" => return Err(unsupported("session_id")),
            "compress" | "decompress" if value != "0" => return Err(unsupported(&name)),
            "compress" | "decompress" => {}
            _ if NOT_SETTINGS.contains(&name.as_str()) => {}
            _ if is_setting_name(&name) => {
                self.session.settings.insert(name, value);
            }
            _ => {
                return Err(format!(
                    "Code: 115. DB::Exception: Unknown setting '{name}'. (UNKNOWN_SETTING)"
                ));
            }
        }
        Ok(())
    }
}

fn is_setting_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn unsupported(what: &str) -> Exception {
    format!(
        "Code: 48. DB::Exception: {what} is not supported by the local server; see \
         deploy/local/README.md. (NOT_IMPLEMENTED)"
    )
}
