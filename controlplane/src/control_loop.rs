//! THE loop of the control thread: every event, question, signal and tick of the node passes
//! through [`ControlLoop::run`], one at a time.
//!
//! It decides nothing itself: [`ClusterState::apply`] does, and the loop carries out what the
//! outcome asks for. Outcomes are collected and carried out at the next tick, since a snapshot
//! costs O(state).

mod adoption;
mod answers;
mod ending;
mod reload;

use crate::admin::Question;
use crate::admin::accounts::Accounts;
use crate::admin::status::state_of;
use crate::cluster::{ClusterPart, PROTOCOL};
use crate::collect::{Collector, Own};
use crate::compile::NodeFacts;
use crate::drain::{Drain, Finished};
use crate::entitlements::Others;
use crate::event::Event;
use crate::foretold::foretold;
use crate::gossip::values::{About, ConfigurationMark};
use crate::keep::Keeper;
use crate::last_good::Content;
use crate::listener_identity::IdentityWatch;
use crate::live::engine::Told as FromEngine;
use crate::live::file_watch::FileWatch;
use crate::live::part::{self, LivePart, mark_of};
use crate::log_lines::log;
use crate::publish::{PublishError, Publisher, Sharing};
use crate::resolver::Resolver;
use crate::shared_limits::{Messages, SharedLimits, TOPIC};
use crate::signals::{Signals, Told};
use crate::start::ConfigSource;
use crate::state::{ClusterState, Outcome};
use crate::watch::{Verdict, Watch};
pub(crate) use adoption::Adoption;
use reload::{ReadAgain, read_again};
use shared::bounds::REPORTS_IN_FLIGHT_MAX;
use shared::clock::{Clock, Nanos};
use shared::config::model::Server;
use shared::phase::{Phase, SharedPhase};
use shared::ring::ReportReceiver;
use shared::secret::Secret;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// How often reports are taken in and outcomes carried out. A change waits half of it on average.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// How often the listener's certificate files are looked at.
const IDENTITY_INTERVAL: Duration = Duration::from_secs(10);

/// What the loop owns.
pub(crate) struct ControlLoop {
    pub(crate) clock: Clock,
    pub(crate) started_at: Duration,
    pub(crate) version: &'static str,
    pub(crate) config: ConfigSource,
    pub(crate) server: Server,
    pub(crate) facts: Arc<NodeFacts>,
    pub(crate) phase: SharedPhase,
    pub(crate) state: ClusterState,
    pub(crate) publisher: Publisher,
    pub(crate) resolver: Resolver,
    pub(crate) keeper: Keeper,
    pub(crate) identity: IdentityWatch,
    /// Who is let in at the admin listener.
    pub(crate) accounts: watch::Sender<Arc<Accounts>>,
    pub(crate) reports: ReportReceiver,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) questions: mpsc::Receiver<Question>,
    /// Epoch of the newest snapshot; with 0 there is none.
    pub(crate) epoch: u64,
    /// Outcomes that were not carried out yet.
    pub(crate) pending: Outcome,
    pub(crate) drain: Option<Drain>,
    /// `None`: to be looked at now.
    pub(crate) identity_looked_at: Option<Nanos>,
    /// The configuration is being read again. One at a time: two that overtake each other would
    /// leave the older text in force.
    pub(crate) reading: Option<JoinHandle<Option<ReadAgain>>>,
    /// Told to read it while it was being read.
    pub(crate) must_read_again: bool,
    pub(crate) watch: Watch,
    /// The configuration as it changes while the node runs.
    pub(crate) live: LivePart,
    pub(crate) file_watch: FileWatch,
    pub(crate) adoption: Adoption,
    /// What this node tells of itself.
    pub(crate) collector: Collector,
    /// Which configuration is published.
    pub(crate) configuration: ConfigurationMark,
    pub(crate) cluster: ClusterPart,
    /// Limits that the nodes hold parts of; `None`: this node should be alone.
    pub(crate) shared_limits: Option<SharedLimits>,
    /// `cluster_config` of the newest configuration, for the last good snapshot.
    pub(crate) cluster_text: Option<Secret>,
    /// Of the newest configuration; empty where its text is not known.
    pub(crate) configuration_hash: String,
    /// Another live node has this node's id.
    pub(crate) is_duplicate: bool,
}

impl ControlLoop {
    /// Runs until the node has drained, or is told to stop at once.
    pub(crate) async fn run(mut self) -> Result<Finished, std::io::Error> {
        let mut signals = Signals::new()?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first would come at once; the cores need a moment for the first snapshot.
        ticks.reset();
        loop {
            tokio::select! {
                // Told by the operating system to finish, or to read the configuration again.
                told = signals.next() => match told {
                    Told::Finish if self.drain.is_some() => {
                        tracing::warn!("stopping at once, as a second signal asks");
                        return Ok(self.stop(Finished::AtOnce).await);
                    }
                    Told::Finish => self.begin_drain(),
                    Told::Reload => self.reload(),
                },
                // From the resolver, which lives as long as the loop.
                Some(event) = self.events.recv() => {
                    let is_view = matches!(event, Event::Gossiped(_));
                    self.apply(event);
                    if is_view {
                        self.live.look(self.state.view());
                    }
                }
                // The configuration, read again.
                read_again = read(&mut self.reading) => self.take_configuration(read_again),
                // From the admin listener.
                Some(question) = self.questions.recv() => self.answer(question),
                // What the configuration is to be.
                told = self.live.told() => self.take_told(told),
                // The configuration file has changed.
                () = self.file_watch.changed() => self.reload(),
                // Of other nodes, about revisions and limits.
                message = self.cluster.receive() => {
                    if message.topic == part::TOPIC {
                        self.live.heard(message);
                    } else if let Some(limits) = &mut self.shared_limits {
                        limits.heard(message);
                    }
                }
                // What this node has of the limits is on disk.
                messages = due(&mut self.shared_limits, self.clock) => self.cluster.send(TOPIC, messages),
                // What was spent is on disk.
                () = self.publisher.spent_written() => {}
                // Reports come through a ring that wakes nobody.
                _ = ticks.tick() => {
                    if let Some(finished) = self.tick().await {
                        return Ok(self.stop(finished).await);
                    }
                }
            }
        }
    }

    /// Changes the state and remembers what follows.
    pub(crate) fn apply(&mut self, event: Event) {
        let outcome = self.state.apply(event, self.clock.now());
        self.remember(outcome);
    }

    fn remember(&mut self, outcome: Outcome) {
        let Outcome {
            publish,
            is_new_configuration,
            publish_live,
            entitle,
            follow_hosts,
            follow_peers,
            duplicate_node,
            notes,
        } = outcome;
        self.is_duplicate |= duplicate_node.is_some();
        self.pending.publish |= publish;
        self.pending.is_new_configuration |= is_new_configuration;
        self.pending.publish_live |= publish_live;
        self.pending.entitle |= entitle;
        if follow_hosts.is_some() {
            self.pending.follow_hosts = follow_hosts;
        }
        if follow_peers.is_some() {
            self.pending.follow_peers = follow_peers;
        }
        for note in &notes {
            log(note, self.clock.now());
        }
    }

    async fn tick(&mut self) -> Option<Finished> {
        self.take_reports();
        if let Some(core) = self.look_at_cores() {
            return Some(Finished::Stuck { core });
        }
        let now = self.clock.now();
        self.state.hold_up(self.shared_limits.as_ref().and_then(|limits| limits.holds_up(now)));
        self.apply(Event::Tick);
        self.look_at_adoption();
        self.compare_limits();
        self.look_at_identity();
        self.carry_out();
        let limits = self.shared_limits.as_ref();
        self.publisher.look_at_spent(&|key| limits?.escrow().handed_over(key), self.clock.now());
        self.tell_others();
        self.keep().await;
        if self.is_duplicate {
            return Some(Finished::DuplicateNode);
        }
        match self.phase.get() {
            // Somebody else in the process asked for it.
            Phase::Draining if self.drain.is_none() => self.begin_drain(),
            Phase::Running | Phase::Draining => {}
            Phase::Stopped => return Some(Finished::AtOnce),
        }
        self.drain.as_ref()?.finished(self.clock.now(), self.state.totals())
    }

    /// At most what the ring holds, so that busy cores cannot keep the loop here.
    fn take_reports(&mut self) {
        for _ in 0..REPORTS_IN_FLIGHT_MAX {
            let Some(report) = self.reports.receive() else { return };
            self.watch.heard(report.core, self.clock.now());
            self.apply(Event::Report(Box::new(report)));
        }
    }

    /// What providers told of their limits is worth what it says beside our own count.
    fn compare_limits(&mut self) {
        let now = self.clock.now();
        let outcome = self.state.compare_limits(|index, id| self.publisher.used(index, id, now), now);
        self.remember(outcome);
    }

    /// The core that has to be given up, if there is one.
    fn look_at_cores(&mut self) -> Option<u32> {
        for verdict in self.watch.look(self.clock.now()) {
            match verdict {
                Verdict::Silent(core) => {
                    tracing::error!(core, "this core is stuck: it has reported nothing for two seconds");
                }
                Verdict::Back(core) => tracing::warn!(core, "this core goes on"),
                Verdict::Lost(core) => {
                    tracing::error!(core, "this core is lost; the process ends so that it can be started anew");
                    return Some(core);
                }
            }
        }
        None
    }

    /// Does what the outcomes since the last time ask for.
    pub(crate) fn carry_out(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if let Some(hosts) = &pending.follow_hosts {
            self.resolver.follow(hosts);
        }
        if let Some(peers) = pending.follow_peers {
            self.cluster.follow(peers);
        }
        if pending.entitle {
            self.entitle();
        }
        let mut publish_live = pending.publish_live;
        if pending.publish {
            match self.publish(pending.is_new_configuration) {
                Ok(()) => {
                    let outcome = self.state.published();
                    publish_live |= outcome.publish_live;
                    outcome.notes.iter().for_each(|note| log(note, self.clock.now()));
                }
                Err(error) => {
                    tracing::error!(%error, "a new snapshot was not published; the cores keep the one they have");
                }
            }
        }
        if publish_live {
            self.publisher.publish_live(self.state.live());
        }
    }

    /// What this node may use of every limit, after others or providers have said something.
    fn entitle(&mut self) {
        let now = self.clock.now();
        let is_known = match &mut self.shared_limits {
            Some(limits) => limits.look(self.state.view(), now),
            None => false,
        };
        let others = self.cluster.others(self.state.view());
        let sharing = sharing(&others, self.shared_limits.is_some());
        let has_changed = self.publisher.entitle(sharing, self.state.learned(), now);
        if has_changed || is_known {
            self.set_terms();
        }
    }

    /// Tells the escrow which limits there are. Not before it is known how many nodes there should
    /// be, which says what becomes of a lost node's part.
    fn set_terms(&mut self) {
        let Some(limits) = &mut self.shared_limits else { return };
        let Some(policy) = limits.policy() else { return };
        let others = self.cluster.others(self.state.view());
        limits.configure(self.publisher.terms(sharing(&others, true), policy), self.clock.now());
        self.publisher.terms_are_set();
    }

    fn publish(&mut self, is_new_configuration: bool) -> Result<(), PublishError> {
        let epoch = self.epoch.saturating_add(1);
        let Some((record, secrets)) = self.state.record(epoch) else { return Ok(()) };
        let others = self.cluster.others(self.state.view());
        let (learned, identity) = (self.state.learned(), self.identity.current());
        let sharing = sharing(&others, self.shared_limits.is_some());
        self.publisher.publish(sharing, learned, &record, &secrets, identity, self.clock.now())?;
        self.set_terms();
        self.epoch = epoch;
        self.keeper.snapshot_changed(is_new_configuration);
        let (providers, virtual_keys) = (record.providers.len(), record.virtual_keys.len());
        let limits = record.limits.len();
        if is_new_configuration {
            self.configuration = if self.live.has_store() {
                mark_of(&self.live.published)
            } else {
                let (author, hash) = (self.facts.node_id.clone(), self.configuration_hash.clone());
                ConfigurationMark { epoch, author, hash }
            };
            self.adoption.publishes(epoch, self.configuration.epoch, self.clock.now());
            tracing::info!(epoch, providers, virtual_keys, limits, "configuration published");
        } else {
            tracing::debug!(epoch, "snapshot published");
        }
        Ok(())
    }

    /// Collects what this node is once a second, and tells the others; also as soon as something
    /// of it has changed that they act upon.
    fn tell_others(&mut self) {
        let now = self.clock.now();
        let is_overloaded = self.state.overload().reason().is_some();
        let own = Own { about: self.about(), configuration: self.configuration.clone(), is_overloaded };
        if self.collector.is_due(now) {
            self.cluster.settle_keys(self.state.view());
            let rows = self.limit_rows(now);
            if let Some(limits) = &self.shared_limits {
                self.publisher.foretell(&foretold(&rows, limits.escrow(), self.state.view(), now));
            }
            let own = self.collector.collect(own, &mut self.state, &rows, now);
            let outcome = self.state.looked(own, now);
            self.remember(outcome);
        } else if !self.collector.renew(own, &self.state, now) {
            return;
        }
        self.cluster.publish(self.collector.values());
    }

    fn about(&self) -> About {
        About {
            version: self.version.to_owned(),
            protocol: if self.cluster.is_running() { PROTOCOL } else { 0 },
            region: self.state.region().to_owned(),
            state: state_of(&self.state.readiness()).0.to_owned(),
            client_address: self.server.listen.to_string(),
            started_ms: u64::try_from(self.started_at.as_millis()).unwrap_or(u64::MAX),
            gossip_keys: self.cluster.key_ids(),
        }
    }

    /// Writes the last good snapshot when it is time. Not before every name was looked up once:
    /// a snapshot without addresses is worth less than the one it would replace.
    async fn keep(&mut self) {
        let now = self.clock.now();
        if self.state.are_hosts_tried() && self.keeper.is_due(now).await {
            self.write_last_good(now);
        }
    }

    fn write_last_good(&mut self, now: Nanos) {
        let Some((record, secrets)) = self.state.record(self.epoch) else { return };
        let Ok(snapshot) = shared::snapshot::Snapshot::from_record(&record) else { return };
        let content = Content {
            snapshot: &snapshot,
            epoch: self.epoch,
            secrets: &secrets,
            server: &self.server,
            cluster: self.cluster_text.as_ref(),
            lookup_key: &self.facts.lookup_key,
        };
        self.keeper.write(&content, now, self.clock.wall());
    }

    fn look_at_identity(&mut self) {
        let now = self.clock.now();
        if self.identity_looked_at.is_some_and(|at| now.since(at) < IDENTITY_INTERVAL) {
            return;
        }
        self.identity_looked_at = Some(now);
        match self.identity.look_again() {
            Ok(true) => {
                tracing::info!("the certificate of the client listener has changed and is used from now on");
                self.pending.publish = true;
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the client listener keeps the certificate it has"),
        }
    }

    /// Reads the configuration again, on the blocking pool, and looks at the certificate. What
    /// was asked for meanwhile is done once, afterwards.
    fn reload(&mut self) {
        self.identity_looked_at = None;
        if self.reading.is_some() {
            self.must_read_again = true;
            return;
        }
        let source = self.config.clone();
        let facts = Arc::clone(&self.facts);
        let server = self.server.clone();
        tracing::info!(file = source.name(), "reading the configuration again");
        let has_store = self.live.has_store();
        self.reading = Some(tokio::task::spawn_blocking(move || read_again(&source, &facts, &server, has_store)));
    }

    fn take_configuration(&mut self, read_again: Option<ReadAgain>) {
        self.reading = None;
        if let Some(ReadAgain { compiled, parts, cluster, cluster_text, hash, accounts }) = read_again {
            self.configuration_hash = hash;
            self.cluster_text = cluster_text;
            // The next one to be published, where the file is what says it.
            self.live.file_changed(parts, self.epoch.saturating_add(1), &self.facts.node_id);
            if let Some(compiled) = compiled {
                self.apply(Event::Configured(Box::new(compiled)));
            }
            self.cluster.reconfigure(cluster);
            if let Some(accounts) = accounts {
                self.accounts.send_replace(Arc::new(accounts));
            }
        }
        if std::mem::take(&mut self.must_read_again) {
            self.reload();
        }
    }

    /// What the engine wants done.
    fn take_told(&mut self, told: FromEngine) {
        match told {
            FromEngine::Publish { compiled, head, done } => {
                compiled.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                self.live.published = head;
                self.apply(Event::Configured(compiled));
                self.carry_out();
                self.tell_others();
                // Whoever waits for it may be gone.
                let _ = done.send(());
            }
            FromEngine::Send(messages) => self.cluster.send(part::TOPIC, messages),
            FromEngine::Waiting(reason) => self.apply(Event::Waiting(reason)),
            FromEngine::Standing(standing) => self.live.standing = standing,
        }
    }

    /// How far the cores are with the newest configuration.
    fn look_at_adoption(&mut self) {
        let epochs = self.state.totals().gauges().map(|gauges| gauges.epoch);
        let now = self.clock.now();
        if let Some((revision, took)) = self.adoption.look(epochs, self.facts.cores, now) {
            tracing::debug!(revision, took_ms = took.as_millis(), "every core runs the configuration");
        }
    }
}

fn sharing<'o, 'v>(others: &'o Others<'v>, is_shared: bool) -> Sharing<'o, 'v> {
    if is_shared { Sharing::Cluster(others) } else { Sharing::Alone }
}

/// Waits until something is due for the shared limits, and does it: what may leave then.
async fn due(limits: &mut Option<SharedLimits>, clock: Clock) -> Messages {
    match limits {
        Some(limits) => limits.due(clock).await,
        None => std::future::pending().await,
    }
}

/// Waits for the configuration that is being read; for ever where none is.
async fn read(reading: &mut Option<JoinHandle<Option<ReadAgain>>>) -> Option<ReadAgain> {
    match reading {
        // A panic while reading is logged by the panic itself, and changes nothing.
        Some(reading) => reading.await.unwrap_or(None),
        None => std::future::pending().await,
    }
}
