//! The sections of a configuration, one file each: from nodes of the document to the model.

mod cel;
mod client;
mod cluster;
mod discovery;
mod governance;
mod keys;
mod limits;
mod network;
mod providers;
mod routing;
mod server;
mod store;
mod tokens;

use core::time::Duration;

use super::model::{AdminAuth, Config, Enforcement, Models, RateLimit};
use super::reader::{Fields, Node, Place, Reader};

/// Longest waits and timeouts that make sense to configure.
const DAY: Duration = Duration::from_hours(24);

/// What an empty list of models, keys or providers means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EmptyMeans {
    /// `"version": 1`
    Everything,
    /// `"version": 2`, and no version at all.
    Nothing,
}

/// Reads the whole document. The answer is complete only if the reader has no faults.
pub(super) fn document(reader: &mut Reader<'_>, root: &Node<'_>) -> Config {
    let mut cluster_place = None;
    let config = reader.object(root, |reader, fields| {
        // Names the schema for editors; nothing to resolve, nothing to do.
        fields.get(reader, "$schema");
        let version = fields.read(reader, "version", |r, n| r.integer(n, 1..=2));
        let empty = match version {
            Some(1) => EmptyMeans::Everything,
            _ => EmptyMeans::Nothing,
        };
        let mut governance =
            fields.read(reader, "governance", |r, n| governance::read(r, n, empty)).unwrap_or_default();
        // The place that older files have it in.
        if let Some(auth) = fields.read(reader, "auth_config", governance::read_auth)
            && governance.auth == AdminAuth::default()
        {
            governance.auth = auth;
        }
        let cluster_node = fields.get(reader, "cluster_config");
        let cluster = cluster_node.as_ref().and_then(|node| cluster::read(reader, node)).unwrap_or_default();
        cluster_place = cluster_node.map(|node| node.place);
        let (config_store, store_rules) = fields.read(reader, "config_store", store::read).unwrap_or_default();
        Config {
            server: server::read(reader, fields, governance.auth.is_enabled),
            client: fields.read(reader, "client", client::read).unwrap_or_default(),
            providers: fields.read(reader, "providers", |r, n| Some(providers::read(r, n, empty))).unwrap_or_default(),
            governance,
            cluster,
            config_store,
            store_rules,
            load_balancer: fields.read(reader, "load_balancer_config", store::read_load_balancer).unwrap_or_default(),
        }
    });
    let mut config = config.unwrap_or_default();
    governance::use_key_ids(&mut config);
    if let Some(place) = &cluster_place {
        warn_of_unknown_size(reader, place, &config);
    }
    config
}

/// Nodes that share limits have to know of how many a majority is one.
fn warn_of_unknown_size(reader: &mut Reader<'_>, place: &Place, config: &Config) {
    let is_shared = |limit: &RateLimit| limit.enforcement != Enforcement::Gossip;
    let shares = config.cluster.enabled && config.governance.rate_limits.iter().any(is_shared);
    if shares && config.cluster.expected_nodes.is_none() {
        let message = "without expected_nodes, a node that starts for the first time waits until nobody has come or \
                       gone for ten seconds before it takes part in limits; say how many nodes there are to be";
        reader.warn(place, message);
    }
}

/// Models as a list of names or `["*"]`. `None` where the field is left out.
fn read_models(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
    empty: EmptyMeans,
) -> Option<Models> {
    let node = fields.get(reader, name)?;
    let names = reader.list(&node, MODELS_MAX, Reader::name);
    Some(match (names.as_slice(), empty) {
        ([], EmptyMeans::Everything) => Models::All,
        ([], EmptyMeans::Nothing) => {
            reader.warn(
                &node.place,
                "an empty list allows nothing; [\"*\"] allows everything (version 1 files: the other way round)",
            );
            Models::Only(names)
        }
        _ if names.iter().any(|name| name == "*") => Models::All,
        _ => Models::Only(names),
    })
}

/// Models in one list, and keys in one grant.
const MODELS_MAX: usize = 1_000;

/// Names in a list, none where the field is left out.
fn read_names(reader: &mut Reader<'_>, fields: &mut Fields<'_>, name: &'static str, count_max: usize) -> Vec<String> {
    fields.read(reader, name, |r, n| Some(r.list(n, count_max, Reader::name))).unwrap_or_default()
}

/// A switch that is off where it is left out.
fn read_switch(reader: &mut Reader<'_>, fields: &mut Fields<'_>, name: &'static str) -> bool {
    fields.read(reader, name, Reader::boolean).unwrap_or_default()
}
