//! Answers of the gateway itself: errors in the dialect of the path, and its own pages. Answers
//! of providers are relayed elsewhere; both get the same fields from here.

use crate::buffers::Buffer;
use crate::core::{Core, Serving};
use crate::http1::encode::line_start;
use crate::http1::{HeadFault, HeadWriter, Known, Method, RequestHead, Version};
use crate::limiter::Standing;
use crate::provider::{Dialect, error_body};
use crate::rejection::{Cause, Rejection};
use crate::socket::{Sender, Socket};
use shared::bounds::CLIENT_WRITE_TIMEOUT;
use shared::limit::Unit;
use std::time::Duration;

/// How this client wants to be answered; independent of what the answer is.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// The connection stays open afterwards.
    pub(crate) keep_alive: bool,
    pub(crate) version: Version,
    pub(crate) method: Method,
}

impl Manner {
    pub(crate) fn of(head: &RequestHead, core: &Core) -> Self {
        let keep_alive = head.keep_alive() && !core.is_draining();
        Self { keep_alive, version: head.version(), method: head.method() }
    }

    /// Writes what tells the client whether the connection stays.
    pub(crate) fn write(self, writer: &mut HeadWriter<'_>) {
        if !self.keep_alive {
            writer.connection_close();
        } else if self.version == Version::Http10 {
            writer.connection_keep_alive();
        }
    }
}

/// Limits as the answer's fields show them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Standings {
    pub(crate) requests: Option<Standing>,
    pub(crate) tokens: Option<Standing>,
}

impl Standings {
    /// Writes the `x-ratelimit-*` fields.
    pub(crate) fn write(&self, writer: &mut HeadWriter<'_>) {
        if let Some(standing) = self.requests {
            writer.number(line_start!("x-ratelimit-limit-requests"), standing.amount);
            writer.number(line_start!("x-ratelimit-remaining-requests"), standing.remaining);
            writer.seconds(line_start!("x-ratelimit-reset-requests"), seconds_until(standing.reset));
        }
        if let Some(standing) = self.tokens {
            writer.number(line_start!("x-ratelimit-limit-tokens"), standing.amount);
            writer.number(line_start!("x-ratelimit-remaining-tokens"), standing.remaining);
            writer.seconds(line_start!("x-ratelimit-reset-tokens"), seconds_until(standing.reset));
        }
    }
}

/// Rounded up.
fn seconds_until(reset: Duration) -> u64 {
    reset.as_secs().saturating_add(u64::from(reset.subsec_nanos() > 0))
}

/// Writes the fields that let a browser read the answer, where its origin is allowed.
pub(crate) fn write_cors(serving: &Serving, head: &RequestHead, bytes: &[u8], writer: &mut HeadWriter<'_>) {
    let allowed = &serving.records().settings.allowed_origins;
    if allowed.is_empty() {
        return;
    }
    let Some(origin) = head.value(bytes, Known::Origin) else { return };
    if allowed.iter().any(|one| one == "*" || one.as_bytes() == origin) {
        let _ = writer.ours(line_start!("access-control-allow-origin"), origin);
        let _ = writer.ours(line_start!("vary"), b"origin");
        let _ = writer.ours(line_start!("access-control-expose-headers"), b"*");
    }
}

/// Whether this is a preflight request: only browsers send those, before a request of a page.
pub(crate) fn is_preflight(head: &RequestHead, bytes: &[u8]) -> bool {
    let asks = |name: &[u8]| head.fields().iter().any(|field| field.name.of(bytes).eq_ignore_ascii_case(name));
    head.value(bytes, Known::Origin).is_some() && asks(b"access-control-request-method")
}

/// Answers a preflight request (Fetch standard), if the origin is allowed.
pub(crate) fn preflight(
    serving: &Serving,
    head: &RequestHead,
    bytes: &[u8],
    manner: Manner,
    out: &mut Vec<u8>,
) -> bool {
    let asks = |name: &[u8]| {
        head.fields()
            .iter()
            .find(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
            .map(|field| field.value.of(bytes))
    };
    let Some(origin) = head.value(bytes, Known::Origin) else { return false };
    let Some(method) = asks(b"access-control-request-method") else { return false };
    let allowed = &serving.records().settings.allowed_origins;
    if !allowed.iter().any(|one| one == "*" || one.as_bytes() == origin) {
        return false;
    }
    let Ok(mut writer) = HeadWriter::response(out, 204) else { return false };
    let _ = writer.ours(line_start!("access-control-allow-origin"), origin);
    let _ = writer.ours(line_start!("access-control-allow-methods"), method);
    if let Some(headers) = asks(b"access-control-request-headers") {
        let _ = writer.ours(line_start!("access-control-allow-headers"), headers);
    }
    let _ = writer.ours(line_start!("access-control-max-age"), b"86400");
    let _ = writer.ours(line_start!("vary"), b"origin");
    manner.write(&mut writer);
    writer.finish();
    true
}

/// Composes an error answer in the dialect of the path.
pub(crate) fn write_rejection(
    rejection: &Rejection,
    dialect: Dialect,
    manner: Manner,
    request_id: &str,
    cors: Option<(&Serving, &RequestHead, &[u8])>,
    out: &mut Vec<u8>,
) {
    let row = rejection.cause.row();
    let mut body = Vec::with_capacity(256);
    let error = error_body::ErrorBody {
        status: row.status,
        kind: row.kind,
        code: Some(row.code),
        message: &rejection.message,
        param: rejection.param,
    };
    error_body::write(dialect, &error, &mut body);
    let Ok(mut writer) = HeadWriter::response(out, row.status) else { return };
    let _ = writer.known(Known::ContentType, b"application/json");
    let _ = writer.known(Known::RequestId, request_id.as_bytes());
    if let Some(after) = rejection.retry_after.or_else(|| (row.status == 429).then_some(Duration::from_secs(1))) {
        // Rounded up: who comes back at the time we said must not be too early.
        let seconds = after.as_millis().div_ceil(1000).max(1);
        writer.number(line_start!("retry-after"), u64::try_from(seconds).unwrap_or(u64::MAX));
        writer.number(line_start!("retry-after-ms"), u64::try_from(after.as_millis().max(1)).unwrap_or(u64::MAX));
    }
    if let Some(refused) = rejection.limit {
        let standing = Standing {
            limit: refused.limit,
            amount: refused.amount,
            remaining: refused.remaining,
            reset: refused.reset,
        };
        let standings = match refused.unit {
            Unit::Requests => Standings { requests: Some(standing), tokens: None },
            Unit::Tokens => Standings { requests: None, tokens: Some(standing) },
            // No header tells what may run at once, or be paid; the message does.
            Unit::Concurrent | Unit::MicroUsd => Standings { requests: None, tokens: None },
        };
        standings.write(&mut writer);
    }
    if let Some(allow) = rejection.allow {
        let _ = writer.ours(line_start!("allow"), allow.as_bytes());
    }
    if row.status == 401 {
        let _ = writer.known(Known::WwwAuthenticate, b"Bearer");
    }
    if let Some((serving, head, bytes)) = cors {
        write_cors(serving, head, bytes, &mut writer);
    }
    manner.write(&mut writer);
    writer.content_length(body.len() as u64);
    writer.finish();
    if manner.method != Method::Head {
        out.extend_from_slice(&body);
    }
}

/// Writes an answer of ours.
pub(crate) async fn send(core: &Core, socket: &mut Socket, bytes: Vec<u8>) -> bool {
    socket.deadline.set(core.now().after(CLIENT_WRITE_TIMEOUT));
    let len = bytes.len();
    let (outcome, _) = socket.sender.write_owned(bytes, 0..len).await;
    socket.deadline.clear();
    core.counters.client_bytes_out(len as u64);
    outcome.is_ok()
}

/// The same where only the sending half is at hand.
pub(crate) async fn send_half(core: &Core, sender: &mut Sender, buffer: &mut Buffer) -> bool {
    core.counters.client_bytes_out(buffer.len() as u64);
    sender.write_all(buffer).await.is_ok()
}

/// Answers a head that was refused; the connection closes afterwards.
pub(crate) async fn refuse_head(core: &Core, socket: &mut Socket, refusal: &Rejection) {
    let manner = Manner { keep_alive: false, version: Version::Http11, method: Method::Get };
    let mut out = Vec::with_capacity(512);
    let id = core.next_request_id();
    write_rejection(refusal, Dialect::OpenAi, manner, id.as_str(), None, &mut out);
    core.counters.refused_head(refusal);
    send(core, socket, out).await;
}

impl From<HeadFault> for Rejection {
    fn from(fault: HeadFault) -> Self {
        let cause = Cause::Head { status: fault.status(), code: fault.code() };
        Self::new(cause, format!("the request is not well-formed HTTP/1.1: {fault}"))
    }
}
