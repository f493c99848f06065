//! Who is measured, and how each is started. A new proxy is a new arm of [`Peer`]: a
//! command, a configuration, one thread, keep-alive to the provider, no access log.

mod ai;
mod envoy;
mod gateway;
mod haproxy;
mod nginx;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;

pub(crate) use gateway::NODES;

use crate::target::Header;

/// The virtual key of the load.
const VIRTUAL_KEY: &str = "sk-bf-load";

/// Tokens of an answer: with them its JSON is about 1 KiB long.
const ANSWER_TOKENS: &str = "144";

/// What stands between the load and the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// The raw byte relay of this program on epoll, without a runtime
    RelayEpoll,
    /// The raw byte relay of this program on monoio: the floor
    Relay,
    /// The minimal HTTP proxy of this program: the floor of whoever reads heads
    Minimal,
    /// `deepintshield` on one core, with a virtual key, limits and metrics
    Gateway,
    /// The same in a cluster of three: everything on
    GatewayAll,
    /// The same in a cluster of three, without limits
    GatewayNoLimits,
    /// nginx, one process
    Nginx,
    /// `HAProxy`, one thread
    Haproxy,
    /// Envoy, one thread
    Envoy,
    /// `LiteLLM`'s proxy, one process
    Litellm,
    /// Portkey's gateway, one process
    Portkey,
}

/// What a proxy has to be able to do in a scenario.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wire {
    /// Clients come with TLS.
    pub(crate) clients_tls: bool,
    /// The provider is reached with TLS.
    pub(crate) provider_tls: bool,
    /// Answers are streams: each event has to leave when it has come.
    pub(crate) streams: bool,
}

impl Peer {
    /// As in the `proxy` column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RelayEpoll => "relay-epoll",
            Self::Relay => "relay",
            Self::Minimal => "minimal",
            Self::Gateway => "gateway",
            Self::GatewayAll => "gateway-all",
            Self::GatewayNoLimits => "gateway-no-limits",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Litellm => "litellm",
            Self::Portkey => "portkey",
        }
    }

    /// Why it has no part in a scenario; `None` where it has.
    pub(crate) fn lacks(self, wire: Wire) -> Option<&'static str> {
        let tls = wire.clients_tls || wire.provider_tls;
        match self {
            Self::RelayEpoll | Self::Relay if tls => Some("a relay ends no TLS"),
            Self::Minimal if tls => Some("the minimal proxy knows no TLS"),
            Self::Minimal if wire.streams => Some("the minimal proxy knows no chunked bodies"),
            Self::Litellm | Self::Portkey if tls => Some("set up for plain HTTP only here"),
            _ => None,
        }
    }

    /// It serves a fraction of what the others do, and takes most of a minute to start.
    pub(crate) fn is_slow(self) -> bool {
        matches!(self, Self::Litellm | Self::Portkey)
    }

    /// It runs as the first of three nodes.
    pub(crate) fn is_clustered(self) -> bool {
        matches!(self, Self::GatewayAll | Self::GatewayNoLimits)
    }
}

/// A certificate for the loopback address and its key, both PEM, and both in one file.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    /// The certificate, which is its own authority.
    pub(crate) chain: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// Certificate and key in one file.
    pub(crate) both: PathBuf,
}

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The `deepintshield` binary.
    pub(crate) node: PathBuf,
    /// Where peers are that come from no package of the system.
    pub(crate) tools: PathBuf,
    /// Where the provider listens.
    pub(crate) provider: SocketAddr,
    /// Where the provider listens with TLS.
    pub(crate) provider_tls: SocketAddr,
    /// What TLS is ended with, on the proxy and on the provider.
    pub(crate) certificate: Option<Certificate>,
    /// Where the proxy under test listens.
    pub(crate) listen: SocketAddr,
    /// Where the gateway's admin listener is.
    pub(crate) admin_port: u16,
    /// Where the gateways of a cluster hear each other.
    pub(crate) gossip_port: u16,
    /// The proxy runs fifty times slower, and must not turn requests away for that.
    pub(crate) is_under_valgrind: bool,
    /// For configurations and state.
    pub(crate) scratch: PathBuf,
}

impl Places {
    /// The simulated provider: no delays, no limits, an answer of about 1 KiB.
    pub(crate) fn simulated_provider(&self) -> Command {
        let mut command = Command::new(&self.node);
        command.args(["provider-sim", "--listen", &self.provider.to_string()]);
        command.args(["--completion-tokens", ANSWER_TOKENS]);
        command
    }

    /// Ends TLS before the simulated provider.
    pub(crate) fn tls_front(&self) -> io::Result<Command> {
        let certificate = self.certificate()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["tls-front", "--listen", &self.provider_tls.to_string(), "--to", &self.provider.to_string()]);
        command.arg("--certificate").arg(&certificate.chain).arg("--key").arg(&certificate.key);
        Ok(command)
    }

    /// The command that starts this proxy, its configuration written.
    pub(crate) fn command(&self, peer: Peer, wire: Wire) -> io::Result<Command> {
        match peer {
            Peer::RelayEpoll => self.floor("relay-epoll"),
            Peer::Relay => self.floor("relay"),
            Peer::Minimal => self.floor("minimal-proxy"),
            Peer::Gateway | Peer::GatewayAll | Peer::GatewayNoLimits => gateway::command(self, peer, wire, 0),
            Peer::Nginx => nginx::command(self, wire),
            Peer::Haproxy => haproxy::command(self, wire),
            Peer::Envoy => envoy::command(self, wire),
            Peer::Litellm => ai::litellm(self),
            Peer::Portkey => ai::portkey(self),
        }
    }

    /// The other nodes of a cluster, which have nothing to do.
    pub(crate) fn companions(&self, peer: Peer, wire: Wire) -> io::Result<Vec<Command>> {
        let others = if peer.is_clustered() { 1..NODES } else { 0..0 };
        others.map(|number| gateway::command(self, peer, wire, number)).collect()
    }

    /// A gateway that starts from its last good snapshot of this many providers, without peers.
    /// The first of both commands writes the snapshot; the file that it was read from has to be
    /// gone before the second.
    pub(crate) fn gateway_of_providers(&self, providers: usize) -> io::Result<(Command, PathBuf)> {
        gateway::of_providers(self, providers)
    }

    /// An idle gateway with everything on, on this many cores.
    pub(crate) fn idle_gateway(&self, cores: usize) -> io::Result<Command> {
        gateway::idle(self, cores)
    }

    /// Sent with every request: a virtual key, which only the gateway looks at, and what this peer
    /// needs to find the provider.
    pub(crate) fn headers(&self, peer: Option<Peer>) -> Vec<Header> {
        let mut headers = vec![Header::new("authorization", format!("Bearer {VIRTUAL_KEY}"))];
        if peer == Some(Peer::Portkey) {
            headers.push(Header::new("x-portkey-provider", "openai"));
            headers.push(Header::new("x-portkey-custom-host", format!("http://{}/v1", self.provider)));
        }
        headers
    }

    /// Where the proxy finds the provider.
    fn upstream(&self, wire: Wire) -> SocketAddr {
        if wire.provider_tls { self.provider_tls } else { self.provider }
    }

    fn certificate(&self) -> io::Result<&Certificate> {
        self.certificate.as_ref().ok_or_else(|| io::Error::other("no certificate was made"))
    }

    /// A proxy that is a command of this program.
    fn floor(&self, command: &str) -> io::Result<Command> {
        let mut floor = Command::new(std::env::current_exe()?);
        floor.args([command, "--listen", &self.listen.to_string(), "--to", &self.provider.to_string()]);
        Ok(floor)
    }

    /// A new file in the folder for configurations.
    fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = Path::new(&self.scratch).join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

/// A new certificate of its own authority (P-256), for two days.
pub(crate) fn make_certificate(folder: &Path) -> io::Result<Certificate> {
    let [certificate, key, both] = ["certificate.pem", "key.pem", "both.pem"].map(|name| folder.join(name));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()?;
    if !made.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
    }
    fs::write(&both, fs::read_to_string(&certificate)? + &fs::read_to_string(&key)?)?;
    Ok(Certificate { chain: certificate, key, both })
}

/// A program of the system: Debian keeps some where an ordinary user's PATH does not look.
fn system_command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    command
}

#[cfg(test)]
mod tests;
