//! How nodes find and hear each other. No sockets.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::num::{NonZeroU8, NonZeroU16};
use core::time::Duration;

use ipnet::IpNet;

use super::{BaseUrl, HostPort, Origin, Secret};

/// `cluster_config`.
#[derive(Debug, PartialEq)]
pub struct Cluster {
    /// Whether this node looks for others.
    pub enabled: bool,
    /// `cluster_name`: nodes of other names are not talked to.
    pub cluster_name: String,
    /// `None`: one is made and kept in the state directory.
    pub node_id: Option<NodeId>,
    /// Label of nodes and metrics; own keys and providers are preferred.
    pub region: String,
    /// Addresses that are tried besides what discovery finds.
    pub peers: Vec<HostPort>,
    /// Where the gossip port is opened.
    pub bind_address: IpAddr,
    /// What others are told to connect to. `None`: the bind address, or the outgoing one.
    pub advertise_address: Option<HostPort>,
    /// Whose majority may mint entitlements. `None`: the members of the first stable view.
    pub expected_nodes: Option<NonZeroU16>,
    /// `initial_state`: whether this is the first start of the whole cluster.
    pub initial_state: InitialState,
    /// The gossip protocol.
    pub gossip: Gossip,
    /// `discovery`: one object or a list of them; those that are enabled.
    pub discovery: Vec<Discovery>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            enabled: false,
            cluster_name: "deepintshield".to_owned(),
            node_id: None,
            region: "unknown".to_owned(),
            peers: Vec::new(),
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise_address: None,
            expected_nodes: None,
            initial_state: InitialState::default(),
            gossip: Gossip::default(),
            discovery: Vec::new(),
        }
    }
}

/// What a start may take for granted about limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitialState {
    /// `new`: no node of this cluster spent anything before this start, so that limits can be used
    /// at once. Said of a cluster that ran before, a start of all its nodes at once may spend every
    /// limit a second time in the same window: to be taken out of the file once the cluster runs.
    New,
    /// `existing`: others may have spent. Where nobody is left who knows, limits are waited for
    /// until everything that may have been spent has expired.
    #[default]
    Existing,
}

/// A node's own name: 1 to 12 characters of `A-Z a-z 0-9 - _ .`, since every gossip digest
/// carries the names of all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId(String);

impl NodeId {
    /// Longest name.
    pub const CHARACTERS_MAX: usize = 12;

    /// Checks length and alphabet.
    pub fn new(name: &str) -> Result<Self, NodeIdTooLong> {
        let fits = (1..=Self::CHARACTERS_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if fits { Ok(Self(name.to_owned())) } else { Err(NodeIdTooLong) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name is empty, longer than 12 characters, or has a character outside the alphabet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node id has 1 to 12 characters out of letters, digits, '-', '_' and '.'")]
pub struct NodeIdTooLong;

/// `gossip` with its `config`.
#[derive(PartialEq)]
pub struct Gossip {
    /// UDP and TCP.
    pub port: u16,
    /// `interval`: time between two rounds of gossip.
    pub interval: Duration,
    /// `timeout_seconds`: unheard for so long is dead.
    pub timeout: Duration,
    /// Good ticks that make a node healthy.
    pub success_threshold: NonZeroU8,
    /// Bad ticks that make a node suspect.
    pub failure_threshold: NonZeroU8,
    /// Base64 of 32 bytes each. All are accepted, the first one sends.
    pub encryption_keys: Vec<Secret>,
    /// `insecure`: run without keys on an address that others can reach.
    pub insecure: bool,
}

impl Default for Gossip {
    fn default() -> Self {
        const THREE: NonZeroU8 = NonZeroU8::new(3).expect("3 is not 0");
        Self {
            port: 10_101,
            interval: Duration::from_millis(200),
            timeout: Duration::from_secs(10),
            success_threshold: THREE,
            failure_threshold: THREE,
            encryption_keys: Vec::new(),
            insecure: false,
        }
    }
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip")
            .field("port", &self.port)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("success_threshold", &self.success_threshold)
            .field("failure_threshold", &self.failure_threshold)
            .field("encryption_keys", &self.encryption_keys.len())
            .field("insecure", &self.insecure)
            .finish()
    }
}

/// `discovery`, when it is enabled.
#[derive(Debug, PartialEq)]
pub struct Discovery {
    /// What the nodes register and look for.
    pub service_name: String,
    /// Where discovered peers are contacted when the source names no port.
    pub bind_port: u16,
    /// One look-up at most.
    pub dial_timeout: Duration,
    /// `interval`: time between look-ups where the source cannot be watched.
    pub interval: Duration,
    /// Addresses outside of these are not contacted. Empty: all are.
    pub allowed_address_space: Vec<IpNet>,
    /// `type`, with what belongs to it.
    pub source: DiscoverySource,
}

/// The six ways to find peers.
#[derive(PartialEq)]
pub enum DiscoverySource {
    /// `kubernetes`
    Kubernetes {
        /// `k8s_namespace`
        namespace: String,
        /// `k8s_label_selector`. `None`: the file leaves it out and was warned about it; pods
        /// cannot be told from others.
        label_selector: Option<String>,
        /// `k8s_kubeconfig`: a file that says which cluster, and who asks. `None`: what
        /// `KUBECONFIG` names, `~/.kube/config`, or the pod's own account, whichever is there.
        kubeconfig: Option<String>,
    },
    /// `consul`
    Consul {
        /// `consul_address`: an agent, by http unless it says otherwise.
        address: BaseUrl,
        /// `consul_token`
        token: Option<Secret>,
        /// Where the token's text came from.
        token_origin: Option<Origin>,
        /// `consul_ca_cert_pem`
        ca_cert_pem: Option<String>,
        /// `consul_datacenters`: looked at besides the agent's own.
        datacenters: Vec<String>,
        /// `consul_check_interval`: how often Consul tries the gossip port.
        check_interval: Duration,
        /// `consul_deregister_after`: how long that may fail before Consul forgets this node.
        deregister_after: Duration,
    },
    /// `etcd`
    Etcd {
        /// `etcd_endpoints`
        endpoints: Vec<BaseUrl>,
        /// `etcd_username`
        username: Option<String>,
        /// `etcd_password`
        password: Option<Secret>,
        /// Where the password's text came from.
        password_origin: Option<Origin>,
        /// `etcd_ca_cert_pem`
        ca_cert_pem: Option<String>,
        /// `etcd_lease_ttl`
        lease_ttl: Duration,
    },
    /// `dns`
    Dns {
        /// `dns_names`
        names: Vec<String>,
    },
    /// `udp`
    Udp {
        /// `udp_broadcast_port`
        broadcast_port: u16,
    },
    /// `mdns`
    Mdns {
        /// `mdns_service`
        service: String,
    },
}

impl fmt::Debug for DiscoverySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kubernetes { namespace, label_selector, kubeconfig } => f
                .debug_struct("Kubernetes")
                .field("namespace", namespace)
                .field("label_selector", label_selector)
                .field("kubeconfig", kubeconfig)
                .finish(),
            Self::Consul { address, token_origin, datacenters, check_interval, deregister_after, .. } => f
                .debug_struct("Consul")
                .field("address", address)
                .field("token_origin", token_origin)
                .field("datacenters", datacenters)
                .field("check_interval", check_interval)
                .field("deregister_after", deregister_after)
                .finish_non_exhaustive(),
            Self::Etcd { endpoints, username, password_origin, lease_ttl, .. } => f
                .debug_struct("Etcd")
                .field("endpoints", endpoints)
                .field("username", username)
                .field("password_origin", password_origin)
                .field("lease_ttl", lease_ttl)
                .finish_non_exhaustive(),
            Self::Dns { names } => f.debug_struct("Dns").field("names", names).finish(),
            Self::Udp { broadcast_port } => f.debug_struct("Udp").field("broadcast_port", broadcast_port).finish(),
            Self::Mdns { service } => f.debug_struct("Mdns").field("service", service).finish(),
        }
    }
}
