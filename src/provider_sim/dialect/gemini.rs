//! Gemini: `generateContent` and `streamGenerateContent?alt=sse`, text only.
//!
//! No function calls, no embeddings, no streams as a JSON array (without `alt=sse`).

use super::{Frame, Reply, put};

fn push_end(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; r#""}],"role":"model"},"finishReason":""#, if reply.is_cut { "MAX_TOKENS" } else { "STOP" },
        r#"","index":0}],"usageMetadata":{"promptTokenCount":"#, reply.prompt_tokens, r#","candidatesTokenCount":"#, reply.text.tokens,
        r#","totalTokenCount":"#, reply.total_tokens(), r#"},"modelVersion":""#, &reply.model, r#"","responseId":""#, reply.id, r#""}"#);
}

const START: &str = r#"{"candidates":[{"content":{"parts":[{"text":""#;

pub(super) fn push_whole(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; START);
    reply.text.push_whole(out);
    push_end(reply, out);
}

pub(super) fn frame(reply: &Reply) -> Frame {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    put!(&mut before; "data: ", START);
    put!(&mut after; r#""}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":"#, reply.prompt_tokens,
        r#","totalTokenCount":"#, reply.prompt_tokens, r#"},"modelVersion":""#, &reply.model, r#"","responseId":""#, reply.id, "\"}\n\n");
    Frame::new(before, &after)
}

pub(super) fn push_closing(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; "data: ", START);
    push_end(reply, out);
    put!(out; "\n\n");
}
