//! Refusals, each with what would help.

use edge::{At, Code, FieldProblem, Problem};
use http::{HeaderName, HeaderValue};
use metering::quota::{Refused, Standing, Tier, Totals};
use metering::time::{Period, Timestamp};
use metering::usage::{FieldError, RequestType};
use serde_json::json;

use crate::candidate::{Bar, Candidate};
use crate::{Ingest, rate_limit};

/// What was asked of a plan.
pub(crate) struct Asked<'a> {
    pub(crate) period: Period,
    pub(crate) request_type: RequestType,
    pub(crate) tokens: u64,
    pub(crate) model: &'a str,
    pub(crate) tier: Tier,
}

pub(crate) fn event_id_reused() -> Problem {
    Problem::new(Code::EventIdReused, "this event id was used for an event of another content")
}

/// Why an event was not let in.
pub(crate) fn of_event(
    ingest: &Ingest,
    candidate: &Candidate,
    refused: Refused,
    standing: &Standing,
) -> Problem {
    let event = &candidate.event;
    match (refused, candidate.bar) {
        (_, Some(Bar::TimeOutOfRange(window))) => {
            let detail = match window.back {
                Some(back) => format!(
                    "occurred_at must be at most {} back and 5 minutes ahead",
                    span(back.as_secs())
                ),
                None => "occurred_at must be since 1970 and at most 5 minutes ahead".to_owned(),
            };
            at_field(Code::TimestampOutOfRange, "occurred_at", "out_of_range", detail)
        }
        (_, Some(Bar::IdAhead)) => {
            let detail = "a UUIDv7 must not be dated more than 5 minutes ahead";
            at_field(Code::TimestampOutOfRange, "event_id", "out_of_range", detail)
        }
        (_, Some(Bar::UnknownModel)) => unknown_model(event.model.as_str()),
        (refused, None) => {
            let asked = Asked {
                period: candidate.period,
                request_type: event.request_type,
                tokens: event.tokens.total(),
                model: event.model.as_str(),
                tier: candidate.tier,
            };
            of_plan(ingest, &asked, refused, standing, event.received_at)
        }
    }
}

fn span(seconds: u64) -> String {
    match seconds / 86_400 {
        0 => format!("{} minutes", seconds / 60),
        days => format!("{days} days"),
    }
}

pub(crate) fn unknown_model(model: &str) -> Problem {
    let detail = format!("the model {model:?} is not in the catalogue");
    at_field(Code::UnknownModel, "model", "not_allowed", detail)
}

/// A refusal with a code of its own that is about one field.
pub(crate) fn at_field(
    code: Code,
    field: &str,
    error: &'static str,
    detail: impl Into<String>,
) -> Problem {
    let FieldError { pointer, code: error, detail } = FieldError::of(field, error, detail);
    let errors =
        vec![FieldProblem { at: At::Pointer(pointer), code: error, detail: detail.clone() }];
    Problem::new(code, detail).with_errors(errors)
}

/// What the plan does not allow.
pub(crate) fn of_plan(
    ingest: &Ingest,
    asked: &Asked<'_>,
    refused: Refused,
    standing: &Standing,
    now: Timestamp,
) -> Problem {
    let plan = &standing.plan;
    let problem = match refused {
        Refused::ModelNotInPlan => Problem::new(
            Code::ModelNotInPlan,
            format!("the plan {plan} does not reach the model {:?}", asked.model),
        ),
        Refused::RequestLimit => {
            let counter = asked.request_type.counter();
            let detail = format!("the {counter} of the plan {plan} are used up for this month");
            quota(Code::RequestLimitReached, detail, asked.period, now)
        }
        Refused::TokenLimit => {
            let left = standing.token_limit.map_or(0, |l| l.saturating_sub(standing.used.tokens));
            let detail = format!(
                "{} tokens do not fit into what the plan {plan} has left for this month: {left}",
                asked.tokens
            );
            quota(Code::TokenLimitReached, detail, asked.period, now)
        }
        Refused::Barred => return Problem::internal("an event was barred without a reason"),
    };
    let headers = rate_limit::headers(standing, asked.request_type, asked.period, now);
    let problem = headers
        .into_iter()
        .flatten()
        .fold(problem, |problem, (name, value)| problem.with_header(name, value));
    let totals = Totals::of(asked.request_type, asked.tokens);
    let plans = &ingest.parts().plans;
    match plans.upgrade_from(plan, asked.tier, &standing.used, &totals) {
        Some(better) => problem.with_member(
            "upgrade",
            json!({
                "plan": better.name,
                "token_limit": better.token_limit,
                "max_model_tier": ingest.parts().models.name_of(better.tier),
            }),
        ),
        None => problem,
    }
}

/// SDKs retry 429 by themselves, and would wait for weeks.
fn quota(code: Code, detail: String, period: Period, now: Timestamp) -> Problem {
    Problem::new(code, detail)
        .retry_after(rate_limit::seconds_left(period, now).max(1))
        .with_header(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"))
        .with_member("retryable", false.into())
}
