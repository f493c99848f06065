//! A gentle load for the demo to show: one connection and one request at a time, at a fixed rate,
//! to one node after the other.
//!
//! What the nodes cannot take in time is left out, not made up for. Nobody chooses a living node
//! here, as a balancer in front would: what is sent to a dead one is lost, and seen to be.

use super::ask::{ask, get};
use shared::clock::Clock;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Every so many requests one asks for a stream.
const STREAM_EVERY: u64 = 4;

/// Pause before a node that is not ready is asked again.
const READY_INTERVAL: Duration = Duration::from_millis(50);

/// Sends `per_second` requests to `nodes` in all, once they are ready and until `stop` is set. How
/// they went is in the metrics.
pub(super) fn run(nodes: &[SocketAddr], per_second: u32, clock: Clock, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) && nodes.iter().any(|node| get(*node, "/ready").is_none()) {
        thread::park_timeout(READY_INTERVAL);
    }
    let mut turns = nodes.iter().copied().cycle();
    let interval = Duration::from_secs(1) / per_second.max(1);
    let mut due = clock.now();
    let mut sent: u64 = 0;
    while !stop.load(Ordering::Acquire) {
        let now = clock.now();
        if now < due {
            thread::park_timeout(due.since(now));
            continue;
        }
        due = due.after(interval).max(now);
        let Some(node) = turns.next() else { return };
        // Refused when the node drains.
        drop(ask(node, &request(node, sent.is_multiple_of(STREAM_EVERY))));
        sent = sent.wrapping_add(1);
    }
}

/// A chat whose answer comes at once, so that one request at a time is enough.
fn request(node: SocketAddr, is_stream: bool) -> String {
    let body = format!(
        r#"{{"model": "openai/gpt-4o-mini", "max_tokens": 20, "stream": {is_stream}, "messages": [{{"role": "user", "content": "Hello"}}], "metadata": {{"sim": {{"ttft_ms": 2, "token_ms": 0}}}}}}"#
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {node}\r\nauthorization: Bearer sk-bf-load\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
