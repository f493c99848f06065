//! How a node ends and comes back: killed, told to finish under load, told twice.

use crate::node_rig::{Client, Home, Node, Simulator, get, lines_with, until};
use nix::sys::signal::Signal;
use shared::clock::{Clock, Nanos};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// Clients that send one request after the other.
const CLIENTS: usize = 8;

/// One request of a client under load: when it was sent, and what became of it.
struct Sent {
    at: Nanos,
    failure: Option<String>,
}

/// Sends until `enough`, on one connection as long as it lasts and the client `keeps` it. Failing
/// to connect ends it: a node that has gone has no more to answer.
fn load(port: u16, clock: Clock, keeps: bool, enough: &AtomicBool) -> Vec<Sent> {
    let mut all = Vec::new();
    let mut connected: Option<Client> = None;
    while !enough.load(Ordering::Relaxed) {
        let Some(mut client) = connected.take().or_else(|| Client::connect(port).ok()) else { break };
        let at = clock.now();
        match client.chat() {
            Ok(answer) => {
                let failure = (answer.status != 200).then(|| format!("{} {}", answer.status, answer.body));
                connected = (keeps && answer.keeps).then_some(client);
                all.push(Sent { at, failure });
            }
            Err(error) => all.push(Sent { at, failure: Some(error.to_string()) }),
        }
    }
    all
}

/// Runs `scenario` while clients send; what they sent comes back.
fn under_load(home: &Home, clock: Clock, scenario: impl FnOnce()) -> Vec<Sent> {
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<ScopedJoinHandle<'_, Vec<Sent>>> = (0..CLIENTS)
            .map(|number| {
                let (port, enough) = (home.port, &enough);
                scope.spawn(move || load(port, clock, number % 2 == 0, enough))
            })
            .collect();
        scenario();
        enough.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("a client ends")).collect()
    })
}

#[track_caller]
fn assert_none_failed(sent: &[Sent], node: &Node) {
    let failed: Vec<&String> = sent.iter().filter_map(|sent| sent.failure.as_ref()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}\n{}", failed.len(), sent.len(), node.log());
}

#[test]
fn a_killed_node_is_back_on_its_address_at_once() {
    let provider = Simulator::start(&["--ttft-ms", "20"]);
    let home = Home::new(provider.address);
    for _ in 0..3 {
        let node = home.start();
        let mut client = Client::connect(home.port).unwrap();
        assert_eq!(client.chat().unwrap().status, 200);
        // Killed with a request running and a connection idle.
        let mut running = Client::connect(home.port).unwrap();
        running.send_chat("x-sim-ttft-ms: 5000\r\n", false).unwrap();
        node.kill_nine();
        assert!(running.answer().is_err(), "it was cut");
    }
    let node = home.start();
    assert_eq!(Client::connect(home.port).unwrap().chat().unwrap().status, 200);
    assert!(lines_with(&node.log(), "panicked").is_empty(), "{}", node.log());
}

#[test]
fn a_node_told_to_finish_under_load_fails_no_request_that_was_sent_before() {
    let provider = Simulator::start(&["--ttft-ms", "3"]);
    let home = Home::new(provider.address);
    let clock = Clock::start();
    for _ in 0..3 {
        let mut node = home.start();
        let mut told_at = Nanos(0);
        let sent = under_load(&home, clock, || {
            std::thread::sleep(Duration::from_millis(300));
            told_at = clock.now();
            node.signal(Signal::SIGTERM);
            assert_eq!(node.ended(), 0, "{}", node.log());
        });
        let before: Vec<Sent> = sent.into_iter().filter(|sent| sent.at < told_at).collect();
        assert!(before.len() > CLIENTS, "only {} requests before the signal", before.len());
        assert_none_failed(&before, &node);
        assert!(node.log().contains("drained"), "{}", node.log());
    }
}

/// Requests wait in the kernel, unread and unaccepted, when the signal comes.
#[test]
fn what_waited_in_the_kernel_when_the_signal_came_is_answered() {
    let provider = Simulator::start(&[]);
    let home = Home::new(provider.address);
    let mut node = home.start();
    let mut clients: Vec<Client> = (0..64).map(|_| Client::connect(home.port).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(client.chat().unwrap().status, 200);
    }
    node.signal(Signal::SIGSTOP);
    clients.extend((0..64).map(|_| Client::connect(home.port).unwrap()));
    for client in &mut clients {
        client.send_chat("", false).unwrap();
    }
    node.signal(Signal::SIGTERM);
    node.signal(Signal::SIGCONT);
    let failed: Vec<String> =
        clients.iter_mut().filter_map(|client| client.answer().err()).map(|error| error.to_string()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), clients.len());
    assert_eq!(node.ended(), 0);
}

#[test]
fn a_stream_in_flight_finishes_within_the_drain_timeout() {
    let provider = Simulator::start(&["--token-ms", "50"]);
    let home = Home::new(provider.address);
    let mut node = home.start();
    let mut client = Client::connect(home.port).unwrap();
    client.send_chat("x-sim-completion-tokens: 120\r\n", true).unwrap();
    let mut late = Client::connect(home.port).unwrap();
    late.send_chat("x-sim-ttft-ms: 5000\r\n", false).unwrap();
    until("both requests run", || {
        (get(home.admin_port, "/cluster/status").1.contains("\"requests_in_flight\":2")).then_some(())
    });
    node.signal(Signal::SIGTERM);
    until("it drains", || (get(home.admin_port, "/ready").0 == 503).then_some(()));

    let streamed = client.answer().unwrap();
    assert!(streamed.status == 200 && streamed.body.ends_with("data: [DONE]\n\n"), "{}", streamed.body);
    let late = late.answer().unwrap();
    assert!(late.status == 200 && !late.keeps, "{}", late.body);
    assert_eq!(node.ended(), 0);
    assert!(Client::connect(home.port).is_err(), "nobody listens any more");
}

#[test]
fn what_still_runs_at_the_drain_timeout_is_cut_and_never_looks_whole() {
    let provider = Simulator::start(&["--token-ms", "200"]);
    let home = Home::new(provider.address);
    home.configure("sk-one", r#", "drain_timeout": "2s""#);
    let mut node = home.start();
    let mut client = Client::connect(home.port).unwrap();
    client.send_chat("x-sim-completion-tokens: 600\r\n", true).unwrap();
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    let clock = Clock::start();
    node.signal(Signal::SIGTERM);
    assert_eq!(node.ended(), 0);
    let took = clock.now().since(Nanos(0));
    assert!((2..10).contains(&took.as_secs()), "{took:?}");
    let mut rest = Vec::new();
    let _ = client.into_stream().read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("[DONE]") && !rest.ends_with("0\r\n\r\n"), "{rest}");
    assert!(node.log().contains("drain timeout"), "{}", node.log());
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    let provider = Simulator::start(&[]);
    let home = Home::new(provider.address);
    let mut node = home.start();
    let mut client = Client::connect(home.port).unwrap();
    client.send_chat("x-sim-ttft-ms: 60000\r\n", false).unwrap();
    until("it runs", || (get(home.admin_port, "/cluster/status").1.contains("\"requests_in_flight\":1")).then_some(()));
    node.signal(Signal::SIGTERM);
    until("it drains", || (get(home.admin_port, "/ready").0 == 503).then_some(()));
    node.signal(Signal::SIGINT);
    assert_eq!(node.ended(), 0);
    assert!(node.log().contains("a second signal"), "{}", node.log());
}

#[test]
fn fifty_reloads_under_load_fail_no_request() {
    let provider = Simulator::start(&["--ttft-ms", "3"]);
    let home = Home::new(provider.address);
    let node = home.start();
    let sent = under_load(&home, Clock::start(), || {
        for number in 1..=50 {
            let before = lines_with(&node.log(), "configuration published").len();
            home.configure(&format!("sk-{number}"), "");
            node.signal(Signal::SIGHUP);
            until("the reload is done", || {
                (lines_with(&node.log(), "configuration published").len() > before).then_some(())
            });
        }
    });
    assert!(sent.len() > 50, "only {} requests", sent.len());
    assert_none_failed(&sent, &node);
}

#[test]
fn a_request_keeps_the_configuration_it_started_with_and_the_next_has_the_new_one() {
    let provider = Simulator::start(&["--api-key", "sk-one", "--token-ms", "30"]);
    let home = Home::new(provider.address);
    let node = home.start();
    let mut running = Client::connect(home.port).unwrap();
    running.send_chat("x-sim-completion-tokens: 40\r\n", true).unwrap();
    assert!(running.head().unwrap().starts_with("HTTP/1.1 200"));

    home.configure("sk-the-provider-does-not-know", "");
    node.signal(Signal::SIGHUP);
    let mut client = Client::connect(home.port).unwrap();
    until("the new key is used", || (client.chat().unwrap().status == 401).then_some(()));
    let body = String::from_utf8(running.chunks().unwrap()).unwrap();
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
}

#[test]
fn a_faulty_file_changes_nothing_and_every_fault_is_logged_with_its_place() {
    let provider = Simulator::start(&["--api-key", "sk-one"]);
    let home = Home::new(provider.address);
    let node = home.start();
    let mut client = Client::connect(home.port).unwrap();
    home.scratch.write("config.json", "{\n  \"providers\": 7,\n  \"governence\": {},\n  \"client\": []\n}\n");
    node.signal(Signal::SIGHUP);
    let log = until("it says so", || Some(node.log()).filter(|log| log.contains("keeps the one it has")));
    for (place, path) in [("2:16 ", "providers"), ("3:3 ", "governence"), ("4:13 ", "client")] {
        assert!(lines_with(&log, place).iter().any(|line| line.contains(path)), "{place}{path} in:\n{log}");
    }
    assert_eq!(client.chat().unwrap().status, 200);
    assert_eq!(get(home.port, "/ready").0, 200);

    // A file that is gone is no reason to stop either.
    std::fs::remove_file(home.config()).unwrap();
    node.signal(Signal::SIGHUP);
    until("it says so", || node.log().contains("could not be read").then_some(()));
    assert_eq!(client.chat().unwrap().status, 200);

    // And the right one is taken again.
    home.configure("sk-wrong", "");
    node.signal(Signal::SIGHUP);
    until("the new key is used", || (client.chat().unwrap().status == 401).then_some(()));
}
