//! The stable names of problems, and the status of each.

use http::StatusCode;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
