//! An event whose form is good and whose user is named, on its way to the counter.

use edge::{Caller, Problem};
use http::HeaderMap;
use metering::accounts::{Scope, UserId};
use metering::quota::{Admission, Tier, Trust};
use metering::time::{Period, Timestamp};
use metering::usage::{
    ContentDigest, EventId, EventInput, IdDigest, IdOrigin, STAMP_AHEAD_MAX, TimeWindow, UsageEvent,
};

use crate::Ingest;

/// Why an event cannot be let in whatever the plan says; told only when its id is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bar {
    TimeOutOfRange(TimeWindow),
    /// The id is a UUIDv7 of a time to come: its retry would not be recognised by its age.
    IdAhead,
    UnknownModel,
}

/// On whose word an event comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter {
    pub(crate) user_id: UserId,
    pub(crate) trust: Trust,
    pub(crate) window: TimeWindow,
}

impl Reporter {
    /// A user's report on themselves.
    pub(crate) fn own(user_id: UserId) -> Self {
        Self { user_id, trust: Trust::User, window: TimeWindow::USER }
    }

    /// A report of somebody who may `ingest` on `user_id`.
    pub(crate) fn on(user_id: UserId, caller: &Caller) -> Self {
        let window =
            if caller.allows(Scope::Backfill) { TimeWindow::BACKFILL } else { TimeWindow::SERVICE };
        let of_themselves = caller.user_id().is_ok_and(|own| own == user_id);
        let trust = if of_themselves { Trust::User } else { caller.trust() };
        Self { user_id, trust, window }
    }
}

pub(crate) struct Candidate {
    pub(crate) event: UsageEvent,
    pub(crate) period: Period,
    pub(crate) id_digest: IdDigest,
    pub(crate) content_digest: ContentDigest,
    pub(crate) tier: Tier,
    pub(crate) trust: Trust,
    pub(crate) bar: Option<Bar>,
}

impl Candidate {
    /// `given_id` is the one beside the event, when it has none of its own.
    pub(crate) fn new(
        ingest: &Ingest,
        input: EventInput,
        given_id: Option<EventId>,
        reporter: Reporter,
        now: Timestamp,
    ) -> Self {
        let (event_id, id_origin) = match input.event_id.or(given_id) {
            Some(id) => (id, IdOrigin::Client),
            None => (EventId::generate(now), IdOrigin::Server),
        };
        let occurred_at = input.occurred_at.unwrap_or(now);
        let tier = ingest.parts().models.tier_of(input.model.as_str());
        let is_ahead = |made: Timestamp| now.plus(STAMP_AHEAD_MAX) < made;
        let bar = if !reporter.window.holds(occurred_at, now) {
            Some(Bar::TimeOutOfRange(reporter.window))
        } else if event_id.uuid_time().is_some_and(is_ahead) {
            Some(Bar::IdAhead)
        } else if tier.is_none() {
            Some(Bar::UnknownModel)
        } else {
            None
        };
        let event = UsageEvent {
            user_id: reporter.user_id,
            event_id,
            id_origin,
            request_type: input.request_type,
            model: input.model,
            tokens: input.tokens,
            occurred_at,
            occurred_at_given: input.occurred_at.is_some(),
            received_at: now,
            reservation_id: input.reservation_id,
            metadata: input.metadata,
        };
        Self {
            period: event.period(),
            id_digest: event.id_digest(),
            content_digest: event.content_digest(),
            tier: tier.unwrap_or_default(),
            trust: reporter.trust,
            bar,
            event,
        }
    }

    pub(crate) fn admission(&self) -> Admission {
        let user_id = self.event.user_id;
        let hold = self.event.reservation_id.as_ref();
        Admission {
            user_id,
            period: self.period,
            id_digest: self.id_digest,
            content_digest: self.content_digest,
            request_type: self.event.request_type,
            tokens: self.event.tokens.total(),
            tier: self.tier,
            trust: self.trust,
            settles: hold.map(|id| IdDigest::of_hold(user_id, id)),
            barred: self.bar.is_some(),
        }
    }

    pub(crate) fn has_clients_id(&self) -> bool {
        self.event.id_origin == IdOrigin::Client
    }

    pub(crate) fn made_id(&self) -> Option<&EventId> {
        (self.event.id_origin == IdOrigin::Server).then_some(&self.event.event_id)
    }
}

/// `Idempotency-Key`, without the quotes that the draft's structured string puts around it.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Problem::parameter("Idempotency-Key", "must be text"))?
        .trim();
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(quoted) = quoted else { return Ok(Some(text.to_owned())) };
    Ok(Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\")))
}

/// The id for an event without one of its own.
pub(crate) fn id_of_key(headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let id = idempotency_key(headers)?.map(|key| EventId::new(&key)).transpose();
    id.map_err(|error| Problem::parameter("Idempotency-Key", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_quotes_of_an_idempotency_key_are_removed() {
        for (given, key) in [
            ("abc", "abc"),
            ("\"abc\"", "abc"),
            (" \"a\\\"b\\\\c\" ", "a\"b\\c"),
            ("\"", "\""),
            ("\"\"", ""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", HeaderValue::from_str(given).unwrap());
            assert_eq!(idempotency_key(&headers).unwrap().as_deref(), Some(key), "{given}");
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    }
}
