//! One life of gossip: chitchat under our wire, looked at in every round. What it shows goes to the
//! health machine, and as a view to the control loop.

use super::Desired;
use super::health::{HealthMachine, Sight, Thresholds};
use super::port::lock;
use super::reader::{LEAVING_KEY, Reader, Sighting};
use super::seeds::Seeds;
use super::sieve::Sieve;
use super::twin::{Twins, Verdict};
use super::wire::{Namesake, Wire};
use crate::event::Event;
use crate::member::{Health, Member, View};
use chitchat::{Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use shared::clock::{Clock, Nanos};
use shared::config::model::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// Time that a dead node stays known: long enough for a restart, short enough that digests stay
/// small where nodes come and go under new ids.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(10 * 60);
/// Time between two probes of one member.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Probes in one round.
const PROBES_PER_ROUND_MAX: usize = 32;
/// Other addresses under our id that are probed, in every round.
const TWINS_PROBED_MAX: usize = 4;
/// A view goes to the control loop this often, though it says the same.
pub(crate) const VIEW_INTERVAL: Duration = Duration::from_secs(1);
/// A later life of ours that others speak of is started above when it has been known for this long:
/// a second node would have answered a ping by then.
const LATER_LIFE_SETTLES: Duration = Duration::from_secs(1);
/// A second node that was heard this recently is still there.
const NAMESAKE_MEMORY: Duration = Duration::from_millis(2_500);
/// chitchat is given up when its own heartbeat stands still for this long.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Members that hear at once of a value that changed; the others do in the next rounds.
const TOLD_AT_ONCE: usize = 3;

/// What stays the same through all lives.
pub(super) struct Rules {
    pub(super) id: NodeId,
    pub(super) cluster_name: String,
    pub(super) advertise: SocketAddr,
    pub(super) interval: Duration,
    pub(super) thresholds: Thresholds,
}

/// How a life ended.
pub(super) enum End {
    /// As it was told to.
    Stopped,
    /// By a fault.
    Failed(String),
    /// The others know a later generation of ours.
    Outdated { generation: u64 },
    /// Another live node has our id.
    Duplicate { generation: u64, address: SocketAddr },
}

/// See the module.
pub(super) struct Life {
    rules: Arc<Rules>,
    generation: u64,
    wire: Wire,
    time: Time,
    wanted: watch::Receiver<Desired>,
    events: mpsc::Sender<Event>,
    restarts: u64,
    health: HealthMachine,
    seeds: Seeds,
    twins: Twins,
    /// Since when others have spoken of a later life of ours.
    later_since: Option<Nanos>,
    reader: Reader,
    sieve: Arc<Mutex<Sieve>>,
    said_crowded: bool,
    /// What the newest view says, without what changes all the time.
    shown: Vec<Shown>,
    shown_doubt: bool,
    shown_at: Option<Nanos>,
    /// Healthy members' addresses.
    live: BTreeSet<SocketAddr>,
    /// Where other starts under our id were.
    twin_addresses: BTreeSet<SocketAddr>,
    /// Last member that was probed.
    probed: Option<String>,
    told: Option<SocketAddr>,
    heartbeat: u64,
    heartbeat_at: Nanos,
}

/// What makes one view another one than before.
#[derive(PartialEq)]
struct Shown {
    id: String,
    address: SocketAddr,
    standing: (u64, Health),
    version: u64,
}

impl Life {
    pub(super) fn new(
        rules: Arc<Rules>,
        generation: u64,
        wire: Wire,
        clock: Clock,
        wanted: watch::Receiver<Desired>,
        events: mpsc::Sender<Event>,
        restarts: u64,
    ) -> Self {
        let time = Time::new(clock);
        Self {
            health: HealthMachine::new(rules.thresholds),
            generation,
            wire,
            wanted,
            events,
            restarts,
            seeds: Seeds::default(),
            twins: Twins::default(),
            later_since: None,
            reader: Reader::default(),
            sieve: Arc::new(Mutex::new(Sieve::new(chitchat_id(&rules, generation), rules.cluster_name.clone()))),
            said_crowded: false,
            shown: Vec::new(),
            shown_doubt: false,
            shown_at: None,
            live: BTreeSet::new(),
            twin_addresses: BTreeSet::new(),
            probed: None,
            told: None,
            heartbeat: 0,
            heartbeat_at: time.now(),
            time,
            rules,
        }
    }

    /// Runs until something of [`End`] happens.
    pub(super) async fn run(mut self) -> End {
        let transport = self.wire.transport(Arc::clone(&self.sieve));
        let chitchat = match spawn_chitchat(self.chitchat_config(), Vec::new(), &transport).await {
            Ok(chitchat) => chitchat,
            Err(error) => return End::Failed(error.to_string()),
        };
        let end = self.follow(&chitchat).await;
        if matches!(end, End::Stopped) {
            // Its own error would be about sockets that are closed next.
            let _ = chitchat.shutdown().await;
        } else {
            chitchat.abort();
        }
        end
    }

    /// The loop of a life: values that changed here, values that changed elsewhere, rounds.
    async fn follow(&mut self, chitchat: &ChitchatHandle) -> End {
        let mut ended = std::pin::pin!(chitchat.termination_watcher());
        let news = Arc::new(Notify::new());
        let told = Arc::clone(&news);
        let _listener = chitchat
            .with_chitchat(|chitchat| {
                chitchat.subscribe_event("", {
                    let told = Arc::clone(&told);
                    move |_| told.notify_one()
                })
            })
            .await;
        let mut rounds = tokio::time::interval(self.rules.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.wanted.mark_changed();
        loop {
            tokio::select! {
                ended = &mut ended => {
                    return End::Failed(ended.err().map_or_else(|| "it stopped".to_owned(), |error| error.to_string()));
                }
                changed = self.wanted.changed() => {
                    if changed.is_err() || self.wanted.borrow().is_stopping {
                        return End::Stopped;
                    }
                    self.take_wishes(chitchat).await;
                }
                () = news.notified() => {
                    // Soon enough by the next round where a view was shown just now.
                    let is_early = self.shown_at.is_some_and(|at| self.time.now().since(at) < self.rules.interval);
                    if !is_early && let Some(end) = self.look(chitchat).await {
                        return end;
                    }
                }
                _ = rounds.tick() => {
                    if let Some(end) = self.look(chitchat).await {
                        return end;
                    }
                    self.reach_out(chitchat);
                }
            }
        }
    }

    fn chitchat_config(&self) -> ChitchatConfig {
        ChitchatConfig {
            chitchat_id: chitchat_id(&self.rules, self.generation),
            cluster_id: self.rules.cluster_name.clone(),
            gossip_interval: self.rules.interval,
            // The wire has its port already.
            listen_addr: self.rules.advertise,
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                initial_interval: self.rules.interval * 2,
                dead_node_grace_period: DEAD_NODE_GRACE,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: DEAD_NODE_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        }
    }

    /// Publishes what is wanted now, and tells some members at once.
    async fn take_wishes(&mut self, chitchat: &ChitchatHandle) {
        let Desired { values, peers, is_leaving, .. } = self.wanted.borrow_and_update().clone();
        self.seeds.follow(&peers);
        let has_changed = chitchat.with_chitchat(|chitchat| publish(chitchat, &values, is_leaving)).await;
        if has_changed {
            let after = self.told.into_iter().flat_map(|told| self.live.range(told..).skip(1));
            let from_start = self.live.iter();
            let told: Vec<_> = after.chain(from_start).copied().take(TOLD_AT_ONCE.min(self.live.len())).collect();
            self.told = told.last().copied();
            for address in told {
                // It fails only where chitchat has ended, which the loop sees next.
                let _ = chitchat.gossip(address);
            }
        }
    }

    /// Looks at what chitchat knows; shows a new view where there is one.
    async fn look(&mut self, chitchat: &ChitchatHandle) -> Option<End> {
        let (reader, sieve) = (&mut self.reader, &self.sieve);
        let sighting = chitchat.with_chitchat(|chitchat| {
            lock(sieve).follow(chitchat.node_states());
            reader.read(chitchat)
        });
        let sighting = sighting.await;
        let now = self.time.now();
        if sighting.own_heartbeat != self.heartbeat {
            (self.heartbeat, self.heartbeat_at) = (sighting.own_heartbeat, now);
        }
        if now.since(self.heartbeat_at) > STUCK_AFTER.max(self.rules.interval * 5) {
            return Some(End::Failed("its own heartbeat stands still".to_owned()));
        }
        let elsewhere =
            sighting.twins.iter().map(|twin| twin.address).filter(|address| *address != self.rules.advertise);
        self.twin_addresses = elsewhere.take(TWINS_PROBED_MAX).collect();
        if let Some(end) = self.look_for_twins(&sighting, now) {
            return Some(end);
        }
        let sights = sighting.others.iter().map(|(id, seen)| Sight {
            id,
            generation: seen.generation,
            pulse: seen.pulse,
            heard_directly_at: self.heard_directly(id, seen.address),
            is_leaving: seen.is_leaving,
        });
        let sights: Vec<_> = sights.collect();
        self.health.look(sights, now);
        self.show(&sighting, now);
        None
    }

    fn look_for_twins(&mut self, sighting: &Sighting, now: Nanos) -> Option<End> {
        let others = sighting.twins.iter().map(|twin| ((twin.generation, twin.address), twin.pulse));
        let mut verdict = self.twins.look(self.generation, others, now);
        let namesake = self.wire.namesake();
        if let Some(Namesake { address, generation, heard_at }) = namesake
            && let answered @ Verdict::Duplicate { .. } =
                self.twins.answered(self.wire.generation(), (generation, address), heard_at)
        {
            verdict = answered;
        }
        if let Verdict::Duplicate { generation, address } = verdict {
            return Some(End::Duplicate { generation, address });
        }
        // Two that live would start above each other again and again, and forget each time how long
        // they have known of each other. One of them runs out of patience and goes.
        if namesake.is_some_and(|namesake| now.since(namesake.heard_at) < NAMESAKE_MEMORY) {
            self.later_since = None;
            return None;
        }
        if let Verdict::Outdated { generation } = verdict {
            return Some(End::Outdated { generation });
        }
        let Some(generation) = self.wire.later_life() else {
            self.later_since = None;
            return None;
        };
        let since = *self.later_since.get_or_insert(now);
        (now.since(since) >= LATER_LIFE_SETTLES).then_some(End::Outdated { generation })
    }

    /// When a frame of the node itself came last.
    fn heard_directly(&self, id: &str, address: SocketAddr) -> Option<Nanos> {
        let facts = self.wire.peer(address);
        facts.last_heard.filter(|_| facts.id.as_deref() == Some(id))
    }

    fn show(&mut self, sighting: &Sighting, now: Nanos) {
        let standings: BTreeMap<_, _> = self.health.nodes().map(|(id, standing)| (id.to_owned(), standing)).collect();
        let known = || standings.iter().filter_map(|(id, standing)| Some((id, standing, sighting.others.get(id)?)));
        self.live = known()
            .filter(|(_, standing, _)| standing.health == Health::Healthy)
            .map(|(_, _, seen)| seen.address)
            .collect();
        let shown = known().map(|(id, standing, seen)| Shown {
            id: id.clone(),
            address: seen.address,
            standing: (standing.generation, standing.health),
            version: seen.version,
        });
        let shown: Vec<_> = shown.collect();
        let doubts_itself = self.health.doubts_itself();
        let is_same = self.shown == shown && self.shown_doubt == doubts_itself;
        if is_same && self.shown_at.is_some_and(|at| now.since(at) < VIEW_INTERVAL) {
            return;
        }
        let members = known().map(|(id, standing, seen)| {
            let facts = self.wire.peer(seen.address);
            Member {
                id: id.clone(),
                generation: standing.generation,
                address: seen.address,
                health: standing.health,
                values: self.reader.values(id),
                heard_at: standing.heard_at,
                round_trip: facts.round_trip,
                clock_offset_ms: facts.clock_offset_ms,
                is_tcp_only: facts.is_tcp_only,
                speaks_our_key: facts.speaks_our_key,
            }
        });
        let mut counters = self.wire.counters();
        counters.push(("gossip_restarts", self.restarts));
        let left_out = lock(&self.sieve).left_out();
        counters.push(("gossip_nodes_with_invalid_ids", left_out.invalid_nodes));
        counters.push(("gossip_nodes_without_room", left_out.crowded_nodes));
        counters.push(("gossip_values_without_room", left_out.values));
        counters.push(("gossip_deltas_cut", left_out.cut_deltas));
        if left_out.crowded_nodes > 0 && !std::mem::replace(&mut self.said_crowded, true) {
            tracing::error!(
                nodes = sighting.others.len(),
                "gossip has no room for more nodes, and leaves out those that come now; it keeps one that is gone for \
                 ten minutes. Does something start nodes under ever new ids?"
            );
        }
        let view = View { members: members.collect(), doubts_itself, digest_bytes: sighting.digest_bytes, counters };
        // A full queue means a busy loop; the next round shows the newest view again.
        if self.events.try_send(Event::Gossiped(Box::new(view))).is_ok() {
            (self.shown, self.shown_doubt, self.shown_at) = (shown, doubts_itself, Some(now));
        }
    }

    /// Tries addresses where no member is known, and probes members, all of them about once in
    /// [`PROBE_INTERVAL`].
    fn reach_out(&mut self, chitchat: &ChitchatHandle) {
        let now = self.time.now();
        for address in self.seeds.due(&self.live, now).into_iter().filter(|address| *address != self.rules.advertise) {
            // It fails only where chitchat has ended, which the loop sees next.
            let _ = chitchat.gossip(address);
        }
        let rounds = (PROBE_INTERVAL.as_millis() / self.rules.interval.as_millis().max(1)).max(1) as usize;
        let probes = self.shown.len().div_ceil(rounds).min(PROBES_PER_ROUND_MAX);
        let start = self.shown.partition_point(|shown| self.probed.as_ref().is_some_and(|probed| shown.id <= *probed));
        let (before, after) = self.shown.split_at(start);
        let mut last = None;
        for shown in after.iter().chain(before).take(probes) {
            self.wire.probe(shown.address);
            last = Some(shown.id.clone());
        }
        self.probed = last;
        // Only somebody who lives can answer.
        self.twin_addresses.iter().for_each(|address| self.wire.probe(*address));
    }
}

fn chitchat_id(rules: &Rules, generation: u64) -> ChitchatId {
    ChitchatId::new(rules.id.as_str(), generation, rules.advertise)
}

/// Makes our own values those that are wanted; says whether that changed any.
fn publish(chitchat: &mut Chitchat, values: &BTreeMap<String, String>, is_leaving: bool) -> bool {
    let state = chitchat.self_node_state();
    let before = state.max_version();
    let gone: Vec<String> = state
        .key_values()
        .map(|(key, _)| key)
        .filter(|key| !values.contains_key(*key) && *key != LEAVING_KEY)
        .map(str::to_owned)
        .collect();
    for key in &gone {
        state.delete(key);
    }
    for (key, text) in values {
        state.set(key, text);
    }
    if is_leaving {
        state.set(LEAVING_KEY, "1");
    }
    state.max_version() != before
}

/// The node's clock as the runtime's timers keep it, so that a simulator's time is the one that
/// counts.
#[derive(Clone, Copy)]
struct Time {
    origin: Instant,
    origin_nanos: Nanos,
}

impl Time {
    fn new(clock: Clock) -> Self {
        Self { origin: Instant::now(), origin_nanos: clock.now() }
    }

    fn now(&self) -> Nanos {
        self.origin_nanos.after(self.origin.elapsed())
    }
}
