//! Where requests go and how one is written. Only `http://` to a loopback address: this
//! program never sends load to another machine.

use std::net::{SocketAddr, ToSocketAddrs};

use thiserror::Error;

/// Largest request body, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a target was refused. Nothing was sent.
#[derive(Debug, Error)]
pub(crate) enum TargetError {
    /// Not `http://HOST:PORT/PATH`.
    #[error("`{0}` is not http://HOST:PORT/PATH")]
    Shape(String),
    /// The name did not resolve.
    #[error("`{0}` does not resolve: {1}")]
    Resolve(String, std::io::Error),
    /// Load goes to loopback addresses only.
    #[error("`{0}` is not a loopback address")]
    NotLoopback(SocketAddr),
    /// A header that would break the request apart.
    #[error("`{0}` is not a header of the form `name: value`")]
    Header(String),
}

/// An address, the authority to name in `host`, and a path.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// A loopback address.
    pub(crate) address: SocketAddr,
    authority: String,
    path: String,
}

impl Target {
    /// Parses `http://HOST:PORT/PATH`; the port may be left out (80), and the path (`/`).
    pub(crate) fn parse(url: &str) -> Result<Self, TargetError> {
        let shape = || TargetError::Shape(url.to_owned());
        let rest = url.strip_prefix("http://").ok_or_else(shape)?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        if authority.is_empty() || url.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(shape());
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let dialled = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let address = loopback(&dialled)?;
        Ok(Self { address, authority: authority.to_owned(), path: path.to_owned() })
    }

    /// The same address with another path.
    pub(crate) fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// A whole POST request: head and body in one buffer, for one write.
    pub(crate) fn post(&self, headers: &[Header], body: &[u8]) -> Vec<u8> {
        let mut wire = Vec::with_capacity(body.len() + 512);
        wire.extend_from_slice(format!("POST {} HTTP/1.1\r\n", self.path).as_bytes());
        self.finish_head(&mut wire, headers, Some(body.len()));
        wire.extend_from_slice(body);
        wire
    }

    /// A whole GET request.
    pub(crate) fn get(&self) -> Vec<u8> {
        let mut wire = format!("GET {} HTTP/1.1\r\n", self.path).into_bytes();
        self.finish_head(&mut wire, &[], None);
        wire
    }

    fn finish_head(&self, wire: &mut Vec<u8>, headers: &[Header], length: Option<usize>) {
        wire.extend_from_slice(format!("host: {}\r\n", self.authority).as_bytes());
        if let Some(length) = length {
            wire.extend_from_slice(
                format!("content-type: application/json\r\ncontent-length: {length}\r\n").as_bytes(),
            );
        }
        for header in headers {
            wire.extend_from_slice(format!("{}: {}\r\n", header.name, header.value).as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
    }
}

/// Resolves `HOST:PORT` and insists on a loopback address.
pub(crate) fn loopback(authority: &str) -> Result<SocketAddr, TargetError> {
    let address = authority
        .to_socket_addrs()
        .map_err(|source| TargetError::Resolve(authority.to_owned(), source))?
        .next()
        .ok_or_else(|| TargetError::Shape(authority.to_owned()))?;
    if address.ip().is_loopback() { Ok(address) } else { Err(TargetError::NotLoopback(address)) }
}

/// One request header from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    name: String,
    value: String,
}

impl Header {
    /// A header whose parts this program wrote itself.
    pub(crate) fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.into() }
    }
}

impl std::str::FromStr for Header {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        text.split_once(':')
            .map(|(name, value)| Self::new(name.trim(), value.trim()))
            .filter(|header| {
                !header.name.is_empty()
                    && header.name.bytes().all(|b| b.is_ascii_graphic())
                    && !header.value.bytes().any(|b| b.is_ascii_control())
            })
            .ok_or_else(|| TargetError::Header(text.to_owned()))
    }
}

/// A chat request of exactly `bytes` bytes, or the shortest one where that is longer.
pub(crate) fn chat_body(model: &str, bytes: usize) -> Vec<u8> {
    let opening =
        format!("{{\"model\":{},\"messages\":[{{\"role\":\"user\",\"content\":\"", serde_json::Value::from(model));
    let closing = "\"}]}";
    let filler = bytes.min(BODY_BYTES_MAX).saturating_sub(opening.len() + closing.len());
    let mut body = opening.into_bytes();
    body.extend(b"tell me more about it. ".iter().cycle().take(filler));
    body.extend_from_slice(closing.as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_body_has_the_length_that_was_asked_for() {
        let body = chat_body("gpt-4o-mini", 1024);
        assert_eq!(body.len(), 1024);
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(json["model"], "gpt-4o-mini");
    }

    #[test]
    fn a_request_is_one_buffer() {
        let target = Target::parse("http://127.0.0.1:8080/v1/x").expect("target");
        let header = "X-Api-Key: sk-bf-load".parse().expect("header");
        assert_eq!(
            String::from_utf8_lossy(&target.post(&[header], b"{}")),
            "POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:8080\r\ncontent-type: application/json\r\n\
             content-length: 2\r\nX-Api-Key: sk-bf-load\r\n\r\n{}"
        );
    }

    #[test]
    fn other_machines_are_refused() {
        assert!(matches!(Target::parse("http://192.0.2.1:80/"), Err(TargetError::NotLoopback(_))));
        assert!(matches!(Target::parse("https://127.0.0.1/"), Err(TargetError::Shape(_))));
    }

    #[test]
    fn a_header_cannot_break_the_request_apart() {
        assert!("a: b\r\nc: d".parse::<Header>().is_err());
        assert!("no colon".parse::<Header>().is_err());
    }
}
