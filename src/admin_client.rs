//! Requests to a node's admin listener, for the commands that ask a running node: where it is, who
//! asks, plain or with TLS. No redirects, no chunks: our own listener does none of them.

use clap::Args;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use shared::config::{self, Config, Sources};
use shared::secret::Secret;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The node answers within a step of its control loop, or says itself after 5 s that it cannot; a change
/// of a large configuration takes longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer in bytes: the largest configuration.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where a node is asked, and as whom.
#[derive(Args)]
pub(crate) struct AdminOptions {
    /// The node's admin listener, where it is not the one of the configuration; `https://` in front
    /// asks with TLS.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<String>,

    /// A file with an API token; `DEEPINTSHIELD_TOKEN` holds one too. With neither, the name and password
    /// in `DEEPINTSHIELD_ADMIN_USERNAME` and `DEEPINTSHIELD_ADMIN_PASSWORD` are used.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Certificates (PEM) that an admin listener with TLS is known by, where it is not the certificate
    /// of the configuration.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// A node's admin listener. A refusal is an exit code and a sentence.
pub(crate) struct Admin {
    address: SocketAddr,
    /// What the Host field says.
    host: String,
    /// The value of the Authorization field.
    authorization: Option<Secret>,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

/// An answer, whatever it says.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Admin {
    /// As the options say, and the configuration where they do not.
    pub(crate) fn find(path: &Path, options: &AdminOptions) -> Result<Self, (u8, String)> {
        let (host, is_tls, mut ca_file) = if let Some(said) = &options.admin {
            match said.strip_prefix("https://") {
                Some(host) => (host.trim_end_matches('/').to_owned(), true, None),
                None => (said.trim_start_matches("http://").trim_end_matches('/').to_owned(), false, None),
            }
        } else {
            let server = configuration(path)?.server;
            let ca_file = server.admin_tls.as_ref().map(|tls| PathBuf::from(&tls.cert_file));
            (reachable(server.admin_listen).to_string(), server.admin_tls.is_some(), ca_file)
        };
        let address = resolve(&host).map_err(|error| (64, format!("--admin {host}: {error}")))?;
        if options.ca_file.is_some() {
            ca_file.clone_from(&options.ca_file);
        }
        let tls = is_tls.then(|| tls(&host, ca_file.as_deref())).transpose().map_err(|why| (66, why))?;
        Ok(Self { address, host, authorization: authorization(options.token_file.as_deref())?, tls })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// One request. `fields` are further lines of the head.
    pub(crate) fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> Result<Answer, (u8, String)> {
        self.try_asking(method, path, fields, body).map_err(|error| {
            let hint = "is the node running, and `server.admin_host` and `server.admin_port` right?";
            (69, format!("no node answers at {}: {error}; {hint}", self.address))
        })
    }

    fn try_asking(&self, method: &str, path: &str, fields: &str, body: &str) -> io::Result<Answer> {
        let mut socket = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
        socket.set_read_timeout(Some(IDLE_TIMEOUT))?;
        socket.set_write_timeout(Some(IDLE_TIMEOUT))?;
        let mut request = Zeroizing::new(String::with_capacity(body.len().saturating_add(16 * 1024)));
        // Writing into a string cannot fail.
        let _ = write!(request, "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{fields}", self.host);
        if let Some(authorization) = &self.authorization {
            let _ = write!(request, "authorization: {}\r\n", authorization.expose());
        }
        let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
        let mut answer = Vec::new();
        match &self.tls {
            None => {
                socket.write_all(request.as_bytes())?;
                socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
            }
            Some((config, name)) => {
                let connection = rustls::ClientConnection::new(Arc::clone(config), name.clone());
                let mut stream = rustls::StreamOwned::new(connection.map_err(io::Error::other)?, socket);
                stream.write_all(request.as_bytes())?;
                stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
            }
        }
        let none = || io::Error::new(io::ErrorKind::InvalidData, "this is no answer of an admin listener");
        parse(&answer).ok_or_else(none)
    }

    /// The node's state, as text and parsed.
    pub(crate) fn status(&self) -> Result<(String, Value), (u8, String)> {
        let Answer { status, body } = self.ask("GET", "/cluster/status", "", "")?;
        let address = self.address;
        match status {
            200 => match serde_json::from_str(&body) {
                Ok(status) => Ok((body, status)),
                Err(_) => Err((69, format!("{address} answers, but not as a node does"))),
            },
            401 | 403 => Err((77, format!("{address} does not let us in; see --token-file"))),
            code => Err((69, format!("the node at {address} answers with {code}; is its control thread stuck?"))),
        }
    }
}

/// The configuration file, read; with exit code and reason where it cannot be.
pub(crate) fn configuration(path: &Path) -> Result<Config, (u8, String)> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        (66, format!("cannot read {name}: {error}; name it with --config, or say where to ask with --admin HOST:PORT"))
    })?;
    let sources = Sources { env: &controlplane::sources::env, file: &controlplane::sources::file, ..Sources::none() };
    let loaded = config::text_of(&bytes).map_err(|fault| vec![fault]).and_then(|text| config::load(text, &sources));
    match loaded {
        Ok(loaded) => Ok(loaded.config),
        Err(faults) => Err((78, format!("{name} has {} faults; see `deepintshield check`", faults.len()))),
    }
}

/// Where to ask a node that listens at `listen`: one that listens everywhere is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// `HOST:PORT` as somebody typed it.
fn resolve(text: &str) -> io::Result<SocketAddr> {
    text.to_socket_addrs()?.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

/// From a file, or the environment.
fn authorization(token_file: Option<&Path>) -> Result<Option<Secret>, (u8, String)> {
    use base64::Engine as _;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(Zeroizing::new);
    let token = match token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map(Zeroizing::new);
            Some(text.map_err(|error| (66, format!("cannot read {}: {error}", path.display())))?)
        }
        None => variable("DEEPINTSHIELD_TOKEN"),
    };
    if let Some(token) = token {
        let token = token.trim();
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err((65, "the API token is more than one line of visible ASCII".to_owned()));
        }
        return Ok(Some(Secret::new(&Zeroizing::new(format!("Bearer {token}")))));
    }
    let pair = variable("DEEPINTSHIELD_ADMIN_USERNAME").zip(variable("DEEPINTSHIELD_ADMIN_PASSWORD"));
    Ok(pair.map(|(username, password)| {
        let pair = Zeroizing::new(format!("{}:{}", username.as_str(), password.as_str()));
        let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
        Secret::new(&Zeroizing::new(format!("Basic {}", encoded.as_str())))
    }))
}

fn tls(host: &str, ca_file: Option<&Path>) -> Result<(Arc<rustls::ClientConfig>, ServerName<'static>), String> {
    let path = ca_file.ok_or("an admin listener with TLS needs --ca-file, the certificates that it is known by")?;
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("{}: {error}", path.display()))?;
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let name =
        ServerName::try_from(name.to_owned()).map_err(|_| format!("{name} is no name that a certificate has"))?;
    Ok((Arc::new(config), name))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
    })?;
    (length == body.len()).then(|| Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_cut_is_none() {
        let whole = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
        let parsed = parse(whole.as_bytes()).unwrap();
        assert_eq!((parsed.status, parsed.body.as_str()), (503, "{}"));
        for cut in 0..whole.len() {
            assert!(parse(&whole.as_bytes()[..cut]).is_none(), "{cut}");
        }
        assert!(parse(b"SSH-2.0-x\r\n").is_none());
    }

    #[test]
    fn a_node_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(reachable(listen.parse::<SocketAddr>().unwrap()), asked.parse::<SocketAddr>().unwrap());
        }
    }
}
