//! Why the gateway itself answers a request with an error, and the one table that says what each
//! reason looks like to a client. Nothing here writes an answer.

use crate::limiter::Refused;
use std::borrow::Cow;
use std::ops::Deref;
use std::time::Duration;

/// A reason for an answer of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A head that is not strict HTTP; the status is the parser's.
    Head {
        status: u16,
        code: &'static str,
    },
    HeadTimeout,
    BodyTimeout,
    BodyTooLarge,
    MalformedBody,
    InvalidRequest,
    ModelMissing,
    MethodNotAllowed,
    NoCredentials,
    UnknownVirtualKey,
    BlockedVirtualKey,
    ModelBlocked,
    BlockedOrigin,
    ProviderBlocked,
    KeyBlocked,
    NoRoute,
    RequestLimited,
    TokenLimited,
    ConcurrencyLimited,
    BudgetExceeded,
    PriceUnknown,
    KeysLimited,
    Overloaded,
    Starting,
    NoUsableKey,
    ProviderUnresolved,
    AddressNotAllowed,
    ProviderUnreachable,
    ProviderTls,
    ProviderReset,
    ProviderMalformed,
    ConnectTimeout,
    HeadTimeoutUpstream,
    Internal,
    /// The client is gone: nobody to answer.
    ClientLeft,
}

/// How a cause looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) kind: &'static str,
}

impl Cause {
    /// The table.
    pub(crate) fn row(self) -> Row {
        const INVALID: &str = "invalid_request_error";
        const PROVIDER: &str = "provider_error";
        let (status, code, kind) = match self {
            Self::Head { status, code } => (status, code, INVALID),
            Self::HeadTimeout => (408, "request_timeout", INVALID),
            Self::BodyTimeout => (408, "body_timeout", INVALID),
            Self::BodyTooLarge => (413, "request_too_large", INVALID),
            Self::MalformedBody => (400, "malformed_body", INVALID),
            Self::InvalidRequest => (400, "invalid_request", INVALID),
            Self::ModelMissing => (400, "model_missing", INVALID),
            Self::MethodNotAllowed => (405, "method_not_allowed", INVALID),
            Self::NoCredentials => (401, "virtual_key_required", "authentication_error"),
            Self::UnknownVirtualKey => (403, "virtual_key_not_found", "permission_error"),
            Self::BlockedVirtualKey => (403, "virtual_key_blocked", "permission_error"),
            Self::ModelBlocked => (403, "model_blocked", "permission_error"),
            Self::BlockedOrigin => (403, "origin_not_allowed", "permission_error"),
            Self::ProviderBlocked => (403, "provider_blocked", "permission_error"),
            Self::KeyBlocked => (403, "key_blocked", "permission_error"),
            Self::NoRoute => (404, "model_not_found", "not_found_error"),
            Self::RequestLimited => (429, "request_limited", "rate_limit_error"),
            Self::TokenLimited => (429, "token_limited", "rate_limit_error"),
            Self::ConcurrencyLimited => (429, "concurrency_limited", "rate_limit_error"),
            Self::BudgetExceeded => (402, "budget_exceeded", "billing_error"),
            Self::PriceUnknown => (402, "price_unknown", "billing_error"),
            Self::KeysLimited => (429, "rate_limited", "rate_limit_error"),
            Self::Overloaded => (503, "overloaded", "overloaded_error"),
            Self::Starting => (503, "starting", "overloaded_error"),
            Self::NoUsableKey => (503, "no_usable_key", PROVIDER),
            Self::ProviderUnresolved => (503, "provider_unresolved", PROVIDER),
            Self::AddressNotAllowed => (502, "provider_address_not_allowed", PROVIDER),
            Self::ProviderUnreachable => (502, "provider_unreachable", PROVIDER),
            Self::ProviderTls => (502, "provider_tls_failed", PROVIDER),
            Self::ProviderReset => (502, "provider_closed_connection", PROVIDER),
            Self::ProviderMalformed => (502, "provider_answer_malformed", PROVIDER),
            Self::ConnectTimeout => (504, "provider_connect_timeout", PROVIDER),
            Self::HeadTimeoutUpstream => (504, "provider_timeout", PROVIDER),
            Self::Internal => (500, "internal_error", "api_error"),
            Self::ClientLeft => (499, "client_left", INVALID),
        };
        Row { status, code, kind }
    }
}

/// A cause with the words for this request. Never holds bytes of a credential or of a body. One
/// pointer wide: the usual request has none, and should not carry room for it through every step.
#[derive(Clone, Debug)]
pub(crate) struct Rejection(Box<Reason>);

/// See [`Rejection`].
#[derive(Clone, Debug)]
pub(crate) struct Reason {
    pub(crate) cause: Cause,
    pub(crate) message: Cow<'static, str>,
    /// Which field of the request it is about.
    pub(crate) param: Option<&'static str>,
    /// When to come back.
    pub(crate) retry_after: Option<Duration>,
    /// The limit that had no room, for the answer's fields.
    pub(crate) limit: Option<Refused>,
    /// What the path takes, where the method was none of it (RFC 9110, 15.5.6).
    pub(crate) allow: Option<&'static str>,
}

impl Rejection {
    pub(crate) fn new(cause: Cause, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Reason {
            cause,
            message: message.into(),
            param: None,
            retry_after: None,
            limit: None,
            allow: None,
        }))
    }

    /// It is where a routing rule leads, which the client has not asked for.
    pub(crate) fn by_rule(mut self, id: &str) -> Self {
        self.0.message = format!("{} (routing rule {id})", self.0.message).into();
        self
    }

    pub(crate) fn client_left() -> Self {
        Self::new(Cause::ClientLeft, "")
    }

    pub(crate) fn about(mut self, param: &'static str) -> Self {
        self.0.param = Some(param);
        self
    }

    pub(crate) fn after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// A method that the path does not take, and those that it does.
    pub(crate) fn method_not_allowed(message: &'static str, allow: &'static str) -> Self {
        let mut rejection = Self::new(Cause::MethodNotAllowed, message);
        rejection.0.allow = Some(allow);
        rejection
    }

    pub(crate) fn by_limit(mut self, refused: Refused) -> Self {
        self.0.limit = Some(refused);
        self
    }
}

impl Deref for Rejection {
    type Target = Reason;

    fn deref(&self) -> &Reason {
        &self.0
    }
}
