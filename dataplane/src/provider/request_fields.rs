//! What a request body says, as values: the fields that decide a route and a price, and what
//! can be wrong with a body. How they are found is `request_scan`'s affair.

use shared::bounds::FALLBACKS_MAX;

use super::json::{Span, Text};

/// A field that the node reads. Its name is what an error answer gives as `param`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// `model`
    Model,
    /// `stream`
    Stream,
    /// `max_tokens`
    MaxTokens,
    /// `max_completion_tokens`
    MaxCompletionTokens,
    /// `max_output_tokens`
    MaxOutputTokens,
    /// `n`
    N,
    /// `best_of`
    BestOf,
    /// `stream_options`
    StreamOptions,
    /// `stream_options.include_usage`
    IncludeUsage,
    /// `fallbacks`
    Fallbacks,
    /// `generationConfig`
    GenerationConfig,
    /// `generationConfig.maxOutputTokens`
    GenerationMaxOutputTokens,
    /// `generationConfig.candidateCount`
    CandidateCount,
}

impl Field {
    /// The field as a client writes it, nested ones with a dot.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::N => "n",
            Self::BestOf => "best_of",
            Self::StreamOptions => "stream_options",
            Self::IncludeUsage => "stream_options.include_usage",
            Self::Fallbacks => "fallbacks",
            Self::GenerationConfig => "generationConfig",
            Self::GenerationMaxOutputTokens => "generationConfig.maxOutputTokens",
            Self::CandidateCount => "generationConfig.candidateCount",
        }
    }
}

/// What is wrong with a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanFault {
    /// The first byte that is not white space is not `{`.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// The text ended inside the object.
    #[error("the JSON text is cut off")]
    Truncated,
    /// A byte that JSON does not allow at this place.
    #[error("this is not JSON")]
    Unexpected,
    /// Something follows the object.
    #[error("bytes follow the JSON object")]
    TrailingBytes,
    /// A byte below 0x20 inside a string.
    #[error("a control byte inside a string")]
    ControlByte,
    /// An escape that JSON does not have, or half a surrogate pair in a field we read.
    #[error("a bad escape in a string")]
    BadEscape,
    /// More than [`super::request_scan::DEPTH_MAX`] containers open at once.
    #[error("nested too deeply")]
    TooDeep,
    /// Bytes that are not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// A field stands twice: the provider might read the other one.
    #[error("`{}` stands twice", .0.name())]
    Duplicate(Field),
    /// A key that differs from a field only in case: some decoders would take it for the field.
    #[error("write this key as `{}`", .0.name())]
    CaseVariant(Field),
    /// A field of another type than the provider expects there.
    #[error("`{}` has the wrong type", .0.name())]
    WrongType(Field),
    /// More than [`FALLBACKS_MAX`] fallbacks.
    #[error("at most {FALLBACKS_MAX} fallbacks")]
    TooManyFallbacks,
    /// Longer than 4 GiB, where offsets would not fit.
    #[error("the body is too long")]
    TooLong,
}

impl ScanFault {
    /// The field that the fault is about, for the `param` of an error answer.
    pub const fn field(self) -> Option<Field> {
        match self {
            Self::Duplicate(field) | Self::CaseVariant(field) | Self::WrongType(field) => Some(field),
            Self::TooManyFallbacks => Some(Field::Fallbacks),
            _ => None,
        }
    }
}

/// Why a body was refused. Nothing was read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} (at byte {at})")]
pub struct ScanError {
    /// What is wrong.
    pub fault: ScanFault,
    /// Offset of the byte where it was noticed.
    pub at: u32,
}

/// `stream_options.include_usage`, and where to change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeUsage {
    /// The object lacks it.
    #[default]
    Absent,
    /// `true`: the client wants the usage event.
    True,
    /// `false` or `null`, with the span of that word.
    No(Span),
}

/// `stream_options`, and where to change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamOptions {
    /// The body lacks it.
    #[default]
    Absent,
    /// `null`, with the span of that word.
    Null(Span),
    /// An object.
    Object {
        /// From its `{` to after its `}`.
        span: Span,
        /// `{}`: a member put into it takes no comma.
        is_empty: bool,
        /// The one option we read.
        include_usage: IncludeUsage,
    },
}

/// `fallbacks`: models to try in this order when the first choice fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fallbacks {
    /// What to cut so that the member and one comma disappear. `None`: there is no such member.
    pub cut: Option<Span>,
    pub(super) names: [Text; FALLBACKS_MAX],
    pub(super) count: u8,
}

impl Fallbacks {
    /// The models, in the client's order.
    pub fn names(&self) -> &[Text] {
        self.names.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// What a request body says about itself. `null` counts as absent. Offsets are into the body
/// that was scanned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFields {
    /// The model as the client wrote it, provider prefix included.
    pub model: Option<Text>,
    /// `stream`
    pub stream: Option<bool>,
    /// `max_tokens`
    pub max_tokens: Option<u64>,
    /// `max_completion_tokens`
    pub max_completion_tokens: Option<u64>,
    /// `max_output_tokens`, or Gemini's `generationConfig.maxOutputTokens`.
    pub max_output_tokens: Option<u64>,
    /// `n`, or Gemini's `generationConfig.candidateCount`.
    pub n: Option<u64>,
    /// `best_of` of the old completions: choices generated, though `n` of them are shown.
    pub best_of: Option<u64>,
    /// `stream_options`
    pub stream_options: StreamOptions,
    /// `fallbacks`
    pub fallbacks: Fallbacks,
    /// Bytes looked at: the body, or the part of it that [`super::request_scan::scan_prefix`] was given.
    pub bytes: u32,
    /// Of those, bytes of 0x80 and above: text beyond ASCII has more tokens a character.
    pub non_ascii_bytes: u32,
    /// Just after the `{` of the body: where a member can be put in.
    pub(super) inside: u32,
    /// Members of the body, `fallbacks` included.
    pub(super) members: u32,
    /// False after [`super::request_scan::scan_prefix`] of a body that goes on: what is absent may still come.
    pub is_complete: bool,
}

impl RequestFields {
    /// The most output tokens one choice may have: the largest of the limits the client gave,
    /// since providers differ in which one they obey.
    pub fn output_tokens_max(&self) -> Option<u64> {
        self.max_tokens.max(self.max_completion_tokens).max(self.max_output_tokens)
    }

    /// How many choices the provider generates and bills; 1 where nothing is said.
    pub fn choices(&self) -> u64 {
        self.n.max(self.best_of).unwrap_or(1).max(1)
    }
}
