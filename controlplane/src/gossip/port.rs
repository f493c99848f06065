//! The open gossip port: seals what leaves, opens what comes, and hands it to whom it is for.
//!
//! Small frames go by UDP, large ones by TCP, and all of them by TCP to a peer that UDP does not
//! reach. Nothing here waits for a peer: a frame leaves at once, waits in a bounded queue, or is
//! dropped and counted. Nothing that is not authenticated is answered.

mod lives;

use super::frame::{
    DATAGRAM_BYTES_MAX, Identity, Kind, LATER_GENERATION_MAX, Letter, NONCE_BYTES, NodeName, Opened, Refusal,
    VERSION_MIN, open, seal,
};
use super::keyring::{GossipKey, Keyring};
use super::network::{Datagrams, Listener, Network};
use super::peers::{Peers, Remark, Via};
use super::probe::{Ping, Pong};
use super::queue::Queue;
use super::refusals::Refusals;
use super::replay::Windows;
use super::streams::{self, Inbound, Lines};
use super::wire::{Namesake, NodeMessage};
use shared::clock::{Clock, Nanos};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// Datagrams that are looked at before others get their turn.
const DATAGRAMS_A_TURN: u32 = 64;
/// Junk in a row, after which the port rests for a moment: the most that a flood may cost. What the
/// kernel cannot hold meanwhile is lost, as in any flood.
const JUNK_IN_A_ROW: u32 = 256;
const REST: Duration = Duration::from_millis(1);
/// Longer than any datagram that is taken, so that longer ones are noticed.
const DATAGRAM_BUFFER_BYTES: usize = 2 * DATAGRAM_BYTES_MAX;
/// Messages that wait for chitchat.
const INBOX_MAX: usize = 512;
const INBOX_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages between two nodes that wait for whoever reads them.
const LETTERS_MAX: usize = 256;
const LETTERS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What the tasks of one port share.
pub(super) struct Shared {
    name: NodeName,
    /// Grows when gossip starts again.
    generation: AtomicU64,
    speaks: u8,
    pub(super) advertise: SocketAddr,
    pub(super) bind_ip: IpAddr,
    pub(super) dial_timeout: Duration,
    pub(super) clock: Clock,
    pub(super) network: Arc<dyn Network>,
    datagrams: Box<dyn Datagrams>,
    pub(super) state: Mutex<State>,
    pub(super) inbound: Mutex<Inbound>,
    /// Messages of chitchat, and whose they are.
    inbox: Mutex<Arc<Inbox>>,
    pub(super) letters: Queue<NodeMessage>,
    /// `None`: closed.
    pub(super) tasks: Mutex<Option<JoinSet<()>>>,
}

pub(super) type Inbox = Queue<(SocketAddr, Vec<u8>)>;

/// What changes.
pub(super) struct State {
    pub(super) keyring: Keyring,
    sequence: u64,
    windows: Windows,
    pub(super) peers: Peers,
    pub(super) refusals: Refusals,
    pub(super) namesake: Option<Namesake>,
    /// A generation above ours that others know us by.
    pub(super) later_us: Option<u64>,
    pub(super) lines: Lines,
    pub(super) counts: Counts,
}

/// Counted since the port was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) frames_received_udp: u64,
    pub(super) frames_received_tcp: u64,
    pub(super) frames_sent_udp: u64,
    pub(super) frames_sent_tcp: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    /// For want of room, of a connection, or of an answer.
    pub(super) frames_dropped: u64,
    /// That nobody took in time.
    pub(super) messages_dropped: u64,
    pub(super) messages_undecodable: u64,
    pub(super) connections_refused: u64,
    pub(super) socket_errors: u64,
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "each is said once, and by name at its only caller")]
    pub(super) fn open(
        us: Identity,
        speaks: u8,
        advertise: SocketAddr,
        dial_timeout: Duration,
        clock: Clock,
        network: Arc<dyn Network>,
        keyring: Keyring,
        (datagrams, bind_ip): (Box<dyn Datagrams>, IpAddr),
    ) -> Self {
        Self {
            name: us.name,
            generation: AtomicU64::new(us.generation),
            speaks,
            advertise,
            bind_ip,
            dial_timeout,
            clock,
            network,
            datagrams,
            state: Mutex::new(State {
                keyring,
                sequence: 0,
                windows: Windows::default(),
                peers: Peers::default(),
                refusals: Refusals::default(),
                namesake: None,
                later_us: None,
                lines: Lines::default(),
                counts: Counts::default(),
            }),
            inbound: Mutex::default(),
            inbox: Mutex::new(new_inbox()),
            letters: Queue::new(LETTERS_MAX, LETTERS_BYTES_MAX),
            tasks: Mutex::new(Some(JoinSet::new())),
        }
    }

    /// Starts to receive.
    pub(super) fn serve(self: &Arc<Self>, listener: Box<dyn Listener>) {
        self.spawn(receive_datagrams(self.clone()));
        self.spawn(streams::accept(self.clone(), listener));
    }

    /// Runs a task until the port is closed.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = lock(&self.tasks).as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The queue of a chitchat that starts; the one before gets nothing any more.
    pub(super) fn open_inbox(&self) -> Arc<Inbox> {
        let inbox = new_inbox();
        *lock(&self.inbox) = inbox.clone();
        inbox
    }

    /// A message for whoever is at `to`. Waits, if it is the newest one, until that is known.
    pub(super) fn send_gossip(self: &Arc<Self>, to: SocketAddr, message: Vec<u8>) {
        let now = self.clock.now();
        let mut state = self.lock();
        if state.peers.is_silent(to, now) {
            self.probe(&mut state, to);
        }
        if let Some(remark) = state.peers.sends(to, now) {
            say(to, remark);
        }
        if state.peers.route(to, now).is_some() {
            self.send_known(&mut state, to, Kind::Gossip, &message);
        } else if state.peers.wait(to, message, now) {
            state.counts.frames_dropped += 1;
        }
    }

    /// A frame has come, from whoever.
    pub(super) fn take(self: &Arc<Self>, frame: &mut [u8], source: SocketAddr, via: Via) -> Result<(), Refusal> {
        let now = self.clock.now();
        let mut state = self.lock();
        let taken = self.open_frame(&mut state, frame, via, now);
        match taken {
            Ok(opened) => {
                state.counts.bytes_received += frame.len() as u64;
                match via {
                    Via::Udp => state.counts.frames_received_udp += 1,
                    Via::Tcp => state.counts.frames_received_tcp += 1,
                }
                self.dispatch(&mut state, opened, via, now);
                Ok(())
            }
            Err(refusal) => {
                // The sender learns of our restart from the ping.
                if let Refusal::ForEarlierUs(sender) = refusal {
                    self.probe(&mut state, sender);
                }
                if let Refusal::ForLaterUs(generation) = refusal
                    && generation < LATER_GENERATION_MAX
                {
                    state.later_us = state.later_us.max(Some(generation));
                }
                state.refuse(source, refusal, now);
                Err(refusal)
            }
        }
    }

    fn open_frame(
        self: &Arc<Self>,
        state: &mut State,
        frame: &mut [u8],
        via: Via,
        now: Nanos,
    ) -> Result<Opened, Refusal> {
        let opened = open(&state.keyring, self.us(), self.speaks, frame)?;
        let is_new = state.windows.admit(opened.from, opened.sequence, now);
        if opened.from.name == self.name {
            self.meet_namesake(state, &opened, is_new.is_ok(), via, now);
            return Err(Refusal::Namesake);
        }
        match is_new {
            Err(Refusal::OlderGeneration) => self.tell_of_later_life(state, &opened, 0, via, now),
            Err(Refusal::Replayed) => self.meet_again(state, &opened, via, now),
            _ => {}
        }
        is_new.map(|()| opened)
    }

    /// Our id, another life: a recording of our past, or a second node. Only one that lives can
    /// answer a ping.
    fn meet_namesake(self: &Arc<Self>, state: &mut State, opened: &Opened, is_new: bool, via: Via, now: Nanos) {
        if opened.address == self.advertise {
            return;
        }
        if let Some(pong) = Pong::read(&opened.payload).filter(|_| opened.kind == Kind::Pong) {
            if state.peers.answered(opened, &pong, now, self.clock.wall()).is_some() {
                let generation = opened.from.generation;
                state.namesake = Some(Namesake { address: opened.address, generation, heard_at: now });
            }
        } else if opened.kind == Kind::Ping {
            if is_new {
                self.pong(state, opened, via);
            }
            self.probe(state, opened.address);
        }
    }

    fn dispatch(self: &Arc<Self>, state: &mut State, opened: Opened, via: Via, now: Nanos) {
        if opened.to != self.us() {
            // A ping for nobody in particular may have been recorded in our former life. It is worth
            // an answer, and a question of our own to whoever it is from, and nothing else.
            self.pong(state, &opened, via);
            if state.peers.get(opened.address).and_then(|peer| peer.identity) != Some(opened.from) {
                self.probe(state, opened.address);
            }
            return;
        }
        let mut news = state.peers.heard(&opened, now);
        match opened.kind {
            Kind::Ping => {
                if let Some(ping) = Ping::read(&opened.payload) {
                    state.peers.takes(opened.address, ping.takes);
                    self.pong(state, &opened, via);
                }
            }
            Kind::Pong => {
                let pong = Pong::read(&opened.payload);
                let answered = pong.and_then(|pong| state.peers.answered(&opened, &pong, now, self.clock.wall()));
                if let Some((asked, is_news, remark)) = answered {
                    news.extend(is_news.then_some(asked));
                    if let Some(remark) = remark {
                        say(asked, remark);
                    }
                }
            }
            Kind::Gossip => {
                let bytes = opened.payload.len();
                let dropped = lock(&self.inbox).push((opened.address, opened.payload), bytes);
                state.counts.messages_dropped += dropped;
            }
            Kind::Topic(topic) => {
                let (from, bytes) = (opened.from.name.to_string(), opened.payload.len());
                let message = NodeMessage { from, address: opened.address, topic, bytes: opened.payload };
                state.counts.messages_dropped += self.letters.push(message, bytes);
            }
        }
        for address in news {
            if let Some(message) = state.peers.take_waiting(address) {
                self.send_known(state, address, Kind::Gossip, &message);
            }
        }
    }

    /// Sends the pings that are due.
    pub(super) fn probe(self: &Arc<Self>, state: &mut State, to: SocketAddr) {
        let now = self.clock.now();
        let Some(round) = (to != self.advertise).then(|| state.peers.round(to, now)).flatten() else {
            return;
        };
        if let Some(remark) = round.remark {
            say(to, remark);
        }
        let keyring = state.keyring.clone();
        let known = state.peers.get(to).filter(|_| round.unanswered == 0);
        let (whom, key) = match known.and_then(|peer| Some((peer.identity?, &peer.takes))) {
            Some((identity, takes)) => (identity, keyring.sealing_for(takes)),
            // Somebody else may be there by now, behind in a rotation of keys, or ahead of us.
            None => (Identity::ANYONE, keyring.in_turn(round.unanswered as usize)),
        };
        for (via, is_due) in [(Via::Udp, round.udp), (Via::Tcp, round.tcp)] {
            if is_due {
                self.ping(state, to, whom, via, key);
            }
        }
    }

    fn ping(self: &Arc<Self>, state: &mut State, to: SocketAddr, whom: Identity, via: Via, key: &GossipKey) {
        let payload = Ping { takes: state.keyring.key_ids().collect() }.write();
        // Who is not known may speak the oldest version only.
        let known = state.peers.route(to, self.clock.now()).filter(|route| route.to == whom);
        let speaks = known.map_or(VERSION_MIN, |route| route.speaks);
        let letter = self.letter(state, whom, speaks, Kind::Ping, &payload);
        state.peers.pinged(letter.sequence, to, via, self.clock.now(), self.clock.wall());
        self.send_letter(state, to, key, &letter, Some(via));
    }

    /// Tells all known peers which keys are taken now.
    pub(super) fn tell_keys(self: &Arc<Self>, state: &mut State) {
        let keyring = state.keyring.clone();
        for address in state.peers.known() {
            if let Some(route) = state.peers.route(address, self.clock.now()) {
                let via = if route.prefers_tcp { Via::Tcp } else { Via::Udp };
                self.ping(state, address, route.to, via, keyring.sealing_for(&route.takes));
            }
        }
    }

    fn pong(self: &Arc<Self>, state: &mut State, ping: &Opened, via: Via) {
        let wall = self.clock.wall();
        let takes = state.keyring.key_ids().collect();
        let payload = Pong { answers: ping.sequence, received: wall, sent: wall, takes }.write();
        let letter = self.letter(state, ping.from, ping.speaks, Kind::Pong, &payload);
        // Under the key that the ping came with: that one it has.
        let keyring = state.keyring.clone();
        let key = keyring.find(ping.key).unwrap_or_else(|| keyring.sealing());
        self.send_letter(state, ping.address, key, &letter, Some(via));
    }

    pub(super) fn send_known(self: &Arc<Self>, state: &mut State, to: SocketAddr, kind: Kind, payload: &[u8]) {
        let Some(route) = state.peers.route(to, self.clock.now()) else {
            state.counts.frames_dropped += 1;
            return;
        };
        let keyring = state.keyring.clone();
        let letter = self.letter(state, route.to, route.speaks, kind, payload);
        let via = route.prefers_tcp.then_some(Via::Tcp);
        self.send_letter(state, to, keyring.sealing_for(&route.takes), &letter, via);
    }

    fn letter<'p>(&self, state: &mut State, to: Identity, speaks: u8, kind: Kind, payload: &'p [u8]) -> Letter<'p> {
        state.sequence += 1;
        let version = self.speaks.min(speaks).max(VERSION_MIN);
        let queued = if version >= 2 { state.lines.queued() } else { 0 };
        Letter {
            version,
            speaks: self.speaks,
            from: self.us(),
            address: self.advertise,
            to,
            sequence: state.sequence,
            kind,
            queued: u16::try_from(queued).unwrap_or(u16::MAX),
            payload,
        }
    }

    /// Without a way, by its size.
    fn send_letter(
        self: &Arc<Self>,
        state: &mut State,
        to: SocketAddr,
        key: &GossipKey,
        letter: &Letter<'_>,
        via: Option<Via>,
    ) {
        let mut nonce = [0; NONCE_BYTES];
        let frame = getrandom::fill(&mut nonce).ok().and_then(|()| seal(key, letter, nonce));
        let Some(frame) = frame else {
            state.counts.frames_dropped += 1;
            return;
        };
        let is_small = frame.len() <= DATAGRAM_BYTES_MAX;
        if is_small && via != Some(Via::Tcp) {
            match self.datagrams.try_send(&frame, to) {
                Ok(()) => {
                    state.counts.frames_sent_udp += 1;
                    state.counts.bytes_sent += frame.len() as u64;
                }
                // A full socket, or no way there: as good as lost on the way.
                Err(_) => state.counts.frames_dropped += 1,
            }
            return;
        }
        streams::enqueue(self, state, to, frame);
    }
}

async fn receive_datagrams(shared: Arc<Shared>) {
    let mut buffer = vec![0; DATAGRAM_BUFFER_BYTES];
    let mut junk_in_a_row = 0_u32;
    loop {
        let mut received = shared.datagrams.receive(&mut buffer).await;
        let mut turn = 0;
        while let Ok((length, source)) = received {
            let frame = buffer.get_mut(..length).unwrap_or_default();
            let taken = shared.take_datagram(frame, source);
            junk_in_a_row = if taken.is_ok() { 0 } else { junk_in_a_row.saturating_add(1) };
            turn += 1;
            if turn >= DATAGRAMS_A_TURN {
                break;
            }
            received = shared.datagrams.try_receive(&mut buffer);
        }
        match received {
            // Such as an answer that somebody's port is closed. It ends no socket.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                shared.lock().counts.socket_errors += 1;
                tokio::time::sleep(REST).await;
            }
            _ if junk_in_a_row >= JUNK_IN_A_ROW => {
                junk_in_a_row = 0;
                tokio::time::sleep(REST).await;
            }
            _ => tokio::task::yield_now().await,
        }
    }
}

impl Shared {
    fn take_datagram(self: &Arc<Self>, frame: &mut [u8], source: SocketAddr) -> Result<(), Refusal> {
        if frame.len() > DATAGRAM_BYTES_MAX {
            self.refuse(source, Refusal::TooLong);
            return Err(Refusal::TooLong);
        }
        self.take(frame, source, Via::Udp)
    }

    /// Counts what was not even a frame.
    pub(super) fn refuse(&self, source: SocketAddr, refusal: Refusal) {
        self.lock().refuse(source, refusal, self.clock.now());
    }
}

impl State {
    fn refuse(&mut self, source: SocketAddr, refusal: Refusal, now: Nanos) {
        // A restart of this node is no news to anybody.
        if self.refusals.note(source.ip(), refusal, now) && !matches!(refusal, Refusal::ForEarlierUs(_)) {
            tracing::warn!(%source, "gossip refused: {refusal}");
        }
    }
}

fn say(to: SocketAddr, remark: Remark) {
    match remark {
        Remark::Timeout(rounds) => tracing::warn!(
            peer = %to,
            rounds,
            "timeout waiting for response; is the node up, are UDP and TCP of this port open on the way, do gossip keys \
             and cluster_name agree? `deepintshield doctor` tells which"
        ),
        Remark::FailedToBroadcast(messages) => tracing::warn!(
            peer = %to,
            messages,
            "failed to broadcast: neither UDP nor TCP reaches the peer; what changes meanwhile is sent when it is back"
        ),
        Remark::TcpOnly => tracing::warn!(
            peer = %to,
            "UDP does not get through to the peer or back; gossip uses TCP alone; open UDP of this port for less delay"
        ),
        Remark::UdpAgain => tracing::info!(peer = %to, "UDP gets through to the peer again"),
    }
}

fn new_inbox() -> Arc<Inbox> {
    Arc::new(Queue::new(INBOX_MAX, INBOX_BYTES_MAX))
}

/// What a panic elsewhere left behind is whole enough: all of it is counted, or learnt anew.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
