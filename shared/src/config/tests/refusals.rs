//! Every kind of fault with its exact place.

use super::{lines, refused, sources};
use crate::config::load;

/// Loads `text`, which has exactly the faults `expected`, each given as the beginning of its line.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let faults = refused(text);
    let printed = lines(&faults);
    assert_eq!(faults.len(), expected.len(), "{printed}");
    for (fault, start) in faults.iter().zip(expected) {
        assert!(fault.to_string().starts_with(start), "{printed}");
    }
}

#[test]
fn a_mistyped_provider_is_named_with_its_place_and_the_nearest_name() {
    let faults = refused("{\n  \"providers\": {\n    \"opnai\": {\"keys\": []}\n  }\n}");
    assert_eq!(
        lines(&faults),
        "3:5 providers.opnai: unknown provider \"opnai\", expected a known provider, or custom_provider_config, did you mean \"openai\"?"
    );
}

#[test]
fn unknown_fields_are_faults_at_every_level() {
    check(
        r#"{
  "provider": {},
  "client": {"alow_direct_keys": true},
  "providers": {"openai": {"keys": [{"name": "a", "value": "env.OPENAI_API_KEY", "wieght": 1}],
    "network_config": {"timeout": "3s"}}}
}"#,
        &[
            "2:3 provider: unknown field, did you mean \"providers\"?",
            "3:14 client.alow_direct_keys: unknown field, did you mean \"allow_direct_keys\"?",
            "4:82 providers.openai.keys[0].wieght: unknown field, did you mean \"weight\"?",
            "5:24 providers.openai.network_config.timeout: unknown field, expected one of",
        ],
    );
}

#[test]
fn the_second_field_of_a_name_is_a_fault() {
    check("{\"client\": {}, \"client\": {}}", &["1:16 client: \"client\" is written twice in this object"]);
    check(r#"{"providers": {"ollama": {}, "ollama": {}}}"#, &["1:30 providers.ollama: \"ollama\" is written twice"]);
}

#[test]
fn wrong_kinds_and_ranges_say_what_was_expected() {
    check(
        r#"{
"server": {"port": "8080", "admin_port": 70000, "cores": 0, "drain_timeout": 30,
  "host": "nowhere", "log_format": "jsn"},
"client": {"max_request_body_size_mb": 1.5, "drop_excess_requests": "yes",
  "allowed_origins": ["app.example.com"], "prometheus_labels": "team"},
"providers": []
}"#,
        &[
            "2:20 server.port: found a string, expected a whole number from 1 to 65535",
            "2:42 server.admin_port: out of range, expected a whole number from 1 to 65535",
            "2:58 server.cores: out of range, expected a whole number from 1 to 1024",
            "2:78 server.drain_timeout: found a number, expected a string",
            "3:11 server.host: not an address to listen on",
            "3:36 server.log_format: unknown word, expected one of auto, text, json, did you mean \"json\"?",
            "4:40 client.max_request_body_size_mb: out of range",
            "4:69 client.drop_excess_requests: found a string, expected true or false",
            "5:23 client.allowed_origins[0]: not an origin",
            "5:64 client.prometheus_labels: found a string, expected a list",
            "6:14 providers: found a list, expected an object",
        ],
    );
}

#[test]
fn references_that_lead_nowhere_say_how_to_help() {
    check(
        r#"{"providers": {"openai": {"keys": [
{"name": "a", "value": "env.NOT_SET"},
{"name": "b", "value": "file:/no/such"},
{"name": "c", "value": "env.not-a-name"},
{"name": "d", "value": "vault.path#key"},
{"name": "e", "value": ""},
{"name": "f"}]}}}"#,
        &[
            "2:24 providers.openai.keys[0].value: the environment has no NOT_SET, expected the variable to be set",
            "3:24 providers.openai.keys[1].value: cannot read \"/no/such\": entity not found",
            "4:24 providers.openai.keys[2].value: looks like a reference and is none",
            "5:24 providers.openai.keys[3].value: looks like a reference and is none",
            "6:24 providers.openai.keys[4].value: is empty",
            "7:1 providers.openai.keys[5]: \"value\" is missing",
        ],
    );
}

#[test]
fn dangling_references_are_found_whatever_the_order() {
    check(
        r#"{"governance": {
"virtual_keys": [{"id": "v", "name": "v", "value": "env.OPENAI_API_KEY", "rate_limit_id": "gold",
  "provider_configs": [{"provider": "openia", "allowed_models": ["*"]},
                       {"provider": "openai", "allowed_models": ["*"], "key_ids": ["mian"]}]}],
"model_configs": [{"model_name": "*", "budget_ids": ["b"]}],
"providers": [{"name": "openai", "rate_limit_id": "god"}],
"teams": [{"id": "t", "name": "t", "customer_id": "c"}],
"rate_limits": [{"id": "gold", "request_max_limit": 1, "request_reset_duration": "1m"}]},
"providers": {"openai": {"keys": [{"name": "main", "value": "env.OPENAI_API_KEY", "rate_limit_id": "glod"}]}}}"#,
        &[
            "3:37 governance.virtual_keys[0].provider_configs[0].provider: there is no provider \"openia\", expected one of the 1 declared, did you mean \"openai\"?",
            "4:84 governance.virtual_keys[0].provider_configs[1].key_ids[0]: there is no key of openai \"mian\", expected one of the 1 declared, did you mean \"main\"?",
            "5:54 governance.model_configs[0].budget_ids[0]: there is no budget \"b\", expected the budget to be declared",
            "6:51 governance.providers[0].rate_limit_id: there is no rate limit \"god\", expected one of the 1 declared, did you mean \"gold\"?",
            "7:51 governance.teams[0].customer_id: there is no customer \"c\"",
            "9:100 providers.openai.keys[0].rate_limit_id: there is no rate limit \"glod\", expected one of the 1 declared, did you mean \"gold\"?",
        ],
    );
}

#[test]
fn names_and_values_are_unique() {
    check(
        r#"{"providers": {"openai": {"keys": [
{"name": "a", "value": "env.OPENAI_API_KEY"}, {"name": "a", "value": "env.OPENAI_API_KEY"}]}},
"governance": {"rate_limits": [
{"id": "r", "request_max_limit": 1, "request_reset_duration": "1m"},
{"id": "r", "request_max_limit": 1, "request_reset_duration": "1m"}],
"virtual_keys": [
{"id": "v", "name": "v", "value": "sk-bf-same"},
{"id": "v", "name": "w", "value": "sk-bf-same"}]}}"#,
        &[
            "2:56 providers.openai.keys[1].name: a second key of openai \"a\"",
            "5:8 governance.rate_limits[1].id: a second rate limit \"r\"",
            "8:8 governance.virtual_keys[1].id: a second virtual key \"v\"",
            "8:35 governance.virtual_keys[1].value: another virtual key has this value",
        ],
    );
}

#[test]
fn limits_need_an_amount_and_a_window() {
    check(
        r#"{"governance": {"rate_limits": [
{"id": "a", "request_max_limit": 0, "request_reset_duration": "1m"},
{"id": "b", "request_max_limit": 1},
{"id": "c", "token_reset_duration": "1m"},
{"id": "d"},
{"id": "e", "token_max_limit": 5, "token_reset_duration": "1x", "enforcement": "strct"},
{"id": "f", "token_max_limit": 5, "token_reset_duration": "1m", "sub_window": "2m"},
{"id": "g", "request_max_limit": "aut", "request_reset_duration": "1m", "max_wait": "6m"},
{"id": "h", "request_max_limit": 5, "request_reset_duration": "1m", "charge": "input"},
{"id": "i", "token_max_limit": 5, "token_reset_duration": "1m", "enforcement": "admission", "charge": "produced"},
{"id": "j", "token_max_limit": 5, "token_reset_duration": "1m", "enforcement": "statistical", "charge": "input"},
{"id": "k", "concurrent_max_limit": 0, "overshoot_probability": 0.1, "sub_window": "1s"},
{"id": "l", "token_max_limit": "auto", "token_reset_duration": "1m", "sub_window": "1s", "charge": "produce"}]}}"#,
        &[
            "2:34 governance.rate_limits[0].request_max_limit: out of range, expected a whole number from 1",
            "3:34 governance.rate_limits[1].request_max_limit: \"request_reset_duration\" is missing",
            "4:37 governance.rate_limits[2].token_reset_duration: \"token_max_limit\" is missing",
            "5:1 governance.rate_limits[3]: limits nothing, expected request_max_limit, token_max_limit, concurrent_max_limit",
            "6:59 governance.rate_limits[4].token_reset_duration: not a window",
            "6:80 governance.rate_limits[4].enforcement: unknown word, expected one of strict, admission, statistical, gossip, did you mean \"strict\"?",
            "7:79 governance.rate_limits[5].sub_window: not a duration, or out of range",
            "8:34 governance.rate_limits[6].request_max_limit: unknown word, expected one of auto, did you mean \"auto\"?",
            "8:85 governance.rate_limits[6].max_wait: not a duration, or out of range",
            "9:79 governance.rate_limits[7].charge: there is no token window, expected token_max_limit",
            "10:103 governance.rate_limits[8].charge: what is charged at admission is not charged as it is produced",
            "11:105 governance.rate_limits[9].charge: what is known at the door is not estimated, expected produced",
            "12:37 governance.rate_limits[10].concurrent_max_limit: out of range",
            "12:65 governance.rate_limits[10].overshoot_probability: belongs to a statistical limit",
            "12:84 governance.rate_limits[10].sub_window: there is no window of more than a second",
            "13:84 governance.rate_limits[11].sub_window: there is no window of more than a second",
            "13:100 governance.rate_limits[11].charge: unknown word, expected one of admission, input, produced, did you mean \"produced\"?",
        ],
    );
}

#[test]
fn clusters_need_someone_to_talk_to() {
    check(
        r#"{"cluster_config": {"enabled": true, "node_id": "much-too-long-id", "peers": []}}"#,
        &[
            "1:20 cluster_config: enabled, with neither peers nor discovery",
            "1:49 cluster_config.node_id: a node id has 1 to 12 characters",
        ],
    );
    check(
        r#"{"cluster_config": {"enabled": true, "discovery": {"enabled": true, "type": "udp",
"service_name": "s", "udp_broadcast_port": 0}}}"#,
        &[
            "1:51 cluster_config.discovery: anyone may answer a broadcast",
            "2:44 cluster_config.discovery.udp_broadcast_port: out of range",
        ],
    );
    check(
        r#"{"cluster_config": {"peers": ["a", "b:10101"], "discovery": {"enabled": true,
"type": "etcd", "service_name": "s", "allowed_address_space": ["10.0.0.1/8"]},
"gossip": {"encryption_keys": ["c2hvcnQ="]}}}"#,
        &[
            "1:31 cluster_config.peers[0]: not an address: the port is missing",
            "1:61 cluster_config.discovery: \"etcd_endpoints\" is missing",
            "2:64 cluster_config.discovery.allowed_address_space[0]: has bits set behind its prefix, expected \"10.0.0.0/8\"",
            "3:32 cluster_config.gossip.encryption_keys[0]: not a gossip key",
        ],
    );
}

#[test]
fn what_consul_or_kubernetes_would_refuse_is_refused_here() {
    check(
        r#"{"cluster_config": {"enabled": true, "discovery": [{"enabled": true, "type": "consul", "service_name": "s",
"consul_datacenters": "dc2", "consul_check_interval": "10ms", "consul_deregister_after": "30s"},
{"enabled": true, "type": "kubernetes", "service_name": "s", "k8s_label_selector": "app=a",
"k8s_namespace": "../nodes"}]}}"#,
        &[
            "2:23 cluster_config.discovery[0].consul_datacenters: ",
            "2:55 cluster_config.discovery[0].consul_check_interval: ",
            "2:90 cluster_config.discovery[0].consul_deregister_after: ",
            "4:18 cluster_config.discovery[1].k8s_namespace: not the name of a namespace",
        ],
    );
}

#[test]
fn providers_that_could_not_be_reached_are_refused() {
    check(
        r#"{"providers": {
"vllm": {},
"sgl": {"network_config": {"max_retries": -1}},
"azure": {"keys": [{"name": "a", "value": "env.OPENAI_API_KEY"}]},
"house": {"network_config": {"base_url": "http://127.0.0.1:9000"},
  "custom_provider_config": {"base_provider_type": "openai", "is_key_less": true}},
"gemini": {"keys": [], "network_config": {"base_url": "https://a.example/?x=1"}},
"other": {"custom_provider_config": {"base_provider_type": "openay"}},
"openai": {"keys": [], "custom_provider_config": {"base_provider_type": "openai"}},
"bedrock": {"keys": []},
"litellm": {"keys": []}
}}"#,
        &[
            "2:1 providers.vllm: vllm has no address of its own, expected network_config.base_url",
            "3:27 providers.sgl.network_config: sgl has no address of its own",
            "3:43 providers.sgl.network_config.max_retries: out of range",
            "4:1 providers.azure: azure has no address of its own",
            "5:29 providers.house.network_config: 127.0.0.1 is a private or loopback address, expected \"allow_private_network\": true",
            "7:55 providers.gemini.network_config.base_url: not a base URL: it has a '?'",
            "8:60 providers.other.custom_provider_config.base_provider_type: unknown or unsupported provider",
            "9:50 providers.openai.custom_provider_config: openai is a known provider",
            "10:1 providers.bedrock: bedrock is known and not supported",
            "11:1 providers.litellm: litellm is the beginning of a path",
        ],
    );
}

#[test]
fn headers_that_carry_framing_or_credentials_are_refused() {
    check(
        r#"{"client": {"header_filter_config": {"allowlist": ["X-Trace", "Authorization", "a b"]}},
"providers": {"openai": {"keys": [], "network_config": {"extra_headers": {
"Host": "a", "X-A": "line\nbreak", "x-b": "1", "X-B": "2"}}}}}"#,
        &[
            "1:63 client.header_filter_config.allowlist[1]: this header is never taken from a client",
            "1:80 client.header_filter_config.allowlist[2]: not a header name",
            "3:1 providers.openai.network_config.extra_headers.Host: this header is written by the node",
            "3:14 providers.openai.network_config.extra_headers.X-A: not a header value",
            "3:48 providers.openai.network_config.extra_headers.X-B: the header is there already",
        ],
    );
}

#[test]
fn the_two_listeners_do_not_share_an_address() {
    check(r#"{"server": {"port": 8081}}"#, &["1:12 server: the admin listener has the address of the client listener"]);
}

#[test]
fn text_that_is_no_json_has_its_place() {
    for (text, start) in [
        ("", "1:1 the file is empty"),
        ("  // only a comment\n", "1:1 the file is empty"),
        ("[]", "1:1 found a list, expected an object"),
        ("{\"a\": 1 \"b\": 2}", "1:8 not valid JSON: Expected comma"),
        ("{\n  'a': 1}", "2:3 not valid JSON: Single-quoted"),
        ("{a: 1}", "1:2 not valid JSON"),
        ("{} {}", "1:4 not valid JSON"),
        ("{\"port\": 0x10}", "1:10 not valid JSON"),
    ] {
        check(text, &[start]);
    }
}

#[test]
fn depth_size_and_counts_are_bounded() {
    check(&"[".repeat(200_000), &["1:65 nested deeper than 64 levels"]);
    check(&format!("[{}]", "0,".repeat(4_000_001)), &["1:7999999 more than"]);
    check(&" ".repeat(48 * 1024 * 1024 + 1), &["1:1 the file is larger than"]);
    let keys: Vec<String> =
        (0..1_001).map(|n| format!(r#"{{"name": "k{n}", "value": "env.OPENAI_API_KEY"}}"#)).collect();
    check(
        &format!(r#"{{"providers": {{"openai": {{"keys": [{}]}}}}}}"#, keys.join(",")),
        &["1:35 providers.openai.keys: has 1001 entries, expected at most 1000"],
    );
}

#[test]
fn at_most_a_hundred_faults_are_told_and_the_rest_is_counted() {
    let fields: Vec<String> = (0..150).map(|n| format!("\"unknown{n}\": 1")).collect();
    let faults = refused(&format!("{{{}}}", fields.join(",")));
    assert_eq!(faults.len(), 101);
    let last = faults.last().map(ToString::to_string).unwrap_or_default();
    assert!(last.ends_with("and 50 more faults"), "{last}");
}

#[test]
fn no_message_repeats_a_secret() {
    const CANARY: &str = "CANARY-7f3a\u{7}";
    let everywhere = format!(
        r#"{{"providers": {{
"openai": {{"keys": [{{"name": "a", "value": "{CANARY}"}}, {{"name": "b", "value": ["{CANARY}"]}}],
  "network_config": {{"base_url": "https://u:{CANARY}@a.example", "ca_cert_pem": "{CANARY}",
    "extra_headers": {{"x-secret": "{CANARY}\n"}}}}}}}},
"governance": {{"virtual_keys": [{{"id": "v", "name": "v", "value": "{CANARY}"}}],
  "auth_config": {{"is_enabled": true, "admin_password": "{CANARY}"}}}},
"config_store": {{"enabled": true, "type": "postgres", "config": {{"password": "{CANARY}"}}}},
"cluster_config": {{"gossip": {{"encryption_keys": ["{CANARY}"]}},
  "discovery": {{"enabled": true, "type": "consul", "service_name": "s", "consul_token": "{CANARY}"}}}}}}"#
    )
    .replace('\u{7}', "\\u0007");
    let through_references = r#"{"providers": {"env.OPENAI_API_KEY": {}},
        "governance": {"rate_limits": [{"id": "env.OPENAI_API_KEY"}, {"id": "env.OPENAI_API_KEY"}],
        "providers": [{"name": "env.OPENAI_API_KEY", "rate_limit_id": "file:/run/key"}]}}"#;
    let printed = lines(&refused(through_references));
    assert!(!printed.contains("sk-from"), "{printed}");

    let Err(faults) = load(&everywhere, &sources()) else {
        panic!("a configuration with faults");
    };
    assert!(faults.len() >= 9, "{}", lines(&faults));
    assert!(!lines(&faults).contains("CANARY"), "{}", lines(&faults));
}
