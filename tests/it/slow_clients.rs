//! Clients that take their time, many at once: each is ended when its time is over, holds little
//! until then, and does not slow down anybody else.

use std::thread::sleep;
use std::time::Duration;

use shared::clock::Clock;

use crate::rig::{ANSWER, CHAT, CHAT_HEAD, Node, Provider, Wire, chat};

/// Of each kind.
const MANY: usize = 100;

#[test]
fn half_heads_and_dripping_bodies_end_in_time_and_disturb_nobody() {
    let provider = Provider::start();
    let node = Node::start("slow", &provider.entry(""), "");
    let clock = Clock::start();
    let began = clock.now();
    let mut silent: Vec<Wire> = (0..MANY).map(|_| node.connect()).collect();
    let mut heads: Vec<Wire> = (0..MANY).map(|_| node.connect()).collect();
    let mut bodies: Vec<Wire> = (0..MANY).map(|_| node.connect()).collect();
    for head in &mut heads {
        head.send("POST /v1/chat/completions HTTP/1.1\r\nhost:");
    }
    for body in &mut bodies {
        body.send(format!("{CHAT_HEAD}content-length: 5000\r\n\r\n{{"));
    }
    let (mut client, mut upstream) = (node.connect(), None);
    let mut ended = 0;
    while clock.now().since(began) < Duration::from_secs(10) && ended < MANY {
        for drip in bodies.iter_mut().chain(&mut heads) {
            drip.try_send("x");
        }
        let asked = clock.now();
        client.send(chat(CHAT));
        let upstream = upstream.get_or_insert_with(|| provider.accept());
        upstream.message();
        upstream.send(ANSWER);
        assert!(client.message().0.starts_with("HTTP/1.1 200 "));
        assert!(clock.now().since(asked) < Duration::from_secs(1), "another client was slowed down");
        sleep(Duration::from_millis(500));
        ended =
            bodies.iter_mut().filter_map(|body| (!body.is_quiet_for(Duration::from_millis(1))).then_some(())).count();
    }
    assert_eq!(ended, MANY, "bodies that still drip after 10 s");
    for body in &mut bodies {
        assert!(body.rest().starts_with("HTTP/1.1 408 "));
    }
    // Their five seconds were over before that.
    for head in &mut heads {
        assert!(head.rest().starts_with("HTTP/1.1 408 "));
    }
    for one in &mut silent {
        assert_eq!(one.rest(), "");
    }
    drop((client, upstream, silent, heads, bodies));
    node.stop();
}

#[test]
fn a_client_that_never_reads_holds_its_provider_back() {
    let provider = Provider::start();
    let node = Node::start("never-reads", &provider.entry(""), "");
    let mut client = node.connect();
    client.send(chat(CHAT));
    let mut upstream = provider.accept();
    upstream.message();
    upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1u64 << 40));
    let piece = vec![0; 64 * 1024];
    let taken = upstream.fill(&piece, Duration::from_millis(500));
    // What the kernel holds on four ends of sockets, and next to nothing in between.
    assert!(taken < 64 * 1024 * 1024, "{taken} bytes were taken for a client that reads nothing");
    drop(client);
    assert_eq!(upstream.rest(), "");
    node.stop();
}
