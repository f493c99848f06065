//! One connection to the database: name, TCP, TLS, login.

use super::fault::Fault;
use super::tls::{self, Encrypted, Handshake};
use rustls::pki_types::ServerName;
use shared::config::model::{Postgres, SslMode};
use shared::secret::Secret;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::config::SslMode as Wanted;
use tokio_postgres::{Client, Config, Connection};

/// Name, TCP, TLS and login together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(3);
/// One of several addresses.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// A server that vanished is noticed after 10 s + 3 × 5 s of silence, or 15 s without a receipt.
const SILENCE: Duration = Duration::from_secs(10);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of the file of authorities: all public ones fit in.
const AUTHORITIES_BYTES_MAX: u64 = 1024 * 1024;

/// Where the database is and how to get in.
pub(super) struct Access {
    host: String,
    port: u16,
    user: String,
    password: Option<Secret>,
    database: String,
    ssl_mode: SslMode,
    /// Read again for each connection, so that authorities can be exchanged.
    ssl_root_cert: Option<String>,
}

impl Access {
    pub(super) fn of(config: &Postgres) -> Self {
        Self {
            host: config.host.clone(),
            port: config.port,
            user: config.user.clone(),
            password: config.password.as_ref().map(Secret::duplicate),
            database: config.db_name.clone(),
            ssl_mode: config.ssl_mode,
            ssl_root_cert: config.ssl_root_cert.clone(),
        }
    }

    /// For people; has no password in it.
    pub(super) fn place(&self) -> String {
        format!("postgres {}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }

    /// A connection and the task that it needs.
    pub(super) async fn connect(&self) -> Result<(Client, Connection<TcpStream, Encrypted>), Fault> {
        let connecting = timeout(CONNECT_TIMEOUT, self.try_connect());
        let silent =
            |_| Fault::Connect(format!("no answer within {CONNECT_TIMEOUT:?}: check the server and the way to it"));
        connecting.await.map_err(silent)?
    }

    async fn try_connect(&self) -> Result<(Client, Connection<TcpStream, Encrypted>), Fault> {
        let authorities = self.authorities().await?;
        let connector = tls::connector(self.ssl_mode, authorities.as_deref());
        let connector = connector.map_err(|error| self.bad_authorities(&error.to_string()))?;
        let name = match ServerName::try_from(self.host.clone()) {
            Ok(name) => name,
            // Whoever does not check the name does not need one.
            Err(_) if self.ssl_mode != SslMode::VerifyFull => ServerName::from(std::net::Ipv4Addr::LOCALHOST),
            Err(_) => {
                let problem = "no certificate can be for this config_store.config.host: name it as DNS does";
                return Err(Fault::Connect(problem.to_owned()));
            }
        };
        let stream = self.reach().await?;
        let mut config = Config::new();
        config.user(&self.user).dbname(&self.database).application_name("deepintshield");
        if let Some(password) = &self.password {
            config.password(password.expose());
        }
        config.ssl_mode(match self.ssl_mode {
            SslMode::Disable => Wanted::Disable,
            SslMode::Prefer => Wanted::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Wanted::Require,
        });
        let login = config.connect_raw(stream, Handshake { connector, name }).await;
        Ok(login?)
    }

    async fn authorities(&self) -> Result<Option<Vec<u8>>, Fault> {
        let (Some(path), false) = (&self.ssl_root_cert, matches!(self.ssl_mode, SslMode::Disable | SslMode::Prefer))
        else {
            return Ok(None);
        };
        let bad = |error: io::Error| self.bad_authorities(&error.to_string());
        if tokio::fs::metadata(path).await.map_err(bad)?.len() > AUTHORITIES_BYTES_MAX {
            return Err(self.bad_authorities("it is larger than 1 MiB"));
        }
        tokio::fs::read(path).await.map(Some).map_err(bad)
    }

    fn bad_authorities(&self, problem: &str) -> Fault {
        let path = self.ssl_root_cert.as_deref().unwrap_or("the public authorities");
        Fault::Connect(format!(
            "{path}: {problem}: config_store.config.ssl_root_cert names a PEM file with the authorities that sign the \
             server's certificate"
        ))
    }

    async fn reach(&self) -> Result<TcpStream, Fault> {
        let unresolved = |why: &dyn std::fmt::Display| {
            Fault::Connect(format!("the name cannot be resolved ({why}): check config_store.config.host and DNS"))
        };
        let looking_up = timeout(LOOK_UP_TIMEOUT, tokio::net::lookup_host((self.host.as_str(), self.port))).await;
        let addresses = looking_up.map_err(|_| unresolved(&"no answer"))?.map_err(|error| unresolved(&error))?;
        let mut last = "its name has no address".to_owned();
        for address in addresses.take(ADDRESSES_MAX) {
            match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => match prepare(&stream) {
                    Ok(()) => return Ok(stream),
                    Err(error) => last = format!("{address}: {error}"),
                },
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address}: no answer within {ADDRESS_TIMEOUT:?}"),
            }
        }
        Err(Fault::Connect(format!(
            "{last}: check config_store.config.host and port, and that the server listens there"
        )))
    }
}

/// A server that is gone has to be noticed without traffic of ours.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(SILENCE).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(RECEIPT_TIMEOUT))
}
