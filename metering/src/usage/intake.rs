//! Reads one event as a client wrote it, with every rule on its form.
//!
//! Good events take a fast path without a tree; whatever that path does not understand is read
//! again as a tree, which finds *all* bad fields and names each.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::plain_json::is_plain;
use super::{EventId, Metadata, ModelName, RequestType, ReservationId, TokenCounts};
use crate::accounts::UserId;
use crate::time::Timestamp;

/// The largest token count of one kind in one event. Larger ones are a client's error (the largest
/// context windows have some millions); the bound keeps sums of two in 32 bits.
pub const TOKENS_MAX: u64 = 1_000_000_000;

/// Event and reservation ids, in bytes. Longer ones would cost every store memory for ever.
pub const EVENT_ID_BYTES_MAX: usize = 128;

/// Metadata, in bytes of JSON text: it is stored with every event.
pub const METADATA_BYTES_MAX: usize = 4096;

/// Model names, in bytes: prefixes of the catalogue would otherwise admit any length.
const MODEL_BYTES_MAX: usize = 128;

/// A field that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// JSON Pointer fragment (RFC 6901, section 6) of the field, such as `#/model`.
    pub pointer: String,
    /// Stable: `required`, `wrong_type`, `out_of_range`, `too_long`, `not_allowed`, `contradiction`.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

impl FieldError {
    /// An error of the top-level field `name`.
    pub fn of(name: &str, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: format!("#/{name}"), code, detail: detail.into() }
    }
}

/// Why a text is not an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Not JSON: 400 `malformed_json`. For people.
    MalformedJson(String),
    /// Wrong or missing fields: 422 `invalid_request`.
    Invalid(Vec<FieldError>),
    /// Counts above the bound or against each other: 422 `impossible_tokens`.
    Impossible(Vec<FieldError>),
}

/// How a service names the user of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UserRef {
    /// `user_id`.
    Id(UserId),
    /// `external_user_id`.
    External(String),
    /// A `user_id` that is none: nobody has it.
    Nobody,
}

/// An event as it was written, understood field by field.
#[derive(Clone, Debug, PartialEq)]
pub struct EventInput {
    /// Whose; only the calls for services look at it.
    pub user: Result<Option<UserRef>, FieldError>,
    /// If the body names one.
    pub event_id: Option<EventId>,
    /// Which counter.
    pub request_type: RequestType,
    /// Which model; whether it exists was not asked yet.
    pub model: ModelName,
    /// Checked against [`TOKENS_MAX`] and each other.
    pub tokens: TokenCounts,
    /// If the body says when; whether it is in range was not asked yet.
    pub occurred_at: Option<Timestamp>,
    /// The hold that it settles.
    pub reservation_id: Option<ReservationId>,
    /// The client's own notes.
    pub metadata: Option<Metadata>,
}

/// How far from the present an event may have occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWindow {
    /// `None`: any time since 1970.
    pub back: Option<Duration>,
    /// Ahead of the present.
    pub ahead: Duration,
}

impl TimeWindow {
    const FIVE_MINUTES: Duration = Duration::from_secs(5 * 60);
    /// A user's own calls.
    pub const USER: Self = Self { back: Some(Self::FIVE_MINUTES), ahead: Self::FIVE_MINUTES };
    /// Services with scope `ingest`: 35 days back.
    pub const SERVICE: Self =
        Self { back: Some(Duration::from_secs(35 * 86_400)), ahead: Self::FIVE_MINUTES };
    /// Services with scope `backfill` too.
    pub const BACKFILL: Self = Self { back: None, ahead: Self::FIVE_MINUTES };

    /// Whether `occurred_at` lies in the window around `now`.
    pub fn holds(self, occurred_at: Timestamp, now: Timestamp) -> bool {
        let earliest = self.back.map_or(Timestamp::default(), |back| now.minus(back));
        earliest <= occurred_at && occurred_at <= now.plus(self.ahead)
    }
}

/// The fast path: anything unusual (an escape in a string, a wrong type) makes it fail, and the
/// tree decides.
#[derive(Deserialize)]
struct Written<'a> {
    event_id: Option<&'a str>,
    request_type: &'a str,
    model: &'a str,
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    occurred_at: Option<&'a str>,
    reservation_id: Option<&'a str>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    external_user_id: Option<&'a RawValue>,
}

/// Reads one event from JSON text.
///
/// # Errors
/// [`Rejection`] with every bad field. Unknown fields are ignored.
pub fn read_event(json: &[u8]) -> Result<EventInput, Rejection> {
    // An array with the fields in order would pass for the object.
    if json.trim_ascii_start().first() == Some(&b'{')
        && let Ok(written) = serde_json::from_slice::<Written<'_>>(json)
        && let Ok(input) = read_written(&written)
    {
        return Ok(input);
    }
    let tree = serde_json::from_slice(json).map_err(|e| Rejection::MalformedJson(e.to_string()))?;
    read_event_value(&tree)
}

fn read_written(written: &Written<'_>) -> Result<EventInput, ()> {
    let count = |count: u64| u32::try_from(count).ok().filter(|c| u64::from(*c) <= TOKENS_MAX);
    let tokens = TokenCounts {
        prompt: count(written.prompt_tokens).ok_or(())?,
        completion: count(written.completion_tokens).ok_or(())?,
        cached: count(written.cached_tokens.unwrap_or(0)).ok_or(())?,
        reasoning: count(written.reasoning_tokens.unwrap_or(0)).ok_or(())?,
    };
    let contradictory = tokens.cached > tokens.prompt || tokens.reasoning > tokens.completion;
    let model = written.model;
    if contradictory || model.is_empty() || model.len() > MODEL_BYTES_MAX || model.contains('\0') {
        return Err(());
    }
    let metadata = match written.metadata {
        Some(raw) if raw.get().len() > METADATA_BYTES_MAX => return Err(()),
        // A raw value was only skipped over: it is shown to others as it stands.
        Some(raw) if raw.get().starts_with('{') && is_plain(raw.get()) => {
            Some(Metadata(raw.get().into()))
        }
        Some(_) => return Err(()),
        None => None,
    };
    let value = |raw: Option<&RawValue>| {
        raw.map_or(Ok(Value::Null), |raw| serde_json::from_str(raw.get())).map_err(|_| ())
    };
    Ok(EventInput {
        user: read_user(&value(written.user_id)?, &value(written.external_user_id)?),
        event_id: written.event_id.map(EventId::new).transpose().map_err(|_| ())?,
        request_type: written.request_type.parse()?,
        model: ModelName::new(model),
        tokens,
        occurred_at: written.occurred_at.map(str::parse).transpose().map_err(|_| ())?,
        reservation_id: written
            .reservation_id
            .map(ReservationId::new)
            .transpose()
            .map_err(|_| ())?,
        metadata,
    })
}

/// Reads one event from a JSON tree.
///
/// # Errors
/// [`Rejection`] with every bad field.
pub fn read_event_value(tree: &Value) -> Result<EventInput, Rejection> {
    let Value::Object(fields) = tree else {
        let detail = "an event must be a JSON object".to_owned();
        let error = FieldError { pointer: "#".into(), code: "wrong_type", detail };
        return Err(Rejection::Invalid(vec![error]));
    };
    let mut reader = TreeReader { fields, invalid: vec![], impossible: vec![] };
    let request_type = reader.required_text("request_type").and_then(|text| {
        let detail = "must be chat, plagiarism or prompt_generation";
        let parsed = text.parse::<RequestType>().ok();
        reader.noted(parsed.ok_or_else(|| FieldError::of("request_type", "not_allowed", detail)))
    });
    let model = reader.required_text("model").and_then(|text| {
        let fits = !text.is_empty() && text.len() <= MODEL_BYTES_MAX;
        let detail = format!("must have 1 to {MODEL_BYTES_MAX} bytes");
        let fits = fits.then(|| ModelName::new(text));
        reader.noted(fits.ok_or_else(|| FieldError::of("model", "too_long", detail)))
    });
    let tokens = reader.tokens();
    let event_id = reader.id("event_id", EventId::new);
    let reservation_id = reader.id("reservation_id", ReservationId::new);
    let occurred_at = reader.optional_text("occurred_at").and_then(|text| {
        let parsed = text.parse::<Timestamp>();
        reader.noted(parsed.map_err(|e| FieldError::of("occurred_at", "wrong_type", e.to_string())))
    });
    let metadata = reader.metadata();
    let TreeReader { invalid, impossible, .. } = reader;
    match (request_type, model, tokens) {
        (Some(request_type), Some(model), Some(tokens))
            if invalid.is_empty() && impossible.is_empty() =>
        {
            let null = Value::Null;
            let of = |name: &str| fields.get(name).unwrap_or(&null);
            let user = read_user(of("user_id"), of("external_user_id"));
            Ok(EventInput {
                user,
                event_id,
                request_type,
                model,
                tokens,
                occurred_at,
                reservation_id,
                metadata,
            })
        }
        _ if invalid.is_empty() => Err(Rejection::Impossible(impossible)),
        _ => Err(Rejection::Invalid(invalid)),
    }
}

fn read_user(id: &Value, external: &Value) -> Result<Option<UserRef>, FieldError> {
    match (id, external) {
        (Value::Null, Value::Null) => Ok(None),
        (Value::String(id), Value::Null) => {
            Ok(Some(id.parse().map_or(UserRef::Nobody, UserRef::Id)))
        }
        (Value::Null, Value::String(external)) if external.contains('\0') => {
            Err(FieldError::of("external_user_id", "not_allowed", "must have no U+0000"))
        }
        (Value::Null, Value::String(external)) => Ok(Some(UserRef::External(external.clone()))),
        (Value::Null, _) => {
            Err(FieldError::of("external_user_id", "wrong_type", "must be a string"))
        }
        (_, Value::Null) => Err(FieldError::of("user_id", "wrong_type", "must be a string")),
        _ => {
            let detail = "user_id and external_user_id exclude each other";
            Err(FieldError::of("external_user_id", "contradiction", detail))
        }
    }
}

struct TreeReader<'a> {
    fields: &'a serde_json::Map<String, Value>,
    invalid: Vec<FieldError>,
    impossible: Vec<FieldError>,
}

impl<'a> TreeReader<'a> {
    fn noted<T>(&mut self, read: Result<T, FieldError>) -> Option<T> {
        read.map_err(|error| self.invalid.push(error)).ok()
    }

    fn field(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn optional_text(&mut self, name: &str) -> Option<&'a str> {
        let text = match self.field(name)? {
            Value::String(text) if text.contains('\0') => {
                Err(FieldError::of(name, "not_allowed", "must have no U+0000"))
            }
            Value::String(text) => Ok(text.as_str()),
            _ => Err(FieldError::of(name, "wrong_type", "must be a string")),
        };
        self.noted(text)
    }

    fn required_text(&mut self, name: &str) -> Option<&'a str> {
        if self.field(name).is_none() {
            self.invalid.push(FieldError::of(name, "required", "is missing"));
        }
        self.optional_text(name)
    }

    fn id<T>(&mut self, name: &str, make: fn(&str) -> Result<T, super::NotAnId>) -> Option<T> {
        let text = self.optional_text(name)?;
        let made = make(text).map_err(|e| FieldError::of(name, "too_long", e.to_string()));
        self.noted(made)
    }

    fn metadata(&mut self) -> Option<Metadata> {
        let value = self.field("metadata")?;
        let text = value.to_string();
        let checked = if !value.is_object() {
            Err(FieldError::of("metadata", "wrong_type", "must be an object"))
        } else if text.len() > METADATA_BYTES_MAX {
            let detail = format!("must have at most {METADATA_BYTES_MAX} bytes");
            Err(FieldError::of("metadata", "too_long", detail))
        } else if has_nul(value) {
            Err(FieldError::of("metadata", "not_allowed", "must have no U+0000"))
        } else {
            Ok(Metadata(text.into()))
        };
        self.noted(checked)
    }

    fn tokens(&mut self) -> Option<TokenCounts> {
        let prompt = self.count("prompt_tokens", true);
        let completion = self.count("completion_tokens", true);
        let cached = self.count("cached_tokens", false);
        let reasoning = self.count("reasoning_tokens", false);
        let tokens = TokenCounts {
            prompt: prompt?,
            completion: completion?,
            cached: cached?,
            reasoning: reasoning?,
        };
        let mut at_most = |part: u32, name: &str, whole: u32, of: &str| {
            if part > whole {
                let detail = format!("must be at most {of}");
                self.impossible.push(FieldError::of(name, "contradiction", detail));
            }
        };
        at_most(tokens.cached, "cached_tokens", tokens.prompt, "prompt_tokens");
        at_most(tokens.reasoning, "reasoning_tokens", tokens.completion, "completion_tokens");
        Some(tokens)
    }

    /// A count that is left out is 0 unless it is required.
    fn count(&mut self, name: &str, required: bool) -> Option<u32> {
        let Some(value) = self.field(name) else {
            if required {
                self.invalid.push(FieldError::of(name, "required", "is missing"));
            }
            return (!required).then_some(0);
        };
        let Some(count) = value.as_u64() else {
            let detail = "must be an integer of at least 0";
            // An integer beyond 64 bits is read as a float; it is too large, not fractional.
            if value.as_f64().is_some_and(|float| float >= 1.8e19 && float.fract() == 0.0) {
                self.impossible.push(too_many(name));
            } else {
                self.invalid.push(FieldError::of(name, "wrong_type", detail));
            }
            return None;
        };
        let fits = u32::try_from(count).ok().filter(|count| u64::from(*count) <= TOKENS_MAX);
        if fits.is_none() {
            self.impossible.push(too_many(name));
        }
        fits
    }
}

fn too_many(name: &str) -> FieldError {
    FieldError::of(name, "out_of_range", format!("must be at most {TOKENS_MAX}"))
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(k, v)| k.contains('\0') || has_nul(v)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
