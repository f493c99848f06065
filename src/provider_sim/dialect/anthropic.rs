//! Anthropic: messages, with text or one tool use.
//!
//! No thinking blocks, no prompt cache, no batches.

use super::{Frame, Reply, put};

fn stop_reason(reply: &Reply) -> &'static str {
    match (&reply.tool, reply.is_cut) {
        (Some(_), _) => "tool_use",
        (None, true) => "max_tokens",
        (None, false) => "end_turn",
    }
}

fn push_start(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; r#"{"id":"msg_"#, reply.id, r#"","type":"message","role":"assistant","model":""#, &reply.model, r#"","content":["#);
}

fn push_usage(reply: &Reply, output_tokens: u32, out: &mut Vec<u8>) {
    put!(out; r#"{"input_tokens":"#, reply.prompt_tokens,
        r#","cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":"#, output_tokens, "}");
}

pub(super) fn push_whole(reply: &Reply, out: &mut Vec<u8>) {
    push_start(reply, out);
    match &reply.tool {
        None => {
            put!(out; r#"{"type":"text","text":""#);
            reply.text.push_whole(out);
            put!(out; r#""}"#);
        }
        Some(tool) => {
            put!(out; r#"{"type":"tool_use","id":"toolu_"#, reply.id, r#"","name":""#, tool, r#"","input":{"text":""#);
            reply.text.push_whole(out);
            put!(out; r#""}}"#);
        }
    }
    put!(out; r#"],"stop_reason":""#, stop_reason(reply), r#"","stop_sequence":null,"usage":"#);
    push_usage(reply, reply.text.tokens, out);
    put!(out; "}");
}

pub(super) fn push_opening(reply: &Reply, out: &mut Vec<u8>) {
    put!(out; "event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
    push_start(reply, out);
    put!(out; r#"],"stop_reason":null,"stop_sequence":null,"usage":"#);
    push_usage(reply, reply.text.tokens.min(1), out);
    put!(out; "}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":");
    match &reply.tool {
        None => put!(out; r#"{"type":"text","text":""}"#),
        Some(tool) => {
            put!(out; r#"{"type":"tool_use","id":"toolu_"#, reply.id, r#"","name":""#, tool, r#"","input":{}}"#);
        }
    }
    put!(out; "}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n");
    if reply.tool.is_some() {
        push_delta_start(reply, out);
        put!(out; r#"{\"text\":\""#, DELTA_END);
    }
}

const DELTA_END: &str = "\"}}\n\n";

fn push_delta_start(reply: &Reply, out: &mut Vec<u8>) {
    let delta = if reply.tool.is_some() {
        r#"{"type":"input_json_delta","partial_json":""#
    } else {
        r#"{"type":"text_delta","text":""#
    };
    put!(out; "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":", delta);
}

pub(super) fn frame(reply: &Reply) -> Frame {
    let mut before = Vec::new();
    push_delta_start(reply, &mut before);
    Frame::new(before, DELTA_END.as_bytes())
}

pub(super) fn push_closing(reply: &Reply, out: &mut Vec<u8>) {
    if reply.tool.is_some() {
        push_delta_start(reply, out);
        put!(out; r#"\"}"#, DELTA_END);
    }
    put!(out; "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"", stop_reason(reply),
        "\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":", reply.text.tokens,
        "}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}
