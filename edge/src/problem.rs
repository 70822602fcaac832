//! Refusals and failures as clients see them: RFC 9457 problem bodies.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use metering::Unavailable;
use metering::usage::{FieldError, Rejection};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::request_id::request_id;

/// The stable name of a problem: what programs compare, and the label of the metric
/// `tokenmeter_problems_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// 400: the body is not JSON.
    MalformedJson,
    /// 400: broken gzip or zstd, or a body that ended early.
    MalformedEncoding,
    /// 401: no credentials, or none that are valid.
    Unauthenticated,
    /// 401: they were valid.
    CredentialsExpired,
    /// 402: a paid plan without a payment method.
    PaymentRequired,
    /// 403: the plan does not reach the model's tier.
    ModelNotInPlan,
    /// 403: this installation does not sell plans.
    PaymentsUnavailable,
    /// 403: the caller may not.
    Forbidden,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 408: the body came too slowly.
    RequestTimeout,
    /// 415.
    UnsupportedMediaType,
    /// 500: a bug of ours.
    Internal,
    /// 409.
    EmailTaken,
    /// 409: the same event id with another content.
    EventIdReused,
    /// 409: the same reservation id with another content.
    ReservationIdReused,
    /// 413, before or after decompression.
    BodyTooLarge,
    /// 413: a batch of too many events.
    TooManyEvents,
    /// 422: well-formed, not valid.
    InvalidRequest,
    /// 422: the catalogue does not know the model.
    UnknownModel,
    /// 422: nobody has this id.
    UnknownUser,
    /// 422: too old, or too far ahead.
    TimestampOutOfRange,
    /// 422: counts above the bound or against each other.
    ImpossibleTokens,
    /// 429: the tokens do not fit into the plan.
    TokenLimitReached,
    /// 429: the requests of the plan are used up.
    RequestLimitReached,
    /// 429: too fast.
    TooManyRequests,
    /// 503: not acknowledged, perhaps recorded.
    Unavailable,
}

impl Code {
    /// All of them, in the order of the statuses' table in the documentation.
    pub const ALL: [Self; 28] = [
        Self::MalformedJson,
        Self::MalformedEncoding,
        Self::Unauthenticated,
        Self::CredentialsExpired,
        Self::PaymentRequired,
        Self::ModelNotInPlan,
        Self::PaymentsUnavailable,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::UnsupportedMediaType,
        Self::Internal,
        Self::EmailTaken,
        Self::EventIdReused,
        Self::ReservationIdReused,
        Self::BodyTooLarge,
        Self::TooManyEvents,
        Self::InvalidRequest,
        Self::UnknownModel,
        Self::UnknownUser,
        Self::TimestampOutOfRange,
        Self::ImpossibleTokens,
        Self::TokenLimitReached,
        Self::RequestLimitReached,
        Self::TooManyRequests,
        Self::Unavailable,
    ];

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::MalformedJson => ("malformed_json", "Not JSON"),
            Self::MalformedEncoding => ("malformed_encoding", "Broken content encoding"),
            Self::Unauthenticated => ("unauthenticated", "Credentials required"),
            Self::CredentialsExpired => ("credentials_expired", "Credentials expired"),
            Self::PaymentRequired => ("payment_required", "Payment method required"),
            Self::ModelNotInPlan => ("model_not_in_plan", "Model not in the plan"),
            Self::PaymentsUnavailable => ("payments_unavailable", "Payments not available"),
            Self::Forbidden => ("forbidden", "Not allowed"),
            Self::NotFound => ("not_found", "Not found"),
            Self::MethodNotAllowed => ("method_not_allowed", "Method not allowed"),
            Self::NotAcceptable => ("not_acceptable", "Not acceptable"),
            Self::RequestTimeout => ("request_timeout", "Request too slow"),
            Self::UnsupportedMediaType => ("unsupported_media_type", "Unsupported media type"),
            Self::Internal => ("internal", "Internal error"),
            Self::EmailTaken => ("email_taken", "E-mail address taken"),
            Self::EventIdReused => ("event_id_reused", "Event id reused"),
            Self::ReservationIdReused => ("reservation_id_reused", "Reservation id reused"),
            Self::BodyTooLarge => ("body_too_large", "Body too large"),
            Self::TooManyEvents => ("too_many_events", "Too many events"),
            Self::InvalidRequest => ("invalid_request", "Invalid request"),
            Self::UnknownModel => ("unknown_model", "Unknown model"),
            Self::UnknownUser => ("unknown_user", "Unknown user"),
            Self::TimestampOutOfRange => ("timestamp_out_of_range", "Time out of range"),
            Self::ImpossibleTokens => ("impossible_tokens", "Impossible token counts"),
            Self::TokenLimitReached => ("token_limit_reached", "Token limit reached"),
            Self::RequestLimitReached => ("request_limit_reached", "Request limit reached"),
            Self::TooManyRequests => ("too_many_requests", "Too many requests"),
            Self::Unavailable => ("unavailable", "Temporarily unavailable"),
        }
    }

    /// As JSON and metrics show it.
    pub const fn as_str(self) -> &'static str {
        self.words().0
    }

    /// The HTTP status that goes with it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MalformedJson | Self::MalformedEncoding => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::CredentialsExpired => StatusCode::UNAUTHORIZED,
            Self::PaymentRequired => StatusCode::PAYMENT_REQUIRED,
            Self::ModelNotInPlan | Self::PaymentsUnavailable | Self::Forbidden => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::EmailTaken | Self::EventIdReused | Self::ReservationIdReused => {
                StatusCode::CONFLICT
            }
            Self::BodyTooLarge | Self::TooManyEvents => StatusCode::PAYLOAD_TOO_LARGE,
            Self::InvalidRequest
            | Self::UnknownModel
            | Self::UnknownUser
            | Self::TimestampOutOfRange
            | Self::ImpossibleTokens => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TokenLimitReached | Self::RequestLimitReached | Self::TooManyRequests => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A few words for people, the same for every occurrence.
    pub const fn title(self) -> &'static str {
        self.words().1
    }
}

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
        tracing::error!(%cause, request_id = request_id().as_deref(), "internal error");
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
    /// 503. The reason goes to the log, once, and never to the client.
    fn from(unavailable: Unavailable) -> Self {
        let Unavailable { store, reason } = unavailable;
        tracing::warn!(store, reason, request_id = request_id().as_deref(), "store unavailable");
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

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
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
