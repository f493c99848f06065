//! Which limits are about the same as a provider's own: those that count exactly one key. Pure.
//!
//! A limit belongs to a key when everything that it is attached to is that key: the key itself,
//! the provider whose only key it is, or a model at such a provider. Then what it counts is what
//! the provider counts for that key, of all models or of the one. Whoever shares a limit with
//! something else, or attaches it to a virtual key, has it counted apart from any provider: it
//! belongs to none and learns nothing.

use shared::report::KeyLabels;
use shared::snapshot::{SnapshotRecord, Unit};

/// What a limit counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Belonging {
    /// The only key whose requests it counts.
    pub(super) key: KeyLabels,
    /// Only those for this model; `None`: all.
    pub(super) model: Option<String>,
}

impl Belonging {
    /// Whether what was told of a model concerns it.
    pub(super) fn is_about(&self, model: &str) -> bool {
        self.model.as_deref().is_none_or(|only| only == model)
    }
}

#[derive(Clone, Default, PartialEq)]
enum Attached {
    #[default]
    Nowhere,
    /// To a key, by index, or to one model of it.
    To(u32, Option<String>),
    ToSeveral,
}

impl Attached {
    fn to(&mut self, key: u32, model: Option<&str>) {
        *self = match std::mem::take(self) {
            Self::Nowhere => Self::To(key, model.map(str::to_owned)),
            Self::To(known, of) if known == key && of.as_deref() == model => Self::To(key, of),
            // What the whole key is counted for is counted for its model too.
            Self::To(known, of) if known == key && (of.is_none() || model.is_none()) => Self::To(key, None),
            _ => Self::ToSeveral,
        };
    }
}

/// Every limit that belongs to a key, by its index.
pub(super) fn belongings(record: &SnapshotRecord) -> Vec<(usize, Belonging)> {
    let mut attached = vec![Attached::default(); record.limits.len()];
    let mut attach = |limits: &[u32], key: Option<u32>, model: Option<&str>| {
        for limit in limits {
            let Some(attached) = attached.get_mut(*limit as usize) else { continue };
            match key {
                Some(key) => attached.to(key, model),
                None => *attached = Attached::ToSeveral,
            }
        }
    };
    let only_key = |provider: u32| match record.providers.get(provider as usize)?.keys.as_slice() {
        [key] => Some(*key),
        _ => None,
    };
    for (key, index) in record.keys.iter().zip(0..) {
        attach(&key.limits, Some(index), None);
    }
    for (provider, index) in record.providers.iter().zip(0..) {
        attach(&provider.limits, only_key(index), None);
    }
    for model in &record.models {
        let name = Some(model.model.as_str()).filter(|name| *name != "*");
        attach(&model.limits, model.provider.and_then(only_key), name);
    }
    for virtual_key in &record.virtual_keys {
        attach(&virtual_key.limits, None, None);
        for grant in virtual_key.grants.iter().flatten() {
            attach(&grant.limits, None, None);
        }
    }
    let named = attached.into_iter().enumerate().filter_map(|(limit, attached)| {
        let Attached::To(key, model) = attached else { return None };
        let key = record.keys.get(key as usize)?;
        let provider = record.providers.get(key.provider as usize)?;
        let key = KeyLabels { provider: provider.name.clone(), key: key.name.clone() };
        // A pace counts the same requests, for this node alone; and what a provider says is about
        // whole windows, not about a part of one, and never about what runs at once or what it costs.
        let is_told_of = record.limits.get(limit).is_some_and(|limit| {
            limit.paces.is_none() && !limit.is_part && matches!(limit.unit, Unit::Requests | Unit::Tokens)
        });
        (!provider.is_key_less && is_told_of).then_some((limit, Belonging { key, model }))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::compiled;

    /// Provider `one` with the key `k`, provider `two` with two keys; `attached` is put into the
    /// places that are marked with the names of their owners.
    fn check(attached: &[&str], belongs: Option<(&str, Option<&str>)>) {
        let limit = |owner: &str| if attached.contains(&owner) { r#", "rate_limit_id": "l""# } else { "" };
        let text = format!(
            r#"{{
            "providers": {{
                "one": {{"keys": [{{"name": "k", "value": "v", "models": ["*"], "weight": 1{}}}], "network_config": {{"base_url": "http://a"}},
                    "custom_provider_config": {{"base_provider_type": "openai"}}}},
                "two": {{"keys": [{{"name": "x", "value": "v", "models": ["*"], "weight": 1{}}}, {{"name": "y", "value": "v", "models": ["*"], "weight": 1}}],
                    "network_config": {{"base_url": "http://b"}}, "custom_provider_config": {{"base_provider_type": "openai"}}}}
            }},
            "governance": {{
                "rate_limits": [{{"id": "l", "request_max_limit": 10, "request_reset_duration": "1m",
                    "sub_window": "10s", "concurrent_max_limit": 3}}],
                "virtual_keys": [{{"id": "v", "name": "v", "value": "sk-bf-v"{}}}],
                "model_configs": [{{"model_name": "m", "provider": "one"{}}}, {{"model_name": "n", "provider": "two"{}}}],
                "providers": [{{"name": "one"{}}}, {{"name": "two"{}}}]
            }}}}"#,
            limit("k"),
            limit("x"),
            limit("v"),
            limit("m"),
            limit("n"),
            limit("one"),
            limit("two"),
        );
        let found = belongings(&compiled(&text).record);
        assert!(found.len() <= 1, "neither the part of the window nor what runs at once");
        let found = found.first().map(|(_, found)| (found.key.key.as_str(), found.model.as_deref()));
        assert_eq!(found, belongs, "{attached:?}");
    }

    #[test]
    fn a_limit_belongs_to_the_one_key_that_it_counts() {
        check(&["k"], Some(("k", None)));
        check(&["x"], Some(("x", None)));
        check(&["one"], Some(("k", None)));
        check(&["one", "k"], Some(("k", None)));
        check(&["m"], Some(("k", Some("m"))));
        check(&["m", "k"], Some(("k", None)));
    }

    #[test]
    fn a_limit_that_counts_anything_else_belongs_to_none() {
        for attached in [&["two"][..], &["n"], &["k", "x"], &["v"], &["k", "v"], &["one", "two"], &[]] {
            check(attached, None);
        }
    }
}
