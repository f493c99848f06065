//! What a core keeps for each provider between requests: idle connections, TLS sessions, and which
//! of its addresses did not answer lately.

use super::connect::{Destination, connect};
use crate::advice::Share;
use crate::core::{Core, Serving};
use crate::http1::AnswerForm;
use crate::provider::usage::UsageForm;
use crate::rejection::{Cause, Rejection};
use crate::socket::{Noticed, Socket};
use crate::tls;
use rustls::ClientConfig;
use shared::bounds::{BUSY_GAP, UPSTREAM_IDLE_MAX, UPSTREAM_IDLE_TIMEOUT};
use shared::clock::Nanos;
use shared::published::Published;
use shared::snapshot::{ArchivedDialect, ArchivedProviderRecord, Dialect};
use std::cell::{Cell, RefCell};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// An address that refused a connection is left alone for this long, while others are there.
const ADDRESS_REST: Duration = Duration::from_secs(5);

/// The dialect of a provider's own paths.
pub(crate) fn dialect_of(record: &ArchivedProviderRecord) -> Dialect {
    match record.dialect {
        ArchivedDialect::OpenAi => Dialect::OpenAi,
        ArchivedDialect::Anthropic => Dialect::Anthropic,
        ArchivedDialect::Gemini => Dialect::Gemini,
        ArchivedDialect::Cohere => Dialect::Cohere,
    }
}

/// All providers of a configuration, in its order.
pub(crate) struct Providers(Vec<Rc<ProviderState>>);

/// What makes a connection to one provider unfit for another.
#[derive(PartialEq)]
struct Identity {
    name: String,
    host: String,
    https: bool,
    ca_cert_pem: Option<String>,
    insecure_skip_verify: bool,
    allow_private_network: bool,
}

/// One provider on this core.
pub(crate) struct ProviderState {
    identity: Identity,
    /// Why its TLS cannot be configured, if so.
    tls: Result<Option<Arc<ClientConfig>>, String>,
    idle: RefCell<Vec<Idle>>,
    /// Connections in use.
    in_use: Cell<u32>,
    next_address: Cell<usize>,
    resting: RefCell<Vec<(SocketAddr, Nanos)>>,
    /// What the heads of its answers look like. The two differ in their fields.
    whole_answers: RefCell<AnswerForm>,
    streams: RefCell<AnswerForm>,
    /// Which of its requests it gets while it is demoted.
    pub(crate) share: Share,
    /// How it wrote the counts of its last answer.
    pub(crate) usage_form: RefCell<UsageForm>,
}

struct Idle {
    socket: Box<Socket>,
    address: SocketAddr,
    since: Nanos,
}

/// A connection to a provider, in use.
pub(crate) struct Upstream {
    /// In a box, because it passes through many hands on the way of an answer.
    pub(crate) socket: Box<Socket>,
    address: SocketAddr,
    /// It has carried a request before.
    pub(crate) is_reused: bool,
    /// That was only just now.
    is_busy: bool,
    in_use: InUse,
}

/// Counts a connection as in use until it is dropped.
struct InUse(Rc<ProviderState>);

impl InUse {
    fn of(state: &Rc<ProviderState>) -> Self {
        state.in_use.set(state.in_use.get().saturating_add(1));
        Self(Rc::clone(state))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.set(self.0.in_use.get().saturating_sub(1));
    }
}

impl Providers {
    /// States for the providers of `published`; those that are reached the same way as before
    /// keep their connections.
    pub(crate) fn following(before: Option<&Self>, published: &Published) -> Self {
        let states = published.snapshot.view().providers.iter().map(|record| {
            let identity = Identity::of(record);
            let same = before.and_then(|all| all.0.iter().find(|state| state.identity == identity));
            same.map_or_else(|| Rc::new(ProviderState::new(identity)), Rc::clone)
        });
        Self(states.collect())
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Rc<ProviderState>> {
        self.0.get(index)
    }

    /// Closes idle connections that were closed by the other side, spoke unasked, or are old.
    pub(crate) fn drop_stale(&self, now: Nanos) {
        for state in &self.0 {
            let mut idle = state.idle.borrow_mut();
            idle.retain_mut(|idle| {
                now.since(idle.since) < UPSTREAM_IDLE_TIMEOUT && idle.socket.receiver.noticed() == Noticed::Nothing
            });
            if idle.is_empty() {
                idle.shrink_to_fit();
            }
        }
    }

    /// Idle connections of all providers.
    pub(crate) fn idle_connections(&self) -> u64 {
        self.0.iter().map(|state| state.idle.borrow().len() as u64).sum()
    }
}

impl Identity {
    fn of(record: &ArchivedProviderRecord) -> Self {
        Self {
            name: record.name.to_string(),
            host: record.host.to_string(),
            https: record.https,
            ca_cert_pem: record.ca_cert_pem.as_ref().map(ToString::to_string),
            insecure_skip_verify: record.insecure_skip_verify,
            allow_private_network: record.allow_private_network,
        }
    }
}

impl ProviderState {
    fn new(identity: Identity) -> Self {
        let tls = if identity.https {
            tls::client_config(identity.ca_cert_pem.as_deref(), identity.insecure_skip_verify)
                .map(Some)
                .map_err(|error| error.to_string())
        } else {
            Ok(None)
        };
        if let Err(error) = &tls {
            tracing::error!(
                provider = identity.name,
                error,
                "TLS to this provider cannot be configured; check ca_cert_pem"
            );
        }
        Self {
            identity,
            tls,
            idle: RefCell::default(),
            in_use: Cell::new(0),
            next_address: Cell::new(0),
            resting: RefCell::default(),
            whole_answers: RefCell::default(),
            streams: RefCell::default(),
            share: Share::default(),
            usage_form: RefCell::default(),
        }
    }

    /// What to compare the head of its next answer with.
    pub(crate) fn answer_form(&self, is_stream: bool) -> &RefCell<AnswerForm> {
        if is_stream { &self.streams } else { &self.whole_answers }
    }

    /// An idle connection that is still good, if there is one.
    pub(crate) fn reuse(self: &Rc<Self>, core: &Core, record: &ArchivedProviderRecord) -> Option<Upstream> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            let is_wanted = addresses(record).any(|address| address == idle.address);
            if is_wanted && idle.socket.receiver.noticed() == Noticed::Nothing {
                core.counters.reused();
                return Some(Upstream {
                    socket: idle.socket,
                    address: idle.address,
                    is_reused: true,
                    is_busy: core.recently().since(idle.since) < BUSY_GAP,
                    in_use: InUse::of(self),
                });
            }
            // Closed by the provider, or with bytes that nobody asked for: an answer to our next
            // request must not begin with them.
            core.counters.stale();
        }
    }

    /// A new connection, to one address after the other until one accepts.
    pub(crate) async fn open(
        self: &Rc<Self>,
        core: &Core,
        serving: &Serving,
        index: usize,
        began: &impl Fn(RawFd),
    ) -> Result<Upstream, Rejection> {
        let Some(record) = serving.records().providers.get(index) else {
            return Err(Rejection::new(Cause::Internal, "a route leads to no provider"));
        };
        let provider = record.name.as_str();
        if self.in_use.get() >= record.connections_max.to_native() {
            let text = format!("provider {provider} has as many connections as max_conns_per_host allows");
            return Err(Rejection::new(Cause::Overloaded, text).after(Duration::from_secs(1)));
        }
        // Counted from here on: many may connect at once.
        let in_use = InUse::of(self);
        let config = self.tls.as_ref().map_err(|error| {
            Rejection::new(Cause::ProviderTls, format!("TLS to provider {provider} cannot be configured: {error}"))
        })?;
        let count = record.endpoints.len();
        if count == 0 {
            let text = format!("the name of provider {provider} could not be resolved yet");
            return Err(Rejection::new(Cause::ProviderUnresolved, text).after(Duration::from_secs(1)));
        }
        let due = core.now().after(Duration::from_millis(u64::from(record.connect_timeout_ms.to_native())));
        let first = self.next_address.get();
        self.next_address.set(first.wrapping_add(1));
        let mut failure = None;
        for only_fresh in [true, false] {
            for turn in 0..count {
                let Some(address) = addresses(record).nth((first.wrapping_add(turn)) % count) else { continue };
                if self.rests(address, core.now()) == only_fresh {
                    continue;
                }
                let tls = config.as_ref().map(|config| (record.host.as_str(), config));
                let allow_private_network = record.allow_private_network;
                let destination = Destination { address, allow_private_network, tls, provider };
                match connect(core, &destination, due, began).await {
                    Ok(socket) => {
                        self.resting.borrow_mut().retain(|(resting, _)| *resting != address);
                        let socket = Box::new(socket);
                        return Ok(Upstream { socket, address, is_reused: false, is_busy: false, in_use });
                    }
                    Err(rejection) => {
                        self.rest(address, core.now());
                        failure = Some(rejection);
                    }
                }
                if core.now() >= due {
                    break;
                }
            }
        }
        Err(failure.unwrap_or_else(|| Rejection::new(Cause::ProviderUnreachable, "no address of the provider is left")))
    }

    fn rests(&self, address: SocketAddr, now: Nanos) -> bool {
        self.resting.borrow().iter().any(|(resting, until)| *resting == address && *until > now)
    }

    fn rest(&self, address: SocketAddr, now: Nanos) {
        let mut resting = self.resting.borrow_mut();
        resting.retain(|(other, until)| *other != address && *until > now);
        resting.push((address, now.after(ADDRESS_REST)));
    }
}

impl Upstream {
    /// Keeps the connection for the next request. Only after an answer that ended exactly where
    /// it said it would.
    pub(crate) fn keep(mut self, core: &Core) {
        self.socket.deadline.clear();
        let receiver = &mut self.socket.receiver;
        if self.is_busy
            && receiver.may_wait()
            && let Some(wait) = core.buffers.busy_wait()
        {
            receiver.wait_in(core.buffers.take(), wait);
        }
        receiver.wait_quietly();
        if self.socket.receiver.noticed() != Noticed::Nothing {
            core.counters.stale();
            return;
        }
        let idle = Idle { address: self.address, since: core.recently(), socket: self.socket };
        let mut pool = self.in_use.0.idle.borrow_mut();
        if pool.len() < UPSTREAM_IDLE_MAX {
            pool.push(idle);
        }
    }

    /// Ends the connection now.
    pub(crate) fn discard(self) {
        self.socket.abort();
    }
}

fn addresses(record: &ArchivedProviderRecord) -> impl Iterator<Item = SocketAddr> {
    record
        .endpoints
        .iter()
        .map(|endpoint| SocketAddr::new(Ipv6Addr::from(endpoint.ip).into(), endpoint.port.to_native()))
}
