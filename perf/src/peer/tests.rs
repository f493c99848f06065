use super::*;
use std::collections::BTreeSet;

fn places(scratch: &Path) -> Places {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let certificate = scratch.join("certificate.pem");
    fs::write(&certificate, "-----BEGIN CERTIFICATE-----").expect("a file");
    Places {
        node: "deepintshield".into(),
        tools: "tools".into(),
        provider: address(9_000),
        provider_tls: address(9_004),
        certificate: Some(Certificate { key: certificate.clone(), both: certificate.clone(), chain: certificate }),
        listen: address(9_001),
        admin_port: 9_002,
        gossip_port: 9_003,
        is_under_valgrind: false,
        scratch: scratch.to_owned(),
    }
}

/// What `peer` is told in its configuration file, for this wire.
fn configuration(peer: Peer, wire: Wire) -> String {
    let folder = crate::child::Scratch::new().expect("a folder");
    let before: BTreeSet<PathBuf> = files(folder.path());
    let places = places(folder.path());
    places.command(peer, wire).expect("a command");
    let mut written = files(folder.path());
    written.retain(|path| !before.contains(path) && !path.ends_with("certificate.pem"));
    let written: Vec<PathBuf> = written.into_iter().collect();
    assert_eq!(written.len(), 1, "one configuration: {written:?}");
    fs::read_to_string(&written[0]).expect("text")
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect()
}

#[test]
fn every_proxy_is_told_both_addresses() {
    for peer in [Peer::Gateway, Peer::GatewayAll, Peer::Nginx, Peer::Haproxy, Peer::Envoy] {
        let plain = configuration(peer, Wire::default());
        assert!(plain.contains("9001") && plain.contains("9000"), "{plain}");
        assert!(!plain.contains("9004") && !plain.contains("certificate.pem"), "{plain}");
        let both = configuration(peer, Wire { clients_tls: true, provider_tls: true, streams: false });
        assert!(both.contains("9004") && both.contains("certificate.pem") && !both.contains(":9000"), "{both}");
    }
}

#[test]
fn everything_on_is_a_key_two_limits_and_two_peers() {
    let all: serde_json::Value = serde_json::from_str(&configuration(Peer::GatewayAll, Wire::default())).expect("JSON");
    assert_eq!(all["governance"]["virtual_keys"][0]["rate_limit_id"], all["governance"]["rate_limits"][0]["id"]);
    assert!(all["governance"]["rate_limits"][0]["request_max_limit"].is_u64());
    assert!(all["governance"]["rate_limits"][0]["token_max_limit"].is_u64());
    assert_eq!(
        all["cluster_config"]["peers"],
        serde_json::json!(["127.0.0.1:9003", "127.0.0.2:9003", "127.0.0.3:9003"])
    );
    let without: serde_json::Value =
        serde_json::from_str(&configuration(Peer::GatewayNoLimits, Wire::default())).expect("JSON");
    assert!(without["governance"].get("rate_limits").is_none());
    assert_eq!(without["cluster_config"], all["cluster_config"]);
}

#[test]
fn nginx_holds_no_event_of_a_stream_back() {
    let streams = Wire { streams: true, ..Wire::default() };
    assert!(configuration(Peer::Nginx, streams).contains("proxy_buffering off"));
    assert!(configuration(Peer::Nginx, Wire::default()).contains("proxy_buffering on"));
}

#[test]
fn who_cannot_take_part_says_why() {
    let tls = Wire { clients_tls: true, ..Wire::default() };
    assert!(
        Peer::Relay.lacks(tls).is_some() && Peer::Minimal.lacks(Wire { streams: true, ..Wire::default() }).is_some()
    );
    assert_eq!(Peer::GatewayAll.lacks(tls), None);
}
