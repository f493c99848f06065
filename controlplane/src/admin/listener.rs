//! Connections of the admin listener, and the bounds on each: how many, how long, how slow, how
//! large a head. axum's own server has none of them. With TLS where the listener has a certificate.

use super::door::Peer;
use super::tls::AdminTls;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at one time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// A connection is closed after this, whatever it does: a scraper opens another one.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// A head must be complete this long after it can be read. Without the timer below, hyper
/// would never look at this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Fields in a head.
const FIELDS_MAX: usize = 64;
/// Bytes of a head; also of what is buffered for one connection.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A TLS handshake is over after this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped.
pub async fn serve(listener: TcpListener, routes: Router, tls: Option<AdminTls>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let (routes, tls) = (routes.clone(), tls.clone());
                let peer = Peer(address.ip().to_canonical());
                tokio::spawn(async move {
                    match tls {
                        None => serve_connection(stream, peer, routes).await,
                        // Who cannot finish a handshake is told by it.
                        Some(tls) => {
                            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                                serve_connection(stream, peer, routes).await;
                            }
                        }
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection<S>(stream: S, peer: Peer, routes: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(routes);
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(FIELDS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    // How a connection ends, by its client, a fault or its age, is of no interest to anybody.
    drop(tokio::time::timeout(CONNECTION_AGE_MAX, connection).await);
}

#[cfg(test)]
mod tests {
    use super::super::tests::desk;
    use super::super::{Question, routes};
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::mpsc;

    async fn started() -> SocketAddr {
        let (questions, mut asked) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                if let Question::Metrics(answer) = question {
                    drop(answer.send("up 1\n".to_owned()));
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, routes(desk(questions, true)), None));
        address
    }

    async fn answer_to(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn get(path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").into_bytes()
    }

    #[tokio::test]
    async fn paths_are_answered() {
        let address = started().await;
        let metrics = answer_to(address, &get("/metrics")).await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.ends_with("up 1\n"), "{metrics}");
        assert!(answer_to(address, &get("/api/version")).await.ends_with("{\"version\":\"1.2.3\"}"));
        assert!(answer_to(address, &get("/health")).await.starts_with("HTTP/1.1 200"));
        assert!(answer_to(address, &get("/nothing")).await.starts_with("HTTP/1.1 404"));
        // The loop above drops this question without an answer.
        assert!(answer_to(address, &get("/ready")).await.starts_with("HTTP/1.1 503"));
    }

    #[tokio::test]
    async fn a_head_beyond_the_bounds_is_refused() {
        let address = started().await;
        let mut request = b"GET /health HTTP/1.1\r\nhost: a\r\n".to_vec();
        for field in 0..FIELDS_MAX {
            request.extend_from_slice(format!("x-{field}: 1\r\n").as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        assert!(answer_to(address, &request).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_cut_off_in_time() {
        let address = started().await;
        let answer = answer_to(address, b"GET /health HT");
        let answer = tokio::time::timeout(HEAD_TIMEOUT * 2, answer).await.expect("it is cut off in time");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
