//! Which host has which addresses, as far as this node knows. Pure: the resolver asks, this keeps.
//!
//! An answer replaces the addresses of its host; a failure or an empty answer never does.

use shared::bounds::ENDPOINTS_PER_PROVIDER_MAX;
use shared::snapshot::{EndpointRecord, ProviderRecord, SnapshotRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// What is known of the hosts that the configuration names.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    hosts: BTreeMap<String, Host>,
}

#[derive(Clone, Debug, Default)]
struct Host {
    /// Sorted, so that an answer in another order is no change.
    addresses: Vec<IpAddr>,
    /// Answered, or failed to, since it is known. Also true for addresses of the last good
    /// snapshot: the node may serve from those.
    is_tried: bool,
    /// Look-ups that failed since the last one that did not.
    failures: u32,
}

/// What a failed look-up left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Addresses that stay in use.
    pub addresses: usize,
    /// Failures in a row, this one included.
    pub failures: u32,
}

impl Addresses {
    /// The addresses that a snapshot holds, for starting without an answer from DNS.
    pub fn of_snapshot(record: &SnapshotRecord) -> Self {
        let mut known = Self::default();
        for provider in &record.providers {
            if !provider.endpoints.is_empty() {
                let addresses = provider.endpoints.iter().map(|endpoint| ip_of(*endpoint)).collect();
                known.resolved(&provider.host, addresses);
            }
        }
        known
    }

    /// Keeps exactly the hosts of these providers; new ones begin without addresses.
    pub fn follow(&mut self, providers: &[ProviderRecord]) {
        let wanted: BTreeSet<&String> = providers.iter().map(|provider| &provider.host).collect();
        self.hosts.retain(|host, _| wanted.contains(host));
        for host in wanted {
            self.hosts.entry(host.clone()).or_default();
        }
    }

    /// The hosts that are followed.
    pub fn hosts(&self) -> BTreeSet<String> {
        self.hosts.keys().cloned().collect()
    }

    /// Whether anybody asks for this host.
    pub fn follows(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }

    /// Takes an answer; says whether it changed what the cores have to know. An empty one
    /// changes nothing: a provider does not vanish, a resolver errs.
    pub fn resolved(&mut self, host: &str, mut addresses: Vec<IpAddr>) -> bool {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ENDPOINTS_PER_PROVIDER_MAX);
        let known = self.hosts.entry(host.to_owned()).or_default();
        known.is_tried = true;
        if addresses.is_empty() {
            return false;
        }
        known.failures = 0;
        let is_change = known.addresses != addresses;
        known.addresses = addresses;
        is_change
    }

    /// Notes a failure. `None` for a host that nobody asks for any more.
    pub fn failed(&mut self, host: &str) -> Option<Kept> {
        let known = self.hosts.get_mut(host)?;
        known.is_tried = true;
        known.failures = known.failures.saturating_add(1);
        Some(Kept { addresses: known.addresses.len(), failures: known.failures })
    }

    /// Look-ups that failed since the last one that did not.
    pub fn failures(&self, host: &str) -> u32 {
        self.hosts.get(host).map_or(0, |known| known.failures)
    }

    /// A host that was neither answered nor given up on yet.
    pub fn first_untried(&self) -> Option<&str> {
        self.hosts.iter().find(|(_, host)| !host.is_tried).map(|(name, _)| name.as_str())
    }

    /// Writes the known addresses into the providers.
    pub fn fill(&self, record: &mut SnapshotRecord) {
        for provider in &mut record.providers {
            let port = port_of(provider);
            let addresses = self.hosts.get(&provider.host).map_or(&[][..], |host| &host.addresses);
            provider.endpoints = addresses.iter().map(|address| endpoint(*address, port)).collect();
        }
    }
}

fn endpoint(address: IpAddr, port: u16) -> EndpointRecord {
    let ip = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    EndpointRecord { ip: ip.octets(), port }
}

fn ip_of(endpoint: EndpointRecord) -> IpAddr {
    Ipv6Addr::from(endpoint.ip).to_canonical()
}

/// The port stands in the authority, or is the scheme's own. What follows the last `]` is looked
/// at, so that the colons of an IPv6 address are not mistaken for one.
fn port_of(provider: &ProviderRecord) -> u16 {
    let after_address = provider.authority.rsplit(']').next().unwrap_or_default();
    let written = after_address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    written.unwrap_or(if provider.https { 443 } else { 80 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn following(host: &str) -> Addresses {
        let mut known = Addresses::default();
        known.hosts.insert(host.to_owned(), Host::default());
        known
    }

    #[test]
    fn an_answer_in_another_order_is_no_change() {
        let mut known = following("a");
        assert!(known.resolved("a", vec![ip("10.0.0.2"), ip("10.0.0.1")]));
        assert!(!known.resolved("a", vec![ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.1")]));
        assert!(known.resolved("a", vec![ip("10.0.0.1")]));
    }

    #[test]
    fn failures_and_empty_answers_keep_the_last_good_addresses() {
        let mut known = following("a");
        known.resolved("a", vec![ip("10.0.0.1")]);
        assert!(!known.resolved("a", vec![]));
        assert_eq!(known.failed("a"), Some(Kept { addresses: 1, failures: 1 }));
        assert_eq!(known.failed("a"), Some(Kept { addresses: 1, failures: 2 }));
        known.resolved("a", vec![ip("10.0.0.1")]);
        assert_eq!(known.failed("a"), Some(Kept { addresses: 1, failures: 1 }));
        assert_eq!(known.failed("b"), None);
    }

    #[test]
    fn ten_thousand_addresses_are_cut_to_the_bound() {
        let mut known = following("a");
        known.resolved("a", (0..10_000_u32).map(|n| IpAddr::V4(n.into())).collect());
        assert_eq!(known.hosts["a"].addresses.len(), ENDPOINTS_PER_PROVIDER_MAX);
    }

    #[test]
    fn a_host_counts_as_tried_after_an_answer_or_a_failure() {
        let mut known = following("a");
        assert_eq!(known.first_untried(), Some("a"));
        known.failed("a");
        assert_eq!(known.first_untried(), None);
    }

    #[test]
    fn addresses_survive_the_way_through_a_record() {
        for address in ["192.0.2.7", "2001:db8::7", "::1", "127.0.0.1"] {
            assert_eq!(ip_of(endpoint(ip(address), 443)), ip(address));
        }
    }
}
