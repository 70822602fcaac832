//! A usage event: one model call of one user. A fact, never changed.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::digest::{ContentDigest, IdDigest};
use super::intake::EVENT_ID_BYTES_MAX;
use crate::accounts::UserId;
use crate::time::{Period, Timestamp};

/// What kind of call was made; each has a counter of its own in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestType {
    /// Counted as `chat_messages`.
    Chat,
    /// Counted as `plagiarism_checks`.
    Plagiarism,
    /// Counted as `prompts_generated`. Input also accepts `prompt`.
    #[serde(alias = "prompt")]
    PromptGeneration,
}

impl RequestType {
    /// All of them, in the order of [`Self::index`].
    pub const ALL: [Self; 3] = [Self::Chat, Self::Plagiarism, Self::PromptGeneration];

    /// Its number in every store: fixed for ever.
    pub const fn number(self) -> u8 {
        match self {
            Self::Chat => 0,
            Self::Plagiarism => 1,
            Self::PromptGeneration => 2,
        }
    }

    /// The request type of a number that a store kept.
    pub fn from_number(number: impl TryInto<usize>) -> Option<Self> {
        number.try_into().ok().and_then(|number| Self::ALL.get(number).copied())
    }

    /// Its place in arrays of per-type counts.
    pub const fn index(self) -> usize {
        self.number() as usize
    }

    /// As JSON shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Plagiarism => "plagiarism",
            Self::PromptGeneration => "prompt_generation",
        }
    }

    /// The name of its counter in `GET /api/usage/me` and in the rate limit headers.
    pub const fn counter(self) -> &'static str {
        match self {
            Self::Chat => "chat_messages",
            Self::Plagiarism => "plagiarism_checks",
            Self::PromptGeneration => "prompts_generated",
        }
    }
}

impl FromStr for RequestType {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "chat" => Ok(Self::Chat),
            "plagiarism" => Ok(Self::Plagiarism),
            "prompt_generation" | "prompt" => Ok(Self::PromptGeneration),
            _ => Err(()),
        }
    }
}

impl fmt::Display for RequestType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not an id: empty, longer than 128 bytes, or with U+0000 in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to 128 bytes and no U+0000")]
pub struct NotAnId;

fn checked_id(text: &str) -> Result<Box<str>, NotAnId> {
    if text.is_empty() || text.len() > EVENT_ID_BYTES_MAX || text.contains('\0') {
        return Err(NotAnId);
    }
    Ok(text.into())
}

/// The client's name for an event, unique per user: 1 to 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct EventId(Box<str>);

impl EventId {
    /// Checks length and content.
    pub fn new(text: &str) -> Result<Self, NotAnId> {
        checked_id(text).map(Self)
    }

    /// One that the server makes: a UUIDv7.
    pub fn generate(now: Timestamp) -> Self {
        Self(crate::accounts::uuid_at(now).to_string().into())
    }

    /// As the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it was made, if it is a UUIDv7 (RFC 9562, section 5.7).
    pub fn uuid_time(&self) -> Option<Timestamp> {
        let id = uuid::Uuid::try_parse(&self.0).ok()?;
        if id.get_version_num() != 7 {
            return None;
        }
        let (high, low) = (id.as_fields().0, id.as_fields().1);
        let millis = u64::from(high) << 16 | u64::from(low);
        i64::try_from(millis).ok().map(Timestamp::from_millis)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The client's name for a hold, unique per user: 1 to 128 bytes, a name space of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ReservationId(Box<str>);

impl ReservationId {
    /// Checks length and content.
    pub fn new(text: &str) -> Result<Self, NotAnId> {
        checked_id(text).map(Self)
    }

    /// One that the server makes: a UUIDv7.
    pub fn generate(now: Timestamp) -> Self {
        Self(crate::accounts::uuid_at(now).to_string().into())
    }

    /// As the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A model's name as the client wrote it; the catalogue knew it when the event was admitted.
///
/// Shared, because each summary of an event has it in its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// Takes any text: whether the model exists is the catalogue's question.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// As the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A JSON object of the client's, as text, at most 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata(pub(super) Box<str>);

impl Metadata {
    /// Text that a store kept.
    pub fn from_stored(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The four counts of one event. Each at most 1 000 000 000, so sums of two fit easily.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenCounts {
    /// Tokens of the prompt, cached ones included.
    pub prompt: u32,
    /// Tokens of the completion, reasoning included.
    pub completion: u32,
    /// The part of `prompt` that came from a cache.
    pub cached: u32,
    /// The part of `completion` that was reasoning.
    pub reasoning: u32,
}

impl TokenCounts {
    /// Prompt and completion: what a plan's token limit counts.
    pub fn total(self) -> u64 {
        u64::from(self.prompt) + u64::from(self.completion)
    }
}

/// Something to know about how an event was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Flag {
    /// The plan records past its limit, and this event was past it.
    OverLimit = 1,
    /// More than the hold that it settled.
    OverHold = 2,
    /// Recorded while the quota counter was away.
    Unmetered = 4,
    /// A dead letter that was appended again.
    Replayed = 8,
}

impl Flag {
    const ALL: [Self; 4] = [Self::OverLimit, Self::OverHold, Self::Unmetered, Self::Replayed];

    /// As JSON shows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OverLimit => "over_limit",
            Self::OverHold => "over_hold",
            Self::Unmetered => "unmetered",
            Self::Replayed => "replayed",
        }
    }
}

/// A set of [`Flag`]s. Serialized as a list of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// From [`Self::bits`]; unknown bits are kept.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// How stores keep them.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set with `flag` in it.
    #[must_use]
    pub const fn with(self, flag: Flag) -> Self {
        Self(self.0 | flag as u8)
    }

    /// Whether `flag` is set.
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & flag as u8 != 0
    }

    /// The flags that are set.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.into_iter().filter(move |flag| self.has(*flag))
    }
}

impl Serialize for Flags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Who made an event's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdOrigin {
    /// The client: a retry may carry it again, so it is looked up.
    Client,
    /// The server, just now: it cannot be known yet.
    Server,
}

/// One model call of one user, as it was reported and understood.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageEvent {
    /// Whose call it was.
    pub user_id: UserId,
    /// Unique per user.
    pub event_id: EventId,
    /// Who made `event_id`.
    pub id_origin: IdOrigin,
    /// Which counter it goes to.
    pub request_type: RequestType,
    /// The model called.
    pub model: ModelName,
    /// What it used.
    pub tokens: TokenCounts,
    /// When the call was made; decides the period.
    pub occurred_at: Timestamp,
    /// Whether the client said when. If so, a retry of the same body carries the same time.
    pub occurred_at_given: bool,
    /// When we received it.
    pub received_at: Timestamp,
    /// The hold that it settles, if any.
    pub reservation_id: Option<ReservationId>,
    /// The client's own notes.
    pub metadata: Option<Metadata>,
}

impl UsageEvent {
    /// The month it counts in.
    pub fn period(&self) -> Period {
        Period::of(self.occurred_at)
    }

    /// See [`IdDigest`].
    pub fn id_digest(&self) -> IdDigest {
        IdDigest::of_event(self.user_id, &self.event_id)
    }

    /// See [`ContentDigest`].
    pub fn content_digest(&self) -> ContentDigest {
        ContentDigest::of_event(self.request_type, &self.model, self.tokens)
    }
}
