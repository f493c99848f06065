//! `cluster_config`, as the last good snapshot keeps it: its text. Sealed with the secrets where
//! there is an encryption key; otherwise in the clear and without secrets that stand in it
//! themselves, so that references are all that is left of them.

use super::seal::FileKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::secret::Secret;

/// Fields of discovery that hold a secret.
const SECRET_FIELDS: [&str; 2] = ["consul_token", "etcd_password"];

/// Stands for gossip keys that could not be kept: where it is not set, the node is alone and says why.
const KEY_INSTEAD: &str = "env.DEEPINTSHIELD_GOSSIP_KEY";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterPart {
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clear: Option<String>,
}

impl ClusterPart {
    /// `index` is a place of its own among the seals of the file.
    pub(super) fn write(text: &Secret, key: Option<&FileKey>, index: u32) -> Self {
        match key {
            Some(key) => {
                let sealed = key.seal(index, &of_a_cluster_that_ran(text));
                Self { sealed: Some(BASE64.encode(sealed)), clear: None }
            }
            None => Self { sealed: None, clear: without_literals(text.expose()) },
        }
    }

    /// The text, where it can be had.
    pub(super) fn read(self, key: Option<&FileKey>, index: u32) -> Option<Secret> {
        if let Some(clear) = self.clear {
            return Some(Secret::new(&clear));
        }
        let sealed = BASE64.decode(self.sealed?).ok()?;
        key?.open(index, &sealed)
    }
}

/// A node that starts from this file has run before, and its cluster with it.
fn of_a_cluster_that_ran(text: &Secret) -> Secret {
    let Ok(Value::Object(mut config)) = serde_json::from_str(text.expose()) else { return text.duplicate() };
    match config.shift_remove("initial_state") {
        Some(_) => Secret::new(&Value::Object(config).to_string()),
        None => text.duplicate(),
    }
}

fn without_literals(text: &str) -> Option<String> {
    let mut config: Value = serde_json::from_str(text).ok()?;
    if let Some(keys) = config.pointer_mut("/gossip/encryption_keys").and_then(Value::as_array_mut) {
        let count = keys.len();
        keys.retain(is_reference);
        if keys.is_empty() && count > 0 {
            // Without any, a cluster with keys would be spoken to in the clear, where the file allows it.
            keys.push(Value::from(KEY_INSTEAD));
        }
    }
    match config.get_mut("discovery") {
        Some(Value::Array(discoveries)) => discoveries.iter_mut().for_each(strip),
        Some(discovery) => strip(discovery),
        None => {}
    }
    if let Some(fields) = config.as_object_mut() {
        // Known from other programs, and never used here.
        fields.remove("auth_token");
        // Of a cluster that ran.
        fields.remove("initial_state");
    }
    Some(config.to_string())
}

fn strip(discovery: &mut Value) {
    if let Some(fields) = discovery.as_object_mut() {
        fields.retain(|name, value| !SECRET_FIELDS.contains(&name.as_str()) || is_reference(value));
    }
}

fn is_reference(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with("env.") || text.starts_with("file:"))
}

#[cfg(test)]
mod tests {
    use super::super::seal::EncryptionKey;
    use super::*;

    #[test]
    fn a_cluster_is_new_once() {
        let key = EncryptionKey::new(Secret::new(&"k".repeat(32))).unwrap().for_file(&[0; 32], 1, [0; 32]);
        for key in [None, Some(&key)] {
            let text = Secret::new(r#"{"enabled":true,"initial_state":"new","gossip":{"port":7}}"#);
            let kept = ClusterPart::write(&text, key, 0).read(key, 0).unwrap();
            assert_eq!(kept.expose(), r#"{"enabled":true,"gossip":{"port":7}}"#);
        }
    }

    #[test]
    fn literals_are_left_out_and_references_stay() {
        let text = r#"{"enabled":true,"discovery":[{"type":"etcd","etcd_password":"hunter2"},
            {"type":"consul","consul_token":"env.TOKEN"}],"gossip":{"encryption_keys":["TUlO","file:/k"],"port":7}}"#;
        let kept = ClusterPart::write(&Secret::new(text), None, 0).read(None, 0).unwrap();
        let kept: Value = serde_json::from_str(kept.expose()).unwrap();
        let expected = serde_json::json!({
            "enabled": true,
            "discovery": [{"type": "etcd"}, {"type": "consul", "consul_token": "env.TOKEN"}],
            "gossip": {"encryption_keys": ["file:/k"], "port": 7},
        });
        assert_eq!(kept, expected);
    }

    #[test]
    fn keys_that_are_left_out_do_not_leave_a_cluster_without_any() {
        let kept = |keys: &str| {
            let text = format!(r#"{{"gossip":{{"encryption_keys":{keys},"insecure":true}}}}"#);
            let kept = ClusterPart::write(&Secret::new(&text), None, 0).read(None, 0).unwrap();
            let kept: Value = serde_json::from_str(kept.expose()).unwrap();
            kept["gossip"]["encryption_keys"].clone()
        };
        assert_eq!(kept(r#"["TUlO"]"#), serde_json::json!([KEY_INSTEAD]));
        assert_eq!(kept(r#"["TUlO","file:/k"]"#), serde_json::json!(["file:/k"]));
        assert_eq!(kept("[]"), serde_json::json!([]));
    }
}
