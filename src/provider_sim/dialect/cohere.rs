//! Cohere: chat of API version 2, text only.
//!
//! No tool calls, citations, rerank or embeddings.

use super::{Frame, Reply, put};

fn push_usage(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; r#"{"billed_units":{"input_tokens":"#, reply.prompt_tokens, r#","output_tokens":"#, reply.text.tokens,
        r#"},"tokens":{"input_tokens":"#, reply.prompt_tokens, r#","output_tokens":"#, reply.text.tokens, "}}");
}

fn finish(reply: &Reply) -> &'static str {
    if reply.is_cut { "MAX_TOKENS" } else { "COMPLETE" }
}

pub(super) fn push_whole(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; r#"{"id":""#, reply.id, r#"","finish_reason":""#, finish(reply),
        r#"","message":{"role":"assistant","content":[{"type":"text","text":""#);
    reply.text.push_whole(out);
    put!(out; r#""}]},"usage":"#);
    push_usage(reply, out);
    put!(out; "}");
}

pub(super) fn push_opening(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; "event: message-start\ndata: {\"id\":\"", reply.id,
        "\",\"type\":\"message-start\",\"delta\":{\"message\":{\"role\":\"assistant\",\"content\":[],\"tool_plan\":\"\",\"tool_calls\":[],\"citations\":[]}}}\n\n",
        "event: content-start\ndata: {\"type\":\"content-start\",\"index\":0,\"delta\":{\"message\":{\"content\":{\"type\":\"text\",\"text\":\"\"}}}}\n\n");
}

pub(super) fn frame() -> Frame {
    let mut before = Vec::new();
    put!(&mut before; "event: content-delta\ndata: {\"type\":\"content-delta\",\"index\":0,\"delta\":{\"message\":{\"content\":{\"text\":\"");
    Frame::new(before, b"\"}}}}\n\n")
}

pub(super) fn push_closing(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; "event: content-end\ndata: {\"type\":\"content-end\",\"index\":0}\n\n",
        "event: message-end\ndata: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"", finish(reply), "\",\"usage\":");
    push_usage(reply, out);
    put!(out; "}}\n\n");
}
