//! Speaking HTTP to a Consul agent: one request a connection, all of it bounded in time and size.
//!
//! A node asks every few seconds at most, so a pool of connections would save nothing and bring
//! connections that died unnoticed. No redirects, no proxies, no client certificates.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use shared::config::model::{BaseUrl, Scheme, Secret};
use shared::foreign::one_line;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// An instance takes about 2 KiB of an answer: four times of what is kept of a list.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A head, its fields included.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Of what Consul says about a refusal.
const TEXT_CHARACTERS_MAX: usize = 200;

/// Where an agent is, and who asks.
pub(super) struct Agent {
    address: BaseUrl,
    token: Option<HeaderValue>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connect_timeout: Duration,
}

/// What an agent said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `X-Consul-Index`, when it was there and a number.
    pub(super) index: Option<u64>,
    pub(super) body: Bytes,
}

/// Why there is no answer. What was asked for may have been done all the same.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// No connection, or it broke.
    #[error("{0}")]
    Broken(String),
    /// Nothing, or not all, within the time.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// Consul cannot be asked at all with these settings.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("consul_ca_cert_pem holds no certificate that can be used")]
    Certificate,
    #[error("the host of consul_address cannot be the name of a TLS server")]
    ServerName,
    #[error("consul_token cannot stand in a header")]
    Token,
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

impl Agent {
    pub(super) fn new(
        address: BaseUrl,
        token: Option<&Secret>,
        ca_cert_pem: Option<&str>,
        connect_timeout: Duration,
    ) -> Result<Self, SettingsError> {
        let token = token.map(|token| HeaderValue::from_str(token.expose()).map_err(|_| SettingsError::Token));
        let mut token = token.transpose()?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        let tls = match address.scheme() {
            Scheme::Http => None,
            Scheme::Https => {
                let name = ServerName::try_from(address.host().to_owned()).map_err(|_| SettingsError::ServerName)?;
                Some((connector(ca_cert_pem)?, name))
            }
        };
        Ok(Self { address, token, tls, connect_timeout })
    }

    /// For the log.
    pub(super) fn address(&self) -> &BaseUrl {
        &self.address
    }

    pub(super) async fn get(&self, path: &str, within: Duration) -> Result<Answer, NoAnswer> {
        self.ask(Method::GET, path, Bytes::new(), within).await
    }

    pub(super) async fn put(&self, path: &str, body: Vec<u8>, within: Duration) -> Result<Answer, NoAnswer> {
        self.ask(Method::PUT, path, body.into(), within).await
    }

    /// What an agent says about a refusal: short, on one line, and without the token.
    pub(super) fn words(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let text = match self.token.as_ref().and_then(|token| token.to_str().ok()) {
            Some(token) => text.replace(token, "(the token)"),
            None => text.into_owned(),
        };
        one_line(&text, TEXT_CHARACTERS_MAX)
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes, within: Duration) -> Result<Answer, NoAnswer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address.path_prefix()))
            .header(HOST, self.address.host_header())
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token.clone());
        }
        let request = request.body(Full::new(body)).map_err(|fault| NoAnswer::Broken(fault.to_string()))?;
        let answer = async {
            let stream = self.connect().await?;
            match &self.tls {
                None => exchange(stream, request).await,
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), stream);
                    let stream = timeout(self.connect_timeout, stream).await;
                    let stream = stream.map_err(|_| NoAnswer::Late(self.connect_timeout))?;
                    exchange(stream.map_err(|fault| NoAnswer::Broken(format!("TLS: {fault}")))?, request).await
                }
            }
        };
        timeout(within, answer).await.map_err(|_| NoAnswer::Late(within))?
    }

    async fn connect(&self) -> Result<TcpStream, NoAnswer> {
        let stream = TcpStream::connect((self.address.host(), self.address.port()));
        let stream = timeout(self.connect_timeout, stream).await.map_err(|_| NoAnswer::Late(self.connect_timeout))?;
        stream.map_err(|fault| NoAnswer::Broken(format!("no connection: {fault}")))
    }
}

/// Trusts the given authority alone, or all public ones.
fn connector(ca_cert_pem: Option<&str>) -> Result<TlsConnector, SettingsError> {
    let mut roots = RootCertStore::empty();
    match ca_cert_pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|_| SettingsError::Certificate)?;
                roots.add(certificate).map_err(|_| SettingsError::Certificate)?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    if roots.is_empty() {
        return Err(SettingsError::Certificate);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SettingsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends the request and reads all of the answer. Dropping it closes the connection.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |fault: hyper::Error| NoAnswer::Broken(with_cause(&fault));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let answer = async move {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let index = answer.headers().get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|fault| NoAnswer::Broken(format!("the answer broke off: {fault}")))?.to_bytes();
        Ok(Answer { status, index, body })
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        // The last bytes of an answer outlive its connection; and where that failed, the answer says why.
        _ = &mut connection => answer.await,
    }
}

/// hyper says what it was doing; what went wrong is one level below.
fn with_cause(fault: &dyn std::error::Error) -> String {
    match fault.source() {
        Some(cause) => format!("{fault}: {cause}"),
        None => fault.to_string(),
    }
}
