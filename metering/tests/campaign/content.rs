//! What modelled events say.

use metering::usage::{ContentDigest, ModelName, RequestType, TokenCounts};

/// What an event says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) request_type: RequestType,
    pub(crate) tokens: TokenCounts,
    pub(crate) digest: ContentDigest,
}

impl Content {
    pub(crate) fn new(request_type: RequestType, prompt: u32) -> Self {
        let tokens = TokenCounts { prompt, ..TokenCounts::default() };
        let digest = ContentDigest::of_event(request_type, &model(), tokens);
        Self { request_type, tokens, digest }
    }
}

pub(crate) fn model() -> ModelName {
    ModelName::new("gpt-4")
}
