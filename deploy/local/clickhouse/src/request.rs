//! One HTTP request of ClickHouse's interface: what it asks for, and the answer in its words.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use crate::multipart;
use crate::parameters::Parameters;
use crate::sessions::{Sessions, Statement};
use crate::statement::{DataInsert, verb};

/// A statement in a body may be this long; the data of an INSERT may be of any length.
const STATEMENT_BYTES_MAX: usize = 64 << 20;

/// What every request needs.
#[derive(Clone)]
pub struct Service {
    pub sessions: Arc<Sessions>,
    /// Where the data of INSERTs waits while its statement runs.
    pub inbox: Arc<Path>,
}

/// An error text as the engine writes it: `Code: 60. DB::Exception: …`.
pub type Exception = String;

impl Service {
    /// Answers one request; a failure is an answer too.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let greeting = request.method() == Method::GET && request.uri().query().is_none();
        if path == "/ping" || path == "/replicas_status" || (path == "/" && greeting) {
            return reply(StatusCode::OK, Full::from("Ok.\n"));
        }
        if path != "/" {
            return reply(StatusCode::NOT_FOUND, Full::from("There is no such handler.\n"));
        }
        match self.run(request).await {
            Ok(response) => response,
            Err(exception) => refusal(&exception),
        }
    }

    async fn run(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Exception> {
        let mut parameters = Parameters::read(&request)?;
        let read_only = request.method() == Method::GET;
        let boundary = multipart::boundary(request.headers());
        let mut body = request.into_body();
        if let Some(boundary) = boundary {
            let form = collect(&mut body).await?;
            for (name, value) in multipart::fields(&form, &boundary)? {
                parameters.set(name, value)?;
            }
        }
        let query = std::mem::take(&mut parameters.query);
        let format = parameters.format.unwrap_or_else(|| "TabSeparated".to_owned());
        let (sql, data) = self.receive(query, body).await?;
        if sql.iter().all(u8::is_ascii_whitespace) {
            return Err("Code: 62. DB::Exception: Syntax error: Empty query. (SYNTAX_ERROR)".into());
        }
        if read_only && changes_something(&sql) {
            return Err("Code: 164. DB::Exception: Cannot execute query in readonly mode. For \
                        queries over HTTP, method GET implies readonly. You should use method POST \
                        for modifying queries. (READONLY)"
                .into());
        }
        let (bound, session) = (parameters.bound, parameters.session);
        let statement = Statement { sql, format: format.clone(), parameters: bound, session, data };
        let answer = self.sessions.run(statement).await?;
        let summary = answer.summary();
        let mut response = reply(StatusCode::OK, Full::new(Bytes::from_owner(answer)));
        let headers = [
            ("x-clickhouse-summary", summary),
            ("x-clickhouse-format", format),
            // Says that an exception behind the first bytes would be marked with this. There is
            // none: the answer begins when the statement has ended.
            ("x-clickhouse-exception-tag", "tokenmeter-local".to_owned()),
        ];
        for (name, value) in headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }

    /// The statement, and the file with its data when it has any.
    async fn receive(
        &self,
        query: String,
        mut body: Incoming,
    ) -> Result<(Vec<u8>, Option<DataFile>), Exception> {
        let mut text = query.into_bytes();
        if !text.is_empty() {
            if let Some(insert) = DataInsert::split(&text) {
                let mut file = DataFile::create(&self.inbox)?;
                if let Some(inline) = text.get(insert.data_at..).filter(|inline| !inline.is_empty())
                {
                    file.write(inline)?;
                    file.write(b"\n")?;
                }
                file.write_all_of(&mut body).await?;
                return Ok((insert.reading(&file.name()).into_bytes(), Some(file)));
            }
            text.push(b'\n');
        }
        // A longer one is an INSERT whose head is known by then; what follows is data.
        while text.len() <= STATEMENT_BYTES_MAX
            && let Some(chunk) = next_chunk(&mut body).await?
        {
            text.extend_from_slice(&chunk);
        }
        let Some(insert) = DataInsert::split(&text) else {
            if text.len() > STATEMENT_BYTES_MAX {
                return Err(
                    "Code: 62. DB::Exception: the statement is too long (SYNTAX_ERROR)".into()
                );
            }
            return Ok((text, None));
        };
        let mut file = DataFile::create(&self.inbox)?;
        file.write(text.get(insert.data_at..).unwrap_or_default())?;
        file.write_all_of(&mut body).await?;
        Ok((insert.reading(&file.name()).into_bytes(), Some(file)))
    }
}

fn changes_something(sql: &[u8]) -> bool {
    [
        "alter", "attach", "create", "delete", "detach", "drop", "exchange", "grant", "insert",
        "kill", "optimize", "rename", "revoke", "set", "system", "truncate", "undrop", "update",
        "use",
    ]
    .contains(&verb(sql).as_str())
}

async fn collect(body: &mut Incoming) -> Result<Vec<u8>, Exception> {
    let mut collected = Vec::new();
    while let Some(chunk) = next_chunk(body).await? {
        collected.extend_from_slice(&chunk);
        if collected.len() > STATEMENT_BYTES_MAX {
            return Err("Code: 62. DB::Exception: the form is too long (SYNTAX_ERROR)".into());
        }
    }
    Ok(collected)
}

async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, Exception> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            format!("Code: 210. DB::Exception: the body broke off: {error} (NETWORK_ERROR)")
        })?;
        if let Ok(chunk) = frame.into_data() {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}

/// A temporary file; removed when dropped, and all of them when the server starts.
pub struct DataFile {
    path: PathBuf,
    file: File,
}

impl DataFile {
    fn create(inbox: &Path) -> Result<Self, Exception> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = inbox.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::create_new(&path).map_err(|error| not_kept(&error))?;
        Ok(Self { path, file })
    }

    fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Exception> {
        self.file.write_all(bytes).map_err(|error| not_kept(&error))
    }

    async fn write_all_of(&mut self, body: &mut Incoming) -> Result<(), Exception> {
        while let Some(chunk) = next_chunk(body).await? {
            self.write(chunk.chunk())?;
        }
        Ok(())
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}

fn not_kept(error: &std::io::Error) -> Exception {
    format!(
        "Code: 75. DB::Exception: the data cannot be kept: {error} (CANNOT_WRITE_TO_FILE_DESCRIPTOR)"
    )
}

fn reply(status: StatusCode, body: Full<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn refusal(exception: &str) -> Response<Full<Bytes>> {
    let code = exception_code(exception);
    let status = match code {
        164 | 497 => 403,
        6 | 26 | 27 | 33 | 38 | 41 | 43 | 44 | 53 | 62 | 69 | 117 | 130 | 131 | 456 | 457 => 400,
        16 | 46 | 47 | 50 | 56 | 57 | 60 | 63 | 73 | 81 | 115 => 404,
        48 => 501,
        439 => 503,
        _ => 500,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = reply(status, Full::from(format!("{}\n", exception.trim_end())));
    response.headers_mut().insert("x-clickhouse-exception-code", code.into());
    response
}

/// The number in `Code: 60. DB::Exception: …`; 1001 (an exception of the library) where none is.
fn exception_code(exception: &str) -> u32 {
    let number = exception.split("Code: ").nth(1).unwrap_or_default();
    let digits = number.split(|character: char| !character.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(1001)
}
