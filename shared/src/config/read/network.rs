//! `network_config`: where a provider is, and how long we wait for it.

use core::net::IpAddr;
use core::time::Duration;

use super::client::is_token;
use super::{DAY, read_switch};
use crate::config::model::{BaseUrl, ExtraHeader, Network, ProviderKind, Retry};
use crate::config::reader::{Fields, Node, Place, Reader};

/// Headers that we add ourselves; a fixed value would break the request.
const NEVER_EXTRA: [&str; 9] =
    ["connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

const EXTRA_HEADERS_MAX: usize = 32;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Reads `network_config` out of a provider of this kind; left out, it is all defaults. `None`
/// where there is no base URL to be had.
pub(super) fn read(reader: &mut Reader<'_>, provider: &mut Fields<'_>, kind: ProviderKind) -> Option<Network> {
    let (network, place) = if let Some(node) = provider.get(reader, "network_config") {
        let network = reader.object(&node, |reader, fields| read_fields(reader, fields, kind));
        (network.flatten(), node.place)
    } else {
        let url = vendor_url(kind).or_else(|| no_address(reader, &provider.place, kind));
        let network = url.map(|url| Network::new(url, kind.is_self_hosted()));
        (network, provider.place.clone())
    };
    if let Some(network) = &network {
        check_reachable(reader, &place, network);
    }
    network
}

fn vendor_url(kind: ProviderKind) -> Option<BaseUrl> {
    BaseUrl::parse(kind.default_base_url()?).ok()
}

fn no_address(reader: &mut Reader<'_>, place: &Place, kind: ProviderKind) -> Option<BaseUrl> {
    let problem = format!("{} has no address of its own", kind.name());
    reader.fault(place, problem, "network_config.base_url");
    None
}

fn read_fields(reader: &mut Reader<'_>, fields: &mut Fields<'_>, kind: ProviderKind) -> Option<Network> {
    let base_url = match fields.get(reader, "base_url") {
        Some(node) => read_base_url(reader, &node),
        None => vendor_url(kind).or_else(|| no_address(reader, &fields.place, kind)),
    };
    // Without a base URL the reading goes on, for the faults of the other fields.
    let is_complete = base_url.is_some();
    let placeholder = || BaseUrl::parse("https://invalid").ok();
    let base = Network::new(base_url.or_else(placeholder)?, kind.is_self_hosted());

    let request_timeout = fields
        .read(reader, "default_request_timeout_in_seconds", |r, n| r.seconds(n, 1..=DAY.as_secs()))
        .unwrap_or(base.request_timeout);
    let stream_idle_timeout = fields
        .read(reader, "stream_idle_timeout_in_seconds", |r, n| r.seconds(n, 1..=DAY.as_secs()))
        .unwrap_or(base.stream_idle_timeout);
    let timeout = |reader: &mut Reader<'_>, node: &Node<'_>| reader.duration(node, &(MILLISECOND..=DAY));
    let network = Network {
        extra_headers: read_extra_headers(reader, fields),
        connect_timeout: fields.read(reader, "connect_timeout", timeout).unwrap_or(base.connect_timeout),
        response_head_timeout: fields.read(reader, "response_head_timeout", timeout).unwrap_or(request_timeout),
        first_body_byte_timeout: fields.read(reader, "first_body_byte_timeout", timeout).unwrap_or(stream_idle_timeout),
        stream_idle_timeout,
        request_timeout,
        retry: read_retry(reader, fields),
        keep_alive_timeout: fields
            .read(reader, "keep_alive_timeout_in_seconds", |r, n| r.seconds(n, 1..=3_600))
            .unwrap_or(base.keep_alive_timeout),
        connections_max: fields
            .read(reader, "max_conns_per_host", |r, n| r.count(n, 1..=100_000))
            .unwrap_or(base.connections_max),
        insecure_skip_verify: read_switch(reader, fields, "insecure_skip_verify"),
        ca_cert_pem: fields.read(reader, "ca_cert_pem", read_pem),
        allow_private_network: fields
            .read(reader, "allow_private_network", Reader::boolean)
            .unwrap_or(base.allow_private_network),
        base_url: base.base_url,
    };
    if network.insecure_skip_verify {
        let message = "any certificate is accepted: whoever answers gets the provider's keys";
        reader.warn(&fields.place, message);
    }
    is_complete.then_some(network)
}

fn read_base_url(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<BaseUrl> {
    let url = reader.base_url(node)?;
    let last_segment = url.path_prefix().rsplit('/').next().unwrap_or_default();
    if matches!(last_segment, "v1" | "v1beta" | "v2") {
        let message = format!(
            "request paths bring their version along and will be {}/{last_segment}/…; usually the last segment has to go",
            url.path_prefix()
        );
        reader.warn(&node.place, message);
    }
    Some(url)
}

fn read_retry(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Retry {
    let base = Retry::default();
    let wait = |reader: &mut Reader<'_>, node: &Node<'_>| {
        reader.millis_or_duration(node, &(MILLISECOND..=Duration::from_hours(1)))
    };
    let retry = Retry {
        max: fields.read(reader, "max_retries", |r, n| r.count(n, 0..=20)).unwrap_or(base.max),
        backoff_initial: fields.read(reader, "retry_backoff_initial", wait).unwrap_or(base.backoff_initial),
        backoff_max: fields.read(reader, "retry_backoff_max", wait).unwrap_or(base.backoff_max),
    };
    if retry.backoff_initial > retry.backoff_max {
        let problem = "retry_backoff_initial is longer than retry_backoff_max";
        reader.fault(&fields.place, problem, "a first wait that is no longer than the longest");
    }
    retry
}

fn read_extra_headers(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<ExtraHeader> {
    let mut headers: Vec<ExtraHeader> = Vec::new();
    let Some(node) = fields.get(reader, "extra_headers") else {
        return headers;
    };
    reader.map(&node, EXTRA_HEADERS_MAX, |reader, name, node| {
        let name = name.to_ascii_lowercase();
        if !is_token(&name) || name.len() > 128 {
            reader.fault(&node.place, "not a header name", "a token without blanks");
        } else if NEVER_EXTRA.contains(&name.as_str()) {
            reader.fault(&node.place, "this header is written by the node", "another header");
        } else if headers.iter().any(|other| other.name == name) {
            reader.fault(&node.place, "the header is there already", "each header once");
        } else if let Some((value, origin)) = reader.header_value(node, is_credential(&name)) {
            headers.push(ExtraHeader { name, value, origin });
        }
    });
    headers
}

fn is_credential(name: &str) -> bool {
    ["authorization", "api-key", "token", "secret", "cookie"].iter().any(|word| name.contains(word))
}

/// Only the armour is checked here; the certificates are read where the connections are made.
fn read_pem(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let pem = reader.text(node)?;
    let has_begin = pem.contains("-----BEGIN CERTIFICATE-----");
    if !has_begin || !pem.contains("-----END CERTIFICATE-----") {
        let expected = "PEM text, or \"file:PATH\" of such a file";
        reader.fault(&node.place, "no certificate in it", expected);
        return None;
    }
    Some(pem)
}

/// An address that the connector will refuse is better refused here.
fn check_reachable(reader: &mut Reader<'_>, place: &Place, network: &Network) {
    let url = &network.base_url;
    let is_private = match url.address().ip() {
        Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private(),
        Some(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        None => url.host() == "localhost" || url.host().ends_with(".localhost"),
    };
    if is_private && !network.allow_private_network {
        let problem = format!("{} is a private or loopback address", url.host());
        let expected = "\"allow_private_network\": true, or a public address";
        reader.fault(place, problem, expected);
    }
}
