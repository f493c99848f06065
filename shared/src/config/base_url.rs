//! Addresses as the configuration writes them: a provider's base URL, `host:port`.
//!
//! Only the form that is needed is accepted, so that no two readers can see two hosts in one
//! text: no userinfo, query, fragment, escapes, dot segments or non-ASCII. Names are checked
//! for their letters, not resolved; which addresses may be connected to is decided there.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

/// Where a provider is: scheme, host, port, and what stands before every request path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    scheme: Scheme,
    address: HostPort,
    /// Empty, or `/` and segments without a `/` at the end.
    path_prefix: String,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain, port 80.
    Http,
    /// TLS, port 443.
    Https,
}

impl Scheme {
    /// The port that a URL may leave out.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl BaseUrl {
    /// Reads `http://` or `https://`, a host, an optional port and an optional path.
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(AddressFault::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AddressFault::Character);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return Err(AddressFault::Scheme),
        };
        if rest.contains(['?', '#', '%', '\\']) {
            return Err(AddressFault::Decoration);
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(AddressFault::Userinfo);
        }
        Ok(Self {
            scheme,
            address: HostPort::parse(authority, Some(scheme.default_port()))?,
            path_prefix: parse_path(path)?,
        })
    }

    /// Plain or TLS.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// A name in lower case, or an address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.address.host
    }

    /// The port, the scheme's own where none was written.
    pub fn port(&self) -> u16 {
        self.address.port
    }

    /// Empty, or begins with `/` and does not end with one.
    pub fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    /// What belongs into the `host` header: the port only where it is not the scheme's own.
    pub fn host_header(&self) -> String {
        if self.port() == self.scheme.default_port() { self.address.bracketed_host() } else { self.address.to_string() }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        write!(f, "{scheme}://{}{}", self.host_header(), self.path_prefix)
    }
}

/// A name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Reads `name:port`, `1.2.3.4:port` or `[::1]:port`; the port may be left out where there
    /// is a default for it.
    pub fn parse(text: &str, port_default: Option<u16>) -> Result<Self, AddressFault> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(AddressFault::TooLong);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(AddressFault::Host)?;
                let address: Ipv6Addr = host.parse().map_err(|_| AddressFault::Host)?;
                let port = match after {
                    "" => None,
                    _ => Some(after.strip_prefix(':').ok_or(AddressFault::Port)?),
                };
                (address.to_string(), port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (parse_name(host)?, Some(port)),
                None => (parse_name(text)?, None),
            },
        };
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => port_default.ok_or(AddressFault::Port)?,
        };
        Ok(Self { host, port })
    }

    /// A name in lower case, or an address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.bracketed_host(), self.port)
    }
}

/// Longer than any name, port and path that make sense together.
const TEXT_BYTES_MAX: usize = 2_048;

/// RFC 1035, section 2.3.4, in text form.
const NAME_BYTES_MAX: usize = 253;

/// Why a text is no address. The messages never repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant means")]
pub enum AddressFault {
    #[error("it does not begin with http:// or https://")]
    Scheme,
    #[error("it has a blank, a control character or a letter outside ASCII")]
    Character,
    #[error("it has a user name or password; keys belong into `keys` or `extra_headers`")]
    Userinfo,
    #[error("it has a '?', '#', '%' or '\\'")]
    Decoration,
    #[error("the host is empty or not a name or an address")]
    Host,
    #[error("the port is missing or not a number from 1 to 65535")]
    Port,
    #[error("the path has an empty segment, '.' or '..', or a character that needs escaping")]
    Path,
    #[error("it is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
}

/// Names as RFC 1123 has them, and `_`, which service names in clusters use.
fn parse_name(text: &str) -> Result<String, AddressFault> {
    let label_is_fine = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(label_is_fine) {
        return Err(AddressFault::Host);
    }
    // `127.1`, `0x7f.1` and `2130706433` mean 127.0.0.1 to some resolvers: a last label that
    // begins with a digit has to be part of a plain dotted quad.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.starts_with(|first: char| first.is_ascii_digit()) && !matches!(name.parse::<IpAddr>(), Ok(IpAddr::V4(_))) {
        return Err(AddressFault::Host);
    }
    Ok(name.to_ascii_lowercase())
}

fn parse_port(digits: &str) -> Result<u16, AddressFault> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressFault::Port);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(AddressFault::Port),
        Ok(port) => Ok(port),
    }
}

fn parse_path(path: &str) -> Result<String, AddressFault> {
    let prefix = path.strip_suffix('/').unwrap_or(path);
    let segment_is_fine = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte))
    };
    match prefix.strip_prefix('/') {
        None => Ok(String::new()),
        Some(segments) if segments.split('/').all(segment_is_fine) => Ok(prefix.to_owned()),
        Some(_) => Err(AddressFault::Path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_base_urls_are_taken_apart() {
        for (text, host, port, prefix, again) in [
            ("https://api.openai.com", "api.openai.com", 443, "", "https://api.openai.com"),
            ("https://api.openai.com/", "api.openai.com", 443, "", "https://api.openai.com"),
            ("https://api.groq.com/openai", "api.groq.com", 443, "/openai", "https://api.groq.com/openai"),
            ("HTTP://LocalHost:11434/a/b/", "localhost", 11_434, "/a/b", "http://localhost:11434/a/b"),
            ("http://[::1]:9000", "::1", 9_000, "", "http://[::1]:9000"),
            ("http://my_vllm:80", "my_vllm", 80, "", "http://my_vllm"),
            ("http://10.0.0.7:8000", "10.0.0.7", 8_000, "", "http://10.0.0.7:8000"),
        ] {
            let url = BaseUrl::parse(text).expect(text);
            assert_eq!((url.host(), url.port(), url.path_prefix()), (host, port, prefix), "{text}");
            assert_eq!(url.to_string(), again);
        }
    }

    #[test]
    fn a_text_that_could_mean_two_hosts_is_refused() {
        for (text, fault) in [
            ("api.openai.com", AddressFault::Scheme),
            ("ftp://a", AddressFault::Scheme),
            ("https://user:pw@a.com", AddressFault::Userinfo),
            ("https://a.com@b.com/", AddressFault::Userinfo),
            ("https://a.com/x?y=1", AddressFault::Decoration),
            ("https://a.com/#x", AddressFault::Decoration),
            ("https://a.com\\@b.com", AddressFault::Decoration),
            ("https://a%2ecom", AddressFault::Decoration),
            ("https://a.com/..", AddressFault::Path),
            ("https://a.com/x/../y", AddressFault::Path),
            ("https://a.com//x", AddressFault::Path),
            ("https://a.com/{x}", AddressFault::Path),
            ("https://a.com/\r\nhost: b", AddressFault::Character),
            ("https://\u{e4}.com", AddressFault::Character),
            ("https://", AddressFault::Host),
            ("https://:443", AddressFault::Host),
            ("https://a..b", AddressFault::Host),
            ("https://-a.com", AddressFault::Host),
            ("http://127.1", AddressFault::Host),
            ("http://2130706433", AddressFault::Host),
            ("http://0x7f000001", AddressFault::Host),
            ("http://010.0.0.1", AddressFault::Host),
            ("http://[::1", AddressFault::Host),
            ("http://[1.2.3.4]", AddressFault::Host),
            ("http://a:0", AddressFault::Port),
            ("http://a:65536", AddressFault::Port),
            ("http://a:+80", AddressFault::Port),
            ("http://a:", AddressFault::Port),
            ("http://[::1]80", AddressFault::Port),
        ] {
            assert_eq!(BaseUrl::parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn peers_need_a_port_unless_there_is_a_default() {
        assert_eq!(HostPort::parse("node-1", None), Err(AddressFault::Port));
        assert_eq!(HostPort::parse("node-1", Some(7)).map(|to| to.port()), Ok(7));
        let peer = HostPort::parse("[fe80::1]:10101", None).expect("an address");
        assert_eq!(peer.to_string(), "[fe80::1]:10101");
        assert!(peer.ip().is_some());
    }
}
