//! TLS of the admin listener: its certificate and key, read again while the node runs. A pair that
//! cannot be used leaves the one in use.

use crate::listener_identity::{IdentityError, IdentityWatch};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shared::config::model::TlsFiles;
use shared::published::ListenerIdentity;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the listener accepts with. Cheap to copy.
#[derive(Clone)]
pub struct AdminTls(watch::Receiver<Arc<ServerConfig>>);

/// The pair, its files, and where a new one goes.
pub(crate) struct AdminIdentity {
    files: IdentityWatch,
    sender: watch::Sender<Arc<ServerConfig>>,
}

/// Why the admin listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum AdminTlsError {
    /// A file could not be read.
    #[error(transparent)]
    Unread(#[from] IdentityError),
    /// The pair is none.
    #[error("{0}")]
    Unusable(String),
}

impl AdminIdentity {
    /// `None` without files: the listener speaks plain HTTP.
    pub(crate) fn open(files: Option<TlsFiles>) -> Result<Option<(Self, AdminTls)>, AdminTlsError> {
        if files.is_none() {
            return Ok(None);
        }
        let files = IdentityWatch::open(files)?;
        let Some(pair) = files.current() else { return Ok(None) };
        let (sender, receiver) = watch::channel(Arc::new(usable(&pair)?));
        Ok(Some((Self { files, sender }, AdminTls(receiver))))
    }

    /// Looks at the files for ever, on the blocking pool.
    pub(crate) async fn keep_fresh(mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look_again();
                self
            });
            match looked.await {
                Ok(again) => self = again,
                Err(_) => return,
            }
        }
    }

    fn look_again(&mut self) {
        let fresh = self.files.look_again().map_err(AdminTlsError::from).and_then(|is_new| {
            let pair = self.files.current().filter(|_| is_new);
            pair.map(|pair| usable(&pair)).transpose()
        });
        match fresh {
            Ok(Some(config)) => {
                tracing::info!("the certificate of the admin listener has changed and is used from now on");
                self.sender.send_replace(Arc::new(config));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the admin listener keeps the certificate it has"),
        }
    }
}

impl AdminTls {
    /// A handshake with the pair as it is now.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.0.borrow());
        TlsAcceptor::from(config).accept(stream).await
    }
}

fn usable(pair: &ListenerIdentity) -> Result<ServerConfig, AdminTlsError> {
    let unusable = |error: &dyn std::fmt::Display| AdminTlsError::Unusable(error.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pair.certificates_pem.as_bytes()).collect();
    let chain = chain.map_err(|error| unusable(&error))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.expose().as_bytes()).map_err(|error| unusable(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = versions
        .map_err(|error| unusable(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
