//! What both ledgers tell when their books differ.

use metering::usage::RequestType;

/// Differences listed at most: a broken book has as many as it has rows.
pub(crate) const DIFFERENCES_MAX: usize = 100;

/// The names of what is compared of a summary's row.
pub(crate) const SUMS: [&str; 5] =
    ["events", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"];

/// The names of what is compared of a user's month.
pub(crate) const TOTALS: [&str; 4] = [
    "tokens",
    RequestType::Chat.counter(),
    RequestType::Plagiarism.counter(),
    RequestType::PromptGeneration.counter(),
];
