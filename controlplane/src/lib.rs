//! The control thread: what a node learns becomes one snapshot for its cores, and what its cores
//! count becomes metrics. tokio on one thread; knows no `dataplane`.
//!
//! ```text
//! configuration file ┐
//! resolver           ├─ Event → control_loop → state.apply → Outcome → compile, publish → cores
//! reports of cores   ┘                                              → last good snapshot (disk)
//! ```
//!
//! Absent: other nodes (gossip, discovery, shared limits), a store, changing anything through
//! the admin listener.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod admin;
pub mod collect;
pub mod compile;
mod control_loop;
mod discovery;
mod drain;
pub mod event;
pub mod failover;
pub mod gossip;
pub mod health;
mod keep;
pub mod last_good;
mod listener_identity;
pub mod member;
pub mod metrics;
pub mod overload;
pub mod publish;
pub mod resolver;
pub mod sources;
mod start;
pub mod state;
pub mod state_dir;
pub mod sums;
pub mod traffic;
mod watch;

pub use drain::Finished;
pub use last_good::{EncryptionKey, EncryptionKeyTooShort};
pub use listener_identity::IdentityError;
pub use start::{ConfigSource, Settings, StartError};

use crate::collect::Collector;
use crate::compile::{CompileError, NodeFacts, compile};
use crate::control_loop::ControlLoop;
use crate::event::Event;
use crate::keep::Keeper;
use crate::overload::Overload;
use crate::publish::Publisher;
use crate::resolver::Resolver;
use crate::start::{Start, StartsFrom};
use crate::state::{ClusterState, Outcome};
use crate::watch::Watch;
use shared::bounds::EVENTS_IN_FLIGHT_MAX;
use shared::config::model::Server;
use shared::phase::{Phase, SharedPhase};
use shared::published::ListenerIdentity;
use shared::ring::{CoreSender, ReportReceiver};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A control thread that found its configuration and opened what it needs, and runs nothing yet.
pub struct ControlPlane {
    start: Start,
}

/// The control thread ended where it should not have. The phase is `Stopped`.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime could not be built, or a signal could not be listened to.
    #[error("the control thread could not start: {0}")]
    Runtime(#[from] io::Error),
    /// The configuration cannot be turned into a snapshot.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl ControlPlane {
    /// Reads the configuration, or the last good snapshot where its file is gone; locks the
    /// state directory; opens the admin port. To be called before the cores start, and before
    /// logging: what there is to say is logged by [`ControlPlane::run`].
    pub fn open(settings: Settings) -> Result<Self, StartError> {
        Ok(Self { start: start::open(settings)? })
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
        let finished =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime).and_then(
                |runtime| {
                    let finished = runtime.block_on(self.run_inside(cores, reports, phase.clone()));
                    // A look-up or a write may hang; nothing is lost by not waiting for it.
                    runtime.shutdown_background();
                    finished
                },
            );
        phase.advance_to(Phase::Stopped);
        finished
    }

    async fn run_inside(
        self,
        cores: Vec<CoreSender>,
        reports: ReportReceiver,
        phase: SharedPhase,
    ) -> Result<Finished, RunError> {
        let Start { settings, server, from, addresses, last_epoch, state_dir, lookup_key, admin, identity, remarks } =
            self.start;
        for remark in &remarks {
            tracing::warn!("{remark}");
        }
        let facts = Arc::new(NodeFacts {
            lookup_key,
            host_name: host_name(),
            cores: u32::try_from(cores.len()).unwrap_or(u32::MAX),
        });
        let compiled = match from {
            StartsFrom::Config(config) => compile(&config, &facts)?,
            StartsFrom::LastGood(last_good) => last_good.compiled,
        };
        compiled.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));

        let (sender, events) = mpsc::channel(EVENTS_IN_FLIGHT_MAX);
        let (question_sender, questions) = mpsc::channel(admin::QUESTIONS_IN_FLIGHT_MAX);
        let listener = tokio::net::TcpListener::from_std(admin)?;
        let admin = tokio::spawn(admin::serve(listener, admin::routes(question_sender, settings.version)));

        let cores_watched = facts.cores;
        let overload = server.overload;
        let mut control_loop = ControlLoop {
            clock: settings.clock,
            started_at: settings.clock.wall(),
            version: settings.version,
            config: settings.config,
            server,
            publisher: Publisher::new(cores, facts.lookup_key),
            facts,
            phase,
            state: ClusterState::new(addresses).with_overload(Overload::new(overload)),
            resolver: Resolver::new(sender, settings.clock),
            keeper: Keeper::new(state_dir, settings.encryption_key),
            identity,
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
            collector: Collector::default(),
            generation: 0,
        };
        // Published before the first tick, so that a node with known addresses serves at once.
        control_loop.apply(Event::Configured(Box::new(compiled)));
        control_loop.carry_out();
        let finished = control_loop.run().await;
        admin.abort();
        Ok(finished?)
    }
}

/// As the kernel has it; a node without a name is called `node`.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}
