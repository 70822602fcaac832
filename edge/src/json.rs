//! JSON bodies, in and out.

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use crate::body;
use crate::code::Code;
use crate::problem::{At, FieldProblem, Problem};

/// JSON bodies of everything but batches, in bytes: a track call with all its metadata has a tenth
/// of it. A larger limit lets one client hold more of our memory.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// `Accept-Post` (LDP, section 7.1): the media types that a 415 asks for.
pub const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// A JSON body of this shape, plain or compressed, at most [`BODY_BYTES_MAX`].
///
/// Rejections: 415 for another content type, 413 `body_too_large`, 400 `malformed_json` or
/// `malformed_encoding`, 422 `invalid_request` that points at the bad field.
#[derive(Clone, Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        expect_json(&parts.headers)?;
        let bytes = body::read(body, &parts.headers, BODY_BYTES_MAX).await?;
        read(&bytes).map(Self)
    }
}

/// Refuses a content type that is not JSON: 415 with `Accept-Post`.
///
/// # Errors
/// 415 `unsupported_media_type`.
pub fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    if is_json(headers) {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType, "the body must be application/json")
        .with_header(ACCEPT_POST, HeaderValue::from_static("application/json")))
}

/// Whether the content type is `application/json`, with any parameters.
pub fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|given| given.eq_ignore_ascii_case("application/json"))
}

/// The content type without its parameters, as it was written.
pub fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// Whether the client's `Accept` asks for `media_type` by its name.
pub fn asks_for(headers: &HeaderMap, media_type: &str) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        range.split(';').next().unwrap_or(range).trim().eq_ignore_ascii_case(media_type)
    })
}

/// Reads a JSON object of a known shape.
///
/// # Errors
/// 400 `malformed_json`, or 422 `invalid_request` that points at the bad field. A string with
/// U+0000 is a bad field: stores and C programs end strings there.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    if may_hold_nul(json)
        && let Ok(tree) = serde_json::from_slice::<Value>(json)
        && let Some(pointer) = nul_in(&tree, "#")
    {
        return Err(Problem::field(&pointer, "not_allowed", "must have no U+0000"));
    }
    // An array with the fields in order would pass for the object.
    if json.trim_ascii_start().first() == Some(&b'[') {
        let not_json = serde_json::from_slice::<IgnoredAny>(json).err();
        return Err(not_json.map_or_else(
            || Problem::field("#", "wrong_type", "the body must be a JSON object"),
            |error| malformed(&error),
        ));
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = serde_path_to_error::deserialize::<_, T>(&mut reader);
    let error = match read {
        Ok(value) => match reader.end() {
            Ok(()) => return Ok(value),
            Err(error) => return Err(malformed(&error)),
        },
        Err(error) => error,
    };
    // A wrong type may stand before a syntax error: what is not JSON at all is told as such.
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(json) {
        return Err(malformed(&error));
    }
    Err(invalid(error.path(), &error.inner().to_string()))
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(Code::MalformedJson, format!("the body is not JSON: {error}"))
}

fn invalid(path: &Path, message: &str) -> Problem {
    let (mut pointer, named) = (pointer_of(path), quoted_name(message));
    let code = if message.starts_with("missing field") {
        "required"
    } else if message.starts_with("unknown field") {
        "unknown_field"
    } else if message.starts_with("unknown variant") {
        "not_allowed"
    } else {
        "wrong_type"
    };
    if let Some(name) = named.filter(|_| matches!(code, "required" | "unknown_field")) {
        let mut last = String::new();
        push_segment(&mut last, name);
        // The path of an unknown field ends with it, that of a missing one with its object.
        if !pointer.ends_with(&last) {
            pointer.push_str(&last);
        }
    }
    // The position is of no use once the field is named.
    let detail = message.split(" at line ").next().unwrap_or(message).to_owned();
    let error = FieldProblem { at: At::Pointer(pointer), code, detail: detail.clone() };
    Problem::new(Code::InvalidRequest, detail).with_errors(vec![error])
}

fn quoted_name(message: &str) -> Option<&str> {
    message.split('`').nth(1)
}

fn pointer_of(path: &Path) -> String {
    let mut pointer = "#".to_owned();
    for segment in path {
        match segment {
            Segment::Seq { index } => push_segment(&mut pointer, &index.to_string()),
            Segment::Map { key } => push_segment(&mut pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    pointer.push_str(&segment.replace('~', "~0").replace('/', "~1"));
}

fn may_hold_nul(json: &[u8]) -> bool {
    const ESCAPE: &[u8] = b"\\u0000";
    json.windows(ESCAPE.len()).any(|window| window == ESCAPE)
}

fn nul_in(value: &Value, at: &str) -> Option<String> {
    let below = |name: &str| {
        let mut pointer = at.to_owned();
        push_segment(&mut pointer, name);
        pointer
    };
    match value {
        Value::String(text) => text.contains('\0').then(|| at.to_owned()),
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| nul_in(item, &below(&index.to_string())))
        }
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            if name.contains('\0') { Some(at.to_owned()) } else { nul_in(field, &below(name)) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// A JSON answer.
pub fn response<T: Serialize>(status: StatusCode, body: &T) -> Response {
    let mut bytes = Vec::with_capacity(256);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => response_of_bytes(status, bytes),
        Err(error) => Problem::internal(error).into_response(),
    }
}

/// A JSON answer that is written already.
pub fn response_of_bytes(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = Response::new(axum::body::Body::from(json));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        name: String,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        count: u32,
    }

    async fn refusal(json: &str) -> (Code, String) {
        let problem = read::<Shape>(json.as_bytes()).unwrap_err();
        let code = problem.code();
        let body = problem.into_response().into_body();
        let body = axum::body::to_bytes(body, 9999).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        (code, body["errors"][0]["pointer"].as_str().unwrap_or("").to_owned())
    }

    #[tokio::test]
    async fn a_refusal_points_at_the_field() {
        use Code::{InvalidRequest, MalformedJson};
        for (json, code, pointer) in [
            ("{", MalformedJson, ""),
            ("", MalformedJson, ""),
            (r#"{"name":3"#, MalformedJson, ""),
            (r#"{"name":"a"} x"#, MalformedJson, ""),
            (r#"{"name":3}"#, InvalidRequest, "#/name"),
            (r"{}", InvalidRequest, "#/name"),
            (r#"["a"]"#, InvalidRequest, "#"),
            ("[", MalformedJson, ""),
            ("7", InvalidRequest, "#"),
            (r#"{"name":"a","extra/y":1}"#, InvalidRequest, "#/extra~1y"),
            (
                r#"{"name":"a","inner":[{"count":1},{"count":-1}]}"#,
                InvalidRequest,
                "#/inner/1/count",
            ),
            (r#"{"name":"a","inner":[{}]}"#, InvalidRequest, "#/inner/0/count"),
            (r#"{"name":"a\u0000b"}"#, InvalidRequest, "#/name"),
        ] {
            let (found, at) = refusal(json).await;
            assert_eq!(found, code, "{json}");
            assert_eq!(at, pointer, "{json}");
        }
        let good: Shape = read(br#"{"name":"\\u0000","inner":[{"count":2}]}"#).unwrap();
        assert_eq!((good.name.as_str(), good.inner[0].count), ("\\u0000", 2));
    }

    #[test]
    fn only_json_itself_is_taken_for_json() {
        for (given, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/cloudevents+json", false),
            ("text/plain", false),
            ("application/x-ndjson", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(given));
            assert_eq!(expect_json(&headers).is_ok(), json, "{given}");
        }
        assert_eq!(expect_json(&HeaderMap::new()).unwrap_err().code(), Code::UnsupportedMediaType);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_as_a_clients_error(json in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(problem) = read::<Shape>(&json) {
                prop_assert!(problem.code().status().is_client_error());
            }
        }
    }
}
