//! Who is measured, and how each is started. A new proxy is a new arm of [`Peer`]: a
//! command, a configuration, one thread, keep-alive to the provider, no access log.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;
use serde_json::json;

use crate::target::Header;

/// The virtual key of the load, and the limit it stands under: far above what one core
/// can do, so that limits are counted and never bite.
const VIRTUAL_KEY: &str = "sk-bf-load";

/// Tokens of an answer: with them its JSON is about 1 KiB long.
const ANSWER_TOKENS: &str = "144";

/// What stands between the load and the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// The raw byte relay of this program: the floor
    Relay,
    /// The minimal HTTP proxy of this program: the floor of whoever reads heads
    Minimal,
    /// `deepintshield` on one core, with a virtual key, limits and metrics
    Gateway,
    /// nginx, one process
    Nginx,
}

impl Peer {
    /// As in the `proxy` column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Minimal => "minimal",
            Self::Gateway => "gateway",
            Self::Nginx => "nginx",
        }
    }
}

/// Sent with every request.
pub(super) fn virtual_key_header() -> Header {
    Header::new("authorization", format!("Bearer {VIRTUAL_KEY}"))
}

/// Where everything is.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The `deepintshield` binary.
    pub(super) node: PathBuf,
    /// Where the provider listens.
    pub(super) provider: SocketAddr,
    /// Where the proxy under test listens.
    pub(super) listen: SocketAddr,
    /// Where the gateway's admin listener is.
    pub(super) admin_port: u16,
    /// For configurations and state.
    pub(super) scratch: PathBuf,
}

impl Places {
    /// The simulated provider: no delays, no limits, an answer of about 1 KiB.
    pub(super) fn simulated_provider(&self) -> Command {
        let mut command = Command::new(&self.node);
        command.args(["provider-sim", "--listen", &self.provider.to_string()]);
        command.args(["--completion-tokens", ANSWER_TOKENS]);
        command
    }

    /// The command that starts this proxy, its configuration written.
    pub(super) fn command(&self, peer: Peer) -> io::Result<Command> {
        match peer {
            Peer::Relay => self.floor("relay"),
            Peer::Minimal => self.floor("minimal-proxy"),
            Peer::Gateway => {
                let config = self.write("gateway.json", &self.gateway_config().to_string())?;
                let mut command = Command::new(&self.node);
                command.arg("--config").arg(config);
                Ok(command)
            }
            Peer::Nginx => {
                let config = self.write("nginx.conf", &self.nginx_config())?;
                let mut command = Command::new("nginx");
                // Debian keeps it where an ordinary user's PATH does not look.
                let path = std::env::var_os("PATH").unwrap_or_default();
                let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
                if let Ok(path) = std::env::join_paths(folders) {
                    command.env("PATH", path);
                }
                command.arg("-c").arg(config).arg("-p").arg(&self.scratch);
                command.arg("-e").arg(self.scratch.join("nginx.error"));
                Ok(command)
            }
        }
    }

    /// A proxy that is a command of this program.
    fn floor(&self, command: &str) -> io::Result<Command> {
        let mut floor = Command::new(std::env::current_exe()?);
        floor.args([command, "--listen", &self.listen.to_string(), "--to", &self.provider.to_string()]);
        Ok(floor)
    }

    /// What is measured has a virtual key, a limit on requests and on tokens, and metrics.
    fn gateway_config(&self) -> serde_json::Value {
        json!({
            "server": {
                "host": self.listen.ip().to_string(),
                "port": self.listen.port(),
                "admin_port": self.admin_port,
                "cores": 1,
                "state_dir": self.scratch.join("state"),
                // Under valgrind a core is late as a rule, and must not turn requests away for that.
                "overload": {"loop_delay": "10s"},
            },
            "providers": {"openai": {
                "keys": [{"name": "k1", "value": "sk-load-upstream", "models": ["*"], "weight": 1}],
                "network_config": {
                    "base_url": format!("http://{}", self.provider),
                    "allow_private_network": true,
                },
            }},
            "governance": {
                "virtual_keys": [{
                    "id": "vk1",
                    "name": "load",
                    "value": VIRTUAL_KEY,
                    "is_active": true,
                    "rate_limit_id": "rl1",
                    "provider_configs": [{"provider": "openai", "weight": 1, "allowed_models": ["*"]}],
                }],
                "rate_limits": [{
                    "id": "rl1",
                    "request_max_limit": 100_000_000,
                    "request_reset_duration": "1m",
                    "token_max_limit": 1_000_000_000_000_u64,
                    "token_reset_duration": "1m",
                }],
            },
        })
    }

    /// One process, keep-alive on both sides, buffering as it comes, no log.
    fn nginx_config(&self) -> String {
        let (listen, provider) = (self.listen, self.provider);
        let scratch = self.scratch.display();
        format!(
            "daemon off;
master_process off;
pid {scratch}/nginx.pid;
error_log {scratch}/nginx.error;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    upstream provider {{
        server {provider};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
        )
    }

    fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = Path::new(&self.scratch).join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}
