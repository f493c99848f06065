//! `/api/models`: the models that clients may ask for, as the keys of providers say it.

use super::Desk;
use super::answer::Refusal;
use super::asked::Asked;
use super::entities::PAGE_MAX;
use crate::live::{Entities, EntityKind};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Models on one page where nothing is asked for.
const PAGE: u64 = 100;

/// One page, in the order of providers and models. A model `*` stands for every one that the
/// provider has.
pub(super) fn list(desk: &Desk, asked: &Asked) -> Result<Response, Refusal> {
    let count = usize::try_from(asked.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE)).unwrap_or(usize::MAX);
    let document = desk.live.document();
    let models = models(&document.entities);
    let from = match asked.query("cursor").and_then(|last| last.split_once('/')) {
        Some((provider, model)) => Bound::Excluded((provider, model)),
        None => Bound::Unbounded,
    };
    let mut found = models.range::<(&str, &str), _>((from, Bound::Unbounded));
    let page: Vec<_> = found.by_ref().take(count).collect();
    let next = found.next().and_then(|_| page.last()).map(|(provider, model)| format!("{provider}/{model}"));
    let items: Vec<Value> =
        page.iter().map(|(provider, model)| json!({"provider": provider, "model": model})).collect();
    Ok(Json(json!({"items": items, "next": next})).into_response())
}

/// Provider and model, of keys that are enabled.
fn models(entities: &Entities) -> BTreeSet<(&str, &str)> {
    let mut models = BTreeSet::new();
    let keys = entities.iter().filter(|(id, value)| id.kind == EntityKind::Key && value["enabled"] != false);
    for (id, key) in keys {
        let Some((provider, _)) = id.name.split_once('/') else { continue };
        let names = |field: &str| key[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        let denied: BTreeSet<&str> = names("blacklisted_models").collect();
        let aliases = key["aliases"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let allowed = names("models").chain(aliases);
        models.extend(allowed.filter(|model| !denied.contains(model)).map(|model| (provider, model)));
    }
    models
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::split::split;

    #[test]
    fn models_are_those_of_keys_that_are_enabled() {
        let file = json!({"providers": {
            "openai": {"keys": [
                {"name": "a", "models": ["m1", "m2"], "blacklisted_models": ["m2"], "aliases": {"small": "m1"}},
                {"name": "b", "models": ["m1", "m3"], "enabled": false}]},
            "ollama": {"keys": [{"name": "c", "models": ["*"]}]}}});
        let entities = split(&file.to_string()).unwrap().entities;
        let found: Vec<_> = models(&entities).into_iter().collect();
        assert_eq!(found, [("ollama", "*"), ("openai", "m1"), ("openai", "small")]);
    }
}
