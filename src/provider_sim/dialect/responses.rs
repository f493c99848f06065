//! `OpenAI`'s Responses: one output item, a message or a function call.
//!
//! No stored responses, background runs or built-in tools.

use super::{Frame, Reply, put};

/// Events before the first content event, which give that one its number.
const OPENING_EVENTS: u32 = 4;

/// Appends the text of the answer, which a response object repeats in several places.
type PushText<'a> = &'a dyn Fn(&mut Vec<u8>);

pub(super) fn push_whole(reply: &Reply, out: &mut Vec<u8>) {
    push_response(reply, Some(&|out| reply.text.push_whole(out)), out);
}

/// The response object: in progress without a text, complete with it.
fn push_response(reply: &Reply, text: Option<PushText<'_>>, out: &mut Vec<u8>) {
    let status = match (text.is_some(), reply.is_cut) {
        (false, _) => "in_progress",
        (true, true) => "incomplete",
        (true, false) => "completed",
    };
    put!(out; r#"{"id":"resp_"#, reply.id, r#"","object":"response","created_at":"#, reply.created, r#","status":""#, status,
        r#"","error":null,"incomplete_details":"#, if status == "incomplete" { r#"{"reason":"max_output_tokens"}"# } else { "null" },
        r#","instructions":null,"metadata":{},"model":""#, &reply.model, r#"","output":["#);
    if let Some(push_text) = text {
        push_item(reply, Some(push_text), out);
    }
    put!(out; r#"],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"auto","tools":[],"top_p":1.0,"usage":"#);
    if text.is_some() {
        put!(out; r#"{"input_tokens":"#, reply.prompt_tokens, r#","input_tokens_details":{"cached_tokens":0},"output_tokens":"#,
            reply.text.tokens, r#","output_tokens_details":{"reasoning_tokens":0},"total_tokens":"#, reply.total_tokens(), "}}");
    } else {
        put!(out; "null}");
    }
}

fn push_item(reply: &Reply, text: Option<PushText<'_>>, out: &mut Vec<u8>) {
    let status = if text.is_some() { "completed" } else { "in_progress" };
    match &reply.tool {
        None => {
            put!(out; r#"{"id":"msg_"#, reply.id, r#"","type":"message","status":""#, status, r#"","role":"assistant","content":["#);
            if text.is_some() {
                push_part(text, out);
            }
            put!(out; "]}");
        }
        Some(tool) => {
            put!(out; r#"{"id":"fc_"#, reply.id, r#"","type":"function_call","status":""#, status, r#"","call_id":"call_"#, reply.id,
                r#"","name":""#, tool, r#"","arguments":""#);
            if let Some(push_text) = text {
                push_arguments(push_text, out);
            }
            put!(out; r#""}"#);
        }
    }
}

fn push_part(text: Option<PushText<'_>>, out: &mut Vec<u8>) {
    put!(out; r#"{"type":"output_text","annotations":[],"logprobs":[],"text":""#);
    if let Some(push_text) = text {
        push_text(out);
    }
    put!(out; r#""}"#);
}

fn push_arguments(push_text: PushText<'_>, out: &mut Vec<u8>) {
    put!(out; r#"{\"text\":\""#);
    push_text(out);
    put!(out; r#"\"}"#);
}

fn start(kind: &str, out: &mut Vec<u8>) {
    put!(out; "event: ", kind, "\ndata: {\"type\":\"", kind, "\",");
}

/// Closes an event with its number.
fn end(number: u32, out: &mut Vec<u8>) {
    put!(out; r#","sequence_number":"#, number, "}\n\n");
}

fn push_place(reply: &Reply, out: &mut Vec<u8>) {
    if reply.tool.is_some() {
        put!(out; r#""item_id":"fc_"#, reply.id, r#"","output_index":0"#);
    } else {
        put!(out; r#""item_id":"msg_"#, reply.id, r#"","output_index":0,"content_index":0"#);
    }
}

fn delta_kind(reply: &Reply) -> &'static str {
    if reply.tool.is_some() { "response.function_call_arguments.delta" } else { "response.output_text.delta" }
}

pub(super) fn push_opening(reply: &Reply, out: &mut Vec<u8>) {
    for (number, kind) in [(0, "response.created"), (1, "response.in_progress")] {
        start(kind, out);
        put!(out; r#""response":"#);
        push_response(reply, None, out);
        end(number, out);
    }
    start("response.output_item.added", out);
    put!(out; r#""output_index":0,"item":"#);
    push_item(reply, None, out);
    end(2, out);
    if reply.tool.is_some() {
        start(delta_kind(reply), out);
        push_place(reply, out);
        put!(out; r#","delta":"{\"text\":\"""#);
    } else {
        start("response.content_part.added", out);
        push_place(reply, out);
        put!(out; r#","part":"#);
        push_part(None, out);
    }
    end(3, out);
}

pub(super) fn frame(reply: &Reply) -> Frame {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    start(delta_kind(reply), &mut before);
    push_place(reply, &mut before);
    put!(&mut before; r#","delta":""#);
    put!(&mut after; if reply.tool.is_some() { "\"" } else { "\",\"logprobs\":[]" }, r#","sequence_number":"#);
    Frame { numbered: Some((OPENING_EVENTS, "}\n\n")), ..Frame::new(before, &after) }
}

pub(super) fn push_closing(reply: &Reply, frame: &Frame, out: &mut Vec<u8>) {
    // The text once more, as its events had it.
    let push_text = |out: &mut Vec<u8>| {
        for event in 0..reply.text.events {
            reply.text.push_event(event, frame.bytes(event), out);
        }
    };
    let push_text: PushText<'_> = &push_text;
    let mut number = OPENING_EVENTS.saturating_add(reply.text.events);
    let mut next = |out: &mut Vec<u8>| {
        end(number, out);
        number = number.saturating_add(1);
    };
    if reply.tool.is_some() {
        start(delta_kind(reply), out);
        push_place(reply, out);
        put!(out; r#","delta":"\"}""#);
        next(out);
        start("response.function_call_arguments.done", out);
        push_place(reply, out);
        put!(out; r#","name":""#, reply.tool.as_deref().unwrap_or_default(), r#"","arguments":""#);
        push_arguments(push_text, out);
        put!(out; "\"");
        next(out);
    } else {
        start("response.output_text.done", out);
        push_place(reply, out);
        put!(out; r#","logprobs":[],"text":""#);
        push_text(out);
        put!(out; "\"");
        next(out);
        start("response.content_part.done", out);
        push_place(reply, out);
        put!(out; r#","part":"#);
        push_part(Some(push_text), out);
        next(out);
    }
    start("response.output_item.done", out);
    put!(out; r#""output_index":0,"item":"#);
    push_item(reply, Some(push_text), out);
    next(out);
    start(if reply.is_cut { "response.incomplete" } else { "response.completed" }, out);
    put!(out; r#""response":"#);
    push_response(reply, Some(push_text), out);
    next(out);
}
