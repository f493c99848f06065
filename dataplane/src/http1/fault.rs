//! Why heads are refused: what the other side is told, and what is logged and counted.
//! None of it holds a byte of the head.

use thiserror::Error;

use super::lines::LineFault;
#[cfg(doc)]
use super::{
    METHOD_BYTES_MAX, REQUEST_FIELDS_MAX, REQUEST_HEAD_BYTES_MAX, REQUEST_TARGET_BYTES_MAX, RESPONSE_FIELDS_MAX,
    RESPONSE_HEAD_BYTES_MAX,
};

/// Why a request head is refused. Each of them closes the connection: where the next request
/// begins is not certain. Nothing of the request was acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadFault {
    /// A line ends in LF without CR (RFC 9112 section 2.2 lets a server refuse it).
    #[error("a line ends without CR")]
    BareLf,
    /// CR without LF.
    #[error("CR without LF")]
    BareCr,
    /// A control byte other than HTAB, NUL and DEL included.
    #[error("control byte in the head")]
    ControlByte,
    /// A line begins with whitespace (`obs-fold`), or stands between request line and fields.
    #[error("folded line")]
    FoldedLine,
    /// Not `method SP target SP HTTP-version`, or more empty lines before it than two.
    #[error("malformed request line")]
    RequestLine,
    /// The method is not a token.
    #[error("malformed method")]
    Method,
    /// CONNECT, or a method longer than [`METHOD_BYTES_MAX`].
    #[error("method not implemented")]
    MethodRefused,
    /// The target has a byte that RFC 3986 does not allow, a fragment, a broken escape or a
    /// form that does not go with the method.
    #[error("malformed request target")]
    Target,
    /// The target is longer than [`REQUEST_TARGET_BYTES_MAX`].
    #[error("request target too long")]
    TargetTooLong,
    /// Well-formed, but neither HTTP/1.1 nor HTTP/1.0.
    #[error("HTTP version not supported")]
    Version,
    /// The head is longer than [`REQUEST_HEAD_BYTES_MAX`].
    #[error("head too large")]
    HeadTooLarge,
    /// More fields than [`REQUEST_FIELDS_MAX`].
    #[error("too many fields")]
    TooManyFields,
    /// A field line without a colon, with whitespace before it, or with a name that is no token.
    #[error("malformed field line")]
    FieldLine,
    /// A field that may stand once stands twice, even if both say the same.
    #[error("duplicate field")]
    DuplicateField,
    /// HTTP/1.1 without `Host`.
    #[error("no Host field")]
    HostMissing,
    /// `Host` is not `uri-host [":" port]`, or is empty.
    #[error("malformed Host field")]
    Host,
    /// `Content-Length` is not one decimal number below 2^63.
    #[error("malformed Content-Length")]
    ContentLength,
    /// `Transfer-Encoding` is malformed, or `chunked` is not its last coding, or stands twice.
    #[error("malformed Transfer-Encoding")]
    TransferEncoding,
    /// A coding besides `chunked`, which this node does not undo.
    #[error("transfer coding not implemented")]
    TransferCoding,
    /// `Content-Length` with `Transfer-Encoding`: the classic smuggling request.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// `Transfer-Encoding` in HTTP/1.0, which does not have it.
    #[error("Transfer-Encoding in HTTP/1.0")]
    CodingInHttp10,
    /// `Expect` is something else than `100-continue`.
    #[error("expectation failed")]
    Expectation,
    /// `Connection` is not a list of tokens, or too long a list.
    #[error("malformed Connection field")]
    ConnectionOptions,
    /// TRACE with a body (RFC 9110 section 9.3.8).
    #[error("TRACE with a body")]
    TraceBody,
}

impl HeadFault {
    /// Status of the answer: 400, 414, 417, 431, 501 or 505.
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::MethodRefused | Self::TransferCoding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }

    /// Short name for error bodies, logs and counters; never holds a byte of the request.
    pub fn code(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::ControlByte => "control_byte",
            Self::FoldedLine => "folded_line",
            Self::RequestLine => "request_line",
            Self::Method => "method",
            Self::MethodRefused => "method_refused",
            Self::Target => "target",
            Self::TargetTooLong => "target_too_long",
            Self::Version => "version",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::FieldLine => "field_line",
            Self::DuplicateField => "duplicate_field",
            Self::HostMissing => "host_missing",
            Self::Host => "host",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::TransferCoding => "transfer_coding",
            Self::LengthAndCoding => "length_and_coding",
            Self::CodingInHttp10 => "coding_in_http10",
            Self::Expectation => "expectation",
            Self::ConnectionOptions => "connection_options",
            Self::TraceBody => "trace_body",
        }
    }
}

impl From<LineFault> for HeadFault {
    fn from(fault: LineFault) -> Self {
        match fault {
            LineFault::BareLf => Self::BareLf,
            LineFault::BareCr => Self::BareCr,
            LineFault::Control => Self::ControlByte,
        }
    }
}

/// Why an answer head is refused. The connection must not be used again; no byte of the answer
/// was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ResponseFault {
    /// A line ends in LF without CR.
    #[error("a line of the answer ends without CR")]
    BareLf,
    /// CR without LF.
    #[error("CR without LF in the answer")]
    BareCr,
    /// A control byte other than HTAB.
    #[error("control byte in the answer's head")]
    ControlByte,
    /// A line begins with whitespace.
    #[error("folded line in the answer")]
    FoldedLine,
    /// Not `HTTP/1.0` or `HTTP/1.1`, one space, three digits from 100 to 599, reason.
    #[error("malformed status line")]
    StatusLine,
    /// `101 Switching Protocols`, which this node never asks for.
    #[error("the provider switched protocols unasked")]
    SwitchedProtocols,
    /// More than [`RESPONSE_HEAD_BYTES_MAX`] bytes.
    #[error("answer head too large")]
    HeadTooLarge,
    /// More than [`RESPONSE_FIELDS_MAX`] fields.
    #[error("too many fields in the answer")]
    TooManyFields,
    /// No colon, whitespace before it, or a name that is no token.
    #[error("malformed field line in the answer")]
    FieldLine,
    /// `Content-Length`, `Transfer-Encoding`, `Content-Type` or `Location` stands twice.
    #[error("duplicate field in the answer")]
    DuplicateField,
    /// Not one decimal number below 2^63.
    #[error("malformed Content-Length in the answer")]
    ContentLength,
    /// Anything but `chunked` alone.
    #[error("malformed or unknown Transfer-Encoding in the answer")]
    TransferEncoding,
    /// `Content-Length` with `Transfer-Encoding`.
    #[error("both Content-Length and Transfer-Encoding in the answer")]
    LengthAndCoding,
    /// Framing fields where RFC 9112 section 6 allows none: in 1xx, a body in 204, or
    /// `Transfer-Encoding` in 204 or HTTP/1.0.
    #[error("body announced where none may be")]
    FramingNotAllowed,
    /// `Connection` is not a list of tokens, or too long a list.
    #[error("malformed Connection field in the answer")]
    ConnectionOptions,
}

impl ResponseFault {
    /// Short name for logs and counters.
    pub fn code(self) -> &'static str {
        match self {
            Self::BareLf => "answer_bare_lf",
            Self::BareCr => "answer_bare_cr",
            Self::ControlByte => "answer_control_byte",
            Self::FoldedLine => "answer_folded_line",
            Self::StatusLine => "answer_status_line",
            Self::SwitchedProtocols => "answer_switched_protocols",
            Self::HeadTooLarge => "answer_head_too_large",
            Self::TooManyFields => "answer_too_many_fields",
            Self::FieldLine => "answer_field_line",
            Self::DuplicateField => "answer_duplicate_field",
            Self::ContentLength => "answer_content_length",
            Self::TransferEncoding => "answer_transfer_encoding",
            Self::LengthAndCoding => "answer_length_and_coding",
            Self::FramingNotAllowed => "answer_framing_not_allowed",
            Self::ConnectionOptions => "answer_connection_options",
        }
    }
}

impl From<LineFault> for ResponseFault {
    fn from(fault: LineFault) -> Self {
        match fault {
            LineFault::BareLf => Self::BareLf,
            LineFault::BareCr => Self::BareCr,
            LineFault::Control => Self::ControlByte,
        }
    }
}
