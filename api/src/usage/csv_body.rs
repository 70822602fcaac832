//! Answers as CSV (RFC 4180), with a header line.

use axum::body::Body;
use axum::response::Response;
use edge::Problem;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

/// Lines as text.
///
/// # Errors
/// 500 when a line has another number of fields than the others, which ours never do.
pub(super) fn lines<L>(lines: impl IntoIterator<Item = L>) -> Result<Vec<u8>, Problem>
where
    L: IntoIterator<Item: AsRef<[u8]>>,
{
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for line in lines {
        writer.write_record(line).map_err(Problem::internal)?;
    }
    writer.into_inner().map_err(Problem::internal)
}

/// 200 with that body.
pub(super) fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    let media_type = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
