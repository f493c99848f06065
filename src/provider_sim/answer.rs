//! From a request to its answer: the order of the steps, and every early end. No sockets.

use std::time::Duration;

use super::{
    admissions,
    core::Core,
    dialect::{self, Frame, Id, Reply, put},
    fault::Fault,
    head::Head,
    ledger::{Ledger, Verdict},
    limit::Quantity,
    request,
    route::{self, Dialect, Route},
    settings::{EVENT_BYTES_MAX, Settings},
    stats,
    text::TOKEN_BYTES,
};

/// Most text that a response object repeats at its end, in bytes.
const REPEATED_TEXT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most numbers in all vectors of one answer.
const EMBEDDING_NUMBERS_MAX: u64 = 2_000_000;

/// What goes back to the client.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A head and a body.
    Whole(Whole),
    /// Server-sent events.
    Stream(Box<Stream>),
    /// The connection is reset.
    Reset,
}

/// A complete answer, in one buffer.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Head and body.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the head.
    pub(crate) head_bytes: usize,
    /// How long the client waits for it.
    pub(crate) wait: Duration,
    /// What goes wrong while it is written.
    pub(crate) fault: Option<Fault>,
    /// The connection ends afterwards.
    pub(crate) closes: bool,
}

/// An answer that is made while it is written.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The call.
    pub(crate) route: Route,
    /// What it says.
    pub(crate) reply: Reply,
    /// What surrounds the text of each event.
    pub(crate) frame: Frame,
    /// The head.
    pub(crate) head: Vec<u8>,
    /// Chunked; otherwise the end of the connection ends it.
    pub(crate) is_chunked: bool,
    /// Time to the first event.
    pub(crate) first_after: Duration,
    /// Time from one event to the next.
    pub(crate) interval: Duration,
    /// What goes wrong.
    pub(crate) fault: Option<Fault>,
    /// The connection ends afterwards.
    pub(crate) closes: bool,
}

/// What an answer has in its head.
struct Lines<'a> {
    status: u16,
    id: Id,
    fields: &'a [u8],
    closes: bool,
}

/// Answers a request whose body is complete. `input` is what the head's ranges point into.
pub(crate) fn decide(core: &Core, head: &Head, input: &[u8], body: &[u8]) -> Answer {
    let id = core.next_id();
    let text = |range: &std::ops::Range<usize>| {
        std::str::from_utf8(input.get(range.clone()).unwrap_or_default()).unwrap_or_default()
    };
    let (target, key, path_model) = (text(&head.target), text(&head.key), text(&head.path_model));
    let refuse = |dialect: Dialect, status: u16, message: &str, code: Option<&str>, fields: &[u8]| {
        core.ledger().answer(head.route, status);
        let lines = Lines { status, id, fields, closes: !head.keeps_alive };
        Answer::Whole(whole(core, &lines, head.without_body, |out| {
            dialect::push_error(dialect, status, message, code, out);
        }))
    };
    let accept = |push_body: &dyn Fn(&mut Vec<u8>)| {
        let lines = Lines { status: 200, id, fields: b"", closes: !head.keeps_alive };
        Answer::Whole(whole(core, &lines, head.without_body, push_body))
    };
    let dialect = head.route.dialect();

    match head.route {
        Route::Stats => return accept(&|out| stats::push(&core.ledger(), core.gauges(), core.now(), target, out)),
        Route::Admissions => return accept(&|out| admissions::push(&core.ledger(), core.now(), target, out)),
        Route::Reset => {
            core.reset();
            return accept(&|out| put!(out; r#"{"reset":true}"#));
        }
        Route::Unknown => {
            return refuse(
                dialect,
                404,
                &format!("Unknown request URL: {target}. Please check the URL."),
                Some("unknown_url"),
                b"",
            );
        }
        _ => {}
    }

    // Who is it?
    if !core.accepts(key) {
        core.ledger().unauthorized(key);
        return refuse(dialect, 401, "Incorrect API key provided.", Some("invalid_api_key"), b"");
    }
    if head.route == Route::Models {
        core.ledger().answer(head.route, 200);
        return accept(&|out| dialect::push_models(&core.options().model, path_model, out));
    }

    // What does it want?
    let mut settings = match &head.settings {
        Ok(settings) => settings.clone(),
        Err(error) => return refuse(dialect, 400, &error.to_string(), Some("invalid_setting"), b""),
    };
    let ask = match request::read(head.route, path_model, body, &mut settings) {
        Ok(ask) => ask,
        Err(error) => return refuse(dialect, 400, &error.to_string(), Some("invalid_value"), b""),
    };
    if let Some(what) = cannot_do(head.route, target, &ask, &settings) {
        return refuse(dialect, 400, what, Some("unsupported_value"), b"");
    }
    let fault = match settings.fault {
        Some(fault) => Some(fault),
        None => core.draw_fault().filter(|fault| is_possible(*fault, ask.stream)),
    };
    if let Some(fault) = fault {
        core.ledger().fault(fault.name());
    }
    if let Some(Fault::Status { code, retry_after }) = fault {
        let mut fields = Vec::new();
        if let Some(seconds) = retry_after {
            put!(&mut fields; "retry-after: ", seconds, "\r\n");
        }
        return refuse(dialect, code, "The server had an error that was asked for.", Some("simulated"), &fields);
    }

    // Is there room for it?
    let options = core.options();
    let reply = Reply::new(
        &ask,
        &settings,
        options.completion_tokens,
        options.tokens_per_event.get(),
        id,
        core.wall().as_secs(),
    );
    let charged = if head.route == Route::Embeddings { reply.prompt_tokens } else { reply.total_tokens() };
    let verdict = core.admit(key, &ask.model, charged);
    let mut fields = Vec::new();
    dialect::push_limit_fields(dialect, &verdict, core.wall(), &mut fields);
    if let Some((message, code)) = refusal(&verdict) {
        return refuse(dialect, 429, &message, Some(code), &fields);
    }

    // Then it gets its answer.
    if fault == Some(Fault::ResetBeforeHead) {
        core.ledger().answer(head.route, 0);
        return Answer::Reset;
    }
    core.ledger().answer(head.route, 200);
    let first_after = settings.first_token_after.unwrap_or(options.ttft_ms);
    let token_interval = settings.token_interval.unwrap_or(options.token_ms);
    if ask.stream {
        core.ledger().streams += 1;
        let per_event = settings.tokens_per_event.unwrap_or(options.tokens_per_event.get());
        let interval = token_interval.saturating_mul(per_event);
        return Answer::Stream(Box::new(stream(head, reply, &fields, first_after, interval, fault)));
    }
    let lines = Lines { status: 200, id, fields: &fields, closes: !head.keeps_alive };
    let (mut answer, wait) = if head.route == Route::Embeddings {
        let push = |out: &mut Vec<u8>| dialect::push_embeddings(&reply, ask.inputs, ask.dimensions, ask.base64, out);
        (with_fault(core, &lines, fault, push), first_after)
    } else {
        let push = |out: &mut Vec<u8>| dialect::push_whole(head.route, &reply, out);
        (
            with_fault(core, &lines, fault, push),
            first_after.saturating_add(token_interval.saturating_mul(reply.text.tokens)),
        )
    };
    answer.wait = wait;
    Answer::Whole(answer)
}

/// The answer to bytes that are no request.
pub(crate) fn unreadable(core: &Core, status: u16, message: &str) -> Whole {
    core.ledger().answer(Route::Unknown, status);
    let lines = Lines { status, id: core.next_id(), fields: b"", closes: true };
    whole(core, &lines, false, |out| {
        dialect::push_error(Dialect::OpenAi, status, message, Some("malformed_request"), out);
    })
}

/// What a request asks for that is not built, or makes no sense.
fn cannot_do(route: Route, target: &str, ask: &request::Ask, settings: &Settings) -> Option<&'static str> {
    if settings.fault.is_some_and(|fault| !is_possible(fault, ask.stream)) {
        return Some("This fault cannot happen to this kind of answer.");
    }
    if route == Route::GeminiStream && route::query(target, "alt") != Some("sse") {
        return Some("Only alt=sse streams are built.");
    }
    if route == Route::Embeddings {
        let numbers = u64::from(ask.inputs) * u64::from(ask.dimensions.unwrap_or(1));
        return (numbers > EMBEDDING_NUMBERS_MAX).then_some("These are too many embeddings for one answer.");
    }
    if route == Route::Responses && ask.stream {
        let events =
            u64::from(settings.events.unwrap_or(0)) * u64::from(settings.event_bytes.unwrap_or(0).min(EVENT_BYTES_MAX));
        let tokens = u64::from(settings.completion_tokens.unwrap_or(0)) * TOKEN_BYTES;
        return (events.max(tokens) > REPEATED_TEXT_BYTES_MAX)
            .then_some("A response object cannot repeat so much text.");
    }
    None
}

/// Some faults are faults of streams only, or of documents only.
fn is_possible(fault: Fault, stream: bool) -> bool {
    match fault {
        Fault::GarbageSse => stream,
        Fault::WrongContentLength(_) => !stream,
        _ => true,
    }
}

fn refusal(verdict: &Verdict) -> Option<(String, &'static str)> {
    let refused = verdict.refused.as_ref()?;
    let (quantity, code) = match refused.quantity {
        Quantity::Requests => ("requests", "rate_limit_exceeded"),
        Quantity::Tokens => ("tokens", "rate_limit_exceeded_tokens"),
    };
    let message = format!(
        "Rate limit reached on {quantity} ({}). Please try again in {:.3}s.",
        refused.rule,
        refused.retry_after.as_secs_f64()
    );
    Some((message, code))
}

fn stream(
    head: &Head,
    reply: Reply,
    fields: &[u8],
    first_after: Duration,
    interval: Duration,
    fault: Option<Fault>,
) -> Stream {
    let frame = dialect::frame(head.route, &reply);
    let closes = !head.keeps_alive || !head.can_chunk;
    let mut bytes = Vec::with_capacity(256);
    let lines = Lines { status: 200, id: reply.id, fields, closes };
    push_status(&lines, "text/event-stream; charset=utf-8", &mut bytes);
    put!(&mut bytes; "cache-control: no-cache\r\n", if head.can_chunk { "transfer-encoding: chunked\r\n\r\n" } else { "\r\n" });
    Stream {
        route: head.route,
        reply,
        frame,
        head: bytes,
        is_chunked: head.can_chunk,
        first_after,
        interval,
        fault,
        closes,
    }
}

fn with_fault(core: &Core, lines: &Lines<'_>, fault: Option<Fault>, push_body: impl Fn(&mut Vec<u8>)) -> Whole {
    let mut body = core.take_buffer();
    push_body(&mut body);
    if fault == Some(Fault::MalformedJson) {
        body.truncate(body.len() / 2);
    }
    let announced = match fault {
        Some(Fault::WrongContentLength(more)) => (body.len() as u64).saturating_add_signed(i64::from(more)),
        _ => body.len() as u64,
    };
    let wrong = announced != body.len() as u64;
    let lines = Lines { closes: lines.closes || wrong, ..*lines };
    let mut answer = assemble(core, &lines, announced, false, &body);
    answer.fault = fault;
    core.give_buffer(body);
    answer
}

fn whole(core: &Core, lines: &Lines<'_>, without_body: bool, push_body: impl FnOnce(&mut Vec<u8>)) -> Whole {
    let mut body = core.take_buffer();
    push_body(&mut body);
    let answer = assemble(core, lines, body.len() as u64, without_body, &body);
    core.give_buffer(body);
    answer
}

fn assemble(core: &Core, lines: &Lines<'_>, announced: u64, without_body: bool, body: &[u8]) -> Whole {
    let mut bytes = core.take_buffer();
    push_status(lines, "application/json", &mut bytes);
    put!(&mut bytes; "content-length: ", announced, "\r\n\r\n");
    let head_bytes = bytes.len();
    if !without_body {
        bytes.extend_from_slice(body);
    }
    Whole { bytes, head_bytes, wait: Duration::ZERO, fault: None, closes: lines.closes }
}

/// Status line and fields, all but those that frame the body.
fn push_status(lines: &Lines<'_>, content_type: &str, out: &mut Vec<u8>) {
    put!(out; "HTTP/1.1 ", u32::from(lines.status), " ", reason(lines.status), "\r\ncontent-type: ", content_type,
        "\r\nx-request-id: req_", lines.id, "\r\nrequest-id: req_", lines.id, "\r\n");
    out.extend_from_slice(lines.fields);
    if lines.closes {
        put!(out; "connection: close\r\n");
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Simulated",
    }
}

/// Counts what became of streams. One lock each, at the end.
pub(crate) fn count_stream_end(ledger: &mut Ledger, events: u64, finished: bool, cancelled: bool) {
    ledger.events += events;
    ledger.streams_finished += u64::from(finished);
    ledger.cancelled += u64::from(cancelled);
}
