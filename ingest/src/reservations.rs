//! Reservations: tokens and one request, held before a model call.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use edge::{Caller, Code, Path, Problem, json};
use http::{HeaderMap, StatusCode};
use metering::accounts::{Scope, UserId};
use metering::quota::{Held, Hold, HoldOutcome, Standing};
use metering::time::{Period, Timestamp};
use metering::usage::{
    ContentDigest, FieldError, IdDigest, ModelName, RequestType, ReservationId, TOKENS_MAX, UserRef,
};
use serde::{Deserialize, Serialize};

use crate::candidate::idempotency_key;
use crate::rate_limit::{self, Usage};
use crate::refusal::{self, Asked};
use crate::{Ingest, metrics, unknown_user};

/// How long a hold stands when the client does not say, in seconds.
const EXPIRES_IN_DEFAULT: u64 = 600;

/// The longest hold, in seconds: a forgotten one blocks its tokens so long.
const EXPIRES_IN_MAX: u64 = 86_400;

/// Model names, in bytes, as for events.
const MODEL_BYTES_MAX: usize = 128;

#[derive(Debug, Deserialize)]
pub(crate) struct HoldRequest {
    reservation_id: Option<String>,
    model: String,
    request_type: RequestType,
    tokens: u64,
    expires_in: Option<u64>,
    user_id: Option<String>,
    external_user_id: Option<String>,
}

/// How a service names a user.
#[derive(Debug, Deserialize)]
struct NamedUser {
    user_id: Option<String>,
    external_user_id: Option<String>,
}

impl NamedUser {
    fn reference(self) -> Result<Option<UserRef>, FieldError> {
        match (self.user_id, self.external_user_id) {
            (Some(_), Some(_)) => Err(FieldError::of(
                "external_user_id",
                "contradiction",
                "user_id and external_user_id exclude each other",
            )),
            (Some(id), None) => Ok(Some(id.parse().map_or(UserRef::Nobody, UserRef::Id))),
            (None, Some(external)) => Ok(Some(UserRef::External(external))),
            (None, None) => Ok(None),
        }
    }
}

/// `POST /api/tokens/me/reservations`
pub(crate) async fn hold_own(
    State(ingest): State<Ingest>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<json::Body<HoldRequest>, Problem>,
) -> Result<Response, Problem> {
    let user = caller.user_id()?;
    let json::Body(request) = body?;
    hold(&ingest, user, request, &headers).await
}

/// `POST /api/tokens/reservations`
pub(crate) async fn hold_for_user(
    State(ingest): State<Ingest>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<json::Body<HoldRequest>, Problem>,
) -> Result<Response, Problem> {
    caller.require(Scope::Ingest)?;
    let json::Body(mut request) = body?;
    let (user_id, external_user_id) = (request.user_id.take(), request.external_user_id.take());
    let user = ingest.user_of(NamedUser { user_id, external_user_id }.reference()).await?;
    hold(&ingest, user, request, &headers).await
}

/// `POST /api/tokens/me/reservations/{id}/release`
pub(crate) async fn release_own(
    State(ingest): State<Ingest>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    release(&ingest, caller.user_id()?, &id).await
}

/// `POST /api/tokens/reservations/{id}/release`, with the user in the body.
pub(crate) async fn release_for_user(
    State(ingest): State<Ingest>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    caller.require(Scope::Ingest)?;
    let (parts, body) = request.into_parts();
    json::expect_json(&parts.headers)?;
    let body = edge::body::read(body, &parts.headers, json::BODY_BYTES_MAX).await?;
    let named: NamedUser = json::read(&body)?;
    release(&ingest, ingest.user_of(named.reference()).await?, &id).await
}

#[derive(Serialize)]
struct Reserved<'a> {
    success: bool,
    reservation_id: &'a ReservationId,
    tokens: u64,
    expires_at: Timestamp,
    usage: Usage,
}

#[derive(Serialize)]
struct Released<'a> {
    success: bool,
    reservation_id: &'a str,
}

async fn hold(
    ingest: &Ingest,
    user_id: UserId,
    request: HoldRequest,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let now = ingest.parts().clock.now();
    let expires_at = now.plus(Duration::from_secs(request.checked_expiry()?));
    let given = request.given_id(headers)?;
    let id = given.clone().unwrap_or_else(|| ReservationId::generate(now));
    let tier = ingest.parts().models.tier_of(&request.model);
    let tier = tier.ok_or_else(|| refusal::unknown_model(&request.model))?;
    let model = ModelName::new(&request.model);
    let (request_type, tokens) = (request.request_type, request.tokens);
    let asked = Hold {
        user_id,
        period: Period::of(now),
        id_digest: IdDigest::of_hold(user_id, &id),
        content_digest: ContentDigest::of_hold(request_type, &model, tokens),
        request_type,
        tokens,
        tier,
        expires_at,
    };
    let outcome = ingest.parts().counter.hold(&asked).await.map_err(|unavailable| {
        let problem = Problem::from(unavailable);
        if given.is_some() {
            problem
        } else {
            problem.with_member("reservation_id", id.as_str().into())
        }
    })?;
    let answer = Answer { ingest, asked: &asked, id: &id, model: model.as_str(), now };
    answer.to(outcome)
}

impl HoldRequest {
    fn checked_expiry(&self) -> Result<u64, Problem> {
        let seconds = self.expires_in.unwrap_or(EXPIRES_IN_DEFAULT);
        if !(1..=EXPIRES_IN_MAX).contains(&seconds) {
            let detail = format!("must be 1 to {EXPIRES_IN_MAX} seconds");
            return Err(Problem::field("#/expires_in", "out_of_range", detail));
        }
        if self.model.is_empty() || self.model.len() > MODEL_BYTES_MAX {
            let detail = format!("must have 1 to {MODEL_BYTES_MAX} bytes");
            return Err(Problem::field("#/model", "too_long", detail));
        }
        if self.tokens > TOKENS_MAX {
            let detail = format!("must be at most {TOKENS_MAX}");
            let code = Code::ImpossibleTokens;
            return Err(refusal::at_field(code, "tokens", "out_of_range", detail));
        }
        Ok(seconds)
    }

    fn given_id(&self, headers: &HeaderMap) -> Result<Option<ReservationId>, Problem> {
        if let Some(id) = &self.reservation_id {
            let id = ReservationId::new(id);
            let wrong = |error: metering::usage::NotAnId| {
                Problem::field("#/reservation_id", "too_long", error.to_string())
            };
            return id.map(Some).map_err(wrong);
        }
        let id = idempotency_key(headers)?.map(|key| ReservationId::new(&key)).transpose();
        id.map_err(|error| Problem::parameter("Idempotency-Key", error.to_string()))
    }
}

/// What is needed to answer a hold, whatever became of it.
struct Answer<'a> {
    ingest: &'a Ingest,
    asked: &'a Hold,
    id: &'a ReservationId,
    model: &'a str,
    now: Timestamp,
}

impl Answer<'_> {
    fn to(&self, outcome: HoldOutcome) -> Result<Response, Problem> {
        match outcome {
            HoldOutcome::Held(held) => {
                metrics::reservation("held");
                Ok(self.stands(StatusCode::CREATED, &held))
            }
            HoldOutcome::Repeated(held) => {
                metrics::reservation("repeated");
                Ok(self.stands(StatusCode::OK, &held))
            }
            HoldOutcome::Conflict => {
                metrics::reservation("conflict");
                let detail = "this reservation id stands for a hold of another content";
                Err(Problem::new(Code::ReservationIdReused, detail))
            }
            HoldOutcome::UnknownUser => Err(unknown_user()),
            HoldOutcome::Refused(refused, standing) => {
                metrics::reservation("refused");
                let asked = Asked {
                    period: self.asked.period,
                    request_type: self.asked.request_type,
                    tokens: self.asked.tokens,
                    model: self.model,
                    tier: self.asked.tier,
                };
                Err(refusal::of_plan(self.ingest, &asked, refused, &standing, self.now))
            }
        }
    }

    fn stands(&self, status: StatusCode, held: &Held) -> Response {
        let body = Reserved {
            success: true,
            reservation_id: self.id,
            tokens: held.tokens,
            expires_at: held.expires_at,
            usage: Usage::of(&held.standing, self.asked.period),
        };
        self.with_limits(json::response(status, &body), &held.standing)
    }

    fn with_limits(&self, mut response: Response, standing: &Standing) -> Response {
        let Hold { request_type, period, .. } = *self.asked;
        let headers = rate_limit::headers(standing, request_type, period, self.now);
        for (name, value) in headers.into_iter().flatten() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

async fn release(ingest: &Ingest, user: UserId, id: &str) -> Result<Response, Problem> {
    let missing = || Problem::new(Code::NotFound, "there is no such reservation (any more)");
    let known = ReservationId::new(id).map_err(|_| missing())?;
    let digest = IdDigest::of_hold(user, &known);
    if !ingest.parts().counter.release(user, digest).await? {
        return Err(missing());
    }
    metrics::reservation("released");
    Ok(json::response(StatusCode::OK, &Released { success: true, reservation_id: id })
        .into_response())
}
