//! The list of models that a caller may name, from the configuration: the models that keys list
//! and their aliases, as `provider/model`. Models behind `"*"` are not known here.

use crate::core::Serving;
use crate::identify::Caller;
use crate::known_model::{ModelNumber, allows, lists};
use crate::plan::{Grant, grant};
use crate::provider::Dialect;
use crate::provider::model_list::{self, ListedModel};
use crate::rejection::{Cause, Rejection};
use crate::route::Target;
use crate::upstream::dialect_of;

/// Writes the list, or the model `wanted` alone, in the dialect of the path.
pub(crate) fn write(
    serving: &Serving,
    target: &Target,
    caller: Caller,
    wanted: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<(), Rejection> {
    let models = allowed(serving, target, caller);
    let Some(wanted) = wanted else {
        let listed = models.iter().map(|(id, owner)| ListedModel { id, owner });
        model_list::write(target.dialect, listed, out);
        return Ok(());
    };
    let is_it =
        |(id, _): &&(String, &str)| id == wanted || id.split_once('/').is_some_and(|(_, model)| model == wanted);
    let Some((id, owner)) = models.iter().find(is_it) else {
        return Err(Rejection::new(Cause::NoRoute, "no model of this name is listed here").about("model"));
    };
    match target.dialect {
        Dialect::Anthropic => model_list::write_anthropic_model(ListedModel { id, owner }, out),
        _ => model_list::write_openai_model(ListedModel { id, owner }, out),
    }
    Ok(())
}

fn allowed<'s>(serving: &'s Serving, target: &Target, caller: Caller) -> Vec<(String, &'s str)> {
    let records = serving.records();
    let mut listed = Vec::new();
    for (at, provider) in records.providers.iter().enumerate() {
        let is_meant = target.provider.is_none_or(|only| only == at);
        let speaks = target.dialect == Dialect::OpenAi || dialect_of(provider) == target.dialect;
        let grant = grant(serving, caller, at);
        if !is_meant || !speaks || provider.relay_all || matches!(grant, Grant::None) {
            continue;
        }
        let may = |model: ModelNumber| match &grant {
            Grant::Some(grant) => allows(grant.models.as_ref(), model),
            Grant::All | Grant::None => true,
        };
        let first = listed.len();
        for key in provider.keys.iter().filter_map(|key| records.keys.get(key.to_native() as usize)) {
            // Numbers are in the order of the names.
            let numbers = key
                .models
                .iter()
                .flat_map(|models| models.numbers.iter())
                .chain(key.aliases.iter().map(|alias| &alias.0));
            for number in numbers.map(|number| ModelNumber::Known(number.to_native())) {
                let Some(known) = number.record(serving) else { continue };
                if !may(number) || lists(&key.blacklisted_models, number) {
                    continue;
                }
                let model = known.model.as_str();
                let id = format!("{}/{model}", provider.name);
                if !listed[first..].iter().any(|(other, _)| *other == id) {
                    listed.push((id, provider.name.as_str()));
                }
            }
        }
    }
    listed
}
