//! The body of `/v1/models`, from the configuration. One page: nothing is left for a second.

use super::Dialect;
use super::json::escape_into;

/// A model that a client may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedModel<'t> {
    /// As a client writes it, `provider/model`.
    pub id: &'t str,
    /// The provider's name.
    pub owner: &'t str,
}

/// Appends the list in the words of Anthropic, or of `OpenAI` for every other dialect.
pub fn write<'t>(dialect: Dialect, models: impl IntoIterator<Item = ListedModel<'t>>, out: &mut Vec<u8>) {
    if dialect == Dialect::Anthropic {
        write_anthropic(models, out);
    } else {
        write_openai(models, out);
    }
}

fn write_openai<'t>(models: impl IntoIterator<Item = ListedModel<'t>>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"object":"list","data":["#);
    for (place, model) in models.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_openai_model(model, out);
    }
    out.extend_from_slice(b"]}");
}

/// Appends one model as `/v1/models/ID` answers it in the `OpenAI` dialect. `created` is 0: the
/// configuration does not know it, and SDKs want a number.
pub fn write_openai_model(model: ListedModel<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"id":""#);
    escape_into(model.id, out);
    out.extend_from_slice(br#"","object":"model","created":0,"owned_by":""#);
    escape_into(model.owner, out);
    out.extend_from_slice(br#""}"#);
}

fn write_anthropic<'t>(models: impl IntoIterator<Item = ListedModel<'t>>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"data":["#);
    let (mut first, mut last) = (None, None);
    for model in models {
        if first.is_some() {
            out.push(b',');
        }
        write_anthropic_model(model, out);
        first = first.or(Some(model.id));
        last = Some(model.id);
    }
    out.extend_from_slice(br#"],"has_more":false,"first_id":"#);
    id_or_null(first, out);
    out.extend_from_slice(br#","last_id":"#);
    id_or_null(last, out);
    out.push(b'}');
}

/// Appends one model as `/v1/models/ID` answers it in the Anthropic dialect. `created_at` is
/// what that API gives for an unknown date.
pub fn write_anthropic_model(model: ListedModel<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"model","id":""#);
    escape_into(model.id, out);
    out.extend_from_slice(br#"","display_name":""#);
    escape_into(model.id, out);
    out.extend_from_slice(br#"","created_at":"1970-01-01T00:00:00Z"}"#);
}

fn id_or_null(id: Option<&str>, out: &mut Vec<u8>) {
    match id {
        Some(id) => {
            out.push(b'"');
            escape_into(id, out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests;
