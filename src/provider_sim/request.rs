//! What a JSON body asks for, in any of the dialects. Pure.
//!
//! Prompt tokens are counted by a rule that a client can repeat: the bytes (UTF-8, after JSON
//! decoding) of every string that stands in `messages`, `contents`, `prompt`, `input`,
//! `instructions`, `system` or `systemInstruction`, either directly, or under the fields
//! `content`, `text`, `parts` and `output`, divided by four and rounded up. A number in their
//! place (a token id) is one token. Nothing else costs anything: no roles, tools or framing.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    route::Route,
    settings::{SettingError, Settings},
    text::TOKEN_BYTES,
};

/// Longest model name, in bytes.
const MODEL_BYTES_MAX: usize = 256;

/// A request that can be answered.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Model, as it was asked for.
    pub(crate) model: String,
    /// Server-sent events instead of one JSON document.
    pub(crate) stream: bool,
    /// `OpenAI`: a last event with the usage.
    pub(crate) include_usage: bool,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: u32,
    /// Most tokens that the answer may have.
    pub(crate) max_tokens: Option<u32>,
    /// The function that must be called.
    pub(crate) tool: Option<String>,
    /// Embeddings: how many texts.
    pub(crate) inputs: u32,
    /// Embeddings: numbers in each vector.
    pub(crate) dimensions: Option<u32>,
    /// Embeddings: vectors as base64 instead of JSON numbers.
    pub(crate) base64: bool,
}

/// The body is not a request of this call. Nothing was counted as admitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Not JSON, or a field has the wrong type.
    #[error("We could not parse the JSON body of your request: {0}")]
    Json(#[from] serde_json::Error),
    /// A field that the call needs is absent.
    #[error("Missing required parameter: '{0}'.")]
    Missing(&'static str),
    /// A name is longer than any model's.
    #[error("The model name is longer than {MODEL_BYTES_MAX} bytes.")]
    ModelTooLong,
    /// `metadata.sim` is wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    messages: Option<Counted>,
    prompt: Option<Counted>,
    input: Option<Counted>,
    instructions: Option<Counted>,
    system: Option<Counted>,
    contents: Option<Counted>,
    #[serde(alias = "system_instruction", rename = "systemInstruction")]
    system_instruction: Option<Counted>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    #[serde(alias = "generation_config", rename = "generationConfig")]
    generation_config: Option<GenerationConfig>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
    dimensions: Option<u32>,
    encoding_format: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct GenerationConfig {
    #[serde(alias = "max_output_tokens", rename = "maxOutputTokens")]
    max_output_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct Tool {
    name: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ToolChoice {
    Word(String),
    Object {
        #[serde(rename = "type")]
        kind: Option<String>,
        name: Option<String>,
        function: Option<Function>,
    },
    Other(IgnoredAny),
}

/// Reads `body` as a request of `route`. `settings` are those of the head; those of the body are
/// added and win.
pub(crate) fn read(route: Route, path_model: &str, body: &[u8], settings: &mut Settings) -> Result<Ask, AskError> {
    let parsed: Body = serde_json::from_slice(body)?;
    // A second, generic reading only for those who want it.
    if memchr::memmem::find(body, b"\"sim\"").is_some() {
        let whole: serde_json::Value = serde_json::from_slice(body)?;
        if let Some(sim) = whole.pointer("/metadata/sim").and_then(serde_json::Value::as_object) {
            settings.set_from_json(sim)?;
        }
    }
    let is_gemini = matches!(route, Route::GeminiGenerate | Route::GeminiStream);
    let model = if is_gemini { path_model.to_owned() } else { parsed.model.ok_or(AskError::Missing("model"))? };
    if model.len() > MODEL_BYTES_MAX {
        return Err(AskError::ModelTooLong);
    }
    match route {
        Route::Chat | Route::CohereChat | Route::Messages if parsed.messages.is_none() => {
            return Err(AskError::Missing("messages"));
        }
        Route::Messages if parsed.max_tokens.is_none() => return Err(AskError::Missing("max_tokens")),
        Route::Completions if parsed.prompt.is_none() => return Err(AskError::Missing("prompt")),
        Route::Embeddings if parsed.input.is_none() => return Err(AskError::Missing("input")),
        Route::GeminiGenerate | Route::GeminiStream if parsed.contents.is_none() => {
            return Err(AskError::Missing("contents"));
        }
        _ => {}
    }
    let counted = [
        parsed.messages,
        parsed.prompt,
        parsed.input,
        parsed.instructions,
        parsed.system,
        parsed.contents,
        parsed.system_instruction,
    ];
    let bytes: u64 = counted.iter().flatten().map(|counted| counted.bytes).sum();
    let tool = chosen_tool(parsed.tools.as_deref(), parsed.tool_choice);
    Ok(Ask {
        model,
        stream: match route {
            Route::GeminiStream => true,
            Route::GeminiGenerate | Route::Embeddings => false,
            _ => parsed.stream.unwrap_or(false),
        },
        include_usage: parsed.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        prompt_tokens: u32::try_from(bytes.div_ceil(TOKEN_BYTES)).unwrap_or(u32::MAX),
        max_tokens: parsed
            .max_completion_tokens
            .or(parsed.max_tokens)
            .or(parsed.max_output_tokens)
            .or(parsed.generation_config.and_then(|config| config.max_output_tokens)),
        tool,
        inputs: parsed.input.map_or(0, |input| input.items.max(1)),
        dimensions: parsed.dimensions,
        base64: parsed.encoding_format.as_deref() == Some("base64"),
    })
}

/// The function to call: the one that is named, or the first if any one is demanded.
fn chosen_tool(tools: Option<&[Tool]>, choice: Option<ToolChoice>) -> Option<String> {
    let first = tools?.first()?;
    let first = first.name.clone().or_else(|| first.function.as_ref()?.name.clone());
    match choice? {
        ToolChoice::Word(word) if word.eq_ignore_ascii_case("required") => first,
        ToolChoice::Object { kind, name, function } => match kind.as_deref() {
            Some("any") => first,
            Some("tool" | "function") => name.or_else(|| function?.name),
            _ => None,
        },
        ToolChoice::Word(_) | ToolChoice::Other(IgnoredAny) => None,
    }
}

/// Bytes of text below one field, and how many texts stand directly in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    bytes: u64,
    items: u32,
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Counted;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("text, or lists and objects of it")
    }

    fn visit_str<E>(self, text: &str) -> Result<Counted, E> {
        Ok(Counted { bytes: text.len() as u64, items: 1 })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Counted, E> {
        Ok(Counted::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Counted, E> {
        Ok(Counted { bytes: TOKEN_BYTES, items: 0 })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Counted, E> {
        Ok(Counted { bytes: TOKEN_BYTES, items: 0 })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Counted, E> {
        Ok(Counted { bytes: TOKEN_BYTES, items: 0 })
    }

    fn visit_unit<E>(self) -> Result<Counted, E> {
        Ok(Counted::default())
    }

    /// A list of texts has as many items as elements; a list of token ids is one text.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Counted, A::Error> {
        let mut counted = Counted::default();
        while let Some(element) = list.next_element::<Counted>()? {
            counted.bytes = counted.bytes.saturating_add(element.bytes);
            counted.items = counted.items.saturating_add(element.items.min(1));
        }
        counted.items = counted.items.max(1);
        Ok(counted)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Counted, A::Error> {
        let mut counted = Counted { bytes: 0, items: 1 };
        while let Some(FieldCounts(counts)) = fields.next_key()? {
            if counts {
                counted.bytes = counted.bytes.saturating_add(fields.next_value::<Counted>()?.bytes);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(counted)
    }
}

/// Does the text below this field count?
struct FieldCounts(bool);

impl<'de> Deserialize<'de> for FieldCounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;

        impl Visitor<'_> for FieldVisitor {
            type Value = FieldCounts;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a field name")
            }

            fn visit_str<E>(self, name: &str) -> Result<FieldCounts, E> {
                Ok(FieldCounts(matches!(name, "content" | "text" | "parts" | "output")))
            }
        }

        deserializer.deserialize_identifier(FieldVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(route: Route, body: &str) -> Ask {
        read(route, "path-model", body.as_bytes(), &mut Settings::default()).expect("a request")
    }

    #[test]
    fn prompt_tokens_are_the_content_bytes_in_fours_rounded_up() {
        let tokens =
            |messages: &str| ask(Route::Chat, &format!(r#"{{"model":"m","messages":{messages}}}"#)).prompt_tokens;
        assert_eq!(tokens(r#"[{"role":"user","content":"12345678"}]"#), 2);
        assert_eq!(tokens(r#"[{"role":"user","content":"123456789"}]"#), 3);
        assert_eq!(tokens(r#"[{"role":"system","content":"12"},{"role":"user","content":"34"}]"#), 1);
        assert_eq!(
            tokens(
                r#"[{"role":"user","content":[{"type":"text","text":"1234"},{"type":"image_url","image_url":{"url":"xxxxxxxx"}}]}]"#
            ),
            1
        );
        assert_eq!(tokens(r#"[{"role":"user","content":"é\n"}]"#), 1, "three bytes after decoding");
        assert_eq!(tokens(r#"[{"role":"user","content":null}]"#), 0);
        assert_eq!(tokens("[]"), 0);
    }

    #[test]
    fn every_dialect_counts_its_own_fields() {
        let anthropic = r#"{"model":"m","max_tokens":9,"system":[{"type":"text","text":"1234"}],"messages":[{"role":"user","content":"5678"}]}"#;
        let anthropic = ask(Route::Messages, anthropic);
        assert_eq!((anthropic.prompt_tokens, anthropic.max_tokens), (2, Some(9)));
        let gemini = r#"{"systemInstruction":{"parts":[{"text":"1234"}]},"contents":[{"parts":[{"text":"5678"}]}],"generationConfig":{"maxOutputTokens":3}}"#;
        let gemini = ask(Route::GeminiStream, gemini);
        assert_eq!(
            (gemini.model.as_str(), gemini.prompt_tokens, gemini.max_tokens, gemini.stream),
            ("path-model", 2, Some(3), true)
        );
        let responses = ask(
            Route::Responses,
            r#"{"model":"m","instructions":"1234","input":[{"role":"user","content":[{"type":"input_text","text":"5678"}]}]}"#,
        );
        assert_eq!(responses.prompt_tokens, 2);
    }

    #[test]
    fn embeddings_count_their_inputs() {
        let inputs = |input: &str| {
            let ask = ask(Route::Embeddings, &format!(r#"{{"model":"m","input":{input}}}"#));
            (ask.inputs, ask.prompt_tokens)
        };
        assert_eq!(inputs(r#""12345""#), (1, 2));
        assert_eq!(inputs(r#"["1234","5678"]"#), (2, 2));
        assert_eq!(inputs("[1,2,3]"), (1, 3));
        assert_eq!(inputs("[[1,2],[3]]"), (2, 3));
    }

    #[test]
    fn a_tool_is_called_only_on_demand() {
        let tool = |choice: &str| {
            ask(
                Route::Chat,
                &format!(
                    r#"{{"model":"m","messages":[],"tools":[{{"type":"function","function":{{"name":"f"}}}}]{choice}}}"#
                ),
            )
            .tool
        };
        assert_eq!(tool(""), None);
        assert_eq!(tool(r#","tool_choice":"auto""#), None);
        assert_eq!(tool(r#","tool_choice":"required""#).as_deref(), Some("f"));
        assert_eq!(tool(r#","tool_choice":{"type":"function","function":{"name":"g"}}"#).as_deref(), Some("g"));
        assert_eq!(tool(r#","tool_choice":{"type":"any"}"#).as_deref(), Some("f"));
        assert_eq!(tool(r#","tool_choice":{"type":"tool","name":"h"}"#).as_deref(), Some("h"));
    }

    #[test]
    fn metadata_sets_what_headers_set() {
        let mut settings = Settings::default();
        let body = br#"{"model":"m","messages":[],"metadata":{"sim":{"completion_tokens":3,"fault":"status=503"}}}"#;
        read(Route::Chat, "", body, &mut settings).expect("a request");
        assert_eq!(settings.completion_tokens, Some(3));
        assert!(settings.fault.is_some());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let refused = |body: &str| read(Route::Chat, "", body.as_bytes(), &mut Settings::default()).is_err();
        assert!(refused(""));
        assert!(refused("[]"));
        assert!(refused(r#"{"messages":[]}"#));
        assert!(refused(r#"{"model":"m"}"#));
        assert!(refused(r#"{"model":"m","messages":[],"max_tokens":-1}"#));
        assert!(refused(r#"{"model":"m","messages":[],"metadata":{"sim":{"colour":1}}}"#));
        assert!(refused(&"[".repeat(10_000)));
    }
}
