//! TLS as bytes in, bytes out: rustls without its own io, so that records travel through the same
//! buffers, deadlines and rings as everything else. Also how the two sides are configured.

use crate::buffers::Buffer;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, RootCertStore, ServerConfig, ServerConnection,
};
use shared::published::ListenerIdentity;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// One TLS connection's state.
pub(crate) struct TlsSession {
    connection: Connection,
    /// Decrypted bytes that nobody has taken yet, and how many of them are taken.
    plain: Vec<u8>,
    taken: usize,
    is_closed: bool,
}

/// A certificate or key that cannot be used. The configuration before it stays in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsConfigError {
    /// The PEM text does not hold what it should.
    #[error("not usable as PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// rustls refuses the certificate or key.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// The name cannot stand in a certificate.
    #[error("{0} is not a host name that a certificate could be checked against")]
    Name(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Configuration towards one provider: the web roots and `ca_cert_pem`.
pub(crate) fn client_config(ca_cert_pem: Option<&str>, skip_verify: bool) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = ca_cert_pem {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate?)?;
        }
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = if skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider()))).with_no_client_auth()
    } else {
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Configuration of the TLS listener.
pub(crate) fn server_config(certificates_pem: &str, key_pem: &str) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let certificates = CertificateDer::pem_slice_iter(certificates_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whether a listener could serve with this certificate and key; why not, in a sentence without
/// either. To be asked before a node starts: later, the pair before stays.
pub fn check_identity(identity: &ListenerIdentity) -> Result<(), String> {
    server_config(&identity.certificates_pem, identity.key_pem.expose()).map(drop).map_err(|error| error.to_string())
}

impl TlsSession {
    /// Our side of a connection to the provider named `host`.
    pub(crate) fn client(config: &Arc<ClientConfig>, host: &str) -> Result<Self, TlsConfigError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsConfigError::Name(host.to_owned()))?;
        Ok(Self::new(ClientConnection::new(Arc::clone(config), name)?.into()))
    }

    /// Our side of a client's connection.
    pub(crate) fn server(config: &Arc<ServerConfig>) -> Result<Self, TlsConfigError> {
        Ok(Self::new(ServerConnection::new(Arc::clone(config))?.into()))
    }

    fn new(connection: Connection) -> Self {
        Self { connection, plain: Vec::new(), taken: 0, is_closed: false }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The peer has said that it sends nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed && self.taken == self.plain.len()
    }

    /// Decrypted bytes wait to be taken.
    pub(crate) fn has_plain(&self) -> bool {
        self.taken < self.plain.len()
    }

    /// Takes records from the network; their plain bytes wait for `take_plain`.
    pub(crate) fn receive(&mut self, mut records: &[u8]) -> io::Result<()> {
        while !records.is_empty() {
            if self.connection.read_tls(&mut records)? == 0 {
                break; // after close_notify: what follows means nothing
            }
            let state = self
                .connection
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.is_closed |= state.peer_has_closed();
            let waiting = state.plaintext_bytes_to_read();
            if waiting > 0 {
                if self.taken == self.plain.len() {
                    self.plain.clear();
                    self.taken = 0;
                }
                let from = self.plain.len();
                self.plain.resize(from + waiting, 0);
                self.connection.reader().read_exact(&mut self.plain[from..])?;
            }
        }
        Ok(())
    }

    /// Moves plain bytes behind the payload of `buffer`: how many, and whether the peer has ended.
    pub(crate) fn take_plain(&mut self, buffer: &mut Buffer) -> io::Result<(usize, bool)> {
        let waiting = &self.plain[self.taken..];
        let count = waiting.len().min(buffer.room());
        if count == 0 && !waiting.is_empty() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if !buffer.append(&waiting[..count]) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.taken += count;
        if self.taken == self.plain.len() && self.taken > 0 {
            // An idle connection keeps no room for the bytes it once had.
            self.plain = Vec::new();
            self.taken = 0;
        }
        Ok((count, self.is_closed()))
    }

    /// Encrypts as much of `plain` as the session takes at once; `take_records` has the result.
    pub(crate) fn encrypt(&mut self, plain: &[u8]) -> io::Result<usize> {
        match self.connection.writer().write(plain)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(count),
        }
    }

    /// Appends the records that are to be sent.
    pub(crate) fn take_records(&mut self, records: &mut Vec<u8>) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(records)?;
        }
        Ok(())
    }

    /// Says that we send nothing more.
    pub(crate) fn say_goodbye(&mut self) {
        self.connection.send_close_notify();
    }
}

/// For `insecure_skip_verify`: any certificate, but still a proper handshake with it.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
