//! From the configuration to running sources: each enabled discovery, and the list of peers.

use super::static_list::StaticList;
use super::udp::Udp;
use super::{Surroundings, consul, dns, follow};
use crate::event::Event;
use crate::gossip::keyring::Keyring;
use shared::clock::Clock;
use shared::config::model::{Cluster, Discovery, DiscoverySource};
use std::mem::discriminant;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// The list of peers has no settings of its own: these are discovery's defaults.
const LIST_DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const LIST_INTERVAL: Duration = Duration::from_secs(10);

/// A configured method is not in this program.
#[derive(Debug, thiserror::Error)]
#[error(
    "cluster_config.discovery: this build of the program has no \"{0}\" discovery; take a build with it, or name another type"
)]
pub(crate) struct NotBuilt(&'static str);

/// Sources that run.
pub(crate) struct Running {
    leaving: watch::Sender<bool>,
    keyring: watch::Sender<Keyring>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// From now on these are the keys of what is signed.
    pub(crate) fn rekey(&self, keyring: Keyring) {
        self.keyring.send_replace(keyring);
    }

    /// Lets every source take back what it registered, and waits for them; each has its bound.
    pub(crate) async fn leave(self) {
        self.leaving.send_replace(true);
        for task in self.tasks {
            // A panic was logged by itself.
            let _ = task.await;
        }
    }
}

/// A source that is ready to run.
type Starter = Box<dyn FnOnce(mpsc::Sender<Event>, watch::Receiver<bool>) -> JoinHandle<()> + Send>;

/// A [`Starter`]. The source is made where it runs, since it may want the runtime; a macro, since
/// only a source's own type tells that its futures may be sent.
macro_rules! starter {
    ($number:expr, $surroundings:expr, $make:expr) => {{
        let (number, surroundings, make): (usize, Surroundings, _) = ($number, $surroundings, $make);
        Box::new(move |events: mpsc::Sender<Event>, leaving: watch::Receiver<bool>| {
            let source = make(&surroundings);
            tokio::spawn(follow(source, number, surroundings, events, leaving))
        }) as Starter
    }};
}

/// Sources that nobody has asked yet.
pub(crate) struct Prepared {
    starters: Vec<Starter>,
    keyring: watch::Sender<Keyring>,
}

impl Prepared {
    /// Begins to look for peers. To be called inside of the runtime.
    pub(crate) fn start(self, events: &mpsc::Sender<Event>) -> Running {
        let (leaving, must_leave) = watch::channel(false);
        let tasks = self.starters.into_iter().map(|start| start(events.clone(), must_leave.clone())).collect();
        Running { leaving, keyring: self.keyring, tasks }
    }
}

/// Prepares everything that the configuration asks for.
pub(crate) fn prepare(
    cluster: &Cluster,
    node_id: &str,
    advertise: SocketAddr,
    keyring: Keyring,
    clock: Clock,
) -> Result<Prepared, NotBuilt> {
    let listen = SocketAddr::new(cluster.bind_address, cluster.gossip.port);
    let (keyring, keys) = watch::channel(keyring);
    let mut starters = Vec::new();
    if !cluster.peers.is_empty() {
        let surroundings = Surroundings {
            node_id: node_id.to_owned(),
            advertise,
            listen,
            service_name: cluster.cluster_name.clone(),
            bind_port: cluster.gossip.port,
            dial_timeout: LIST_DIAL_TIMEOUT,
            interval: LIST_INTERVAL,
            allowed: Vec::new(),
        };
        let peers = cluster.peers.clone();
        starters.push(starter!(1, surroundings, move |around: &Surroundings| StaticList::new(&peers, around, clock)));
    }
    for (at, discovery) in cluster.discovery.iter().enumerate() {
        let is_same = |other: &&Discovery| discriminant(&other.source) == discriminant(&discovery.source);
        let number = 1 + cluster.discovery.iter().take(at).filter(is_same).count();
        let Discovery { service_name, bind_port, dial_timeout, interval, allowed_address_space, source } = discovery;
        let surroundings = Surroundings {
            node_id: node_id.to_owned(),
            advertise,
            listen,
            service_name: service_name.clone(),
            bind_port: *bind_port,
            dial_timeout: *dial_timeout,
            interval: *interval,
            allowed: allowed_address_space.clone(),
        };
        starters.push(prepare_one(source, number, surroundings, &keys, clock)?);
    }
    Ok(Prepared { starters, keyring })
}

#[allow(clippy::unnecessary_wraps, reason = "a build that lacks a method refuses it")]
fn prepare_one(
    source: &DiscoverySource,
    number: usize,
    surroundings: Surroundings,
    keys: &watch::Receiver<Keyring>,
    clock: Clock,
) -> Result<Starter, NotBuilt> {
    Ok(match source {
        #[cfg(feature = "kubernetes")]
        DiscoverySource::Kubernetes { namespace, label_selector, kubeconfig } => {
            let settings = super::kubernetes::Settings {
                namespace: namespace.clone(),
                label_selector: label_selector.clone(),
                kubeconfig: kubeconfig.clone(),
            };
            starter!(number, surroundings, |around: &Surroundings| super::kubernetes::Kubernetes::new(around, settings))
        }
        #[cfg(not(feature = "kubernetes"))]
        DiscoverySource::Kubernetes { .. } => return Err(NotBuilt("kubernetes")),
        DiscoverySource::Consul {
            address,
            token,
            token_origin: _,
            ca_cert_pem,
            datacenters,
            check_interval,
            deregister_after,
        } => {
            let settings = consul::Settings {
                address: address.clone(),
                token: token.as_ref().map(shared::secret::Secret::duplicate),
                ca_cert_pem: ca_cert_pem.clone(),
                datacenters: datacenters.clone(),
                check_interval: *check_interval,
                deregister_after: *deregister_after,
            };
            starter!(number, surroundings, |around: &Surroundings| consul::Consul::new(around.clone(), settings))
        }
        #[cfg(feature = "etcd")]
        DiscoverySource::Etcd { endpoints, username, password, password_origin: _, ca_cert_pem, lease_ttl } => {
            let settings = super::etcd::Settings {
                endpoints: endpoints.clone(),
                username: username.clone(),
                password: password.as_ref().map(shared::secret::Secret::duplicate),
                ca_cert_pem: ca_cert_pem.clone(),
                lease_ttl: *lease_ttl,
            };
            starter!(number, surroundings, |around: &Surroundings| super::etcd::Etcd::new(settings, around.clone()))
        }
        #[cfg(not(feature = "etcd"))]
        DiscoverySource::Etcd { .. } => return Err(NotBuilt("etcd")),
        DiscoverySource::Dns { names } => {
            let names = names.clone();
            starter!(number, surroundings, move |around: &Surroundings| dns::Dns::new(&names, around, clock))
        }
        DiscoverySource::Udp { broadcast_port } => {
            let (port, keys) = (*broadcast_port, keys.clone());
            starter!(number, surroundings, move |around: &Surroundings| Udp::new(port, around.clone(), keys, clock))
        }
        #[cfg(feature = "mdns")]
        DiscoverySource::Mdns { service } => {
            let service = service.clone();
            starter!(number, surroundings, move |around: &Surroundings| super::mdns::Mdns::new(
                &service,
                around.clone()
            ))
        }
        #[cfg(not(feature = "mdns"))]
        DiscoverySource::Mdns { .. } => return Err(NotBuilt("mdns")),
    })
}
