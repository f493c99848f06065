//! The escrow in a running node: its state on disk, its messages on the gossip port, and the limits
//! that go by it.
//!
//! Nothing that a step sends or raises has an effect before its state is written. A node that
//! cannot write removes what it wrote before, so that it can never come back with units that it has
//! given away since; from then on it goes on as one without a state directory.

use crate::escrow::{Escrow, EscrowSettings, LimitTerms, NodeName, Peer, Policy, Step};
use crate::gossip::wire::NodeMessage;
use crate::limit_lines::LimitLines;
use crate::member::{Health, View};
use crate::state_dir::{StateDir, StateDirError};
use shared::clock::{Clock, Nanos};
use shared::config::model::{Cluster, InitialState, NodeId};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Which messages between nodes are about limits.
pub(crate) const TOPIC: u8 = 16;
/// What a node has of every limit.
const STATE_FILE: &str = "limits";
const STATE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Without anything heard, this often.
const PAUSE: Duration = Duration::from_millis(50);
/// After something was heard: what comes together is looked at together.
const PAUSE_AFTER_NEWS: Duration = Duration::from_millis(5);
/// Where nobody says how many nodes there should be: as many as are there when for this long
/// nobody has come or gone.
const STABLE: Duration = Duration::from_secs(10);
/// A lease is at least this long, so that a missed beat or two cost nothing.
const LEASE_MIN: Duration = Duration::from_secs(5);
/// A node that starts is not sent traffic before it has its part of the limits, or this has passed.
const HOLD_UP_MAX: Duration = Duration::from_secs(3);
/// From here on what a lost node had is taken over by the others.
const RECLAIM_FROM_NODES: u16 = 3;

/// See the module.
pub(crate) struct SharedLimits {
    escrow: Escrow,
    dir: Option<Arc<StateDir>>,
    /// A step whose state is being written.
    writing: Option<Writing>,
    is_kept: bool,
    has_news: bool,
    opened_at: Nanos,
    stepped_at: Nanos,
    expected: Expected,
    /// The most nodes that were warned of.
    most_nodes: usize,
    peers: Vec<(Peer, std::net::SocketAddr)>,
    lines: LimitLines,
}

struct Writing {
    step: Step,
    written: JoinHandle<Written>,
}

enum Expected {
    Known(u16),
    /// At least so many as are listed; the others are counted.
    Counting {
        listed: u16,
        members: usize,
        since: Nanos,
    },
}

/// Messages to leave, each for a node at an address.
pub(crate) type Messages = Vec<(std::net::SocketAddr, NodeName, Vec<u8>)>;

impl SharedLimits {
    /// Takes up what an earlier process left. What went wrong with it is logged.
    pub(crate) fn open(cluster: &Cluster, node: &NodeId, dir: Option<Arc<StateDir>>, seed: u64, now: Nanos) -> Self {
        let settings = EscrowSettings {
            node: NodeName::new(node.as_str()).unwrap_or_default(),
            lease: cluster.gossip.timeout.max(LEASE_MIN),
            is_new: cluster.initial_state == InitialState::New,
            seed,
        };
        let state = dir.as_ref().map_or(Ok(None), |dir| dir.read(STATE_FILE, STATE_BYTES_MAX));
        let state = state.unwrap_or_else(|error| {
            tracing::error!(%error, "this node begins with nothing of the shared limits");
            None
        });
        let (mut escrow, fault) = Escrow::open(&settings, state.as_deref(), now);
        if let Err(error) = fault {
            tracing::error!(%error, "this node begins with nothing of the shared limits and gets its part from the others");
        }
        // A list may name this node too, so that it tells the least there can be.
        let listed = u16::try_from(cluster.peers.len()).unwrap_or(u16::MAX).max(1);
        let counting = Expected::Counting { listed, members: 0, since: now };
        let told = cluster.expected_nodes.map(std::num::NonZeroU16::get);
        // Counted once is enough: a node that starts again may find others missing, and still go on.
        let expected = told.or_else(|| escrow.expected_before()).map_or(counting, Expected::Known);
        if let Expected::Known(nodes) = expected {
            escrow.expect(nodes);
        }
        Self {
            escrow,
            dir,
            writing: None,
            is_kept: true,
            has_news: false,
            opened_at: now,
            stepped_at: now,
            expected,
            most_nodes: 0,
            peers: Vec::new(),
            lines: LimitLines::default(),
        }
    }

    /// Why this node should not be sent traffic yet, though others may serve it better; `None`: nothing.
    pub(crate) fn holds_up(&self, now: Nanos) -> Option<&'static str> {
        if now.since(self.opened_at) > HOLD_UP_MAX {
            return None;
        }
        let has_its_part = matches!(self.expected, Expected::Known(_)) && self.escrow.is_stocked();
        (!has_its_part).then_some("the node waits for its part of the shared limits")
    }

    /// What becomes of a lost node's part where a limit does not say; `None` while it is not known
    /// how many nodes there should be.
    pub(crate) fn policy(&self) -> Option<Policy> {
        let Expected::Known(nodes) = self.expected else { return None };
        Some(if nodes >= RECLAIM_FROM_NODES { Policy::Reclaim } else { Policy::Keep })
    }

    /// These are the limits from now on.
    pub(crate) fn configure(&mut self, terms: Vec<LimitTerms>, now: Nanos) {
        self.escrow.configure(terms, now);
    }

    /// The other nodes, as gossip has them now. True the first time that it is known how many
    /// there should be.
    pub(crate) fn look(&mut self, view: &View, now: Nanos) -> bool {
        let alive = view.members.iter().filter(|member| member.health != Health::Dead);
        let peer = |member: &crate::member::Member| {
            let is_healthy = member.health == Health::Healthy;
            Some((Peer { node: NodeName::new(&member.id)?, is_healthy }, member.address))
        };
        self.peers = alive.filter_map(peer).collect();
        self.warn_of_more_than_expected();
        // Who is dead and has not left is expected back.
        self.count(view.members.len() + 1, now)
    }

    /// A majority of too few is not the only one there can be.
    fn warn_of_more_than_expected(&mut self) {
        let Expected::Known(expected) = self.expected else { return };
        let nodes = self.peers.len() + 1;
        if nodes > usize::from(expected).max(self.most_nodes) {
            self.most_nodes = nodes;
            tracing::warn!(
                nodes,
                expected_nodes = expected,
                "there are more nodes than cluster_config.expected_nodes says: if several of them lose their state and \
                 are cut off from the others at once, shared limits could be given out twice; set it to how many there are"
            );
        }
    }

    fn count(&mut self, known: usize, now: Nanos) -> bool {
        let Expected::Counting { listed, members, since } = &mut self.expected else { return false };
        if known != *members {
            (*members, *since) = (known, now);
            return false;
        }
        if now.since(*since) < STABLE || known < usize::from(*listed) {
            return false;
        }
        let nodes = u16::try_from(known).unwrap_or(u16::MAX);
        tracing::info!(
            nodes,
            "nobody has come or gone for {} s: shared limits go by so many nodes; cluster_config.expected_nodes says \
             it for certain",
            STABLE.as_secs()
        );
        self.expected = Expected::Known(nodes);
        self.escrow.expect(nodes);
        true
    }

    /// A message of another node.
    pub(crate) fn heard(&mut self, message: NodeMessage) {
        if message.topic != TOPIC {
            return;
        }
        if let Some(from) = NodeName::new(&message.from) {
            self.escrow.heard(from, message.bytes);
            self.has_news = true;
        }
    }

    /// Waits for what is due next, the state to be written or the next step, and does it: what may
    /// leave then. Nothing is lost where it is not waited for to the end.
    pub(crate) async fn due(&mut self, clock: Clock) -> Messages {
        if self.writing.is_some() {
            return self.written().await;
        }
        let at = self.stepped_at.after(if self.has_news { PAUSE_AFTER_NEWS } else { PAUSE });
        tokio::time::sleep(at.since(clock.now())).await;
        self.step(clock.now())
    }

    /// Does what there is to do. Messages leave at once where nothing has to be written first;
    /// otherwise [`SharedLimits::written`] has them.
    fn step(&mut self, now: Nanos) -> Messages {
        if self.writing.is_some() {
            return Messages::new();
        }
        self.stepped_at = now;
        self.has_news = false;
        let peers: Vec<Peer> = self.peers.iter().map(|(peer, _)| *peer).collect();
        let step = self.escrow.step(&peers, now);
        self.lines.look(&self.escrow, now);
        match &self.dir {
            Some(dir) if step.must_persist => {
                let (dir, state) = (Arc::clone(dir), self.escrow.state());
                let written = tokio::task::spawn_blocking(move || write(&dir, &state));
                self.writing = Some(Writing { step, written });
                Messages::new()
            }
            _ => self.address(Escrow::kept(step)),
        }
    }

    /// Waits for the state that is being written; for ever where there is none. What it allows to
    /// leave.
    async fn written(&mut self) -> Messages {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let outcome = (&mut writing.written).await;
        let Some(Writing { step, .. }) = self.writing.take() else { return Messages::new() };
        match outcome {
            Ok(Written::Kept) => {
                if !self.is_kept {
                    tracing::info!("what this node has of the shared limits is kept again");
                }
                self.is_kept = true;
            }
            Ok(Written::Removed(error)) => self.complain(&error),
            Ok(Written::Stale(error)) => {
                self.complain(&error);
                self.escrow.not_kept();
                return Messages::new();
            }
            Err(panicked) => {
                self.complain(&panicked);
                self.escrow.not_kept();
                return Messages::new();
            }
        }
        self.address(Escrow::kept(step))
    }

    fn complain(&mut self, error: &dyn std::fmt::Display) {
        if self.is_kept {
            tracing::error!(%error, "what this node has of the shared limits is not kept; if it is started again it \
                             begins with nothing");
        }
        self.is_kept = false;
    }

    fn address(&self, messages: Vec<(NodeName, Vec<u8>)>) -> Messages {
        let address = |node: NodeName| self.peers.iter().find(|(peer, _)| peer.node == node).map(|(_, at)| *at);
        messages.into_iter().filter_map(|(node, bytes)| Some((address(node)?, node, bytes))).collect()
    }

    /// Gives away what is free, from now on.
    pub(crate) fn leave(&mut self) {
        self.escrow.leave();
    }

    /// Nothing runs any more: gives everything away. What is to leave comes when it is written.
    pub(crate) async fn end(&mut self, now: Nanos) -> Messages {
        let mut messages = if self.writing.is_some() { self.written().await } else { Messages::new() };
        self.escrow.end();
        messages.extend(self.step(now));
        if self.writing.is_some() {
            messages.extend(self.written().await);
        }
        messages
    }

    /// For operators.
    pub(crate) fn escrow(&self) -> &Escrow {
        &self.escrow
    }

    /// What this node has survives its restart.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept && self.dir.is_some()
    }
}

/// What became of a state.
enum Written {
    Kept,
    /// Neither it nor the former one is there: as without a state directory.
    Removed(StateDirError),
    /// The former one is still there. A process that took it up would have what this one gave away.
    Stale(StateDirError),
}

fn write(dir: &StateDir, state: &[u8]) -> Written {
    match dir.replace(STATE_FILE, state) {
        Ok(()) => Written::Kept,
        Err(error) => match dir.remove(STATE_FILE) {
            Ok(()) => Written::Removed(error),
            Err(error) => Written::Stale(error),
        },
    }
}
