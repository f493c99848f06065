//! What this node believes: its configuration, its providers' addresses, the keys that rest,
//! what was counted, and whether it is ready. Pure: no sockets, no clock, no tasks.
//!
//! One function changes it. The loop applies events here and does what the [`Outcome`] says; a
//! simulator does the same in virtual time.

use crate::addresses::Addresses;
use crate::compile::{Compiled, TableSecret};
use crate::discovery::SourceName;
use crate::event::Event;
use crate::failover::{Changed, Failover, ProviderNote};
use crate::gossip::values::{NodeValues, ToldRow};
use crate::learned::Learned;
use crate::member::View;
use crate::metrics::Totals;
use crate::overload::Overload;
use membership::{Count, Membership};
use shared::clock::Nanos;
use shared::published::{Live, Readiness, RestingKey};
use shared::snapshot::SnapshotRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

mod membership;
mod source_sight;

pub use membership::{Change, NodeName};
pub use source_sight::SourceSight;

/// See the module.
#[derive(Default)]
pub struct ClusterState {
    configuration: Option<Configuration>,
    addresses: Addresses,
    failover: Failover,
    learned: Learned,
    overload: Overload,
    /// Time of the newest event.
    now: Nanos,
    totals: Totals,
    /// What every discovery source sees, by its name.
    discovered: BTreeMap<SourceName, SourceSight>,
    /// What gossip says of the others.
    view: View,
    membership: Membership,
    /// How far the newest change came, until the node is ready.
    newest: Newest,
    /// Was ready once. A node that serves does not become unready because a new configuration
    /// names a provider that is still being looked up.
    was_ready: bool,
    /// What else has to be there before it is ready for the first time.
    held_up_by: Option<&'static str>,
    is_draining: bool,
    /// What a start waits for, besides what is here.
    waits_for: Option<String>,
    /// Readiness as the outcomes so far announced it.
    announced: Option<Readiness>,
}

/// Where the newest change to the snapshot is. Every core takes a snapshot at its own tick, and a
/// node that calls itself ready on one core must not turn a request away on another: a tick of the
/// control loop is several of theirs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Newest {
    /// With the control loop.
    #[default]
    Unpublished,
    /// On its way to the cores.
    Published,
    /// With the cores.
    Taken,
}

/// What is to be published, without what changes by itself.
struct Configuration {
    record: SnapshotRecord,
    secrets: Arc<[TableSecret]>,
}

/// What an event asks for. Everything is collected and done at the loop's next step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A new snapshot has to go to the cores.
    pub publish: bool,
    /// It holds more than other addresses: it is worth writing to disk at once.
    pub is_new_configuration: bool,
    /// The live state changed.
    pub publish_live: bool,
    /// What the others use of the limits, or what providers leave of them, may have changed.
    pub entitle: bool,
    /// The resolver has to follow exactly these hosts.
    pub follow_hosts: Option<BTreeSet<String>>,
    /// Gossip has to be tried with exactly these addresses, besides the members it knows.
    pub follow_peers: Option<BTreeSet<SocketAddr>>,
    /// Another live node has this id of ours: this one has to end.
    pub duplicate_node: Option<String>,
    /// What an operator should read.
    pub notes: Vec<Note>,
}

/// A sentence for the log, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A provider's name has other addresses than before.
    AddressesChanged {
        /// Name as the configuration has it.
        host: String,
        /// How many there are now.
        addresses: usize,
    },
    /// A provider's name could not be resolved; said at the first, second, fourth … failure.
    Unresolved {
        /// Name as the configuration has it.
        host: String,
        /// Why.
        reason: String,
        /// Addresses that stay in use; with 0 its requests are answered with 503.
        kept: usize,
        /// Failures in a row.
        failures: u32,
    },
    /// A provider's name is resolved after look-ups that failed.
    ResolvedAgain {
        /// Name as the configuration has it.
        host: String,
        /// Failures in a row before this answer.
        failures: u32,
    },
    /// A key was refused or limited by its provider and is left alone for a while.
    KeyRests(RestingKey),
    /// Something happened in the cluster.
    Cluster(Change),
    /// A provider is asked after the others, or as before again.
    Provider(ProviderNote),
    /// The node became ready, or is not ready for another reason than before.
    Readiness(Readiness),
}

impl ClusterState {
    /// A node that knows addresses from before, and nothing else.
    pub fn new(addresses: Addresses) -> Self {
        Self { addresses, ..Self::default() }
    }

    /// With other thresholds of overload than the usual ones.
    #[must_use]
    pub fn with_overload(self, overload: Overload) -> Self {
        Self { overload, ..self }
    }

    /// Changes the state; says what follows from it.
    pub fn apply(&mut self, event: Event, now: Nanos) -> Outcome {
        let mut outcome = Outcome::default();
        self.now = now;
        match event {
            Event::Configured(compiled) => self.configure(*compiled, &mut outcome),
            Event::Resolved { host, addresses } => {
                let count = addresses.len();
                let failures = self.addresses.failures(&host);
                if count > 0 && failures > 0 {
                    outcome.notes.push(Note::ResolvedAgain { host: host.clone(), failures });
                }
                if self.addresses.follows(&host) && self.addresses.resolved(&host, addresses) {
                    outcome.publish = self.configuration.is_some();
                    outcome.notes.push(Note::AddressesChanged { host, addresses: count });
                }
            }
            Event::ResolveFailed { host, reason } => {
                if let Some(kept) = self.addresses.failed(&host)
                    && kept.failures.is_power_of_two()
                {
                    let (kept, failures) = (kept.addresses, kept.failures);
                    outcome.notes.push(Note::Unresolved { host, reason, kept, failures });
                }
            }
            Event::Discovered { source, peers } => {
                self.discovered.entry(source).or_default().saw(peers);
                outcome.follow_peers = Some(self.discovered.values().flat_map(|sight| &sight.peers).copied().collect());
            }
            Event::DiscoveryFailed { source, failure } => {
                self.discovered.entry(source).or_default().failed(failure, now);
            }
            Event::Gossiped(view) => {
                let tried = self.discovered.values().map(|sight| sight.peers.len()).sum();
                outcome.notes.extend(self.membership.compare(&self.view, &view, tried, now));
                self.failover.hear(&view, now);
                self.learned.hear(&view, now);
                self.view = *view;
                outcome.publish_live = true;
                outcome.entitle = true;
            }
            Event::DuplicateNode { id, .. } => outcome.duplicate_node = Some(id),
            Event::Report(report) => {
                self.totals.add(&report);
                report.told.iter().for_each(|told| self.learned.take(told, now));
                let changed = self.failover.report(&report, now);
                follow(changed, &mut outcome);
            }
            Event::Waiting(reason) => self.waits_for = reason,
            Event::Drain => self.is_draining = true,
            Event::Tick => {
                if self.newest == Newest::Published {
                    self.newest = Newest::Taken;
                }
                let changed = self.failover.tick(now);
                follow(changed, &mut outcome);
            }
        }
        if outcome.publish {
            self.newest = Newest::Unpublished;
        }
        self.announce(&mut outcome);
        outcome
    }

    /// This node looked at itself, as it does once a second.
    pub fn looked(&mut self, own: &NodeValues, now: Nanos) -> Outcome {
        let mut outcome = Outcome::default();
        self.now = now;
        outcome.publish_live |= self.overload.look(&own.load);
        let changed = self.failover.look(own, &self.totals, &self.view, now);
        follow(changed, &mut outcome);
        self.announce(&mut outcome);
        outcome
    }

    /// Compares what providers said of their limits with what was used: of this node, by a limit's
    /// index and id.
    pub fn compare_limits(&mut self, used: impl Fn(usize, &str) -> Option<u64>, now: Nanos) -> Outcome {
        Outcome { entitle: self.learned.compare(used, now), ..Outcome::default() }
    }

    /// What follows from what providers say of their limits.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// What this node's cores were told of limits, for the others; see [`Learned::published`].
    pub fn told(&mut self, first_number: u64, now: Nanos) -> Vec<ToldRow> {
        self.learned.published(first_number, now)
    }

    /// Whether this node has more to do than it can.
    pub fn overload(&self) -> &Overload {
        &self.overload
    }

    /// Notes that the newest snapshot has gone to the cores.
    pub fn published(&mut self) -> Outcome {
        self.newest = Newest::Published;
        let mut outcome = Outcome::default();
        self.announce(&mut outcome);
        outcome
    }

    /// The current configuration with the current addresses; `None` before the first.
    pub fn record(&self, epoch: u64) -> Option<(SnapshotRecord, Arc<[TableSecret]>)> {
        let configuration = self.configuration.as_ref()?;
        let mut record = configuration.record.clone();
        record.epoch = epoch;
        self.addresses.fill(&mut record);
        Some((record, Arc::clone(&configuration.secrets)))
    }

    /// What changes often, for the cores. Resting keys that are over may still be in it.
    pub fn live(&self) -> Live {
        let Count { members, healthy, is_healthy } = Count::of(&self.view);
        let mut live = Live {
            readiness: self.readiness(),
            members,
            healthy_members: healthy,
            is_cluster_healthy: is_healthy,
            shed_permille: self.overload.shed_permille(),
            ..Live::default()
        };
        self.failover.fill(&mut live, self.now);
        live
    }

    /// Is this node to be sent traffic?
    pub fn readiness(&self) -> Readiness {
        if self.is_draining {
            return Readiness::Draining;
        }
        if self.was_ready {
            return match self.overload.reason() {
                Some(reason) => Readiness::Overloaded(reason.to_owned()),
                None => Readiness::Ready,
            };
        }
        if let Some(reason) = &self.waits_for {
            return Readiness::Starting(reason.clone());
        }
        if self.configuration.is_none() {
            return Readiness::Starting("no configuration yet".to_owned());
        }
        if let Some(host) = self.addresses.first_untried() {
            return Readiness::Starting(format!("the address of {host} is being looked up"));
        }
        match self.newest {
            Newest::Unpublished | Newest::Published => {
                Readiness::Starting("the first snapshot is being published".to_owned())
            }
            Newest::Taken => match self.held_up_by {
                Some(reason) => Readiness::Starting(reason.to_owned()),
                None => Readiness::Ready,
            },
        }
    }

    /// What a node that was not ready yet has to wait for, besides its own snapshot; `None`: nothing.
    pub fn hold_up(&mut self, reason: Option<&'static str>) {
        self.held_up_by = reason;
    }

    /// Whether every provider's name was resolved, or given up on, at least once.
    pub fn are_hosts_tried(&self) -> bool {
        self.addresses.first_untried().is_none()
    }

    /// `deepintshield-ID-PORT`; empty before the first configuration.
    pub fn local_node(&self) -> &str {
        self.configuration.as_ref().map_or("", |configuration| &configuration.record.local_node)
    }

    /// Region label of this node; empty before the first configuration.
    pub fn region(&self) -> &str {
        self.configuration.as_ref().map_or("", |configuration| &configuration.record.region)
    }

    /// Everything counted since the start.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Keys that rest because of what this node itself was answered. Some may be over.
    pub fn own_rests(&self) -> impl Iterator<Item = &RestingKey> {
        self.failover.own_rests()
    }

    /// What every discovery source sees, by its name.
    pub fn discovered(&self) -> impl Iterator<Item = (SourceName, &SourceSight)> {
        self.discovered.iter().map(|(source, sight)| (*source, sight))
    }

    /// What gossip says of the others.
    pub fn view(&self) -> &View {
        &self.view
    }

    fn configure(&mut self, compiled: Compiled, outcome: &mut Outcome) {
        self.addresses.follow(&compiled.record.providers);
        self.failover.configure(&compiled.record);
        self.learned.configure(&compiled.record);
        self.configuration = Some(Configuration { record: compiled.record, secrets: compiled.secrets.into() });
        outcome.publish = true;
        outcome.is_new_configuration = true;
        outcome.follow_hosts = Some(self.addresses.hosts());
    }

    fn announce(&mut self, outcome: &mut Outcome) {
        let readiness = self.readiness();
        self.was_ready |= readiness == Readiness::Ready;
        if self.announced.as_ref() != Some(&readiness) {
            self.announced = Some(readiness.clone());
            outcome.notes.push(Note::Readiness(readiness));
            outcome.publish_live = true;
        }
    }
}

fn follow(changed: Changed, outcome: &mut Outcome) {
    outcome.publish_live |= changed.is_live;
    outcome.notes.extend(changed.resting.into_iter().map(Note::KeyRests));
    outcome.notes.extend(changed.providers.into_iter().map(Note::Provider));
}

#[cfg(test)]
mod tests;
