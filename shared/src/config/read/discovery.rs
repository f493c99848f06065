//! `cluster_config.discovery`: one of six ways to find peers, each with its own fields.

use core::time::Duration;

use super::DAY;
use crate::config::model::{BaseUrl, Discovery, DiscoverySource, Origin, Secret};
use crate::config::reader::{Fields, Node, Reader};

/// Entries of each list here.
const ENTRIES_MAX: usize = 256;
/// Each is watched by a request of its own, which never ends.
const CONSUL_DATACENTERS_MAX: usize = 16;
/// Consul takes no shorter one.
const CONSUL_DEREGISTER_AFTER_MIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Kubernetes,
    Consul,
    Etcd,
    Dns,
    Udp,
    Mdns,
}

const TYPES: [(&str, Type); 6] = [
    ("kubernetes", Type::Kubernetes),
    ("consul", Type::Consul),
    ("etcd", Type::Etcd),
    ("dns", Type::Dns),
    ("udp", Type::Udp),
    ("mdns", Type::Mdns),
];

/// Fields that belong to one type only. Files that were copied around carry others along.
const OWN_FIELDS: [(&str, Type); 17] = [
    ("k8s_namespace", Type::Kubernetes),
    ("k8s_label_selector", Type::Kubernetes),
    ("k8s_kubeconfig", Type::Kubernetes),
    ("consul_address", Type::Consul),
    ("consul_token", Type::Consul),
    ("consul_ca_cert_pem", Type::Consul),
    ("consul_datacenters", Type::Consul),
    ("consul_check_interval", Type::Consul),
    ("consul_deregister_after", Type::Consul),
    ("etcd_endpoints", Type::Etcd),
    ("etcd_username", Type::Etcd),
    ("etcd_password", Type::Etcd),
    ("etcd_ca_cert_pem", Type::Etcd),
    ("etcd_lease_ttl", Type::Etcd),
    ("dns_names", Type::Dns),
    ("udp_broadcast_port", Type::Udp),
    ("mdns_service", Type::Mdns),
];

/// `None` for a discovery that is switched off, and for one with a fault.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>, gossip_port: u16) -> Option<Discovery> {
    reader
        .object(node, |reader, fields| {
            let enabled = fields.required(reader, "enabled", "true or false");
            let enabled = enabled.and_then(|node| reader.boolean(&node));
            if enabled == Some(false) {
                fields.skip_the_rest();
                return None;
            }
            let kind = fields.required(reader, "type", "kubernetes, consul, etcd, dns, udp or mdns");
            let kind = kind.and_then(|node| reader.choice(&node, &TYPES));
            let service_name = fields.required(reader, "service_name", "what the nodes look for");
            let service_name = service_name.and_then(|node| reader.name(&node));
            let bind_port = fields.read(reader, "bind_port", Reader::port);
            let wait = Duration::from_millis(100)..=DAY;
            let dial_timeout = fields.read(reader, "dial_timeout", |r, n| r.duration(n, &wait));
            let interval = fields.read(reader, "interval", |r, n| r.duration(n, &wait));
            let space_node = fields.get(reader, "allowed_address_space");
            let space = space_node.map(|node| reader.list(&node, ENTRIES_MAX, read_network));
            let source = kind.map(|kind| read_source(reader, fields, kind));
            pass_fields_of_other_types(reader, fields, kind);
            if kind == Some(Type::Udp) && space.as_ref().is_none_or(Vec::is_empty) {
                let expected = "allowed_address_space, such as [\"10.0.0.0/8\"]";
                reader.fault(&fields.place, "anyone may answer a broadcast", expected);
            }
            Some(Discovery {
                service_name: service_name?,
                bind_port: bind_port.unwrap_or(gossip_port),
                dial_timeout: dial_timeout.unwrap_or(Duration::from_secs(10)),
                interval: interval.unwrap_or(Duration::from_secs(10)),
                allowed_address_space: space.unwrap_or_default(),
                source: source??,
            })
        })
        .flatten()
}

fn read_source(reader: &mut Reader<'_>, fields: &mut Fields<'_>, kind: Type) -> Option<DiscoverySource> {
    match kind {
        Type::Kubernetes => {
            // The public page's first example leaves it out, so it is no fault.
            if !fields.has("k8s_label_selector") {
                let message = "no k8s_label_selector: no peers will be found until it is set, to \"app=deepintshield\" for example";
                reader.warn(&fields.place, message);
            }
            let label_selector = fields.read(reader, "k8s_label_selector", Reader::name);
            let namespace = fields.read(reader, "k8s_namespace", read_namespace);
            let kubeconfig = fields.read(reader, "k8s_kubeconfig", Reader::name);
            Some(DiscoverySource::Kubernetes {
                namespace: namespace.unwrap_or_else(|| "default".to_owned()),
                label_selector,
                kubeconfig,
            })
        }
        Type::Consul => {
            let address = match fields.get(reader, "consul_address") {
                Some(node) => read_http_address(reader, &node),
                None => BaseUrl::parse("http://localhost:8500").ok(),
            };
            let (token, token_origin) = read_secret(reader, fields, "consul_token");
            let ca_cert_pem = fields.read(reader, "consul_ca_cert_pem", Reader::text);
            let node = fields.get(reader, "consul_datacenters");
            let datacenters = node.map(|node| reader.list(&node, CONSUL_DATACENTERS_MAX, Reader::name));
            let wait = Duration::from_secs(1)..=DAY;
            let check_interval = fields.read(reader, "consul_check_interval", |r, n| r.duration(n, &wait));
            let wait = CONSUL_DEREGISTER_AFTER_MIN..=DAY;
            let deregister_after = fields.read(reader, "consul_deregister_after", |r, n| r.duration(n, &wait));
            Some(DiscoverySource::Consul {
                address: address?,
                token,
                token_origin,
                ca_cert_pem,
                datacenters: datacenters.unwrap_or_default(),
                check_interval: check_interval.unwrap_or(Duration::from_secs(10)),
                deregister_after: deregister_after.unwrap_or(CONSUL_DEREGISTER_AFTER_MIN),
            })
        }
        Type::Etcd => {
            let expected = "addresses such as [\"http://etcd-1:2379\"]";
            let node = fields.required(reader, "etcd_endpoints", expected);
            let endpoints = node.map(|node| read_some(reader, &node, read_http_address));
            let username = fields.read(reader, "etcd_username", Reader::name);
            let (password, password_origin) = read_secret(reader, fields, "etcd_password");
            let ca_cert_pem = fields.read(reader, "etcd_ca_cert_pem", Reader::text);
            let lease = Duration::from_secs(5)..=DAY;
            let lease_ttl = fields.read(reader, "etcd_lease_ttl", |r, n| r.duration(n, &lease));
            Some(DiscoverySource::Etcd {
                endpoints: endpoints?,
                username,
                password,
                password_origin,
                ca_cert_pem,
                lease_ttl: lease_ttl.unwrap_or(Duration::from_secs(30)),
            })
        }
        Type::Dns => {
            let expected = "names such as [\"deepintshield.internal\"]";
            let node = fields.required(reader, "dns_names", expected)?;
            let names = read_some(reader, &node, Reader::name);
            Some(DiscoverySource::Dns { names })
        }
        Type::Udp => {
            let expected = "a port such as 9999";
            let node = fields.required(reader, "udp_broadcast_port", expected)?;
            let broadcast_port = reader.port(&node)?;
            Some(DiscoverySource::Udp { broadcast_port })
        }
        Type::Mdns => {
            let service = fields.read(reader, "mdns_service", Reader::name);
            Some(DiscoverySource::Mdns { service: service.unwrap_or_else(|| "_bifrost._tcp".to_owned()) })
        }
    }
}

/// Fields of another type are known and have no effect; without a type, all pass.
fn pass_fields_of_other_types(reader: &mut Reader<'_>, fields: &mut Fields<'_>, kind: Option<Type>) {
    for (name, owner) in OWN_FIELDS {
        if kind == Some(owner) || !fields.has(name) {
            continue;
        }
        if let Some(node) = fields.get(reader, name)
            && kind.is_some()
        {
            reader.warn(&node.place, "belongs to another type of discovery, and has no effect");
        }
    }
}

fn read_some<'a, 's, T>(
    reader: &mut Reader<'s>,
    node: &Node<'a>,
    read: impl FnMut(&mut Reader<'s>, &Node<'a>) -> Option<T>,
) -> Vec<T> {
    let values = reader.list(node, ENTRIES_MAX, read);
    if values.is_empty() && !reader.has_fault_below(&node.place) {
        reader.fault(&node.place, "is empty", "one entry at least");
    }
    values
}

/// A DNS label, as Kubernetes has it. It becomes a part of a path.
fn read_namespace(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let name = reader.name(node)?;
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = name.len() <= 63 && name.bytes().all(is_inner) && !name.starts_with('-') && !name.ends_with('-');
    if !is_label {
        let expected = "up to 63 of a-z, 0-9 and '-', such as \"production\"";
        reader.fault(&node.place, "not the name of a namespace", expected);
    }
    is_label.then_some(name)
}

fn read_network(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<ipnet::IpNet> {
    let text = reader.text(node)?;
    let network: Option<ipnet::IpNet> = text.parse().ok();
    match network {
        Some(network) if network.addr() == network.network() => Some(network),
        Some(network) => {
            let problem = "has bits set behind its prefix";
            reader.fault(&node.place, problem, format!("{:?}", network.trunc().to_string()));
            None
        }
        None => {
            reader.fault(&node.place, "not a network", "CIDR such as \"10.0.0.0/8\"");
            None
        }
    }
}

/// `host:port`, or a URL where TLS is wanted.
fn read_http_address(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<BaseUrl> {
    let text = reader.text(node)?;
    let url = if text.contains("://") { BaseUrl::parse(&text) } else { BaseUrl::parse(&format!("http://{text}")) };
    match url {
        Ok(url) => Some(url),
        Err(fault) => {
            let expected = "\"HOST:PORT\", or a URL that begins with http:// or https://";
            reader.fault(&node.place, format!("not an address: {fault}"), expected);
            None
        }
    }
}

fn read_secret(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> (Option<Secret>, Option<Origin>) {
    match fields.read(reader, name, Reader::secret) {
        Some(text) => (Some(text.secret), Some(text.origin)),
        None => (None, None),
    }
}
