//! The answer of a provider on its way to the client: a new head, the body as it comes, and the
//! truth about how it ended. A quiet stream holds a small buffer and nothing else.

use crate::buffers::Buffer;
use crate::core::{Core, Serving};
use crate::deadlines::Deadline;
use crate::http1::encode::{LAST_CHUNK, line_start};
use crate::http1::{BodyFraming, ChunkDecoder, HeadWriter, Known, Method, Version};
use crate::provider::usage::{Forward, Usage, UsageReader};
use crate::provider::{Dialect, error_body};
use crate::quoted_key::{Mask, is_telling, quotes};
use crate::request::Request;
use crate::respond::{self, Manner, Standings};
use crate::route::Endpoint;
use crate::socket::Sender;
use crate::upstream::Upstream;
use crate::upstream::send::{Answer, frame_chunk};
use shared::bounds::{BUFFER_BYTES, CLIENT_WRITE_TIMEOUT};
use shared::clock::Nanos;
use std::time::Duration;

/// Who the answer is for and where it comes from.
pub(crate) struct Way<'a> {
    pub(crate) core: &'a Core,
    pub(crate) serving: &'a Serving,
    pub(crate) manner: Manner,
    pub(crate) endpoint: Endpoint,
    pub(crate) dialect: Dialect,
    pub(crate) provider: usize,
    /// The model's name at the provider; empty for requests without one.
    pub(crate) model: &'a str,
    pub(crate) fallback_index: usize,
    /// The routing rule that led here.
    pub(crate) rule: Option<&'a str>,
    pub(crate) request_id: &'a str,
    pub(crate) standings: Standings,
    pub(crate) overhead: Duration,
    /// When the request went upstream.
    pub(crate) sent_at: Nanos,
    /// The client did not ask for the usage event.
    pub(crate) hides_usage: bool,
    /// The key that went upstream; empty where there was none.
    pub(crate) credential: &'a str,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Relayed {
    pub(crate) status: u16,
    /// All of it went to the client.
    pub(crate) is_whole: bool,
    /// The client's connection is not what ends the body.
    pub(crate) keeps_client: bool,
    pub(crate) is_stream: bool,
    /// Something went to the client: no other answer can.
    pub(crate) has_begun: bool,
    /// The provider did not finish its answer.
    pub(crate) is_cut: bool,
    /// Nothing but the end of the connection ends the body.
    pub(crate) ends_with_connection: bool,
    /// The client did not stay for all of it.
    pub(crate) is_abandoned: bool,
    pub(crate) usage: Usage,
    /// Usage was looked for.
    pub(crate) reads_usage: bool,
    pub(crate) first_byte: Option<Nanos>,
}

/// Where the body of the provider's answer stands.
enum Intake {
    Length(u64),
    Chunked(ChunkDecoder),
    UntilClose,
    Done { is_exact: bool },
}

/// How the body goes to the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlet {
    /// As it is: there is none, or its length was announced.
    Plain,
    Chunked,
    /// The end of the connection ends the body.
    UntilClose,
}

/// Relays the whole answer. The request's own bytes go back to the core when its head is written.
pub(crate) async fn relay(
    way: &Way<'_>,
    request: &mut Request,
    answer: Answer,
    client: &mut Sender,
    deadline: &Deadline,
) -> Relayed {
    let Answer { mut upstream, head, mut buffer, head_len, is_request_sent } = answer;
    let core = way.core;
    let bytes = buffer.payload();
    let is_stream = head.value(bytes, Known::ContentType).is_some_and(is_event_stream);
    let mut reader = usage_reader(way, &head, bytes, is_stream);
    let mut intake = match head.framing() {
        BodyFraming::None | BodyFraming::Length(0) => Intake::Done { is_exact: true },
        BodyFraming::Length(length) => Intake::Length(length),
        BodyFraming::Chunked => Intake::Chunked(ChunkDecoder::new()),
        BodyFraming::UntilClose => Intake::UntilClose,
    };
    let outlet = match head.framing() {
        BodyFraming::None => Outlet::Plain,
        BodyFraming::Length(_) if reader.as_ref().is_none_or(|_| !hides(way, is_stream)) => Outlet::Plain,
        _ if way.manner.version == Version::Http11 => Outlet::Chunked,
        _ => Outlet::UntilClose,
    };
    let mut manner = way.manner;
    manner.keep_alive &= outlet != Outlet::UntilClose && !request.is_unread();
    let mut out = core.take_composed();
    write_head(way, request, &head, bytes, manner, outlet, &mut out);
    request.release(core);
    let mut relayed = Relayed {
        status: head.status(),
        keeps_client: manner.keep_alive,
        is_stream,
        reads_usage: reader.is_some(),
        ..Relayed::default()
    };
    let provider_keeps = head.keep_alive() && is_request_sent;
    let is_bodyless = matches!(head.framing(), BodyFraming::None);
    // What follows an answer without a body was not asked for.
    let mut is_exact = !(is_bodyless && buffer.len() > head_len);
    let is_full = buffer.room() == 0;
    buffer.consume(head_len);
    core.give_response_head(head);
    let streaming = is_stream.then(|| core.counters.stream_began());
    let mask = (relayed.status >= 400 && is_telling(way.credential.as_bytes())).then(Mask::default);
    let mut pieces = Pieces { way, outlet, reader: reader.as_mut(), head: Some(out), mask };
    // What came with the head says nothing of the next piece, unless there was no room for more. A
    // stream, which may be silent for an hour, never waits with a long buffer.
    let piece_max = if is_stream { BUFFER_BYTES - 1 } else { usize::MAX };
    let mut last = if is_full { piece_max } else { 0 };
    let outcome = loop {
        let Ok(ended) = intake.take(&mut buffer) else { break Ended::Cut };
        if let Intake::Done { is_exact: ends_here } = intake {
            is_exact &= ends_here;
        }
        if pieces.has_something(&buffer, ended) {
            let now = core.now();
            if !buffer.is_empty() || ended {
                relayed.first_byte.get_or_insert(now);
            }
            deadline.set(now.after(CLIENT_WRITE_TIMEOUT));
            let written = pieces.write(client, &mut buffer, ended).await;
            deadline.clear();
            if !written {
                break Ended::Abandoned;
            }
        }
        if ended {
            break Ended::Complete;
        }
        core.buffers.give(std::mem::replace(&mut buffer, core.buffers.take_after(last)));
        upstream.socket.deadline.set(way.due(relayed.first_byte.is_some(), is_stream));
        let read = upstream.socket.receiver.read(&mut buffer).await;
        // A client that takes its time is not the provider's fault.
        upstream.socket.deadline.clear();
        match read {
            Ok(count) if count > 0 => last = count.min(piece_max),
            Ok(_) if matches!(intake, Intake::UntilClose) && !upstream.socket.deadline.has_passed() => {
                intake = Intake::Done { is_exact: false };
            }
            _ => break Ended::Cut,
        }
    };
    drop(streaming);
    if outcome == Ended::Cut {
        Box::pin(pieces.tell_cut(client, &mut buffer, deadline)).await;
    }
    relayed.has_begun = pieces.head.is_none();
    core.buffers.give(buffer);
    relayed.usage = reader.map(|reader| reader.usage()).unwrap_or_default();
    relayed.is_cut = outcome == Ended::Cut;
    relayed.ends_with_connection = outlet == Outlet::UntilClose;
    relayed.is_abandoned = outcome == Ended::Abandoned;
    relayed.is_whole = outcome == Ended::Complete;
    finish(core, upstream, outcome == Ended::Complete && is_exact && provider_keeps);
    relayed
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Complete,
    Cut,
    Abandoned,
}

/// Only a connection whose answer ended where it said it would may be asked again.
fn finish(core: &Core, upstream: Upstream, keeps: bool) {
    if keeps && !upstream.socket.deadline.has_passed() {
        upstream.keep(core);
    } else {
        upstream.discard();
    }
}

impl Way<'_> {
    /// When the next piece of the body has to be there.
    fn due(&self, has_begun: bool, is_stream: bool) -> Nanos {
        let now = self.core.now();
        let Some(record) = self.serving.records().providers.get(self.provider) else { return now };
        let milliseconds = |ms: u32| Duration::from_millis(u64::from(ms));
        let idle = if has_begun { record.idle_timeout_ms } else { record.first_byte_timeout_ms };
        let due = now.after(milliseconds(idle.to_native()));
        if is_stream { due } else { due.min(self.sent_at.after(milliseconds(record.total_timeout_ms.to_native()))) }
    }
}

impl Intake {
    /// Leaves the decoded payload of what was read in `buffer`; true at the end of the body.
    fn take(&mut self, buffer: &mut Buffer) -> Result<bool, ()> {
        match self {
            Self::Done { .. } => {
                buffer.truncate(0);
                Ok(true)
            }
            Self::UntilClose => Ok(false),
            Self::Length(left) => {
                let there = buffer.len() as u64;
                let ours = there.min(*left);
                buffer.truncate(usize::try_from(ours).unwrap_or(usize::MAX));
                *left -= ours;
                if *left == 0 {
                    *self = Self::Done { is_exact: ours == there };
                    return Ok(true);
                }
                Ok(false)
            }
            Self::Chunked(decoder) => {
                let there = buffer.len();
                let progress = decoder.decode_in_place(buffer.payload_mut()).map_err(|_| ())?;
                buffer.consume(progress.payload_start);
                buffer.truncate(progress.payload_len);
                if progress.done {
                    *self = Self::Done { is_exact: progress.consumed == there };
                }
                Ok(progress.done)
            }
        }
    }
}

/// Turns payload into what the client reads.
struct Pieces<'a, 'w> {
    way: &'a Way<'w>,
    outlet: Outlet,
    reader: Option<&'a mut UsageReader>,
    /// The head, until it has left together with the first payload.
    head: Option<Vec<u8>>,
    /// An error text may quote the key that it complains about.
    mask: Option<Mask>,
}

impl Pieces<'_, '_> {
    /// A head leaves at once; an empty piece in the middle has nothing to say.
    fn has_something(&self, buffer: &Buffer, ended: bool) -> bool {
        self.head.is_some() || !buffer.is_empty() || ended
    }

    async fn write(&mut self, client: &mut Sender, buffer: &mut Buffer, ended: bool) -> bool {
        self.look(buffer, ended);
        if let Some(mask) = &mut self.mask {
            mask.pass(buffer, self.way.credential.as_bytes(), ended);
        }
        if self.outlet == Outlet::Chunked {
            let framed = if buffer.is_empty() { true } else { frame_chunk(buffer) };
            if !framed || (ended && !buffer.finish(LAST_CHUNK)) {
                return false;
            }
        }
        if let Some(mut head) = self.head.take() {
            if !buffer.prepend(&head) {
                let len = head.len();
                let (written, given_back) = client.write_owned(head, 0..len).await;
                if written.is_err() {
                    return false;
                }
                head = given_back;
            }
            self.way.core.give_composed(head);
        }
        buffer.is_empty() || respond::send_half(self.way.core, client, buffer).await
    }

    /// Reads usage, and takes out of the payload what the client did not ask for.
    fn look(&mut self, buffer: &mut Buffer, ended: bool) {
        let Some(reader) = self.reader.as_deref_mut() else { return };
        // The head has not left yet, so this is all of the body.
        if ended && self.head.is_some() && !reader.is_sse() {
            match self.way.serving.provider(self.way.provider) {
                Some(provider) => reader.observe_whole(buffer.payload(), &mut provider.usage_form.borrow_mut()),
                None => reader.observe(buffer.payload()),
            }
            return;
        }
        if let Forward::Parts { held, ranges } = reader.filter(buffer.payload()) {
            let kept = ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
            let mut visible = Buffer::for_payload(held.len() + kept);
            let fits = visible.append(held)
                && ranges.iter().all(|range| visible.append(buffer.payload().get(range.clone()).unwrap_or_default()));
            debug_assert!(fits, "the buffer was made for them");
            self.way.core.buffers.give(std::mem::replace(buffer, visible));
        }
        if ended {
            let rest = reader.finish();
            if !rest.is_empty() {
                let mut visible = Buffer::for_payload(buffer.len() + rest.len());
                let fits = visible.append(buffer.payload()) && visible.append(rest);
                debug_assert!(fits, "the buffer was made for them");
                self.way.core.buffers.give(std::mem::replace(buffer, visible));
            }
        }
    }

    /// Says in the stream that it was cut. The transfer itself stays broken: no last chunk.
    async fn tell_cut(&mut self, client: &mut Sender, buffer: &mut Buffer, deadline: &Deadline) {
        let Some(reader) = self.reader.as_deref().filter(|_| self.head.is_none()) else { return };
        if self.outlet == Outlet::Plain || !self.way.is_event_stream_reader(reader) {
            return;
        }
        let error = error_body::ErrorBody {
            status: 502,
            kind: "provider_error",
            code: Some("provider_cut_stream"),
            message: "the provider ended the stream before it was complete",
            param: None,
        };
        let mut event = Vec::with_capacity(256);
        error_body::write_event(self.way.dialect, &error, reader.is_between_events(), &mut event);
        buffer.clear();
        if buffer.append(&event) && (self.outlet != Outlet::Chunked || frame_chunk(buffer)) {
            deadline.set(self.way.core.now().after(CLIENT_WRITE_TIMEOUT));
            // A client that has left as well need not be told.
            let _ = respond::send_half(self.way.core, client, buffer).await;
            deadline.clear();
        }
    }
}

impl Way<'_> {
    fn is_event_stream_reader(&self, reader: &UsageReader) -> bool {
        reader.is_sse() && self.endpoint != Endpoint::Relay
    }
}

fn is_event_stream(content_type: &[u8]) -> bool {
    let media = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

fn hides(way: &Way<'_>, is_stream: bool) -> bool {
    way.hides_usage && is_stream
}

/// A reader for answers whose usage can be read; `None` where there is nothing to read or a
/// content coding hides it.
fn usage_reader(
    way: &Way<'_>,
    head: &crate::http1::ResponseHead,
    bytes: &[u8],
    is_stream: bool,
) -> Option<UsageReader> {
    let is_coded = head
        .value(bytes, Known::ContentEncoding)
        .is_some_and(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"));
    let has_body = !matches!(head.framing(), BodyFraming::None | BodyFraming::Length(0));
    if way.endpoint == Endpoint::Relay || is_coded || !has_body || way.manner.method == Method::Head {
        return None;
    }
    Some(match is_stream {
        true if way.hides_usage => UsageReader::sse_hiding_usage(),
        true => UsageReader::sse(way.dialect),
        false => UsageReader::json(way.dialect),
    })
}

fn write_head(
    way: &Way<'_>,
    request: &Request,
    head: &crate::http1::ResponseHead,
    bytes: &[u8],
    manner: Manner,
    outlet: Outlet,
    out: &mut Vec<u8>,
) {
    let Ok(mut writer) = HeadWriter::response(out, head.status()) else { return };
    let has_limits = way.standings.requests.is_some() || way.standings.tokens.is_some();
    let has_cors = !way.serving.records().settings.allowed_origins.is_empty();
    for field in head.fields() {
        let is_limit = field.known == Known::RateLimit && !field.is_connection_named;
        if !is_limit && (field.known == Known::RequestId || !field.relays_to_client()) {
            continue;
        }
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        // Values were checked when they were parsed; what still cannot be written is left out.
        if is_limit {
            write_upstream_rate_limit(&mut writer, name, value, has_limits);
        } else if !quotes(value, way.credential.as_bytes()) {
            let _ = writer.again(field.known, name, value);
        }
    }
    if way.endpoint != Endpoint::Relay {
        if let Some(record) = way.serving.records().providers.get(way.provider) {
            let _ = writer.ours(line_start!("x-bifrost-provider"), record.name.as_bytes());
        }
        if !way.model.is_empty() {
            let _ = writer.ours(line_start!("x-bifrost-resolved-model"), way.model.as_bytes());
        }
        if way.fallback_index > 0 {
            writer.number(line_start!("x-bifrost-fallback-index"), way.fallback_index as u64);
        }
        if let Some(rule) = way.rule {
            // A name that no header can have is in the metrics all the same.
            let _ = writer.ours(line_start!("x-deepintshield-routing-rule"), rule.as_bytes());
        }
        way.standings.write(&mut writer);
        let micros = u64::try_from(way.overhead.as_micros()).unwrap_or(u64::MAX);
        writer.number(line_start!("x-deepintshield-overhead-us"), micros);
    }
    let _ = writer.known(Known::RequestId, way.request_id.as_bytes());
    if has_cors {
        respond::write_cors(way.serving, &request.head, request.head_bytes(), &mut writer);
    }
    manner.write(&mut writer);
    match (outlet, head.framing()) {
        (Outlet::Chunked, _) => writer.chunked(),
        (Outlet::Plain, BodyFraming::Length(length)) => writer.content_length(length),
        (Outlet::Plain, BodyFraming::None) if head.status() != 204 => {
            if let Some(length) = head.declared_length() {
                writer.content_length(length);
            }
        }
        _ => {}
    }
    writer.finish();
}

/// The provider's own limits go on under their names where no limit of ours says anything, and
/// as `x-upstream-ratelimit-*` where the usual names are taken.
fn write_upstream_rate_limit(writer: &mut HeadWriter<'_>, name: &[u8], value: &[u8], has_limits: bool) {
    const OURS: &[u8] = b"x-ratelimit-";
    if !has_limits {
        let _ = writer.field(name, value);
        return;
    }
    let is_ours = name.len() > OURS.len() && name[..OURS.len()].eq_ignore_ascii_case(OURS);
    if is_ours {
        let mut renamed = b"x-upstream-ratelimit-".to_vec();
        renamed.extend_from_slice(&name[OURS.len()..]);
        let _ = writer.field(&renamed, value);
    } else {
        let _ = writer.field(name, value);
    }
}
