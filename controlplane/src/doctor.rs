//! The examination of `deepintshield doctor`: what stands between this node and its cluster, found
//! by trying, from the configuration alone and, where a node runs on it, from what that one says.
//!
//! Registers nothing and changes nothing; to others it is a stranger that pings. Absent: what only
//! another node can see, such as its own firewall towards us; its `doctor` says that.

use crate::cluster::{advertise, keyring};
use crate::gossip::network::SystemNetwork;
use serde_json::Value;
use shared::clock::Clock;
use shared::config::model::Config;
use std::net::SocketAddr;
use std::sync::Arc;

mod reach;
mod running;
mod settings;
mod sources;

/// One line of the examination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// Was tried, and works.
    Good(String),
    /// Works, and is worth knowing.
    Note(String),
    /// Does not work.
    Wrong(Finding),
}

/// Something that does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What one notices, in the public page's words where it has some.
    pub symptom: String,
    /// What was found.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

/// What is examined.
pub struct Patient<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// `/cluster/status` of the node that runs on it, where one does.
    pub status: Option<&'a Value>,
    /// `/metrics` of that node.
    pub metrics: Option<&'a str>,
    /// For times.
    pub clock: Clock,
}

/// Examines; every remark is said as soon as it is made. To be called inside a tokio runtime.
pub async fn examine(patient: &Patient<'_>, say: &mut dyn FnMut(Remark)) {
    let cluster = &patient.config.cluster;
    let keyring = keyring(cluster);
    settings::judge(cluster, &keyring).into_iter().for_each(&mut *say);
    if !cluster.enabled {
        return;
    }
    let listen = SocketAddr::new(cluster.bind_address, cluster.gossip.port);
    let place = match advertise(cluster) {
        Ok(advertise) => Place { listen, advertise },
        Err(error) => {
            let remedy = "give an IP address, or correct the name or this machine's DNS";
            return say(Remark::wrong("the node does not start", error.to_string(), remedy));
        }
    };
    settings::judge_advertised(cluster, place.advertise).into_iter().for_each(&mut *say);
    let mut peers = Vec::new();
    for found in Box::pin(sources::try_all(patient, &place, say)).await {
        if !peers.contains(&found) {
            peers.push(found);
        }
    }
    if let Ok(keyring) = keyring {
        let probing = reach::Probing {
            network: Arc::new(SystemNetwork),
            keyring,
            place: &place,
            is_running: patient.status.is_some(),
            clock: patient.clock,
        };
        let mut tried = peers.clone();
        for known in patient.status.map(running::addresses).unwrap_or_default() {
            if !tried.contains(&known) {
                tried.push(known);
            }
        }
        reach::try_all(&probing, &tried, say).await;
    }
    match patient.status {
        Some(status) => {
            running::judge(status, patient.metrics.unwrap_or_default(), &peers).into_iter().for_each(&mut *say);
        }
        None => {
            say(Remark::Note(
                "no node runs on this configuration: how it sees its cluster was not examined".to_owned(),
            ));
        }
    }
}

impl Remark {
    fn wrong(symptom: impl Into<String>, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Wrong(Finding { symptom: symptom.into(), cause: cause.into(), remedy: remedy.into() })
    }
}

/// Where the node is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Gossip's own socket.
    listen: SocketAddr,
    /// Where others are told to reach it.
    advertise: SocketAddr,
}
