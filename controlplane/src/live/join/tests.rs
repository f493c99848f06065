use super::super::seal::Sealer;
use super::super::split::{Parts, split};
use super::*;
use crate::last_good::EncryptionKey;
use shared::config::{Config, Loaded, Sources, load, plain_json};
use shared::secret::Secret;

const FULL: &str = include_str!("../../../../examples/full.json");
const CLUSTER: &str = include_str!("../../../../examples/cluster.json");
const MIGRATED: &str = include_str!("../../../../examples/migrated.json");
const DEMO: &str = include_str!("../../../../src/demo/config.json");

/// Every reference leads somewhere that fits.
fn everything(sealer: Option<&Sealer>, read: impl FnOnce(&Sources<'_>) -> Result<Loaded, Vec<Fault>>) -> Loaded {
    let sources = Sources {
        env: &|_| Some("sk-bf-0123456789abcdef".to_owned()),
        file: &|path| {
            let certificate = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
            let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";
            Ok(if path.contains("-ca.") { certificate } else { key }.to_owned())
        },
        sealed: &|placed| sealer?.open_placed(placed),
    };
    read(&sources).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn parts(text: &str) -> Parts {
    split(&plain_json(text)).unwrap()
}

/// What does not depend on the order in a file.
fn sorted(mut config: Config) -> Config {
    config.providers.sort_by(|a, b| a.name.cmp(&b.name));
    config.providers.iter_mut().for_each(|provider| provider.keys.sort_by(|a, b| a.id.cmp(&b.id)));
    let governance = &mut config.governance;
    governance.virtual_keys.sort_by(|a, b| a.id.cmp(&b.id));
    governance.rate_limits.sort_by(|a, b| a.id.cmp(&b.id));
    governance.model_configs.sort_by_key(|entry| format!("{entry:?}"));
    governance.providers.sort_by(|a, b| a.provider.cmp(&b.provider));
    governance.routing_rules.sort_by(|a, b| a.id.cmp(&b.id));
    config
}

fn examples() -> Vec<String> {
    let filled = [("@HOST@", "127.0.0.1"), ("@PROVIDER@", "127.0.0.1:9"), ("@PEERS@", "\"127.0.0.1:7\"")];
    let filled = filled.into_iter().chain([("@GOSSIP_KEY@", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")]);
    let mut demo = filled.fold(DEMO.to_owned(), |text, (name, value)| text.replace(name, value));
    for (number, name) in ["@PORT@", "@ADMIN_PORT@", "@GOSSIP_PORT@", "@NUMBER@", "@NODES@"].iter().enumerate() {
        demo = demo.replace(name, &(number + 1).to_string());
    }
    [FULL, CLUSTER, MIGRATED, &demo, "{}", "{\"version\": 1}"].map(str::to_owned).to_vec()
}

#[test]
fn what_was_taken_apart_says_the_same_when_it_is_put_together() {
    for text in examples() {
        let before = everything(None, |sources| load(&text, sources));
        let Parts { local, entities } = parts(&text);
        let joined = join(&local, &entities);
        let after = everything(None, |sources| load(&joined.text, sources));
        assert!(sorted(before.config) == sorted(after.config), "{}", *joined.text);
        let again = parts(&joined.text);
        assert!(again.entities == entities, "{}", *joined.text);
        assert_eq!(*join(&again.local, &again.entities).text, *joined.text);
    }
}

#[test]
fn sealed_secrets_are_read_from_the_joined_text_and_stand_nowhere_in_it() {
    let sealer = Sealer::new(&EncryptionKey::new(Secret::new("a-key-of-at-least-thirty-two-characters")).unwrap());
    let Parts { local, mut entities } = parts(MIGRATED);
    for (id, value) in &mut entities {
        sealer.seal_all(id, std::sync::Arc::make_mut(value), None).unwrap();
    }
    let joined = join(&local, &entities);
    assert!(!joined.text.contains("sk-ant-literal") && !joined.text.contains("sk-bf-one"));
    let loaded = everything(Some(&sealer), |sources| load(&joined.text, sources));
    let key = &loaded.config.provider("anthropic").unwrap().keys[0];
    assert_eq!(key.value.expose(), "sk-ant-literal");
    assert_eq!(loaded.config.governance.virtual_keys[0].value.expose(), "sk-bf-one");
    assert!(!loaded.warnings.iter().any(|warning| warning.message.contains("stands in the file")));
}

#[test]
fn a_fault_is_told_at_its_entity() {
    let text = r#"{"server": {"prot": 7}, "client": {"max_request_body_size_mb": -1},
        "providers": {"a.b": {"custom_provider_config": {"base_provider_type": "openai"},
            "network_config": {"base_url": "http://h", "extra_headers": {"x y": "a"}},
            "keys": [{"name": "k", "value": "v", "weihgt": 1}, {"name": "l", "value": "v", "rate_limit_id": "r"}]}},
        "governance": {"budgets": [{"id": "b", "max_limit": 1}], "virtual_keys": [
            {"id": "v", "name": "v", "value": "sk-bf-v", "provider_configs": [{"provider": "a.b"}, {"provider": "c"}]}]}}"#;
    let Parts { local, entities } = parts(text);
    let joined = join(&local, &entities);
    let faults = load(&joined.text, &Sources::none()).unwrap_err();
    let mut told: Vec<_> = faults
        .into_iter()
        .map(|fault| joined.fault(fault))
        .map(|fault| (fault.id.map(|id| id.to_string()).unwrap_or_default(), fault.pointer, fault.nearest))
        .collect();
    told.sort();
    let told: Vec<_> =
        told.iter().map(|(id, pointer, near)| (id.as_str(), pointer.as_str(), near.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("", "", Some("port")),
            ("budget/b", "", None),
            ("client", "/max_request_body_size_mb", None),
            ("key/a.b/k", "/weihgt", Some("weight")),
            ("key/a.b/l", "/rate_limit_id", None),
            ("provider/a.b", "/network_config/extra_headers/x y", None),
            ("virtual_key/v", "/provider_configs/1/provider", None),
        ]
    );
}

#[test]
fn a_warning_names_its_entity() {
    let Parts { local, entities } = parts(MIGRATED);
    let joined = join(&local, &entities);
    let loaded = everything(None, |sources| load(&joined.text, sources));
    let told: Vec<_> = loaded.warnings.iter().map(|warning| joined.warning(warning)).collect();
    assert!(told.iter().any(|line| line.starts_with("key/openai/one/use_for_batch_api: ")), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("logs_store: ")), "{told:?}");
}

#[test]
fn a_key_without_its_provider_is_named() {
    let entities = parts(r#"{"providers": {"openai": {"keys": [{"name": "a", "value": "b"}]}}}"#).entities;
    assert!(orphans(&entities).is_empty());
    let mut alone = entities;
    alone.remove(&EntityId::new(EntityKind::Provider, "openai"));
    assert_eq!(orphans(&alone)[0].id.as_ref().unwrap().to_string(), "key/openai/a");
}

#[test]
fn paths_are_read_as_the_reader_shows_them() {
    for (path, expected) in [
        ("", vec![]),
        ("a.b[3].c", vec!["a", "b", "3", "c"]),
        (r#"providers."a.b".keys[0]"#, vec!["providers", "a.b", "keys", "0"]),
        (r#"a."q\"uote"…[1]"#, vec!["a", "q\"uote", "1"]),
        ("\"open", vec!["open"]),
        ("a[", vec!["a", ""]),
    ] {
        assert_eq!(steps(path), expected, "{path}");
    }
}
