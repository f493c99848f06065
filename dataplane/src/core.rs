//! What the tasks of one core share: the configuration they serve from, buffers, deadlines,
//! counters. Everything here stays on its thread; nothing is locked.

use crate::advice::Advice;
use crate::answer_sizes::AnswerSizes;
use crate::buffers::Buffers;
use crate::counters::Counters;
use crate::deadlines::Deadlines;
use crate::http1::{RequestHead, ResponseHead};
use crate::known_callers::KnownCallers;
use crate::limiter::Slices;
use crate::name::Name;
use crate::plan::Step;
use crate::tls;
use crate::upstream::{ProviderState, Providers};
use rustls::ServerConfig;
use shared::bounds::FALLBACKS_MAX;
use shared::clock::{Clock, Nanos};
use shared::phase::{Phase, SharedPhase};
use shared::published::{Published, RestingKey};
use shared::snapshot::ArchivedSnapshotRecord;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// Heads kept for the next request; more are given back to the allocator.
const POOLED_HEADS_MAX: usize = 64;

/// Room for a composed head, or a head with a small body behind it.
const COMPOSED_BYTES: usize = 2 * 1024;

/// What was composed and is larger goes back to the allocator.
const COMPOSED_BYTES_MAX: usize = 8 * 1024;

/// One core's state.
pub(crate) struct Core {
    pub(crate) id: u32,
    pub(crate) clock: Clock,
    recently: Cell<Nanos>,
    pub(crate) phase: SharedPhase,
    pub(crate) buffers: Buffers,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) counters: Counters,
    pub(crate) advice: Advice,
    pub(crate) answer_sizes: AnswerSizes,
    /// Bytes of request bodies that are kept in memory.
    pub(crate) buffered_body_bytes: Rc<Cell<u64>>,
    pub(crate) connections: Cell<u64>,
    /// Draining, and still taking what waits in the kernel.
    pub(crate) is_saying_farewell: Cell<bool>,
    /// Connections accepted so far.
    pub(crate) accepts: Cell<u64>,
    serving: RefCell<Option<Rc<Serving>>>,
    request_heads: RefCell<Vec<RequestHead>>,
    #[expect(clippy::vec_box, reason = "a head passes through many hands on the way of an answer")]
    response_heads: RefCell<Vec<Box<ResponseHead>>>,
    composed: RefCell<Vec<Vec<u8>>>,
    steps: RefCell<Vec<Vec<Step>>>,
    random: Cell<u64>,
    request_number: Cell<u64>,
}

/// One configuration, as this core serves it. A request keeps the one it started with.
pub(crate) struct Serving {
    pub(crate) published: Arc<Published>,
    pub(crate) providers: Providers,
    pub(crate) slices: Rc<Slices>,
    pub(crate) lookup: ring::hmac::Key,
    pub(crate) known_callers: KnownCallers,
    pub(crate) listener_tls: Option<Arc<ServerConfig>>,
}

impl Serving {
    /// The records.
    #[inline]
    pub(crate) fn records(&self) -> &ArchivedSnapshotRecord {
        self.published.snapshot.view()
    }

    /// Index of the provider of this name.
    pub(crate) fn provider_named(&self, name: &[u8]) -> Option<usize> {
        let ArchivedSnapshotRecord { providers, provider_index, .. } = self.records();
        let name_at = |at: usize| providers.get(at).map(|provider| provider.name.as_str());
        provider_index.find(name, name_at).map(|at| at as usize)
    }

    /// The text of a key.
    pub(crate) fn credential(&self, key: Option<usize>) -> Option<&str> {
        let record = self.records().keys.get(key?)?;
        Some(self.published.secrets.get(record.secret.to_native() as usize)?.expose())
    }

    /// What belongs to provider `index` on this core.
    #[inline]
    pub(crate) fn provider(&self, index: usize) -> Option<&Rc<ProviderState>> {
        self.providers.get(index)
    }
}

impl Core {
    pub(crate) fn new(id: u32, clock: Clock, phase: SharedPhase) -> Self {
        let seed = ahash::RandomState::new().hash_one(id);
        Self {
            id,
            clock,
            recently: Cell::new(clock.now()),
            phase,
            buffers: Buffers::default(),
            deadlines: Rc::new(Deadlines::default()),
            counters: Counters::new(id),
            advice: Advice::default(),
            answer_sizes: AnswerSizes::default(),
            buffered_body_bytes: Rc::default(),
            connections: Cell::new(0),
            is_saying_farewell: Cell::new(false),
            accepts: Cell::new(0),
            serving: RefCell::new(None),
            request_heads: RefCell::new(Vec::new()),
            response_heads: RefCell::new(Vec::new()),
            composed: RefCell::new(Vec::new()),
            steps: RefCell::new(Vec::new()),
            random: Cell::new(seed | 1),
            request_number: Cell::new(0),
        }
    }

    /// The time. Everything that has waited since the last reading, and where it counts, asks for it.
    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        let now = self.clock.now();
        self.recently.set(now);
        now
    }

    /// The last reading of the clock on this core. For what follows a reading without a wait in
    /// between; a tick old at most as long as the core is not held up.
    #[inline]
    pub(crate) fn recently(&self) -> Nanos {
        self.recently.get()
    }

    /// The configuration of now; `None` before the first one came.
    #[inline]
    pub(crate) fn serving(&self) -> Option<Rc<Serving>> {
        self.serving.borrow().clone()
    }

    /// Serves from `published` from now on. Connections, slices and TLS sessions of providers
    /// that did not change are kept.
    pub(crate) fn adopt(&self, published: Arc<Published>) {
        let before = self.serving();
        let providers = Providers::following(before.as_deref().map(|old| &old.providers), &published);
        let slices = match &before {
            Some(old) => old.slices.following(&published.limits),
            None => Slices::new(&published.limits),
        };
        let listener_tls = match (&published.listener_identity, &before) {
            (None, _) => None,
            (Some(new), Some(old)) if old.published.listener_identity.as_ref() == Some(new) => old.listener_tls.clone(),
            (Some(new), _) => match tls::server_config(&new.certificates_pem, new.key_pem.expose()) {
                Ok(config) => Some(config),
                Err(error) => {
                    tracing::error!(%error, "the listener's certificate cannot be used, the one before stays");
                    before.as_ref().and_then(|old| old.listener_tls.clone())
                }
            },
        };
        let lookup = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &published.lookup_key[..]);
        self.counters.flush_labels(before.as_deref());
        self.advice.forget_indices();
        let known_callers = KnownCallers::default();
        let serving = Serving { published, providers, slices, lookup, known_callers, listener_tls };
        *self.serving.borrow_mut() = Some(Rc::new(serving));
    }

    /// New requests belong elsewhere: answers close their connections.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase.get() != Phase::Running
    }

    /// Lets a key rest on this core at once, and on all others soon.
    pub(crate) fn rest_key(&self, resting: RestingKey) {
        if self.advice.rest(&resting, self.now()) {
            self.counters.key_rests(resting);
        }
    }

    pub(crate) fn take_request_head(&self) -> RequestHead {
        self.request_heads.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_request_head(&self, head: RequestHead) {
        let mut heads = self.request_heads.borrow_mut();
        if heads.len() < POOLED_HEADS_MAX {
            heads.push(head);
        }
    }

    #[expect(clippy::unnecessary_box_returns, reason = "they are kept in their boxes")]
    pub(crate) fn take_response_head(&self) -> Box<ResponseHead> {
        self.response_heads.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_response_head(&self, head: Box<ResponseHead>) {
        let mut heads = self.response_heads.borrow_mut();
        if heads.len() < POOLED_HEADS_MAX {
            heads.push(head);
        }
    }

    /// Empty bytes to compose a head in.
    pub(crate) fn take_composed(&self) -> Vec<u8> {
        self.composed.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(COMPOSED_BYTES))
    }

    pub(crate) fn give_composed(&self, mut bytes: Vec<u8>) {
        let mut composed = self.composed.borrow_mut();
        if composed.len() < POOLED_HEADS_MAX && (COMPOSED_BYTES..=COMPOSED_BYTES_MAX).contains(&bytes.capacity()) {
            bytes.clear();
            composed.push(bytes);
        }
    }

    /// Room for the fallbacks of a plan.
    pub(crate) fn take_steps(&self) -> Vec<Step> {
        self.steps.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(FALLBACKS_MAX))
    }

    pub(crate) fn give_steps(&self, mut room: Vec<Step>) {
        let mut steps = self.steps.borrow_mut();
        if steps.len() < POOLED_HEADS_MAX && (FALLBACKS_MAX..=2 * FALLBACKS_MAX).contains(&room.capacity()) {
            room.clear();
            steps.push(room);
        }
    }

    /// Gives half of what lies idle back to the allocator.
    pub(crate) fn shrink(&self) {
        self.buffers.shrink();
        let mut composed = self.composed.borrow_mut();
        let keep = composed.len() / 2;
        composed.truncate(keep);
        let mut steps = self.steps.borrow_mut();
        let keep = steps.len() / 2;
        steps.truncate(keep);
    }

    /// A number that clients cannot guess cheaply; for weights and jitter, not for secrets.
    #[inline]
    pub(crate) fn random(&self) -> u64 {
        // xorshift64* (Vigna, 2016).
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A new request id: unique in this core's life, unlike those of other cores and nodes.
    pub(crate) fn next_request_id(&self) -> Name {
        let number = self.request_number.get().wrapping_add(1);
        self.request_number.set(number);
        Name::hexadecimal([self.random(), (u64::from(self.id) << 48) | (number & 0xFFFF_FFFF_FFFF)])
    }
}
