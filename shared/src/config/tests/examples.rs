//! Configurations that people have: the public page's, ones written for the relatives, ours.

use core::num::NonZeroU64;
use core::time::Duration;

use super::super::model::{
    Amount, Charge, ConfigStore, Dialect, DiscoverySource, Enforcement, InitialState, Models, OnNodeLoss, Origin,
    Price, ProviderKind, SslMode,
};
use super::loaded;
use crate::config::Config;

#[test]
fn nothing_at_all_listens_everywhere_and_the_embedded_default_on_loopback() {
    let file = loaded("{}").config;
    assert_eq!(file.server.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(file.server.admin_listen.to_string(), "127.0.0.1:8081");
    let embedded = Config::default();
    assert_eq!(embedded.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(embedded.server.admin_listen.to_string(), "127.0.0.1:8081");
}

#[test]
fn the_first_example_of_the_page_loads_with_its_comment_and_comma() {
    let text = r#"{
"cluster_config": {
"enabled": true,
"discovery": {
"enabled": true,
"type": "kubernetes",
"service_name": "deepintshield-cluster",
// Discovery-specific configuration here
},
"gossip": {
"port": 10101,
"config": {
"timeout_seconds": 10,
"success_threshold": 3,
"failure_threshold": 3
}
}
}
}"#;
    let cluster = loaded(text).config.cluster;
    assert!(cluster.enabled);
    assert_eq!(cluster.gossip.timeout, Duration::from_secs(10));
}

/// The six discovery examples of the page, without the braces that they share.
const DISCOVERIES: [&str; 6] = [
    r#""type": "kubernetes", "service_name": "deepintshield-cluster",
       "k8s_namespace": "default", "k8s_label_selector": "app=deepintshield""#,
    r#""type": "consul", "service_name": "deepintshield-cluster",
       "consul_address": "consul.service.consul:8500""#,
    r#""type": "etcd", "service_name": "deepintshield-cluster",
       "etcd_endpoints": ["http://etcd-1:2379", "http://etcd-2:2379", "http://etcd-3:2379"],
       "dial_timeout": "10s""#,
    r#""type": "dns", "service_name": "deepintshield-cluster",
       "dns_names": ["deepintshield-cluster.local", "deepintshield-nodes.internal.company.com"],
       "bind_port": 10101"#,
    r#""type": "udp", "service_name": "deepintshield-cluster", "udp_broadcast_port": 9999,
       "allowed_address_space": ["192.168.1.0/24", "10.0.0.0/8"], "dial_timeout": "10s""#,
    r#""type": "mdns", "service_name": "deepintshield", "mdns_service": "_bifrost._tcp",
       "dial_timeout": "10s""#,
];

#[test]
fn every_discovery_of_the_page_loads() {
    for discovery in DISCOVERIES {
        let text = format!(
            r#"{{"cluster_config": {{"enabled": true,
                "discovery": {{"enabled": true, {discovery}}}, "gossip": {{"port": 10101}}}}}}"#
        );
        let found = loaded(&text).config.cluster.discovery.pop().expect(discovery);
        assert_eq!(found.bind_port, 10_101);
        assert_eq!(found.dial_timeout, Duration::from_secs(10));
        match found.source {
            DiscoverySource::Kubernetes { namespace, label_selector, kubeconfig } => {
                assert_eq!(namespace, "default");
                assert_eq!(label_selector.as_deref(), Some("app=deepintshield"));
                assert_eq!(kubeconfig, None);
            }
            DiscoverySource::Consul { address, datacenters, check_interval, deregister_after, .. } => {
                assert_eq!(address.to_string(), "http://consul.service.consul:8500");
                assert!(datacenters.is_empty());
                assert_eq!((check_interval.as_secs(), deregister_after.as_secs()), (10, 60));
            }
            DiscoverySource::Etcd { endpoints, lease_ttl, .. } => {
                assert_eq!(endpoints.len(), 3);
                assert_eq!(lease_ttl, Duration::from_secs(30));
            }
            DiscoverySource::Udp { broadcast_port } => assert_eq!(broadcast_port, 9_999),
            _ => {}
        }
    }
}

#[test]
fn what_consul_and_kubernetes_take_besides_is_read() {
    let text = r#"{"cluster_config": {"enabled": true, "discovery": [
        {"enabled": true, "type": "consul", "service_name": "s", "consul_datacenters": ["dc2", "dc3"],
         "consul_check_interval": "2s", "consul_deregister_after": "5m"},
        {"enabled": true, "type": "kubernetes", "service_name": "s", "k8s_label_selector": "app in (a, b)",
         "k8s_namespace": "prod-1", "k8s_kubeconfig": "/etc/kubernetes/config"}]}}"#;
    let sources = loaded(text).config.cluster.discovery.into_iter().map(|discovery| discovery.source);
    let printed: Vec<_> = sources.map(|source| format!("{source:?}")).collect();
    assert!(printed[0].contains(r#"["dc2", "dc3"], check_interval: 2s, deregister_after: 300s"#), "{printed:?}");
    assert!(printed[1].contains(r#""prod-1""#) && printed[1].contains("/etc/kubernetes/config"), "{printed:?}");
}

#[test]
fn the_store_of_the_page_loads_with_its_port_in_quotes() {
    let text = r#"{"config_store": {"enabled": true, "type": "postgres", "config": {
        "host": "postgres.deepintshield.svc.cluster.local", "port": "5432",
        "user": "deepintshield", "password": "changeme", "db_name": "deepintshield",
        "ssl_mode": "require", "ssl_root_cert": "/etc/ssl/store.pem"}}}"#;
    let loaded = loaded(text);
    let Some(ConfigStore::Postgres(store)) = loaded.config.config_store else {
        panic!("a PostgreSQL store");
    };
    assert_eq!((store.port, store.ssl_mode), (5_432, SslMode::Require));
    assert_eq!(store.ssl_root_cert.as_deref(), Some("/etc/ssl/store.pem"));
    let warned: Vec<_> = loaded.warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(warned, ["config_store.config.password"]);
}

/// A configuration as users of the relatives have it.
const MIGRATED: &str = include_str!("../../../../examples/migrated.json");

#[test]
fn a_configuration_of_the_relatives_becomes_types() {
    let config = loaded(MIGRATED).config;
    assert!(config.client.enforce_auth_on_inference, "by its older name");
    assert_eq!(config.client.max_request_body_bytes, 50 * 1024 * 1024);

    let openai = config.provider("openai").expect("openai");
    assert_eq!(openai.network.base_url.to_string(), "https://api.openai.com");
    assert_eq!(openai.network.request_timeout, Duration::from_secs(30));
    assert_eq!(openai.network.response_head_timeout, Duration::from_secs(30));
    assert_eq!(openai.network.retry.backoff_initial, Duration::from_millis(100));
    assert_eq!(openai.network.retry.backoff_max, Duration::from_secs(2));
    assert!(!openai.network.allow_private_network);
    let [one, two] = openai.keys.as_slice() else {
        panic!("two keys");
    };
    assert_eq!(one.value.expose(), "sk-from-environment");
    assert_eq!(one.origin, Origin::Env("OPENAI_API_KEY".to_owned()));
    assert_eq!((one.id.as_str(), two.id.as_str()), ("one", "k-2"));
    assert_eq!(two.value.expose(), "sk-from-file");
    assert_eq!((two.resolve("small"), two.resolve("large")), ("gpt-4o-mini", "gpt-4o"));
    assert!(one.allows("anything") && !two.allows("gpt-4o"));

    assert_eq!(config.provider("anthropic").map(|p| p.dialect), Some(Dialect::Anthropic));
    assert!(config.provider("ollama").is_some_and(|p| p.network.allow_private_network));
    let house = config.provider("house").expect("house");
    assert_eq!(house.kind, ProviderKind::OpenAi);
    assert_eq!(house.network.base_url.path_prefix(), "/team");
    assert_eq!(house.network.extra_headers.first().map(|h| h.name.as_str()), Some("x-team"));

    let governance = &config.governance;
    let virtual_key = governance.virtual_keys.first().expect("a virtual key");
    let grant = virtual_key.grants.iter().flatten().next().expect("a grant");
    assert_eq!(grant.allowed_models, Models::All);
    assert_eq!(grant.key_ids.as_deref(), Some(&["k-2".to_owned()][..]), "the name became the id");
    assert_eq!(governance.budgets.first().map(|b| b.max_micro_usd), Some(100_500_000));
    let limit = config.rate_limit("r1").expect("r1");
    assert_eq!(limit.requests.map(|a| (a.max.known(), a.window.seconds())), Some((Some(100), 60)));
    let model = governance.model_configs.first().expect("a model");
    assert_eq!(model.max_output_tokens.map(core::num::NonZeroU32::get), Some(16_384));
}

#[test]
fn what_has_no_effect_is_named_once_and_in_order() {
    let warnings = loaded(MIGRATED).warnings;
    let paths: Vec<_> = warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "client.initial_pool_size",
            "client.enable_logging",
            "providers.openai.keys[0].use_for_batch_api",
            "providers.anthropic.keys[0].value",
            "providers.house.custom_provider_config.allowed_requests",
            "governance",
            "governance.virtual_keys[0].value",
            "governance.routing_rules[0].description",
            "governance.routing_rules[1].cel_expression",
            "logs_store",
        ]
    );
}

#[test]
fn prices_are_dollars_a_token() {
    let text = r#"{"governance": {"model_configs": [
        {"model_name": "m", "input_cost_per_token": 0.0000025, "output_cost_per_token": 1e-5},
        {"model_name": "n", "input_cost_per_token": 0, "output_cost_per_token": 1.5e-10},
        {"model_name": "o"}]}}"#;
    let governance = loaded(text).config.governance;
    let price = |input_nano_usd, output_nano_usd| Some(Price { input_nano_usd, output_nano_usd });
    let prices: Vec<_> = governance.model_configs.iter().map(|model| model.price).collect();
    assert_eq!(prices, [price(2_500, 10_000), price(0, 1), None]);
}

#[test]
fn how_a_limit_is_kept_is_read() {
    let text = r#"{"governance": {"rate_limits": [
        {"id": "a", "token_max_limit": "auto", "token_reset_duration": "1m", "max_wait": "2s",
         "concurrent_max_limit": 8, "on_node_loss": "reclaim"},
        {"id": "b", "token_max_limit": 600, "token_reset_duration": "1m", "sub_window": "10s", "max_wait": 250,
         "enforcement": "statistical", "overshoot_probability": 0.001, "charge": "produced"}]}}"#;
    let limits = loaded(text).config.governance.rate_limits;
    let [a, b] = limits.as_slice() else { panic!("{limits:?}") };
    assert_eq!(a.tokens.map(|tokens| tokens.max), Some(Amount::Learned));
    assert_eq!((a.max_wait.as_secs(), a.concurrent.map(NonZeroU64::get)), (2, Some(8)));
    assert_eq!((a.on_node_loss, a.charge, a.sub_window), (Some(OnNodeLoss::Reclaim), None, None));
    assert_eq!((b.enforcement, b.charge), (Enforcement::Statistical, Some(Charge::Produced)));
    assert_eq!((b.sub_window, b.max_wait), (Some(Duration::from_secs(10)), Duration::from_millis(250)));
    assert!((a.overshoot_probability - 0.01).abs() < 1e-9 && (b.overshoot_probability - 0.001).abs() < 1e-9);
}

#[test]
fn a_cluster_is_taken_for_one_that_ran_before_unless_the_file_says_otherwise() {
    let state = |fields: &str| loaded(&format!(r#"{{"cluster_config": {{{fields}}}}}"#)).config.cluster.initial_state;
    assert_eq!(state(""), InitialState::Existing);
    assert_eq!(state(r#""initial_state": "existing""#), InitialState::Existing);
    assert_eq!(state(r#""initial_state": "new""#), InitialState::New);
}

#[test]
fn a_budget_without_a_price_for_every_model_is_told() {
    let warnings = |models: &str| {
        let text = format!(
            r#"{{"governance": {{"budgets": [{{"id": "b", "max_limit": 1, "reset_duration": "1d"}}],
                                 "model_configs": [{models}]}}}}"#
        );
        loaded(&text).warnings
    };
    let price = r#""input_cost_per_token": 0.0000025, "output_cost_per_token": 1e-5"#;
    assert!(warnings(&format!(r#"{{"model_name": "m", {price}}}"#))[0].message.contains("input_cost_per_token"));
    assert!(warnings(&format!(r#"{{"model_name": "*", {price}}}"#)).is_empty());
}

#[test]
fn a_cluster_that_shares_limits_should_say_how_many_nodes_it_has() {
    let warnings = |fields: &str, enforcement: &str| {
        let text = format!(
            r#"{{"cluster_config": {{"enabled": true, "peers": ["127.0.0.2:10101"], "bind_address": "127.0.0.1"{fields}}},
                "governance": {{"rate_limits": [{{"id": "a", "request_max_limit": 5, "request_reset_duration": "1m",
                                                 "enforcement": "{enforcement}"}}]}}}}"#
        );
        let warnings = loaded(&text).warnings;
        warnings.iter().filter(|warning| warning.message.contains("expected_nodes")).count()
    };
    assert_eq!(warnings("", "strict"), 1);
    assert_eq!(warnings(r#", "expected_nodes": 2"#, "strict"), 0);
    assert_eq!(warnings("", "gossip"), 0);
}

#[test]
fn numbers_and_switches_may_be_references() {
    let config = loaded(r#"{"server": {"port": "env.PORT"}}"#).config;
    assert_eq!(config.server.listen.port(), 9_090);
}

#[test]
fn a_host_that_begins_like_a_reference_is_a_host() {
    let text = r#"{"cluster_config": {"enabled": true, "peers": ["env.example.com:10101"]}}"#;
    let peers = loaded(text).config.cluster.peers;
    assert_eq!(peers.first().map(super::super::base_url::HostPort::host), Some("env.example.com"));
}

#[test]
fn an_empty_list_allows_nothing_unless_the_file_is_of_version_1() {
    let body = r#""providers": {"ollama": {"keys": [{"name": "k", "models": []}]}},
        "governance": {"virtual_keys": [{"id": "v", "name": "v", "value": "env.OPENAI_API_KEY"}]}"#;
    let old = loaded(&format!(r#"{{"version": 1, {body}}}"#)).config;
    let new = loaded(&format!("{{{body}}}")).config;
    let models = |config: &Config| config.providers[0].keys[0].models.clone();
    assert_eq!(models(&old), Models::All);
    assert_eq!(models(&new), Models::Only(Vec::new()));
    assert_eq!(old.governance.virtual_keys[0].grants, None);
    assert_eq!(new.governance.virtual_keys[0].grants, Some(Vec::new()));
}

#[test]
fn the_examples_of_the_repository_load() {
    for (name, text) in [
        ("minimal.json", include_str!("../../../../examples/minimal.json")),
        ("full.json", include_str!("../../../../examples/full.json")),
        ("cluster.json", include_str!("../../../../examples/cluster.json")),
    ] {
        if let Err(faults) = super::load(text, &super::everything()) {
            panic!("{name}:\n{}", super::lines(&faults));
        }
    }
}

#[test]
fn nothing_that_prints_a_configuration_prints_a_secret() {
    let loaded = loaded(MIGRATED);
    let printed = format!("{loaded:?}");
    for secret in ["sk-from-environment", "sk-from-file", "sk-ant-literal", "sk-bf-one"] {
        assert!(!printed.contains(secret), "{secret}");
    }
}
