//! TLS over monoio, for the load's side and for a provider that is reached with TLS: rustls for
//! the records, one cipher suite and one group, so that all proxies negotiate the same. No session
//! is resumed: every connection costs a full handshake.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use monoio::{
    io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable},
    net::{ListenerOpts, TcpListener, TcpStream},
};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};

use crate::clock;

/// The name in the certificate.
const NAME: &str = "localhost";
/// Encrypted bytes that one read may take: a record and its frame.
const READ_BYTES: usize = 18 * 1024;
/// Pause after an accept that failed, so that it is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What the load's side of a connection needs.
#[derive(Debug, Clone)]
pub(crate) struct Client(Arc<ClientConfig>);

/// What the provider's side needs.
#[derive(Debug, Clone)]
pub(crate) struct Server(Arc<ServerConfig>);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    })
}

impl Client {
    /// Trusts this certificate and nothing else.
    pub(crate) fn new(certificate: &Path) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(certificate).map_err(io::Error::other)? {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let mut config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands over a connection that stands.
    pub(crate) async fn connect(&self, tcp: TcpStream) -> io::Result<TlsStream> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        TlsStream::open(tcp, session.into()).await
    }
}

impl Server {
    /// Shows this certificate.
    pub(crate) fn new(certificate: &Path, key: &Path) -> io::Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificate).map_err(io::Error::other)?;
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(io::Error::other)?.with_no_client_auth();
        let mut config = builder.with_single_cert(chain, key).map_err(io::Error::other)?;
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }
}

/// Ends TLS at `listen` and passes the bytes on to `to` until `end`.
pub(crate) async fn serve(server: Server, listen: SocketAddr, to: SocketAddr, end: Instant) -> io::Result<()> {
    let options = ListenerOpts::new().reuse_port(false).backlog(4_096);
    let listener = TcpListener::bind_with_config(listen, &options)?;
    while clock::now() < end {
        let Ok((client, _)) = listener.accept().await else {
            monoio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let server = server.clone();
        // Whatever goes wrong shows as a closed connection.
        monoio::spawn(async move { join(server, client, to).await });
    }
    Ok(())
}

async fn join(server: Server, client: TcpStream, to: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let session = ServerConnection::new(server.0).map_err(io::Error::other)?;
    let client = TlsStream::open(client, session.into()).await?;
    let plain = TcpStream::connect_addr(to).await?;
    plain.set_nodelay(true)?;
    // Never borrowed across an await.
    let session = Rc::new(std::cell::RefCell::new(client.session));
    let (mut encrypted_read, mut encrypted_write) = client.tcp.into_split();
    let (mut plain_read, mut plain_write) = plain.into_split();
    let decrypting = Rc::clone(&session);
    let up = monoio::spawn(async move {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        let mut text = vec![0; READ_BYTES];
        loop {
            // What came with the end of the handshake goes first.
            let decrypted = decrypting.borrow_mut().reader().read(&mut text);
            match decrypted {
                Ok(length @ 1..) => {
                    let part = text.get(..length).unwrap_or_default().to_vec();
                    plain_write.write_all(part).await.0?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return plain_write.shutdown().await,
            }
            let (read, filled) = encrypted_read.read(buffer).await;
            buffer = filled;
            if read? == 0 {
                return plain_write.shutdown().await;
            }
            take(&mut decrypting.borrow_mut(), &buffer)?;
        }
    });
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let (read, filled) = plain_read.read(buffer).await;
        if !matches!(read, Ok(1..)) {
            break;
        }
        let records = {
            let mut session = session.borrow_mut();
            session.writer().write_all(&filled)?;
            records(&mut session)?
        };
        if encrypted_write.write_all(records).await.0.is_err() {
            break;
        }
        buffer = filled;
    }
    encrypted_write.shutdown().await?;
    up.await
}

/// One connection whose handshake is over.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    session: Connection,
    buffer: Vec<u8>,
}

impl TlsStream {
    async fn open(tcp: TcpStream, mut session: Connection) -> io::Result<Self> {
        session.set_buffer_limit(None);
        let mut stream = Self { tcp, session, buffer: Vec::with_capacity(READ_BYTES) };
        while stream.session.is_handshaking() {
            stream.flush().await?;
            if stream.session.is_handshaking() && stream.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        stream.flush().await?;
        Ok(stream)
    }

    /// The connection below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// As monoio's own: up to the capacity of `buffer`; 0 at the end.
    pub(crate) async fn read(&mut self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        buffer.resize(buffer.capacity(), 0);
        loop {
            match self.session.reader().read(&mut buffer) {
                Ok(length) => {
                    buffer.truncate(length);
                    return (Ok(length), buffer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return (Err(error), buffer),
            }
            match self.fill().await {
                Ok(1..) => {}
                // Without a close_notify it may have been cut.
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buffer),
                Err(error) => return (Err(error), buffer),
            }
        }
    }

    /// As monoio's own.
    pub(crate) async fn write_all(&mut self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let written = self.session.writer().write_all(&bytes);
        let written = match written {
            Ok(()) => self.flush().await,
            Err(error) => Err(error),
        };
        (written.map(|()| bytes.len()), bytes)
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let (read, buffer) = self.tcp.read(std::mem::take(&mut self.buffer)).await;
        self.buffer = buffer;
        let length = read?;
        take(&mut self.session, &self.buffer)?;
        Ok(length)
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.session.wants_write() {
            let records = records(&mut self.session)?;
            self.tcp.write_all(records).await.0?;
        }
        Ok(())
    }
}

/// Gives received bytes to the session.
fn take(session: &mut Connection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        session.read_tls(&mut bytes)?;
        session.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

/// Everything that the session wants to send.
fn records(session: &mut Connection) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut records)?;
    }
    Ok(records)
}
