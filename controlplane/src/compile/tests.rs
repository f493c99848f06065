//! Configurations as files have them, and the records they become.

use super::*;
use shared::config::{Sources, load};
use shared::limit::ChargeRule;

pub(crate) fn facts() -> NodeFacts {
    NodeFacts { lookup_key: [3; 32], node_id: "n1".to_owned(), cores: 2 }
}

/// Variables of the environment are their own names; files do not exist.
pub(crate) fn configuration(text: &str) -> Config {
    let sources = Sources { env: &|name| Some(format!("value of {name}")), ..Sources::none() };
    match load(text, &sources) {
        Ok(loaded) => loaded.config,
        Err(faults) => panic!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

pub(crate) fn compiled(text: &str) -> Compiled {
    compile(&configuration(text), &facts()).unwrap()
}

pub(crate) const FULL: &str = r#"{
  "server": {"host": "127.0.0.1"},
  "client": {"enforce_auth_on_inference": true, "max_request_body_size_mb": 2, "allowed_origins": ["https://a.example"]},
  "providers": {
    "openai": {
      "keys": [
        {"name": "first", "value": "env.FIRST", "models": ["gpt-4o", "gpt-4o-mini"], "weight": 0.75,
         "aliases": {"gpt-4o": "gpt-4o-2024-11-20"}},
        {"name": "second", "value": "sk-literal", "models": ["*"], "blacklisted_models": ["o1"], "weight": 0.25}
      ],
      "network_config": {"default_request_timeout_in_seconds": 30, "stream_idle_timeout_in_seconds": 9, "max_retries": 2,
                         "max_conns_per_host": 9, "extra_headers": {"x-team": "blue"}}
    },
    "anthropic": {"keys": [{"name": "main", "value": "env.ANTHROPIC", "models": ["claude", "gpt-4o-mini"], "weight": 1}]},
    "sim": {"keys": [], "network_config": {"base_url": "http://127.0.0.1:9000/v1", "allow_private_network": true},
            "custom_provider_config": {"base_provider_type": "openai", "is_key_less": true}}
  },
  "governance": {
    "rate_limits": [
      {"id": "team", "request_max_limit": 10, "request_reset_duration": "1m",
                     "token_max_limit": 1000, "token_reset_duration": "1h"},
      {"id": "claude", "token_max_limit": 50, "token_reset_duration": "1m", "enforcement": "admission"}
    ],
    "virtual_keys": [
      {"id": "vk-all", "name": "all", "value": "sk-bf-all", "rate_limit_id": "team"},
      {"id": "vk-none", "name": "none", "value": "sk-bf-none", "provider_configs": []},
      {"id": "vk-some", "name": "some", "value": "sk-bf-some", "is_active": false, "provider_configs": [
        {"provider": "anthropic", "weight": 0.5, "allowed_models": ["claude"], "rate_limit_id": "team"},
        {"provider": "openai", "allowed_models": ["*"], "key_ids": ["second"]}
      ]}
    ],
    "model_configs": [{"model_name": "claude", "provider": "anthropic", "rate_limit_id": "claude"}],
    "providers": [{"name": "openai", "rate_limit_id": "team"}]
  },
  "cluster_config": {"enabled": false, "node_id": "n1", "region": "eu"}
}"#;

#[test]
fn providers_keep_the_files_order_and_carry_what_reaching_them_takes() {
    let record = compiled(FULL).record;
    let names: Vec<_> = record.providers.iter().map(|provider| provider.name.as_str()).collect();
    assert_eq!(names, ["openai", "anthropic", "sim"]);
    let openai = &record.providers[0];
    assert_eq!(
        (openai.https, openai.host.as_str(), openai.authority.as_str()),
        (true, "api.openai.com", "api.openai.com")
    );
    assert_eq!((openai.total_timeout_ms, openai.idle_timeout_ms, openai.max_retries), (30_000, 9_000, 2));
    assert_eq!(openai.connections_max, 5, "nine for the node are five for each of two cores");
    assert!(!openai.is_key_less && !openai.drops_version);
    let sim = &record.providers[2];
    assert_eq!((sim.https, sim.host.as_str(), sim.authority.as_str()), (false, "127.0.0.1", "127.0.0.1:9000"));
    assert!(sim.is_key_less && sim.allow_private_network && sim.drops_version);
    assert_eq!(record.providers[1].credential_header, CredentialHeader::XApiKey);
    assert_eq!((record.local_node.as_str(), record.region.as_str()), ("deepintshield-n1-10101", "eu"));
}

#[test]
fn no_secret_is_in_the_records() {
    let compiled = compiled(FULL);
    let shown = format!("{:?}", compiled.record);
    for secret in ["sk-literal", "value of FIRST", "value of ANTHROPIC", "sk-bf-all", "sk-bf-some"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    let key = |at: usize| &compiled.secrets[compiled.record.keys[at].secret as usize];
    assert_eq!((key(0).secret.expose(), &key(0).origin), ("value of FIRST", &Origin::Env("FIRST".to_owned())));
    assert_eq!((key(1).secret.expose(), &key(1).origin), ("sk-literal", &Origin::Literal));
    let (name, at) = &compiled.record.providers[0].extra_headers[0];
    assert_eq!((name.as_str(), compiled.secrets[*at as usize].secret.expose()), ("x-team", "blue"));
}

#[test]
fn one_rate_limit_is_one_counter_wherever_it_is_referred_to() {
    let record = compiled(FULL).record;
    let limits: Vec<_> =
        record.limits.iter().map(|limit| (limit.id.as_str(), limit.amount, limit.window_ns / 1_000_000_000)).collect();
    assert_eq!(limits, [("team/requests", 10, 60), ("team/tokens", 1000, 3600), ("claude/tokens", 50, 60)]);
    let charged: Vec<_> = record.limits.iter().map(|limit| limit.charge.rule).collect();
    assert_eq!(charged, [ChargeRule::Either, ChargeRule::Either, ChargeRule::Admission]);
    assert_eq!(record.virtual_keys[0].limits, [0, 1]);
    assert_eq!(record.virtual_keys[2].grants.as_ref().unwrap()[1].limits, [0, 1]);
    assert_eq!(record.providers[0].limits, [0, 1]);
    assert!(record.providers[1].limits.is_empty());
    assert_eq!((record.models[0].provider, &record.models[0].limits[..]), (Some(1), &[2][..]));
}

#[test]
fn absent_grants_allow_all_and_an_empty_list_allows_none() {
    let mut config = configuration(FULL);
    std::sync::Arc::get_mut(&mut config.governance.virtual_keys[0]).unwrap().grants = None;
    let record = compile(&config, &facts()).unwrap().record;
    assert!(record.virtual_keys[0].grants.is_none());
    assert_eq!(record.virtual_keys[1].grants.as_deref(), Some(&[][..]));
    let grants = record.virtual_keys[2].grants.as_ref().unwrap();
    assert!(!record.virtual_keys[2].is_active);
    assert_eq!((grants[1].provider, grants[1].weight, grants[1].keys.as_ref()), (1, Some(0.5), None));
    assert_eq!(names(&record, &grants[1].models.as_ref().unwrap().numbers), ["claude"]);
    assert_eq!((grants[0].provider, grants[0].weight, grants[0].models.as_ref()), (0, None, None));
    assert_eq!(grants[0].keys.as_deref(), Some(&[1][..]));
}

/// The names of these models.
fn names<'r>(record: &'r SnapshotRecord, numbers: &[u32]) -> Vec<&'r str> {
    numbers.iter().map(|number| record.known_models[*number as usize].model.as_str()).collect()
}

#[test]
fn what_cores_look_up_by_halving_is_sorted() {
    let compiled = compiled(
        r#"{"providers": {
            "openai": {"keys": [
                {"name": "a", "value": "1", "models": ["z", "b"], "blacklisted_models": ["y", "x"], "weight": 1,
                 "aliases": {"n": "1", "c": "2"}},
                {"name": "b", "value": "2", "models": ["*"], "weight": 2}]},
            "anthropic": {"keys": [{"name": "c", "value": "3", "models": ["*"], "weight": 1}]}},
          "governance": {"virtual_keys": [{"id": "v", "name": "v", "value": "sk-bf-v", "is_active": true,
            "provider_configs": [
                {"provider": "anthropic", "weight": 1, "allowed_models": ["y", "a"], "key_ids": ["*"]},
                {"provider": "openai", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]},
                {"provider": "anthropic", "weight": 3, "allowed_models": ["*"], "key_ids": ["*"]}]}]}}"#,
    );
    let record = &compiled.record;
    let key = &record.keys[0];
    assert_eq!(names(record, &key.models.as_ref().unwrap().numbers), ["b", "z"]);
    assert_eq!(names(record, &key.blacklisted_models.numbers), ["x", "y"]);
    let aliases: Vec<u32> = key.aliases.iter().map(|alias| alias.0).collect();
    assert_eq!(names(record, &aliases), ["c", "n"]);
    assert_eq!(record.providers[0].key_weights, [1.0, 3.0]);
    assert_eq!(record.relay, None);
    let grants = record.virtual_keys[0].grants.as_ref().expect("it names some");
    let seen: Vec<_> = grants.iter().map(|grant| (grant.provider, grant.place, grant.weight)).collect();
    assert_eq!(seen, [(0, 1, Some(1.0)), (1, 0, Some(1.0))]);
    assert_eq!(names(record, &grants[1].models.as_ref().unwrap().numbers), ["a", "y"]);
    assert!(
        compiled.warnings.iter().any(|warning| warning.contains("names a provider twice")),
        "{:?}",
        compiled.warnings
    );
}

#[test]
fn virtual_keys_are_found_by_their_keyed_hash_only() {
    let record = compiled(FULL).record;
    assert!(record.virtual_key_index.is_sorted());
    for (value, at) in [("sk-bf-all", 0), ("sk-bf-none", 1), ("sk-bf-some", 2)] {
        let hash = lookup_hash(&[3; 32], value);
        let found = record.virtual_key_index.binary_search_by(|(other, _)| other.cmp(&hash)).unwrap();
        assert_eq!(record.virtual_key_index[found].1, at, "{value}");
        let other = lookup_hash(&[4; 32], value);
        assert!(record.virtual_key_index.iter().all(|(hash, _)| *hash != other));
    }
}

#[test]
fn the_model_index_lists_who_names_a_model_in_the_files_order() {
    let record = compiled(FULL).record;
    let served: Vec<_> = record.known_models.iter().map(|known| (known.model.as_str(), &known.providers[..])).collect();
    assert_eq!(served, [("claude", &[1][..]), ("gpt-4o", &[0]), ("gpt-4o-mini", &[0, 1]), ("o1", &[])]);
    assert_eq!(record.model_labels, ["claude", "gpt-4o", "gpt-4o-2024-11-20", "gpt-4o-mini"]);
}

#[test]
fn a_disabled_key_serves_nothing_and_a_grant_of_it_alone_allows_no_key() {
    let text = r#"{
      "providers": {"openai": {"keys": [
        {"name": "off", "value": "sk-1", "models": ["a"], "weight": 1, "enabled": false},
        {"name": "on", "value": "sk-2", "models": ["b"], "weight": 1}]}},
      "governance": {"virtual_keys": [{"id": "v", "name": "v", "value": "sk-bf-v", "provider_configs": [
        {"provider": "openai", "allowed_models": ["*"], "key_ids": ["off"]}]}]}
    }"#;
    let record = compiled(text).record;
    assert_eq!(record.keys.len(), 1);
    let served = record.known_models.iter().filter(|known| !known.providers.is_empty());
    assert_eq!(served.map(|known| known.model.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(record.virtual_keys[0].grants.as_ref().unwrap()[0].keys.as_deref(), Some(&[][..]));
}

#[test]
fn the_records_can_be_read_in_place() {
    let record = compiled(FULL).record;
    let snapshot = shared::snapshot::Snapshot::from_record(&record).unwrap();
    assert_eq!(snapshot.to_record().unwrap(), record);
}

#[test]
fn a_limit_of_one_key_is_that_keys_alone() {
    let text = FULL.replace(r#""value": "sk-literal","#, r#""value": "sk-literal", "rate_limit_id": "claude","#);
    let record = compiled(&text).record;
    let limits: Vec<_> = record.keys.iter().map(|key| key.limits.as_slice()).collect();
    assert_eq!(limits, [&[][..], &[2], &[]]);
}

#[test]
fn a_limit_of_another_region_is_not_counted_here() {
    let text =
        |region: &str| FULL.replace(r#"{"id": "claude","#, &format!(r#"{{"id": "claude", "region": "{region}","#));
    assert_eq!(compiled(&text("eu")).record.limits.len(), 3);
    let elsewhere = compiled(&text("us")).record;
    assert_eq!(elsewhere.limits.len(), 2);
    assert!(elsewhere.models[0].limits.is_empty());
}

#[test]
fn what_is_of_the_nodes_own_region_is_nearest() {
    let text = FULL
        .replace(r#"{"name": "first","#, r#"{"name": "first", "region": "us","#)
        .replace(r#""anthropic": {"keys""#, r#""anthropic": {"region": "eu", "keys""#);
    let record = compiled(&text).record;
    let providers: Vec<_> = record.providers.iter().map(|provider| provider.distance).collect();
    let keys: Vec<_> = record.keys.iter().map(|key| key.distance).collect();
    assert_eq!((providers, keys), (vec![1, 0, 1], vec![2, 1, 0]));
    let served = record.known_models.iter().find(|known| known.model == "gpt-4o-mini").unwrap();
    assert_eq!(served.providers, [1, 0], "the nearer provider is asked first");
}

#[test]
fn a_virtual_key_has_the_limits_and_budgets_of_its_groups_once_each() {
    let text = r#"{
      "version": 1,
      "governance": {
        "rate_limits": [{"id": "r", "request_max_limit": 5, "request_reset_duration": "1m"}],
        "budgets": [{"id": "own", "max_limit": 1, "reset_duration": "1d"},
                    {"id": "team", "max_limit": 0.5, "reset_duration": "1d"},
                    {"id": "customer", "max_limit": 3, "reset_duration": "1M"}],
        "customers": [{"id": "c", "name": "C", "budget_id": "customer", "rate_limit_id": "r"}],
        "teams": [{"id": "t", "name": "T", "customer_id": "c", "budget_ids": ["team"], "rate_limit_id": "r"}],
        "virtual_keys": [
          {"id": "v", "name": "v", "value": "sk-bf-v", "budget_id": "own", "team_id": "t"},
          {"id": "w", "name": "w", "value": "sk-bf-w", "customer_id": "c"}]}
    }"#;
    let record = compiled(text).record;
    let ids = |limits: &[u32]| limits.iter().map(|at| record.limits[*at as usize].id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&record.virtual_keys[0].limits), ["own/usd", "r/requests", "team/usd", "customer/usd"]);
    assert_eq!(ids(&record.virtual_keys[1].limits), ["r/requests", "customer/usd"]);
    let team = record.limits.iter().find(|limit| limit.id == "team/usd").unwrap();
    assert_eq!((team.unit, team.amount), (shared::limit::Unit::MicroUsd, 500_000));
}
