//! Where each dialect keeps its token counts: the only paths that are followed in an answer.
//!
//! Objects on a path have small ids of the plan's own; 0 is the text itself.

/// A count that a dialect reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Slot {
    Input,
    CacheWrite,
    CacheRead,
    ToolInput,
    Output,
    /// Anthropic's `message_start`: what was produced before anything was shown.
    EarlyOutput,
    Thoughts,
    Total,
    BilledInput,
    BilledOutput,
}

pub(super) const SLOTS: usize = 10;

/// One step of a path: in the object `within`, the member `key` leads on to `then`.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) within: u8,
    pub(super) key: &'static [u8],
    pub(super) then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Skip,
    Object(u8),
    Count(Slot),
    /// A list; only whether it is empty matters.
    List,
}

const fn into(within: u8, key: &'static [u8], object: u8) -> Step {
    Step { within, key, then: Then::Object(object) }
}

const fn count(within: u8, key: &'static [u8], slot: Slot) -> Step {
    Step { within, key, then: Then::Count(slot) }
}

/// Chat, completions and embeddings have `usage.prompt_tokens`; responses have
/// `usage.input_tokens`, in a stream inside `response`.
pub(super) const OPENAI: &[Step] = &[
    into(0, b"usage", 1),
    into(0, b"response", 2),
    Step { within: 0, key: b"choices", then: Then::List },
    count(1, b"prompt_tokens", Slot::Input),
    count(1, b"completion_tokens", Slot::Output),
    count(1, b"total_tokens", Slot::Total),
    count(1, b"input_tokens", Slot::Input),
    count(1, b"output_tokens", Slot::Output),
    into(2, b"usage", 1),
];

/// `message` holds the usage of `message_start`; `message_delta` has its own at the top.
pub(super) const ANTHROPIC: &[Step] = &[
    into(0, b"usage", 1),
    into(0, b"message", 2),
    count(1, b"input_tokens", Slot::Input),
    count(1, b"cache_creation_input_tokens", Slot::CacheWrite),
    count(1, b"cache_read_input_tokens", Slot::CacheRead),
    count(1, b"output_tokens", Slot::Output),
    into(2, b"usage", 3),
    count(3, b"input_tokens", Slot::Input),
    count(3, b"cache_creation_input_tokens", Slot::CacheWrite),
    count(3, b"cache_read_input_tokens", Slot::CacheRead),
    count(3, b"output_tokens", Slot::EarlyOutput),
];

pub(super) const GEMINI: &[Step] = &[
    into(0, b"usageMetadata", 1),
    count(1, b"promptTokenCount", Slot::Input),
    count(1, b"toolUsePromptTokenCount", Slot::ToolInput),
    count(1, b"candidatesTokenCount", Slot::Output),
    count(1, b"thoughtsTokenCount", Slot::Thoughts),
    count(1, b"totalTokenCount", Slot::Total),
];

/// Chat has `usage`, embeddings and reranking have `meta`.
pub(super) const COHERE: &[Step] = &[
    into(0, b"usage", 1),
    into(0, b"meta", 1),
    into(1, b"tokens", 2),
    into(1, b"billed_units", 3),
    count(2, b"input_tokens", Slot::Input),
    count(2, b"output_tokens", Slot::Output),
    count(3, b"input_tokens", Slot::BilledInput),
    count(3, b"output_tokens", Slot::BilledOutput),
];

/// The last event of a chat, `message-end`, has it in `delta`.
pub(super) const COHERE_EVENT: &[Step] = &[
    into(0, b"delta", 4),
    into(4, b"usage", 1),
    into(1, b"tokens", 2),
    into(1, b"billed_units", 3),
    count(2, b"input_tokens", Slot::Input),
    count(2, b"output_tokens", Slot::Output),
    count(3, b"input_tokens", Slot::BilledInput),
    count(3, b"output_tokens", Slot::BilledOutput),
];
