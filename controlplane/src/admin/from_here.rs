//! Whether a request that may change something was sent by somebody on this machine, on purpose,
//! and not by a web page that a browser here shows. Pure.
//!
//! A page of another site can make a browser send to loopback: under its own origin, which the
//! browser names, or under a name of its own that it lets resolve to 127.0.0.1, which then is the
//! Host. Neither passes.

use axum::http::{HeaderMap, header};
use std::net::IpAddr;

/// Why a request is refused, as a sentence.
pub(super) fn refusal(headers: &HeaderMap) -> Option<&'static str> {
    let Some(host) = only(headers, header::HOST.as_str()) else {
        return Some("a request needs one Host field");
    };
    if !is_literal(host) {
        return Some("ask this listener by its IP address or as localhost");
    }
    page_refusal(headers)
}

/// The same for requests with credentials, which may come from anywhere by any name: only whether a page
/// of another site has sent it.
pub(super) fn page_refusal(headers: &HeaderMap) -> Option<&'static str> {
    let host = only(headers, header::HOST.as_str()).unwrap_or_default();
    let is_ours = |origin: &str| {
        origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).is_some_and(|name| name == host)
    };
    if headers.contains_key(header::ORIGIN) && !only(headers, header::ORIGIN.as_str()).is_some_and(is_ours) {
        return Some("pages of other sites may not ask this");
    }
    let is_same_site = |site: &str| matches!(site, "same-origin" | "none");
    if headers.contains_key("sec-fetch-site") && !only(headers, "sec-fetch-site").is_some_and(is_same_site) {
        return Some("pages of other sites may not ask this");
    }
    None
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// `127.0.0.1:8081`, `[::1]:8081`, `localhost`: what no name server can turn elsewhere.
fn is_literal(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let is_port = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
            return is_port && address.parse::<std::net::Ipv6Addr>().is_ok();
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let is_name = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4());
    is_name && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(fields: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        refusal(&headers).is_none()
    }

    #[test]
    fn a_host_that_is_an_address_or_localhost_passes() {
        for host in ["127.0.0.1", "127.0.0.1:8081", "localhost:8081", "LOCALHOST", "[::1]:8081", "[::1]", "10.0.0.1"] {
            assert!(passes(&[("host", host)]), "{host}");
        }
    }

    #[test]
    fn a_name_that_somebody_may_turn_to_loopback_does_not() {
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost:x",
            "[::1",
            "[::1]evil.example",
            "[evil.example]",
            "::1",
            "",
            "127.0.0.1:8081:1",
        ] {
            assert!(!passes(&[("host", host)]), "{host}");
        }
        assert!(!passes(&[]));
        assert!(!passes(&[("host", "127.0.0.1"), ("host", "127.0.0.1")]));
    }

    #[test]
    fn a_page_of_another_site_does_not_pass() {
        let host = ("host", "127.0.0.1:8081");
        assert!(passes(&[host, ("origin", "http://127.0.0.1:8081"), ("sec-fetch-site", "same-origin")]));
        assert!(passes(&[host, ("sec-fetch-site", "none")]));
        for origin in ["https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:80811", ""] {
            assert!(!passes(&[host, ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(!passes(&[host, ("sec-fetch-site", site)]), "{site}");
        }
    }
}
