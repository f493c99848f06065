//! `OpenAI`: chat completions, completions, embeddings and models. Responses have a file of their own.
//!
//! No log probabilities, audio or several choices.

use super::{Frame, Reply, put};

/// Numbers in a vector, if the request does not say.
const DIMENSIONS: u32 = 16;

fn finish(reply: &Reply) -> &'static str {
    match (&reply.tool, reply.is_cut) {
        (Some(_), _) => "tool_calls",
        (None, true) => "length",
        (None, false) => "stop",
    }
}

fn push_usage(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; r#"{"prompt_tokens":"#, reply.prompt_tokens, r#","completion_tokens":"#, reply.text.tokens,
        r#","total_tokens":"#, reply.total_tokens(),
        r#","prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}"#);
}

pub(super) fn push_chat(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; r#"{"id":"chatcmpl-"#, reply.id, r#"","object":"chat.completion","created":"#, reply.created,
        r#","model":""#, &reply.model, r#"","choices":[{"index":0,"message":{"role":"assistant","content":"#);
    if let Some(tool) = &reply.tool {
        put!(out; r#"null,"refusal":null,"tool_calls":[{"id":"call_"#, reply.id,
            r#"","type":"function","function":{"name":""#, tool, r#"","arguments":"{\"text\":\""#);
        reply.text.push_whole(out);
        put!(out; r#"\"}"}}]}"#);
    } else {
        put!(out; "\"");
        reply.text.push_whole(out);
        put!(out; r#"","refusal":null}"#);
    }
    put!(out; r#","logprobs":null,"finish_reason":""#, finish(reply), r#""}],"usage":"#);
    push_usage(reply, out);
    put!(out; r#","service_tier":"default","system_fingerprint":"fp_sim"}"#);
}

fn push_chat_event_start(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; r#"data: {"id":"chatcmpl-"#, reply.id, r#"","object":"chat.completion.chunk","created":"#, reply.created,
        r#","model":""#, &reply.model, r#"","system_fingerprint":"fp_sim","choices":["#);
}

/// How an event ends: with a usage that is null, if the last one will have it.
fn event_end(reply: &Reply) -> &'static str {
    if reply.include_usage { "],\"usage\":null}\n\n" } else { "]}\n\n" }
}

pub(super) fn push_chat_opening(reply: &Reply, out: &mut Vec<u8>) {
    push_chat_event_start(reply, out);
    put!(out; r#"{"index":0,"delta":{"role":"assistant","content":"#);
    match &reply.tool {
        None => put!(out; r#""","refusal":null}"#),
        Some(tool) => put!(out; r#"null,"tool_calls":[{"index":0,"id":"call_"#, reply.id,
            r#"","type":"function","function":{"name":""#, tool, r#"","arguments":"{\"text\":\""}}]}"#),
    }
    put!(out; r#","logprobs":null,"finish_reason":null}"#, event_end(reply));
}

pub(super) fn chat_frame(reply: &Reply) -> Frame {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    push_chat_event_start(reply, &mut before);
    if reply.tool.is_some() {
        put!(&mut before; r#"{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":""#);
        put!(&mut after; r#""}}]},"logprobs":null,"finish_reason":null}"#);
    } else {
        put!(&mut before; r#"{"index":0,"delta":{"content":""#);
        put!(&mut after; r#""},"logprobs":null,"finish_reason":null}"#);
    }
    put!(&mut after; event_end(reply));
    Frame::new(before, &after)
}

pub(super) fn push_chat_closing(reply: &Reply, out: &mut Vec<u8>) {
    if reply.tool.is_some() {
        push_chat_event_start(reply, out);
        put!(out; r#"{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"}"}}]},"logprobs":null,"finish_reason":null}"#,
            event_end(reply));
    }
    push_chat_event_start(reply, out);
    put!(out; r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":""#, finish(reply), r#""}"#, event_end(reply));
    if reply.include_usage {
        push_chat_event_start(reply, out);
        put!(out; r#"],"usage":"#);
        push_usage(reply, out);
        put!(out; "}\n\n");
    }
    put!(out; "data: [DONE]\n\n");
}

pub(super) fn push_completion(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; r#"{"id":"cmpl-"#, reply.id, r#"","object":"text_completion","created":"#, reply.created,
        r#","model":""#, &reply.model, r#"","choices":[{"text":""#);
    reply.text.push_whole(out);
    put!(out; r#"","index":0,"logprobs":null,"finish_reason":""#, if reply.is_cut { "length" } else { "stop" },
        r#""}],"usage":"#);
    push_usage(reply, out);
    put!(out; "}");
}

fn push_completion_event_start(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; r#"data: {"id":"cmpl-"#, reply.id, r#"","object":"text_completion","created":"#, reply.created,
        r#","model":""#, &reply.model, r#"","choices":["#);
}

pub(super) fn completion_frame(reply: &Reply) -> Frame {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    push_completion_event_start(reply, &mut before);
    put!(&mut before; r#"{"text":""#);
    put!(&mut after; r#"","index":0,"logprobs":null,"finish_reason":null}"#, event_end(reply));
    Frame::new(before, &after)
}

pub(super) fn push_completion_closing(reply: &Reply, out: &mut Vec<u8>) {
    push_completion_event_start(reply, out);
    put!(out; r#"{"text":"","index":0,"logprobs":null,"finish_reason":""#, if reply.is_cut { "length" } else { "stop" },
        r#""}"#, event_end(reply));
    if reply.include_usage {
        push_completion_event_start(reply, out);
        put!(out; r#"],"usage":"#);
        push_usage(reply, out);
        put!(out; "}\n\n");
    }
    put!(out; "data: [DONE]\n\n");
}

/// Appends `inputs` vectors, each a different one of length 1.
pub(crate) fn push_embeddings(reply: &Reply, inputs: u32, dimensions: Option<u32>, base64: bool, out: &mut Vec<u8>) {
    let dimensions = dimensions.unwrap_or(DIMENSIONS).max(1);
    put!(out; r#"{"object":"list","data":["#);
    for input in 0..inputs {
        // One component is 1, all others are 0: which one tells the input's number.
        let hot = input % dimensions;
        put!(out; if input == 0 { "" } else { "," }, r#"{"object":"embedding","index":"#, input, r#","embedding":"#);
        if base64 {
            let floats = (0..dimensions).flat_map(|at| if at == hot { 1_f32 } else { 0_f32 }.to_le_bytes());
            put!(out; "\"");
            push_base64(floats, out);
            put!(out; "\"");
        } else {
            put!(out; "[");
            for at in 0..dimensions {
                put!(out; if at == 0 { "" } else { "," }, if at == hot { "1.0" } else { "0.0" });
            }
            put!(out; "]");
        }
        put!(out; "}");
    }
    put!(out; r#"],"model":""#, &reply.model, r#"","usage":{"prompt_tokens":"#, reply.prompt_tokens,
        r#","total_tokens":"#, reply.prompt_tokens, "}}");
}

/// RFC 4648, section 4, with padding.
fn push_base64(bytes: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = bytes.fuse();
    while let Some(first) = bytes.next() {
        let (second, third) = (bytes.next(), bytes.next());
        let bits = u32::from(first) << 16 | u32::from(second.unwrap_or(0)) << 8 | u32::from(third.unwrap_or(0));
        let digit = |shift: u32| DIGITS[(bits >> shift & 63) as usize];
        out.extend_from_slice(&[
            digit(18),
            digit(12),
            if second.is_some() { digit(6) } else { b'=' },
            if third.is_some() { digit(0) } else { b'=' },
        ]);
    }
}

/// Appends the list of models, or the one that is asked for (which always exists). Each has the
/// fields of both `OpenAI` and Anthropic, so that both SDKs can read it.
pub(crate) fn push_models(models: &[String], one: &str, out: &mut Vec<u8>) {
    let push_model = |name: &str, out: &mut Vec<u8>| {
        let name = super::escaped(name);
        put!(out; r#"{"id":""#, &name, r#"","object":"model","created":1700000000,"owned_by":"simulator","type":"model","display_name":""#,
            &name, r#"","created_at":"2023-11-14T22:13:20Z"}"#);
    };
    if !one.is_empty() {
        return push_model(one, out);
    }
    put!(out; r#"{"object":"list","data":["#);
    for (index, name) in models.iter().enumerate() {
        put!(out; if index == 0 { "" } else { "," });
        push_model(name, out);
    }
    put!(out; r#"],"has_more":false,"first_id":null,"last_id":null}"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded_as_the_rfc_says() {
        let encoded = |text: &str| {
            let mut out = Vec::new();
            push_base64(text.bytes(), &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        // The examples of RFC 4648, section 10.
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(encoded(text), expected);
        }
    }
}
