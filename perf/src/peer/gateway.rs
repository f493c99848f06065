//! The gateway as it is measured: what "everything on" means, and its two idle peers. Nothing is
//! started here.

use std::{fs, io, net::Ipv4Addr, path::PathBuf, process::Command};

use serde_json::{Value, json};

use super::{Peer, Places, VIRTUAL_KEY, Wire};

/// Nodes of the cluster: the one under test, and two that have nothing to do.
pub(crate) const NODES: usize = 3;

/// 32 bytes, in base64. They keep no secret: everything stays on this machine.
const GOSSIP_KEY: &str = "cGVyZi1wZXJmLXBlcmYtcGVyZi1wZXJmLXBlcmYtLS0=";

/// What one node does.
#[derive(Debug, Clone, Copy)]
struct Role {
    has_limits: bool,
    is_clustered: bool,
    cores: usize,
    /// 0 is the one under test.
    number: usize,
}

/// Node `number` of this kind of gateway, its configuration written and its old state gone.
pub(super) fn command(places: &Places, peer: Peer, wire: Wire, number: usize) -> io::Result<Command> {
    let has_limits = peer != Peer::GatewayNoLimits;
    let role = Role { has_limits, is_clustered: peer.is_clustered(), cores: 1, number };
    node(places, role, &config(places, role, wire)?)
}

/// The node under test on `cores` cores, with everything on, its peers not yet found.
pub(super) fn idle(places: &Places, cores: usize) -> io::Result<Command> {
    let role = Role { has_limits: true, is_clustered: true, cores, number: 0 };
    node(places, role, &config(places, role, Wire::default())?)
}

/// A node alone with this many providers, each with a key of its own; and its configuration file.
pub(super) fn of_providers(places: &Places, providers: usize) -> io::Result<(Command, PathBuf)> {
    let role = Role { has_limits: true, is_clustered: false, cores: 1, number: 0 };
    let mut config = config(places, role, Wire::default())?;
    for number in 1..providers {
        let mut provider = provider(places, Wire::default())?;
        provider["custom_provider_config"] = json!({"base_provider_type": "openai"});
        config["providers"][format!("provider-{number}")] = provider;
    }
    Ok((node(places, role, &config)?, file(places, role)))
}

fn file(places: &Places, role: Role) -> PathBuf {
    places.scratch.join(format!("gateway-{}.json", role.number))
}

fn state(places: &Places, role: Role) -> PathBuf {
    places.scratch.join(format!("state-{}", role.number))
}

fn node(places: &Places, role: Role, config: &Value) -> io::Result<Command> {
    let state = state(places, role);
    if state.exists() {
        fs::remove_dir_all(&state)?;
    }
    let file = file(places, role);
    fs::write(&file, config.to_string())?;
    let mut command = Command::new(&places.node);
    command.arg("--config").arg(file).arg("--state-dir").arg(state);
    Ok(command)
}

/// A virtual key, metrics, and, where asked for, a limit on requests and one on tokens (far above
/// what one core can do: they are counted and never bite) and gossip with two peers.
fn config(places: &Places, role: Role, wire: Wire) -> io::Result<Value> {
    let host = host(places, role.number);
    let mut config = json!({
        "server": {
            "host": host,
            "port": places.listen.port(),
            "admin_host": host,
            "admin_port": places.admin_port,
            "cores": role.cores,
            // The companions share a core with the load; the one under test has the core that
            // this program gave it.
            "pin_cores": role.number == 0 && role.cores == 1,
        },
        "providers": {"openai": provider(places, wire)?},
        "governance": {
            "virtual_keys": [{
                "id": "vk1",
                "name": "load",
                "value": VIRTUAL_KEY,
                "is_active": true,
                "provider_configs": [{"provider": "openai", "weight": 1, "allowed_models": ["*"]}],
            }],
        },
    });
    if role.has_limits {
        config["governance"]["virtual_keys"][0]["rate_limit_id"] = json!("rl1");
        config["governance"]["rate_limits"] = json!([{
            "id": "rl1",
            "request_max_limit": 1_000_000_000,
            "request_reset_duration": "1m",
            "token_max_limit": 1_000_000_000_000_u64,
            "token_reset_duration": "1m",
        }]);
    }
    if wire.clients_tls {
        let certificate = places.certificate()?;
        config["server"]["tls"] = json!({"cert_file": certificate.chain, "key_file": certificate.key});
    }
    if places.is_under_valgrind {
        config["server"]["overload"] = json!({"loop_delay": "10s"});
    }
    if wire.streams {
        // 9,900 streams take all but a hundred of 20,000 descriptors, which is what is asked for.
        config["server"]["overload"] = json!({"descriptors_percent": 100});
    }
    if role.is_clustered {
        config["cluster_config"] = cluster(places, role.number);
    }
    Ok(config)
}

fn provider(places: &Places, wire: Wire) -> io::Result<Value> {
    let scheme = if wire.provider_tls { "https" } else { "http" };
    let mut provider = json!({
        "keys": [{"name": "k1", "value": "sk-load-upstream", "models": ["*"], "weight": 1}],
        "network_config": {
            "base_url": format!("{scheme}://{}", places.upstream(wire)),
            "allow_private_network": true,
            // One for each stream; the usual bound is 5,000.
            "max_conns_per_host": 20_000,
        },
    });
    if wire.provider_tls {
        let pem = fs::read_to_string(&places.certificate()?.chain)?;
        provider["network_config"]["ca_cert_pem"] = json!(pem);
    }
    Ok(provider)
}

fn cluster(places: &Places, number: usize) -> Value {
    let peers: Vec<String> =
        (0..NODES).map(|number| format!("{}:{}", host(places, number), places.gossip_port)).collect();
    json!({
        "enabled": true,
        "cluster_name": "perf",
        "node_id": format!("node-{number}"),
        "region": "here",
        "bind_address": host(places, number),
        "peers": peers,
        "expected_nodes": NODES,
        "initial_state": "new",
        "gossip": {"port": places.gossip_port, "encryption_keys": [GOSSIP_KEY]},
    })
}

/// All of 127.0.0.0/8 is this machine: each node has an address of its own, and the same ports.
fn host(places: &Places, number: usize) -> String {
    match places.listen.ip() {
        std::net::IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(number as u32)).to_string(),
        other @ std::net::IpAddr::V6(_) => other.to_string(),
    }
}
