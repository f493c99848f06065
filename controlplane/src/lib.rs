//! The control thread: what a node learns becomes one snapshot for its cores, and what its cores
//! count becomes metrics. tokio on one thread; knows no `dataplane`.
//!
//! ```text
//! configuration file ┐
//! resolver           │
//! discovery          │
//! gossip             ├─ Event → control_loop → state.apply → Outcome → compile, publish → cores
//! reports of cores   ┘                                              → last good snapshot (disk)
//! ```
//!
//! Where there is a store, `live` stands before the events: it says what the configuration is.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod admin;
mod cluster;
pub mod collect;
pub mod compile;
pub mod config_schema;
mod control_loop;
mod discovery;
pub mod doctor;
mod drain;
pub mod entitlements;
pub mod escrow;
pub mod event;
pub mod failover;
mod foretold;
pub mod gossip;
pub mod health;
mod keep;
pub mod last_good;
pub mod learned;
mod limit_lines;
pub mod limit_status;
mod listener_identity;
pub mod live;
mod log_lines;
pub mod member;
pub mod metrics;
pub mod overload;
pub mod publish;
pub mod resolver;
mod shared_limits;
mod signals;
pub mod sources;
mod spent;
mod start;
pub mod state;
pub mod state_dir;
pub mod store;
pub mod sums;
pub mod traffic;
mod watch;

pub use cluster::ClusterError;
pub use drain::Finished;
pub use last_good::{EncryptionKey, EncryptionKeyTooShort};
pub use listener_identity::IdentityError;
pub use start::{ConfigSource, Settings, StartError};

use crate::cluster::ClusterPart;
use crate::collect::Collector;
use crate::compile::{CompileError, NodeFacts, compile};
use crate::control_loop::{Adoption, ControlLoop};
use crate::event::Event;
use crate::gossip::values::ConfigurationMark;
use crate::keep::Keeper;
use crate::live::file_watch::FileWatch;
use crate::live::part::{LivePart, StoreStart};
use crate::overload::Overload;
use crate::publish::Publisher;
use crate::resolver::Resolver;
use crate::shared_limits::SharedLimits;
use crate::spent::Spent;
use crate::start::{Start, StartsFrom};
use crate::state::{ClusterState, Outcome};
use crate::watch::Watch;
use shared::bounds::EVENTS_IN_FLIGHT_MAX;
use shared::config::model::{Config, Server};
use shared::phase::{Phase, SharedPhase};
use shared::published::ListenerIdentity;
use shared::ring::{CoreSender, ReportReceiver};
use std::io;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// A control thread that found its configuration and opened what it needs, and runs nothing yet.
pub struct ControlPlane {
    start: Start,
    runtime: Runtime,
}

/// The control thread ended where it should not have. The phase is `Stopped`.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A signal could not be listened to, or a socket not be used.
    #[error("the control thread could not start: {0}")]
    Runtime(#[from] io::Error),
    /// The configuration cannot be turned into a snapshot.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl ControlPlane {
    /// Reads the configuration, or the last good snapshot where its file is gone; locks the
    /// state directory; opens the admin port and, in a cluster, the gossip port. To be called
    /// before the cores start, and before logging: what there is to say is logged by
    /// [`ControlPlane::run`].
    pub fn open(settings: Settings) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Runtime)?;
        Ok(Self { start: start::open(settings, &runtime)?, runtime })
    }

    /// Where to listen, on how many cores, how to log.
    pub fn server(&self) -> &Server {
        &self.start.server
    }

    /// Where the admin listener was opened; tells the port where the configuration says 0.
    pub fn admin_address(&self) -> io::Result<std::net::SocketAddr> {
        self.start.admin.local_addr()
    }

    /// Certificate and key of the client listener, where it speaks TLS. Whether they can be used
    /// is for the caller to find out.
    pub fn listener_identity(&self) -> Option<Arc<ListenerIdentity>> {
        self.start.identity.current()
    }

    /// Runs the control thread on the calling thread, until the node has drained after SIGTERM
    /// or SIGINT, a second one came, or somebody moved `phase` on. When it returns, for whatever
    /// reason, `phase` is `Stopped`.
    ///
    /// `cores` are numbered in this order, from 0, in their reports.
    pub fn run(
        self,
        cores: Vec<CoreSender>,
        reports: ReportReceiver,
        phase: &SharedPhase,
    ) -> Result<Finished, RunError> {
        let finished = self.runtime.block_on(run(self.start, cores, reports, phase.clone()));
        // A look-up or a write may hang; nothing is lost by not waiting for it.
        self.runtime.shutdown_background();
        phase.advance_to(Phase::Stopped);
        finished
    }
}

async fn run(
    start: Start,
    cores: Vec<CoreSender>,
    reports: ReportReceiver,
    phase: SharedPhase,
) -> Result<Finished, RunError> {
    let Start {
        settings,
        server,
        from,
        addresses,
        last_epoch,
        state_dir,
        node_id,
        cluster,
        parts,
        cluster_text,
        configuration_hash,
        lookup_key,
        admin,
        admin_tls,
        accounts,
        identity,
        remarks,
    } = start;
    for remark in &remarks {
        tracing::warn!("{remark}");
    }
    let facts = Arc::new(NodeFacts {
        lookup_key,
        node_id: node_id.as_str().to_owned(),
        cores: u32::try_from(cores.len()).unwrap_or(u32::MAX),
    });
    let parts = parts.unwrap_or_default();
    let (compiled, cluster_config, live) = match from {
        StartsFrom::Config(config) => match *config {
            Config { config_store: Some(store), store_rules: rules, cluster, .. } => {
                let start = StoreStart {
                    store,
                    rules,
                    parts,
                    file_name: settings.config.name(),
                    is_clustered: cluster.enabled,
                    facts: Arc::clone(&facts),
                    state_dir: state_dir.clone(),
                    clock: settings.clock,
                };
                (None, cluster, LivePart::of_store(start, settings.encryption_key.as_ref()))
            }
            config => {
                let compiled = compile(&config, &facts)?;
                let live = LivePart::of_file();
                live.show_file(parts.entities, last_epoch.saturating_add(1), &facts.node_id);
                (Some(compiled), config.cluster, live)
            }
        },
        StartsFrom::LastGood(last_good) => {
            let (compiled, cluster) = *last_good;
            (Some(compiled), cluster, LivePart::of_file())
        }
    };
    compiled.iter().flat_map(|compiled| &compiled.warnings).for_each(|warning| tracing::warn!("{warning}"));

    let (sender, events) = mpsc::channel(EVENTS_IN_FLIGHT_MAX);
    let (question_sender, questions) = mpsc::channel(admin::QUESTIONS_IN_FLIGHT_MAX);
    let listener = tokio::net::TcpListener::from_std(admin)?;
    let on_loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let (accounts, accounts_now) = tokio::sync::watch::channel(Arc::new(accounts));
    let desk = admin::Desk::new(admin::Setup {
        questions: question_sender,
        live: live.handle(),
        accounts: accounts_now,
        on_loopback,
        metrics_auth: server.metrics_auth,
        state_dir: state_dir.as_ref().map(|dir| dir.path().to_owned()),
        clock: settings.clock,
        version: settings.version,
    });
    let (identity_task, admin_tls) = match admin_tls {
        Some((identity, tls)) => (Some(tokio::spawn(identity.keep_fresh())), Some(tls)),
        None => (None, None),
    };
    let admin = tokio::spawn(admin::serve(listener, admin::routes(Arc::new(desk)), admin_tls));
    let seed = getrandom::u64().map_err(io::Error::other)?;
    let shared_limits = cluster_config
        .enabled
        .then(|| SharedLimits::open(&cluster_config, &node_id, state_dir.clone(), seed, settings.clock.now()));
    let spent = Spent::open(state_dir.clone(), settings.clock);
    let cluster = ClusterPart::begin(cluster, cluster_config, &sender);

    let file_watch = FileWatch::begin(match &settings.config {
        ConfigSource::File(path) => Some(path.clone()),
        ConfigSource::Embedded(_) => None,
    });
    let cores_watched = facts.cores;
    let overload = Overload::new(server.overload);
    let mut control_loop = ControlLoop {
        clock: settings.clock,
        started_at: settings.clock.wall(),
        version: settings.version,
        config: settings.config,
        server,
        publisher: Publisher::new(cores, facts.lookup_key).remembering(spent),
        facts,
        phase,
        state: ClusterState::new(addresses).with_overload(overload),
        resolver: Resolver::new(sender, settings.clock),
        keeper: Keeper::new(state_dir, settings.encryption_key),
        identity,
        accounts,
        reports,
        events,
        questions,
        epoch: last_epoch,
        pending: Outcome::default(),
        drain: None,
        identity_looked_at: Some(settings.clock.now()),
        reading: None,
        must_read_again: false,
        watch: Watch::new(cores_watched, settings.clock.now()),
        live,
        file_watch,
        adoption: Adoption::default(),
        collector: Collector::default(),
        configuration: ConfigurationMark::default(),
        cluster,
        shared_limits,
        cluster_text,
        configuration_hash,
        is_duplicate: false,
    };
    // Published before the first tick, so that a node with known addresses serves at once. What a
    // store has comes as soon as it was read.
    if let Some(compiled) = compiled {
        control_loop.apply(Event::Configured(Box::new(compiled)));
        control_loop.carry_out();
    }
    let finished = Box::pin(control_loop.run()).await;
    admin.abort();
    identity_task.inspect(tokio::task::JoinHandle::abort);
    Ok(finished?)
}
