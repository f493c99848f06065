//! The shapes of answers: one file a dialect, and here the table that picks one. Pure.
//!
//! A streamed answer is an opening, so many content events that differ in their text only, and a
//! closing: whatever surrounds the text of an event is made once a stream, not once an event.

mod anthropic;
mod cohere;
mod error;
mod gemini;
mod openai;
mod responses;

pub(crate) use error::{push_error, push_limit_fields};
pub(crate) use openai::{push_embeddings, push_models};

use super::{
    request::Ask,
    route::Route,
    settings::{EVENTS_MAX, Settings, TOKENS_MAX},
    text::Text,
};

/// Appends literals and values to a buffer.
macro_rules! put {
    ($out:expr; $($piece:expr),+ $(,)?) => {{ $( $crate::provider_sim::dialect::Piece::push(&$piece, $out); )+ }};
}
pub(crate) use put;

/// What [`put!`] can append.
pub(crate) trait Piece {
    /// Appends it.
    fn push(&self, out: &mut Vec<u8>);
}

impl Piece for &str {
    fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Piece for &String {
    fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Piece for u64 {
    fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
    }
}

impl Piece for u32 {
    fn push(&self, out: &mut Vec<u8>) {
        u64::from(*self).push(out);
    }
}

impl Piece for usize {
    fn push(&self, out: &mut Vec<u8>) {
        (*self as u64).push(out);
    }
}

impl Piece for Id {
    /// Sixteen hexadecimal digits, so that answers to equal requests have equal sizes.
    fn push(&self, out: &mut Vec<u8>) {
        for shift in (0..16).rev() {
            out.push(b"0123456789abcdef"[(self.0 >> (shift * 4) & 15) as usize]);
        }
    }
}

/// Number of an answer; the same one appears in its head and in its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(pub(crate) u64);

/// Everything that an answer says.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its number.
    pub(crate) id: Id,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The model, escaped for JSON.
    pub(crate) model: String,
    /// The function that is called instead of text, escaped for JSON.
    pub(crate) tool: Option<String>,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: u32,
    /// The request's own maximum cut the answer short.
    pub(crate) is_cut: bool,
    /// `OpenAI`: the last event has the usage.
    pub(crate) include_usage: bool,
    /// Its text.
    pub(crate) text: Text,
}

impl Reply {
    /// The answer to `ask`. `usual_tokens` is the length of an answer that nobody limits.
    pub(crate) fn new(
        ask: &Ask,
        settings: &Settings,
        usual_tokens: u32,
        usual_per_event: u32,
        id: Id,
        created: u64,
    ) -> Self {
        let per_event = settings.tokens_per_event.unwrap_or(usual_per_event).max(1);
        let wanted = match (settings.completion_tokens, settings.events) {
            (Some(tokens), _) => tokens,
            (None, Some(events)) => events.saturating_mul(per_event),
            (None, None) => ask.max_tokens.unwrap_or(u32::MAX).min(usual_tokens),
        };
        let tokens = wanted.min(TOKENS_MAX);
        let events = settings.events.unwrap_or_else(|| tokens.div_ceil(per_event)).min(EVENTS_MAX);
        Self {
            id,
            created,
            model: escaped(&ask.model),
            tool: ask.tool.as_deref().map(escaped),
            prompt_tokens: settings.prompt_tokens.unwrap_or(ask.prompt_tokens).min(TOKENS_MAX),
            is_cut: settings.completion_tokens.is_none()
                && settings.events.is_none()
                && ask.max_tokens.is_some_and(|max| max < usual_tokens),
            include_usage: ask.include_usage,
            text: Text { tokens, events, event_bytes: settings.event_bytes, seed: settings.seed },
        }
    }

    /// Tokens of prompt and answer.
    pub(crate) fn total_tokens(&self) -> u32 {
        self.prompt_tokens + self.text.tokens
    }
}

/// What surrounds the text of every content event of one stream.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Before the text.
    before: Box<[u8]>,
    /// After the text.
    after: Box<[u8]>,
    /// Numbered events: the number of the first, and what follows the number.
    numbered: Option<(u32, &'static str)>,
}

impl Frame {
    fn new(before: Vec<u8>, after: &[u8]) -> Self {
        Self { before: before.into(), after: after.into(), numbered: None }
    }

    fn number(&self, event: u32) -> Option<(u32, &'static str)> {
        self.numbered.map(|(first, tail)| (first.saturating_add(event), tail))
    }

    /// Bytes of event `event` that are not text.
    pub(crate) fn bytes(&self, event: u32) -> usize {
        let number =
            self.number(event).map_or(0, |(number, tail)| itoa::Buffer::new().format(number).len() + tail.len());
        self.before.len() + self.after.len() + number
    }

    /// Appends content event `event` of an answer with `text`.
    pub(crate) fn push_event(&self, text: &Text, event: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        text.push_event(event, self.bytes(event), out);
        out.extend_from_slice(&self.after);
        if let Some((number, tail)) = self.number(event) {
            put!(out; number, tail);
        }
    }
}

/// Appends the JSON document that answers `route`.
pub(crate) fn push_whole(route: Route, reply: &Reply, out: &mut Vec<u8>) {
    match route {
        Route::Completions => openai::push_completion(reply, out),
        Route::Responses => responses::push_whole(reply, out),
        Route::Messages => anthropic::push_whole(reply, out),
        Route::GeminiGenerate | Route::GeminiStream => gemini::push_whole(reply, out),
        Route::CohereChat => cohere::push_whole(reply, out),
        _ => openai::push_chat(reply, out),
    }
}

/// Appends the events before the first content event.
pub(crate) fn push_opening(route: Route, reply: &Reply, out: &mut Vec<u8>) {
    match route {
        Route::Completions | Route::GeminiStream => {}
        Route::Responses => responses::push_opening(reply, out),
        Route::Messages => anthropic::push_opening(reply, out),
        Route::CohereChat => cohere::push_opening(reply, out),
        _ => openai::push_chat_opening(reply, out),
    }
}

/// What surrounds the text of every content event.
pub(crate) fn frame(route: Route, reply: &Reply) -> Frame {
    match route {
        Route::Completions => openai::completion_frame(reply),
        Route::Responses => responses::frame(reply),
        Route::Messages => anthropic::frame(reply),
        Route::GeminiStream => gemini::frame(reply),
        Route::CohereChat => cohere::frame(),
        _ => openai::chat_frame(reply),
    }
}

/// Appends the events after the last content event.
pub(crate) fn push_closing(route: Route, reply: &Reply, frame: &Frame, out: &mut Vec<u8>) {
    match route {
        Route::Completions => openai::push_completion_closing(reply, out),
        Route::Responses => responses::push_closing(reply, frame, out),
        Route::Messages => anthropic::push_closing(reply, out),
        Route::GeminiStream => gemini::push_closing(reply, out),
        Route::CohereChat => cohere::push_closing(reply, out),
        _ => openai::push_chat_closing(reply, out),
    }
}

/// `text` as the inside of a JSON string.
pub(crate) fn escaped(text: &str) -> String {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        return text.to_owned();
    }
    let quoted = serde_json::Value::from(text).to_string();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::provider_sim::request;

    const BODY: &[u8] = br#"{"model":"m\"x","messages":[{"role":"user","content":"12345678"}],"prompt":"x","contents":[],"max_tokens":9,
        "stream":true,"stream_options":{"include_usage":true}}"#;

    fn reply(route: Route, tool: bool, settings: &Settings) -> Reply {
        let mut ask = request::read(route, "g", BODY, &mut Settings::default()).expect("a request");
        ask.tool = tool.then(|| "f".into());
        Reply::new(&ask, settings, 16, 2, Id(1), 1_700_000_000)
    }

    const STREAMS: [Route; 6] =
        [Route::Chat, Route::Completions, Route::Responses, Route::Messages, Route::GeminiStream, Route::CohereChat];

    /// The JSON of every event of a stream, which must be well-formed events.
    fn events(route: Route, reply: &Reply) -> Vec<Value> {
        let mut out = Vec::new();
        let frame = frame(route, reply);
        push_opening(route, reply, &mut out);
        for event in 0..reply.text.events {
            frame.push_event(&reply.text, event, &mut out);
        }
        push_closing(route, reply, &frame, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        let text = text.strip_suffix("\n\n").expect("the last event ends");
        let mut events = Vec::new();
        for event in text.split("\n\n") {
            let data = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect::<Vec<_>>();
            assert_eq!(data.len(), 1, "{event}");
            if data[0] != "[DONE]" {
                let value: Value = serde_json::from_str(data[0]).unwrap_or_else(|error| panic!("{error}: {event}"));
                if let Some(name) = event.strip_prefix("event: ").and_then(|rest| rest.lines().next()) {
                    assert_eq!(value["type"], name);
                }
                events.push(value);
            }
        }
        events
    }

    #[test]
    fn every_stream_is_events_with_json_and_carries_the_usage() {
        for route in STREAMS {
            for tool in [false, true] {
                let reply = reply(route, tool, &Settings::default());
                let events = events(route, &reply);
                assert!(events.len() >= 5, "{route:?}: nine tokens, two an event, are five events");
                let text = serde_json::to_string(&events).expect("JSON");
                let usage = match route {
                    Route::Chat | Route::Completions => {
                        events.last().expect("events")["usage"]["completion_tokens"].clone()
                    }
                    Route::Responses => events.last().expect("events")["response"]["usage"]["output_tokens"].clone(),
                    Route::Messages => events[events.len() - 2]["usage"]["output_tokens"].clone(),
                    Route::GeminiStream => {
                        events.last().expect("events")["usageMetadata"]["candidatesTokenCount"].clone()
                    }
                    _ => events.last().expect("events")["delta"]["usage"]["tokens"]["output_tokens"].clone(),
                };
                assert_eq!(usage, 9, "{route:?}: {text}");
            }
        }
    }

    #[test]
    fn every_document_is_json_and_carries_the_usage() {
        for route in STREAMS {
            for tool in [false, true] {
                let mut out = Vec::new();
                push_whole(route, &reply(route, tool, &Settings::default()), &mut out);
                let value: Value = serde_json::from_slice(&out).expect("JSON");
                let usage = match route {
                    Route::Chat | Route::Completions => &value["usage"]["completion_tokens"],
                    Route::Responses | Route::Messages => &value["usage"]["output_tokens"],
                    Route::GeminiStream => &value["usageMetadata"]["candidatesTokenCount"],
                    _ => &value["usage"]["tokens"]["output_tokens"],
                };
                assert_eq!(*usage, 9, "{route:?}");
            }
        }
    }

    #[test]
    fn events_have_exactly_the_size_that_was_asked_for() {
        let settings = Settings { events: Some(120), event_bytes: Some(777), seed: Some(3), ..Settings::default() };
        for route in STREAMS {
            let reply = reply(route, false, &settings);
            let frame = frame(route, &reply);
            for event in 0..120 {
                let mut out = Vec::new();
                frame.push_event(&reply.text, event, &mut out);
                assert_eq!(out.len(), 777, "{route:?}, event {event}");
            }
        }
    }

    #[test]
    fn streamed_arguments_of_a_call_are_json() {
        let events = events(Route::Chat, &reply(Route::Chat, true, &Settings::default()));
        let arguments: String = events
            .iter()
            .filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0/function/arguments")?.as_str())
            .collect();
        let arguments: Value = serde_json::from_str(&arguments).expect("JSON");
        assert_eq!(arguments["text"].as_str().map(str::len), Some(36));
    }

    #[test]
    fn an_answer_is_as_long_as_the_shortest_maximum() {
        let tokens = |settings: &Settings| {
            let reply = reply(Route::Chat, false, settings);
            (reply.text.tokens, reply.text.events, reply.is_cut)
        };
        assert_eq!(tokens(&Settings::default()), (9, 5, true));
        assert_eq!(tokens(&Settings { completion_tokens: Some(100), ..Settings::default() }), (100, 50, false));
        assert_eq!(tokens(&Settings { events: Some(100), ..Settings::default() }), (200, 100, false));
        assert_eq!(
            tokens(&Settings { events: Some(3), completion_tokens: Some(0), ..Settings::default() }),
            (0, 3, false)
        );
    }
}
