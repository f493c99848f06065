//! THE request path: the order of the steps, and every way out of it.
//!
//! Steps return values to this file; they never call each other and never answer the client. A
//! request keeps the configuration it started with.

use crate::attempt::{self, Attempted};
use crate::buffers::Buffer;
use crate::charge::{Charged, Used};
use crate::core::{Core, Serving};
use crate::counters::{Happened, NO_MODEL, NO_PROVIDER, RowKey, model_label};
use crate::hold::Hold;
use crate::http1::{Known, Method};
use crate::identify::{self, Caller};
use crate::key_choice::KeyWish;
use crate::link::Link;
use crate::name::Name;
use crate::pages::{self, Page};
use crate::plan::Plan;
use crate::provider::Dialect;
use crate::provider::request_scan::{self, RequestFields};
use crate::provider::usage::Saw;
use crate::rejection::{Cause, Rejection};
use crate::relay::{self, Relayed, Way};
use crate::request::{Body, Request};
use crate::respond::{self, Manner, Standings};
use crate::route::{self, Endpoint, Target};
use crate::routing;
use crate::socket::{Socket, reset};
use shared::clock::Nanos;
use std::borrow::Cow;
use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// When a client that was turned away may come back: long enough to find another node.
const SHED_RETRY_AFTER: Duration = Duration::from_secs(2);

/// What becomes of the connection after a request.
pub(crate) enum After {
    /// It carries another request, whose first bytes may be here already.
    Next(Option<Buffer>),
    /// It closes once the client has read our answer.
    Linger,
    /// It closes.
    Close,
}

/// What is counted about a request, filled in as it becomes known.
struct Told {
    key: RowKey,
    dialect: Dialect,
    happened: Happened,
    /// When it was settled.
    ended_at: Option<Nanos>,
}

/// Serves one request, whose attempts `H` holds. It is borrowed: by value, it would lie in this future
/// twice. For the same reason what few requests need has boxes of its own here.
pub(crate) async fn exchange<H: Hold>(core: &Rc<Core>, socket: &mut Socket, request: &mut Request) -> After {
    let _in_flight = core.counters.begin();
    let manner = Manner::of(&request.head, core);
    let id = RequestId::of(core, request);
    let key = RowKey { provider: NO_PROVIDER, model: NO_MODEL, endpoint: "none", status: 0, code: "" };
    let mut told = Told { key, dialect: Dialect::OpenAi, happened: Happened::default(), ended_at: None };
    let serving = core.serving();
    let outcome = match &serving {
        Some(serving) => serve::<H>(core, serving, socket, request, manner, &id, &mut told).await,
        None => Err(Rejection::new(Cause::Starting, "this node has no configuration yet")),
    };
    let ended_at = told.ended_at.unwrap_or_else(|| core.now());
    told.happened.duration = ended_at.since(request.arrived);
    let is_unread = request.is_unread();
    let after = match outcome {
        // An answer that came early leaves a client that still sends.
        Ok(served) => {
            (served == Served::Whole && manner.keep_alive && !is_unread, served != Served::Broken && is_unread)
        }
        Err(rejection) if rejection.cause == Cause::ClientLeft => {
            told.key.status = 499;
            told.key.code = rejection.cause.row().code;
            told.happened.is_abandoned = true;
            (false, false)
        }
        Err(rejection) => {
            let row = rejection.cause.row();
            told.key.status = row.status;
            told.key.code = row.code;
            let manner = Manner { keep_alive: manner.keep_alive && !is_unread, ..manner };
            let mut out = Vec::with_capacity(512);
            let cors = serving.as_deref().map(|serving| (serving, &request.head, request.head_bytes()));
            respond::write_rejection(&rejection, told.dialect, manner, id.as_str(), cors, &mut out);
            let sent = Box::pin(respond::send(core, socket, out)).await;
            (sent && manner.keep_alive, sent && is_unread)
        }
    };
    core.counters.request(told.key, &told.happened);
    let carried = request.finish(core);
    match after {
        (true, _) => After::Next(carried),
        (false, true) => After::Linger,
        (false, false) => After::Close,
    }
}

/// Methods that a path takes, besides a browser's preflight.
fn methods_of(target: &Target) -> &'static str {
    match target.endpoint {
        Endpoint::Models => "GET",
        Endpoint::Other | Endpoint::Relay => "GET, HEAD, POST, PUT, PATCH, DELETE",
        _ => "POST",
    }
}

/// How an answer went out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Served {
    /// All of it; the connection can go on.
    Whole,
    /// All of it, and the end of the connection says so.
    Last,
    /// Not all of it, or nobody is there to read it.
    Broken,
}

/// The steps.
async fn serve<H: Hold>(
    core: &Rc<Core>,
    serving: &Rc<Serving>,
    socket: &mut Socket,
    request: &mut Request,
    manner: Manner,
    id: &RequestId,
    told: &mut Told,
) -> Result<Served, Rejection> {
    // What is asked for.
    let bytes = request.head_bytes();
    let path = request.head.path(bytes);
    let known = request.same_head.as_ref().and_then(|same| same.find(serving));
    if known.is_none()
        && let Some(page) = Page::at(path)
    {
        told.key.endpoint = "node";
        return Box::pin(answer_page(core, serving, socket, request, manner, page, told)).await;
    }
    if core.advice.sheds() {
        Box::pin(request.skip_small(core, socket)).await?;
        let text = "this node has more to do than it can; others may have room";
        return Err(Rejection::new(Cause::Overloaded, text).after(SHED_RETRY_AFTER));
    }
    let (is_new, target) = match &known {
        Some((target, _)) => (false, Some(target.clone())),
        None => (true, route::target(serving, path, path_offset(bytes, path))),
    };
    if request.head.method() == Method::Options
        && target.as_ref().is_none_or(|target| target.endpoint != Endpoint::Relay)
    {
        if respond::is_preflight(&request.head, bytes) {
            return Box::pin(answer_preflight(core, serving, socket, request, manner, told)).await;
        }
        if let Some(target) = &target {
            return Err(Rejection::method_not_allowed("OPTIONS is answered to browsers only", methods_of(target)));
        }
    }
    let Some(target) = target else {
        return Err(Rejection::new(Cause::NoRoute, "nothing is served at this path; see /v1/models for what is"));
    };
    told.dialect = target.dialect;
    told.key.endpoint = target.endpoint.label();

    // Who asks.
    let caller = match known {
        Some((_, caller)) => caller,
        None => identify::caller(serving, &request.head, bytes)?,
    };
    if target.endpoint == Endpoint::Models && !target.is_passthrough && request.head.method() == Method::Get {
        return Box::pin(answer_models(core, serving, socket, request, manner, &target, caller, told)).await;
    }
    if target.endpoint.needs_model() && request.head.method() != Method::Post {
        return Err(Rejection::method_not_allowed("this path takes POST", methods_of(&target)));
    }
    if is_new && let Some(same_head) = &request.same_head {
        same_head.note(serving, &target, caller);
    }

    // What exactly, as far as the body has to be known.
    let settings = &serving.records().settings;
    let keep = usize::try_from(settings.buffered_body_bytes.to_native()).unwrap_or(usize::MAX);
    let body_bytes_max = settings.body_bytes_max.to_native();
    let all = settings.buffered_bodies_bytes_per_core.to_native();
    if !request.take_whole(core, body_bytes_max) {
        Box::pin(request.collect(core, socket, keep, all, body_bytes_max)).await?;
    }
    let collected_at = core.recently();
    core.counters.client_bytes_in(request.buffer.len() as u64);

    // Where to, with which key, within which limits: one attempt after the other. What the body says
    // is let go before that but for a few numbers, and those before the answer, which may be an hour of
    // a stream.
    let (fields, plan, rule) = {
        let Asked { fields, model, fallbacks } = Asked::read(request, &target)?;
        let fallbacks = fallbacks.iter().map(AsRef::as_ref);
        let (given, bytes) = (request.head.fields(), request.head_bytes());
        let seen = routing::Asked { target: &target, caller, fields: given, bytes, model: model.as_deref() };
        let routed = routing::find(core, serving, seen);
        let rule = routed.map(|routed| routed.rule.id.as_str());
        if let Some(rule) = rule {
            core.counters.routed(rule);
        }
        let plan = Plan::new(core, serving, &target, caller, model.as_deref(), fallbacks, routed)?;
        (fields, plan, rule)
    };
    let link = Link::default();
    let attempt = attempt::Request {
        core,
        serving,
        target: &target,
        caller,
        plan: &plan,
        fields,
        id: id.as_str(),
        body_bytes_max,
        link: &link,
        collected_at,
        may_wait: Cell::new(request.is_whole()),
        waited: Cell::default(),
    };
    let attempted = attempt_all::<H>(attempt, socket, request).await;
    let Attempted { answer, mut charged, step, chosen, sent_at, overhead, fallback_index, hides_usage } = attempted?;
    told.key.provider = u32::try_from(step.provider).unwrap_or(NO_PROVIDER);
    told.key.model = model_label(serving, step.model.as_str());
    told.happened.overhead = Some(overhead);

    // The answer, as it comes. The node may have begun to drain while the provider was thinking.
    let manner = Manner { keep_alive: manner.keep_alive && !core.is_draining(), ..manner };
    let credential = serving.credential(chosen.key).unwrap_or_default();
    let way = Way {
        core,
        serving,
        manner,
        endpoint: target.endpoint,
        dialect: target.dialect,
        provider: step.provider,
        model: chosen.model(serving, step),
        fallback_index,
        rule,
        request_id: id.as_str(),
        standings: Standings { requests: charged.requests, tokens: charged.tokens },
        overhead,
        sent_at,
        hides_usage,
        credential,
    };
    let Socket { receiver, sender, deadline, fd } = &mut *socket;
    // Of an attempt before the last one it may be that is relayed.
    link.began(answer.upstream.socket.fd);
    let watched = (!request.is_unread()).then_some(receiver);
    let arrived = request.arrived;
    let relaying = pin!(relay::relay(&way, request, answer, sender, deadline));
    let mut relayed = link.while_client_stays(watched, relaying).await;
    if link.is_gone() {
        // The upstream connection was ended by us; from inside that looks like a cut.
        relayed.is_abandoned |= relayed.is_cut;
        relayed.is_cut = false;
    }

    if relayed.is_cut && relayed.ends_with_connection {
        // An orderly end would make it look whole.
        reset(*fd);
    }

    // What it really cost.
    settle(core, serving, &mut charged, step.model.as_str(), &relayed, target.endpoint, told, arrived);
    if relayed.is_cut && !relayed.has_begun {
        return Err(Rejection::new(Cause::ProviderMalformed, "the provider's answer is malformed from its first byte"));
    }
    Ok(match relayed {
        _ if link.is_gone() => Served::Broken,
        Relayed { is_whole: true, keeps_client: true, .. } => Served::Whole,
        Relayed { is_whole: true, .. } => Served::Last,
        _ => Served::Broken,
    })
}

/// One attempt after the other, until there is an answer to relay.
async fn attempt_all<'a, H: Hold>(
    attempt: attempt::Request<'a>,
    socket: &mut Socket,
    request: &mut Request,
) -> Result<Attempted<'a>, Rejection> {
    if !request.is_whole() {
        return Box::pin(attempt.run(request, Some(socket))).await;
    }
    // The next request will be here soon; but a stream lasts.
    if request.is_busy
        && attempt.fields.stream != Some(true)
        && socket.receiver.may_wait()
        && let Some(wait) = attempt.core.buffers.busy_wait()
    {
        socket.receiver.wait_in(attempt.core.buffers.take_for_request(), wait);
    }
    let attempting = pin!(H::hold(attempt.run(request, None)));
    attempt.link.while_client_stays(Some(&mut socket.receiver), attempting).await
}

/// Where the path begins in the head; zero for an absolute target without one, which is no route.
fn path_offset(bytes: &[u8], path: &[u8]) -> usize {
    (path.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize).filter(|at| *at < bytes.len()).unwrap_or(0)
}

#[expect(clippy::too_many_arguments, reason = "the end of a request, where all of it comes together")]
fn settle(
    core: &Core,
    serving: &Serving,
    charged: &mut Charged,
    model: &str,
    relayed: &Relayed,
    endpoint: Endpoint,
    told: &mut Told,
    arrived: Nanos,
) {
    let usage = relayed.usage;
    // A number that cannot be is no count, neither for a limit nor for a graph.
    let is_told = usage.saw != Saw::Nothing && !usage.flagged;
    let (input, output) = if is_told { (usage.input, usage.output) } else { (0, 0) };
    let is_complete = !relayed.is_cut && !relayed.is_abandoned;
    let is_final = match (relayed.status, is_complete, usage.saw) {
        // What a provider refuses it does not count.
        (400.., ..) => true,
        (_, true, Saw::Counts) if is_told => true,
        // Cut, or silent about its usage: what was reserved may have been produced.
        _ => false,
    };
    let now = core.now();
    told.ended_at = Some(now);
    charged.settle(core, serving, model, Used { prompt: input, all: input.saturating_add(output), is_final });
    core.counters.usage_flagged(usage.flagged);
    let happened = &mut told.happened;
    told.key.status = relayed.status;
    if is_told {
        happened.input_tokens = usage.input;
        happened.output_tokens = usage.output;
    }
    happened.is_stream = relayed.is_stream;
    happened.is_cut = relayed.is_cut;
    happened.is_abandoned = relayed.is_abandoned;
    happened.is_usage_missing =
        relayed.reads_usage && is_complete && relayed.status < 300 && !is_told && endpoint.needs_model();
    happened.first_byte = relayed.first_byte.map(|at| at.since(arrived));
}

/// What the body says. Only names that are written with escapes are copied.
struct Asked<'r> {
    fields: RequestFields,
    model: Option<Cow<'r, str>>,
    fallbacks: Vec<Cow<'r, str>>,
}

impl<'r> Asked<'r> {
    fn read(request: &'r Request, target: &Target) -> Result<Self, Rejection> {
        let body = request.body_bytes();
        let is_json = || {
            let content_type = request.head.value(request.head_bytes(), Known::ContentType);
            content_type.is_none_or(|value| value.windows(4).any(|four| four.eq_ignore_ascii_case(b"json")))
        };
        let wants = target.endpoint.needs_model();
        let mut fields = RequestFields::default();
        fields.bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        if target.endpoint != Endpoint::Relay && (wants || (!body.is_empty() && is_json())) {
            let scanned = match request.body {
                Body::Whole { .. } => request_scan::scan(body),
                _ => request_scan::scan_prefix(body).map(|prefix| prefix.fields),
            };
            match scanned {
                Ok(scanned) => fields = scanned,
                Err(error) if wants => {
                    let rejection = Rejection::new(Cause::MalformedBody, format!("the body cannot be read: {error}"));
                    return Err(match error.fault.field() {
                        Some(field) => rejection.about(field.name()),
                        None => rejection,
                    });
                }
                // Only endpoints that need a model are strict about the body.
                Err(_) => {}
            }
        }
        let in_path = target.model.clone().and_then(|range| request.head_bytes().get(range));
        let model = match in_path {
            Some(model) => std::str::from_utf8(model).ok().map(Cow::Borrowed),
            None => fields.model.and_then(|text| text.value(body)),
        };
        if wants && model.as_deref().is_none_or(str::is_empty) {
            return Err(match request.body {
                Body::Beginning { len, .. } => Rejection::new(
                    Cause::BodyTooLarge,
                    format!(
                        "no model within the first {len} bytes; put `model` before `messages`, or raise body_buffer"
                    ),
                ),
                _ => Rejection::new(Cause::ModelMissing, "the body names no model").about("model"),
            });
        }
        let fallbacks = fields.fallbacks.names().iter().filter_map(|name| name.value(body)).collect();
        Ok(Self { fields, model, fallbacks })
    }
}

/// What the client said about which key to take; borrowed for one choice.
pub(crate) fn key_wish(request: &Request) -> KeyWish<'_> {
    let bytes = request.head_bytes();
    KeyWish { name: request.head.value(bytes, Known::KeyName), session: request.head.value(bytes, Known::SessionId) }
}

/// The request's id: the client's, or one of ours.
pub(crate) struct RequestId(Name);

impl RequestId {
    fn of(core: &Core, request: &Request) -> Self {
        let given = request.head.value(request.head_bytes(), Known::RequestId);
        let given =
            given.and_then(|value| std::str::from_utf8(value).ok()).filter(|text| text.is_ascii() && !text.is_empty());
        if let Some(name) = given.and_then(Name::new) {
            return Self(name);
        }
        Self(core.next_request_id())
    }

    fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

async fn answer_page(
    core: &Core,
    serving: &Serving,
    socket: &mut Socket,
    request: &mut Request,
    manner: Manner,
    page: Page,
    told: &mut Told,
) -> Result<Served, Rejection> {
    if !matches!(request.head.method(), Method::Get | Method::Head) {
        return Err(Rejection::method_not_allowed("this page takes GET", "GET, HEAD"));
    }
    request.collect(core, socket, 0, 0, 0).await?;
    let mut out = Vec::with_capacity(256);
    told.key.status = pages::write(page, core, serving, manner, &mut out);
    Ok(if respond::send(core, socket, out).await { Served::Whole } else { Served::Broken })
}

async fn answer_preflight(
    core: &Core,
    serving: &Serving,
    socket: &mut Socket,
    request: &mut Request,
    manner: Manner,
    told: &mut Told,
) -> Result<Served, Rejection> {
    request.collect(core, socket, 0, 0, 0).await?;
    let mut out = Vec::with_capacity(256);
    told.key.endpoint = "preflight";
    if !respond::preflight(serving, &request.head, request.head_bytes(), manner, &mut out) {
        return Err(Rejection::new(Cause::BlockedOrigin, "this origin is not among allowed_origins"));
    }
    told.key.status = 204;
    Ok(if respond::send(core, socket, out).await { Served::Whole } else { Served::Broken })
}

/// `/v1/models` and `/v1/models/ID` come from the configuration.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one request, which stay apart so that the steps can borrow them"
)]
async fn answer_models(
    core: &Core,
    serving: &Serving,
    socket: &mut Socket,
    request: &mut Request,
    manner: Manner,
    target: &Target,
    caller: Caller,
    told: &mut Told,
) -> Result<Served, Rejection> {
    request.collect(core, socket, 0, 0, 0).await?;
    let mut body = Vec::with_capacity(1024);
    let rest = request.head_bytes().get(target.rest.clone()).unwrap_or_default();
    let wanted = rest.strip_prefix(b"/models/").and_then(|id| std::str::from_utf8(id).ok());
    crate::models::write(serving, target, caller, wanted, &mut body)?;
    let mut out = Vec::with_capacity(body.len() + 256);
    if let Ok(mut writer) = crate::http1::HeadWriter::response(&mut out, 200) {
        let _ = writer.known(Known::ContentType, b"application/json");
        respond::write_cors(serving, &request.head, request.head_bytes(), &mut writer);
        manner.write(&mut writer);
        writer.content_length(body.len() as u64);
        writer.finish();
    }
    out.extend_from_slice(&body);
    told.key.status = 200;
    Ok(if respond::send(core, socket, out).await { Served::Whole } else { Served::Broken })
}
