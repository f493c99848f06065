//! Asking a Kubernetes API server for pods: a list in pages, and a watch, which is a line of JSON
//! for each event. kube brings credentials and TLS; what comes back is bounded here, in time
//! and in size, which kube's own reading is not.

use http_body_util::{BodyExt, Collected, Limited};
use hyper::{Response, StatusCode};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::{AuthError, Body};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::core::params::{ListParams, WatchParams};
use kube::{Client, Config};
use serde::Deserialize;
use shared::foreign::one_line;
use std::error::Error;
use std::time::Duration;
use tokio::time::timeout;

/// Pods of one page. A pod is 5 to 20 KiB of JSON.
const PAGE_PODS: u32 = 250;
/// One page: room for pods of 64 KiB on average.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// One event: etcd holds no object of more than 1.5 MiB, and JSON writes more than it stores.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A `Status`.
const STATUS_BYTES_MAX: usize = 64 * 1024;
/// A program that fetches credentials; some ask a cloud's own server first.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(30);
/// Of what a server or a library says about a fault.
const TEXT_CHARACTERS_MAX: usize = 400;

/// Why there are no pods.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// No credentials, or ones that cannot be used.
    #[error("{0}")]
    Config(String),
    /// 401 or 403.
    #[error("{message}")]
    Denied { status: StatusCode, message: String },
    /// 410: the version, or the page, is too old.
    #[error("the version that was asked for is gone")]
    Gone,
    /// Another status, from the head or from an event.
    #[error("{code}: {message}")]
    Refused { code: u16, message: String },
    /// No connection, or it broke.
    #[error("{0}")]
    Broken(String),
    /// Nothing within the time.
    #[error("nothing was heard for {0:?}")]
    Late(Duration),
    /// What came is not what the API says.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

/// Whose pods are asked for.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) namespace: String,
    pub(super) label_selector: String,
    /// One answer's head, or one page.
    pub(super) within: Duration,
}

/// An event of a watch.
pub(super) enum Event {
    /// Added, or changed: `Some`. Deleted, or no longer matching the selector: the other.
    Present(Box<Pod>),
    Absent(Box<Pod>),
    /// Nothing happened up to this version.
    Bookmark(String),
}

/// An open watch.
pub(super) struct Watch {
    body: Body,
    /// Begins with the line that is not complete yet.
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are known to hold no line end.
    scanned: usize,
}

/// Reads credentials anew. Connects when it is first used.
pub(super) async fn client(kubeconfig: Option<&str>, connect_timeout: Duration) -> Result<Client, Trouble> {
    let config = match kubeconfig {
        Some(path) => match Kubeconfig::read_from(path) {
            Ok(file) => Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await,
            Err(fault) => Err(fault),
        }
        .map_err(|fault| Trouble::Config(short(&fault.to_string())))?,
        None => Config::infer().await.map_err(|fault| Trouble::Config(short(&fault.to_string())))?,
    };
    let mut config = config;
    config.connect_timeout = Some(connect_timeout);
    // Whoever asks here backs off, and says why.
    config.default_retry = false;
    // A kubeconfig may name a program that fetches a token; the control thread does not wait for it.
    let made = tokio::task::spawn_blocking(|| Client::try_from(config));
    let made = timeout(PROGRAM_TIMEOUT, made).await.map_err(|_| Trouble::Late(PROGRAM_TIMEOUT))?;
    let made = made.map_err(|fault| Trouble::Config(fault.to_string()))?;
    made.map_err(|fault| Trouble::Config(with_causes(&fault)))
}

/// One page; `continued` is the token of the page before.
pub(super) async fn page(client: &Client, asked: &Question, continued: Option<&str>) -> Result<List<Pod>, Trouble> {
    let mut params = ListParams::default().labels(&asked.label_selector).limit(PAGE_PODS);
    params.continue_token = continued.map(str::to_owned);
    let request = asked.request().list(&params).map_err(|fault| Trouble::Unreadable(fault.to_string()))?;
    let page = async {
        let body = send(client, request).await?.into_body();
        let body = Limited::new(body, PAGE_BYTES_MAX).collect().await;
        let body = body.map_err(|fault| Trouble::Broken(with_causes(fault.as_ref())))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|fault| Trouble::Unreadable(fault.to_string()))
    };
    timeout(asked.within, page).await.map_err(|_| Trouble::Late(asked.within))?
}

/// Opens a watch from `version` on, which the server ends after `seconds`.
pub(super) async fn watch(client: &Client, asked: &Question, version: &str, seconds: u32) -> Result<Watch, Trouble> {
    let params = WatchParams::default().labels(&asked.label_selector).timeout(seconds);
    let request = asked.request().watch(&params, version);
    let mut request = request.map_err(|fault| Trouble::Unreadable(fault.to_string()))?;
    // A compressed event would wait in the compressor for the next one.
    let identity = hyper::header::HeaderValue::from_static("identity");
    request.headers_mut().insert(hyper::header::ACCEPT_ENCODING, identity);
    let answer = timeout(asked.within, send(client, request)).await.map_err(|_| Trouble::Late(asked.within))??;
    Ok(Watch { body: answer.into_body(), buffer: Vec::new(), scanned: 0 })
}

impl Question {
    fn request(&self) -> Request {
        Request::new(format!("/api/v1/namespaces/{}/pods", self.namespace))
    }
}

impl Watch {
    /// The next event; `None` when the server ended the watch between two events. Dropping the
    /// future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Trouble> {
        loop {
            if let Some(line) = self.take_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return read_event(&line).map(Some);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Trouble::Unreadable(format!("an event of more than {LINE_BYTES_MAX} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(fault)) => return Err(Trouble::Broken(with_causes(&fault))),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Trouble::Broken("the watch ended within an event".to_owned())),
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let unscanned = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(at) = unscanned.iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.buffer.len();
            return None;
        };
        let line = self.buffer.drain(..=self.scanned.saturating_add(at)).collect();
        self.scanned = 0;
        Some(line)
    }
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

fn read_event(line: &[u8]) -> Result<Event, Trouble> {
    let unreadable = |fault: serde_json::Error| Trouble::Unreadable(fault.to_string());
    let RawEvent { kind, object } = serde_json::from_slice(line).map_err(unreadable)?;
    match kind.as_str() {
        "ADDED" | "MODIFIED" => serde_json::from_value(object).map(Event::Present).map_err(unreadable),
        "DELETED" => serde_json::from_value(object).map(Event::Absent).map_err(unreadable),
        "BOOKMARK" => {
            let version = object.pointer("/metadata/resourceVersion").and_then(serde_json::Value::as_str);
            let version = version.filter(|version| !version.is_empty());
            let version = version.ok_or_else(|| Trouble::Unreadable("a bookmark without a version".to_owned()))?;
            Ok(Event::Bookmark(version.to_owned()))
        }
        "ERROR" => {
            let status: Status = serde_json::from_value(object).map_err(unreadable)?;
            let code = status.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
            Err(trouble(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Some(status)))
        }
        _ => Err(Trouble::Unreadable("an event of an unknown type".to_owned())),
    }
}

async fn send(client: &Client, request: hyper::Request<Vec<u8>>) -> Result<Response<Body>, Trouble> {
    let answer = client.send(request.map(Body::from)).await.map_err(|fault| match fault {
        kube::Error::Auth(fault) => Trouble::Config(with_causes(&fault)),
        kube::Error::Service(fault) if fault.is::<AuthError>() => Trouble::Config(with_causes(fault.as_ref())),
        fault => Trouble::Broken(with_causes(&fault)),
    })?;
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let body = Limited::new(answer.into_body(), STATUS_BYTES_MAX).collect().await;
    let body = body.map(Collected::to_bytes).unwrap_or_default();
    Err(trouble(status, serde_json::from_slice(&body).ok()))
}

fn trouble(status: StatusCode, said: Option<Status>) -> Trouble {
    let message = said.and_then(|said| said.message).map_or_else(|| status.to_string(), |message| short(&message));
    match status {
        StatusCode::GONE => Trouble::Gone,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Trouble::Denied { status, message },
        _ => Trouble::Refused { code: status.as_u16(), message },
    }
}

fn short(text: &str) -> String {
    one_line(text, TEXT_CHARACTERS_MAX)
}

/// Libraries say what they were doing; what went wrong is some levels below.
fn with_causes(fault: &(dyn Error + 'static)) -> String {
    let mut text = fault.to_string();
    let mut below = fault.source();
    while let Some(cause) = below {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        below = cause.source();
    }
    short(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch_of(chunks: &[u8]) -> Watch {
        Watch { body: Body::empty(), buffer: chunks.to_vec(), scanned: 0 }
    }

    #[tokio::test]
    async fn a_watch_that_ends_within_an_event_is_broken() {
        let mut watch =
            watch_of(b"{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"7\"}}}\n\n{\"ty");
        assert!(matches!(watch.next().await, Ok(Some(Event::Bookmark(version))) if version == "7"));
        assert!(matches!(watch.next().await, Err(Trouble::Broken(_))));
        assert!(matches!(watch_of(b"\n").next().await, Ok(None)));
    }

    #[test]
    fn an_error_event_is_the_status_that_it_carries() {
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","code":410,"reason":"Expired"}}"#;
        assert!(matches!(read_event(gone), Err(Trouble::Gone)));
        let busy =
            br#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","code":500,"message":"etcd\nleader"}}"#;
        assert!(matches!(read_event(busy), Err(Trouble::Refused { code: 500, message }) if message == "etcd leader"));
        for unknown in [&br#"{"type":"PATCHED","object":{}}"#[..], br#"{"type":"BOOKMARK","object":{}}"#, b"[]"] {
            assert!(matches!(read_event(unknown), Err(Trouble::Unreadable(_))));
        }
    }
}
