//! `POST /api/tokens/me/track` and `POST /api/tokens/track`: one event.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use edge::{Caller, Code, Problem, json};
use http::StatusCode;
use metering::accounts::{Scope, UserId};
use metering::quota::Standing;
use metering::time::{Period, Timestamp};
use metering::usage::{EventId, Flags, RequestType, UserRef, read_event};
use serde::Serialize;

use crate::candidate::{Candidate, Reporter, id_of_key};
use crate::rate_limit::{self, Usage};
use crate::record::Outcome;
use crate::{Ingest, unknown_user};

/// Who may report on whom through which path.
enum Door {
    /// Users on themselves; the body's user is not looked at.
    Own(UserId),
    /// Services and admins on anybody.
    For(Caller),
}

/// `POST /api/tokens/me/track`
pub(crate) async fn own(
    State(ingest): State<Ingest>,
    caller: Caller,
    request: Request,
) -> Response {
    let door = caller.user_id().map(Door::Own);
    answered(&ingest, door, request).await
}

/// `POST /api/tokens/track`
pub(crate) async fn for_user(
    State(ingest): State<Ingest>,
    caller: Caller,
    request: Request,
) -> Response {
    let door = caller.require(Scope::Ingest).map(|()| Door::For(caller));
    answered(&ingest, door, request).await
}

async fn answered(ingest: &Ingest, door: Result<Door, Problem>, request: Request) -> Response {
    let started = Instant::now();
    let answer = match door {
        Ok(door) => track(ingest, door, request).await,
        Err(problem) => Err(problem),
    };
    let response = answer.unwrap_or_else(|problem| {
        ingest.metrics().refused(problem.code());
        problem.into_response()
    });
    ingest.metrics().single_seconds.record(started.elapsed());
    response
}

async fn track(ingest: &Ingest, door: Door, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    json::expect_json(&parts.headers)?;
    let body = edge::body::read(body, &parts.headers, json::BODY_BYTES_MAX).await?;
    let mut input = read_event(&body)?;
    let given_id = if input.event_id.is_none() { id_of_key(&parts.headers)? } else { None };
    // All of the request lies in the connection's read buffer: kept while the event is made durable,
    // it would make the connection ask for another one.
    drop((parts, body));
    let reporter = match door {
        Door::Own(user) => Reporter::own(user),
        Door::For(caller) => {
            let named: Result<Option<UserRef>, _> = std::mem::replace(&mut input.user, Ok(None));
            Reporter::on(ingest.user_of(named).await?, &caller)
        }
    };
    let now = ingest.parts().clock.now();
    let candidate = Candidate::new(ingest, input, given_id, reporter, now);
    let made_id = candidate.made_id().cloned();
    record(ingest, candidate).await.map_err(|problem| match made_id {
        Some(id) if problem.code() == Code::Unavailable => {
            problem.with_member("event_id", id.as_str().into())
        }
        _ => problem,
    })
}

async fn record(ingest: &Ingest, candidate: Candidate) -> Result<Response, Problem> {
    let reply = Reply {
        event_id: candidate.event.event_id.clone(),
        user_id: candidate.event.user_id,
        total_tokens: candidate.event.tokens.total(),
        request_type: candidate.event.request_type,
        period: candidate.period,
        now: candidate.event.received_at,
    };
    match ingest.record_one(candidate).await? {
        Outcome::Accepted { flags, standing } => {
            ingest.metrics().accepted(1);
            Ok(reply.response(false, flags, &standing))
        }
        Outcome::Duplicate(known) => {
            let (flags, standing) = match known {
                Some(known) => known,
                None => (Flags::default(), reply.standing(ingest).await?),
            };
            ingest.metrics().duplicates(1);
            Ok(reply.response(true, flags, &standing))
        }
        Outcome::Refused(problem) => Err(problem),
    }
}

/// What the answer says, whatever becomes of the event.
struct Reply {
    event_id: EventId,
    user_id: UserId,
    total_tokens: u64,
    request_type: RequestType,
    period: Period,
    now: Timestamp,
}

#[derive(Serialize)]
struct Tracked<'a> {
    success: bool,
    event_id: &'a EventId,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    total_tokens: u64,
    flags: Flags,
    usage: Usage,
}

impl Reply {
    async fn standing(&self, ingest: &Ingest) -> Result<Standing, Problem> {
        let standing = ingest.parts().counter.usage(self.user_id, self.period).await?;
        standing.ok_or_else(unknown_user)
    }

    fn response(&self, duplicate: bool, flags: Flags, standing: &Standing) -> Response {
        let body = Tracked {
            success: true,
            event_id: &self.event_id,
            duplicate: duplicate.then_some(true),
            total_tokens: self.total_tokens,
            flags,
            usage: Usage::of(standing, self.period),
        };
        let status = if duplicate { StatusCode::OK } else { StatusCode::CREATED };
        let mut response = json::response(status, &body);
        let headers = rate_limit::headers(standing, self.request_type, self.period, self.now);
        for (name, value) in headers.into_iter().flatten() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
