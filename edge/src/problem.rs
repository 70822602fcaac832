//! Refusals and failures as clients see them: RFC 9457 problem bodies.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use metering::Unavailable;
use metering::trace::TraceId;
use metering::usage::{FieldError, Rejection};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use tracing::field::{DisplayValue, display};

use crate::code::Code;
use crate::request_id::{request_id, trace_parent};
use crate::throttle::Throttle;

/// Where a bad value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// In the body: a JSON Pointer fragment (RFC 6901, section 6) such as `#/model`.
    Pointer(String),
    /// In the query or the path: the parameter's name.
    Parameter(String),
}

/// One bad value of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// Where it stands.
    pub at: At,
    /// Stable: `required`, `wrong_type`, `out_of_range`, `too_long`, `not_allowed`,
    /// `contradiction`, `unknown_field`.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

impl From<FieldError> for FieldProblem {
    fn from(error: FieldError) -> Self {
        Self { at: At::Pointer(error.pointer), code: error.code, detail: error.detail }
    }
}

impl Serialize for FieldProblem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        match &self.at {
            At::Pointer(pointer) => map.serialize_entry("pointer", pointer)?,
            At::Parameter(parameter) => map.serialize_entry("parameter", parameter)?,
        }
        map.serialize_entry("code", self.code)?;
        map.serialize_entry("detail", &self.detail)?;
        map.end()
    }
}

#[derive(Clone, Debug)]
struct Contents {
    code: Code,
    detail: String,
    errors: Vec<FieldProblem>,
    members: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A refusal or failure, answered as `application/problem+json` (RFC 9457).
///
/// `detail` is for the client: it never holds what a store, a library or another user said.
#[derive(Clone, Debug)]
pub struct Problem(Box<Contents>);

impl Problem {
    /// The status follows from the code.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Contents {
            code,
            detail: detail.into(),
            errors: vec![],
            members: vec![],
            headers: vec![],
        }))
    }

    /// 422 `invalid_request` for one parameter of the query or the path.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let at = At::Parameter(name.to_owned());
        let error = FieldProblem { at, code: "not_allowed", detail: detail.clone() };
        Self::new(Code::InvalidRequest, format!("{name}: {detail}")).with_errors(vec![error])
    }

    /// 422 `invalid_request` for one field of the body; `pointer` such as `#/model`.
    pub fn field(pointer: &str, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let at = At::Pointer(pointer.to_owned());
        let error = FieldProblem { at, code, detail: detail.clone() };
        let name = pointer.trim_start_matches("#/");
        Self::new(Code::InvalidRequest, format!("{name}: {detail}")).with_errors(vec![error])
    }

    /// 500, for what should not happen; `cause` is logged and never shown.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let request_id = request_id();
        tracing::error!(
            %cause,
            request_id = request_id.as_deref(),
            trace_id = trace_id(),
            "internal error"
        );
        Self::new(Code::Internal, "something went wrong on our side")
    }

    /// With the bad values that it is about.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldProblem>) -> Self {
        self.0.errors = errors;
        self
    }

    /// With a header of the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// With another member of the body, such as `upgrade`.
    #[must_use]
    pub fn with_member(mut self, name: &'static str, value: Value) -> Self {
        self.0.members.push((name, value));
        self
    }

    /// With `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Its stable name.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// For people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    fn render(&self) -> Vec<u8> {
        let request_id = request_id();
        let body = Body { contents: &self.0, request_id: request_id.as_deref() };
        // Strings, numbers and trees with string keys: nothing in it can fail to be written.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// For the log.
fn trace_id() -> Option<DisplayValue<TraceId>> {
    trace_parent().map(|trace| display(trace.trace_id()))
}

struct Body<'a> {
    contents: &'a Contents,
    request_id: Option<&'a str>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Contents { code, detail, errors, members, .. } = self.contents;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("/docs/errors#{}", code.as_str()))?;
        map.serialize_entry("title", code.title())?;
        map.serialize_entry("status", &code.status().as_u16())?;
        map.serialize_entry("detail", detail)?;
        map.serialize_entry("success", &false)?;
        map.serialize_entry("code", code.as_str())?;
        map.serialize_entry("request_id", &self.request_id)?;
        if !errors.is_empty() {
            map.serialize_entry("errors", errors)?;
        }
        for (name, value) in members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        metrics::counter!("tokenmeter_problems_total", "code" => self.0.code.as_str()).increment(1);
        let mut response = Response::new(axum::body::Body::from(self.render()));
        *response.status_mut() = self.0.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.0.code {
            Code::Unauthenticated => {
                let challenge = HeaderValue::from_static("Bearer realm=\"tokenmeter\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Code::CredentialsExpired => {
                let challenge = "Bearer realm=\"tokenmeter\", error=\"invalid_token\"";
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            _ => {}
        }
        for (name, value) in self.0.headers {
            headers.insert(name, value);
        }
        response
    }
}

impl From<Unavailable> for Problem {
    /// 503. The reason goes to the log, at most once a second, and never to the client.
    fn from(unavailable: Unavailable) -> Self {
        static LINES: Throttle = Throttle::new();
        let Unavailable { store, reason } = unavailable;
        if let Some(unsaid) = LINES.pass() {
            let request_id = request_id();
            tracing::warn!(
                store,
                reason,
                request_id = request_id.as_deref(),
                trace_id = trace_id(),
                unsaid,
                "unavailable"
            );
        }
        metrics::counter!("tokenmeter_store_errors_total", "store" => store).increment(1);
        Self::new(Code::Unavailable, "not acknowledged, perhaps recorded: try again").retry_after(1)
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let (code, errors) = match rejection {
            Rejection::MalformedJson(detail) => return Self::new(Code::MalformedJson, detail),
            Rejection::Invalid(errors) => (Code::InvalidRequest, errors),
            Rejection::Impossible(errors) => (Code::ImpossibleTokens, errors),
        };
        let detail = errors.first().map_or_else(String::new, |first| {
            format!("{}: {}", first.pointer.trim_start_matches("#/"), first.detail)
        });
        Self::new(code, detail).with_errors(errors.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    async fn answer(problem: Problem) -> (StatusCode, http::HeaderMap, Value) {
        let response = problem.into_response();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_problem_has_the_members_of_the_contract() {
        let problem = Problem::field("#/model", "required", "is missing")
            .with_member("retryable", false.into())
            .retry_after(7);
        let (status, headers, body) = answer(problem).await;
        assert_eq!(status, 422);
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["retry-after"], "7");
        let expected = serde_json::json!({
            "type": "/docs/errors#invalid_request",
            "title": "Invalid request",
            "status": 422,
            "detail": "model: is missing",
            "success": false,
            "code": "invalid_request",
            "request_id": null,
            "errors": [{"pointer": "#/model", "code": "required", "detail": "is missing"}],
            "retryable": false,
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn both_401_challenge_the_client() {
        for code in [Code::Unauthenticated, Code::CredentialsExpired] {
            let (status, headers, _) = answer(Problem::new(code, "no")).await;
            assert_eq!(status, 401);
            assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        }
    }

    #[tokio::test]
    async fn what_a_store_said_is_not_shown() {
        let problem = Problem::from(Unavailable::new("event_log", "disk /dev/sda1 is full"));
        let (status, headers, body) = answer(problem).await;
        assert_eq!((status.as_u16(), &headers["retry-after"]), (503, &HeaderValue::from(1)));
        assert!(!body.to_string().contains("disk"));
    }

    #[tokio::test]
    async fn a_rejected_event_names_its_fields() {
        let rejection = metering::usage::read_event(b"{\"model\": 3}").unwrap_err();
        let (status, _, body) = answer(rejection.into()).await;
        assert_eq!(status, 422);
        let pointers: Vec<_> =
            body["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
        assert!(pointers.contains(&"#/request_type".into()), "{body}");
        assert!(pointers.contains(&"#/model".into()), "{body}");
    }
}
