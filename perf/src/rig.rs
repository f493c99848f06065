//! Starts the simulated provider, and one proxy at a time, each on its core, and returns when
//! requests are answered. What is measured then is the caller's business.

use std::{io, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use thiserror::Error;

use crate::{
    child::{Child, Scratch},
    load::{self, Load, LoadResult, Pace, Until},
    peer::{NODES, Peer, Places, Wire, make_certificate},
    ring, simulated,
    target::{Header, Target, TargetError, chat_body, loopback},
    tls,
};

/// Longest silence of a proxy before a request counts as failed.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Times that a proxy is asked whether it answers yet, and the time between them.
const READY_TRIES_MAX: u32 = 400;
const READY_INTERVAL: Duration = Duration::from_millis(50);

/// What to start, and where.
#[derive(Debug, Clone)]
pub(crate) struct RigSettings {
    /// The `deepintshield` binary: gateway and simulated provider.
    pub(crate) node: PathBuf,
    /// Where peers are that come from no package of the system.
    pub(crate) tools: PathBuf,
    /// A provider that already runs, instead of the simulated one.
    pub(crate) provider: Option<String>,
    /// The first of a handful of loopback ports that are used.
    pub(crate) port: u16,
    /// The proxy runs under valgrind.
    pub(crate) is_under_valgrind: bool,
    /// Core of the proxy under test.
    pub(crate) proxy_core: usize,
    /// Core of the load and of everything else.
    pub(crate) load_core: usize,
}

/// Why nothing can be measured. What was started has been stopped.
#[derive(Debug, Error)]
pub(crate) enum RigError {
    /// A process could not be started or came to no answer.
    #[error("{name}: {source}")]
    Child {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Files, the ring.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A core that cannot be pinned to.
    #[error("core {0} cannot be pinned to; choose others, or measure on a machine that has it")]
    Core(usize),
    /// The address of the provider.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// The provider runs, and a folder for configurations is there, as long as this value.
#[derive(Debug)]
pub(crate) struct Rig {
    /// What its end takes back.
    provider: Option<Child>,
    /// TLS before the provider.
    front: Option<Child>,
    /// What the load says over TLS.
    tls: Option<tls::Client>,
    /// Where everything is.
    pub(crate) places: Places,
    proxy_core: usize,
    load_core: usize,
    _scratch: Scratch,
}

/// A proxy that answers, and what it needs beside it.
#[derive(Debug)]
pub(crate) struct Running {
    proxy: Child,
    companions: Vec<Child>,
}

impl Rig {
    /// Starts the provider, where none was named.
    pub(crate) fn new(settings: &RigSettings) -> Result<Self, RigError> {
        let scratch = Scratch::new().map_err(io_error("making a folder for configurations"))?;
        let port = |offset: u16| loopback(&format!("127.0.0.1:{}", settings.port.saturating_add(offset)));
        let places = Places {
            node: settings.node.clone(),
            tools: settings.tools.clone(),
            provider: match &settings.provider {
                Some(running) => loopback(running)?,
                None => port(0)?,
            },
            listen: port(1)?,
            admin_port: port(2)?.port(),
            gossip_port: port(3)?.port(),
            provider_tls: port(4)?,
            certificate: None,
            is_under_valgrind: settings.is_under_valgrind,
            scratch: scratch.path().to_owned(),
        };
        let mut rig = Self {
            provider: None,
            front: None,
            tls: None,
            places,
            proxy_core: settings.proxy_core,
            load_core: settings.load_core,
            _scratch: scratch,
        };
        if settings.provider.is_none() {
            let command = rig.places.simulated_provider();
            rig.provider = Some(rig.start_beside("simulated provider", command, rig.places.provider)?);
        }
        Ok(rig)
    }

    /// Makes a certificate, and lets the provider be reached with TLS too.
    pub(crate) fn add_tls(&mut self) -> Result<(), RigError> {
        let certificate = make_certificate(&self.places.scratch).map_err(child_error("openssl"))?;
        self.tls = Some(tls::Client::new(&certificate.chain).map_err(io_error("reading the certificate"))?);
        self.places.certificate = Some(certificate);
        let command = self.places.tls_front().map_err(child_error("tls-front"))?;
        self.front = Some(self.start_beside("tls-front", command, self.places.provider_tls)?);
        Ok(())
    }

    /// Ends the provider.
    pub(crate) fn stop(mut self) -> Result<(), RigError> {
        if let Some(front) = self.front.take() {
            front.stop().map_err(child_error("tls-front"))?;
        }
        match self.provider.take() {
            Some(provider) => provider.stop().map(drop).map_err(child_error("simulated provider")),
            None => Ok(()),
        }
    }

    /// Starts something on the load's core, and returns when it listens.
    pub(crate) fn start_beside(
        &self,
        name: &str,
        mut command: Command,
        address: SocketAddr,
    ) -> Result<Child, RigError> {
        pin(self.load_core)?;
        let child = Child::start(name, &mut command, &self.places.scratch);
        let mut child = child.map_err(child_error(name))?;
        child.wait_for(address).map_err(child_error(name))?;
        Ok(child)
    }

    /// Starts a command on the proxy's core, and does not wait for it.
    pub(crate) fn start_on_core(&self, name: &str, mut command: Command) -> Result<Child, RigError> {
        pin(self.proxy_core)?;
        let started = Child::start(name, &mut command, &self.places.scratch);
        // Whatever came of it, this thread's own core is the other one.
        pin(self.load_core)?;
        started.map_err(child_error(name))
    }

    /// Starts a proxy on its core and returns when it answers as `check` sends. `with` may put
    /// another command around its own.
    pub(crate) fn start(
        &self,
        peer: Peer,
        wire: Wire,
        check: &Load,
        with: impl FnOnce(Command) -> Command,
    ) -> Result<Running, RigError> {
        let name = peer.name();
        pin(self.load_core)?;
        let companions = self.places.companions(peer, wire).map_err(child_error(name))?;
        let companions = companions.into_iter().zip(1..).map(|(mut command, number)| {
            let name = format!("{name} {number}");
            Child::start(&name, &mut command, &self.places.scratch).map_err(child_error(&name))
        });
        let companions = companions.collect::<Result<Vec<_>, _>>()?;
        let command = self.places.command(peer, wire).map_err(child_error(name))?;
        let mut running = Running { proxy: self.start_on_core(name, with(command))?, companions };
        running.proxy.wait_for(self.places.listen).map_err(child_error(name))?;
        if peer.is_clustered() {
            self.wait_for_cluster(name)?;
        }
        wait_for_answers(name, check)?;
        Ok(running)
    }

    /// What a load needs for TLS; none where no certificate was made.
    pub(crate) fn tls(&self) -> Option<tls::Client> {
        self.tls.clone()
    }

    /// A closed loop of chat requests, with what `peer` wants to have sent and `further` headers; to
    /// the provider itself where there is no peer.
    pub(crate) fn load(
        &self,
        peer: Option<Peer>,
        body: &Body,
        further: &[Header],
        connections: usize,
        until: Until,
    ) -> Result<Load, RigError> {
        let address = if peer.is_some() { self.places.listen } else { self.places.provider };
        let target = Target::parse(&format!("http://{address}/v1/chat/completions"))?;
        let headers = [&self.places.headers(peer), further].concat();
        Ok(Load {
            request: target.post(&headers, &chat_body(&body.model, body.bytes)),
            target,
            connections,
            pace: Pace::Closed,
            until,
            silence_max: SILENCE_MAX,
            tls: None,
            reconnects: false,
            expected_bytes: None,
        })
    }

    /// A proxy may be up before its peers have found it, and a limit before its parts are shared.
    fn wait_for_cluster(&self, name: &str) -> Result<(), RigError> {
        let admin = Target::parse(&format!("http://127.0.0.1:{}/cluster/status", self.places.admin_port))?;
        for _ in 0..READY_TRIES_MAX {
            let request = admin.get();
            let status = ring::run(async |_| simulated::ask(&admin, request).await);
            if healthy_peers(&status.map_err(io_error("asking for the cluster"))?.unwrap_or_default()) == NODES - 1 {
                return Ok(());
            }
            std::thread::sleep(READY_INTERVAL);
        }
        Err(child_error(name)(io::Error::other("its peers are not healthy")))
    }
}

impl Running {
    /// Of the proxy.
    pub(crate) fn pid(&self) -> u32 {
        self.proxy.pid()
    }

    /// Ends everything.
    pub(crate) fn stop(self, name: &str) -> Result<(), RigError> {
        self.proxy.stop().map_err(child_error(name))?;
        for companion in self.companions {
            companion.stop().map_err(child_error(name))?;
        }
        Ok(())
    }
}

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    /// The model that it names.
    pub(crate) model: String,
    /// Its length.
    pub(crate) bytes: usize,
}

/// Sends `load` to its end, on a ring of its own.
pub(crate) fn send(load: Load) -> Result<LoadResult, RigError> {
    ring::run(async |_| load::run(load).await).and_then(|result| result).map_err(io_error("sending load"))
}

/// A proxy may listen before it is ready.
fn wait_for_answers(name: &str, check: &Load) -> Result<(), RigError> {
    let mut last = String::new();
    for _ in 0..READY_TRIES_MAX {
        let once = Load { connections: 1, pace: Pace::Closed, until: Until::Requests(1), ..check.clone() };
        let tally = send(once)?.tally;
        if tally.not_ok() == 0 {
            return Ok(());
        }
        last = tally.describe_not_ok();
        std::thread::sleep(READY_INTERVAL);
    }
    Err(child_error(name)(io::Error::other(format!("no request through it is answered with 200 ({last})"))))
}

fn healthy_peers(status: &[u8]) -> usize {
    let status: serde_json::Value = serde_json::from_slice(status).unwrap_or_default();
    let peers = status["peers"].as_array().map_or(&[][..], Vec::as_slice);
    peers.iter().filter(|peer| peer["health"] == "healthy").count()
}

fn pin(id: usize) -> Result<(), RigError> {
    if core_affinity::set_for_current(core_affinity::CoreId { id }) { Ok(()) } else { Err(RigError::Core(id)) }
}

/// Names the process when an error goes up.
pub(crate) fn child_error(name: &str) -> impl FnOnce(io::Error) -> RigError + use<> {
    let name = name.to_owned();
    move |source| RigError::Child { name, source }
}

/// Names what was tried when an error goes up.
pub(crate) fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> RigError {
    move |source| RigError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_healthy_peers_are_counted() {
        let status = br#"{"peers": [{"health": "healthy"}, {"health": "suspect"}, {"health": "healthy"}]}"#;
        assert_eq!(healthy_peers(status), 2);
        assert_eq!(healthy_peers(b"starting"), 0);
    }
}
