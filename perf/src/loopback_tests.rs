//! The measuring tools against a small server in the same ring that answers by script, so
//! that what they count can be compared with what was done to them.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    child::Scratch,
    clock, epoll_relay,
    idle::{self, Idle},
    load::{self, Load, Pace, Until},
    minimal_proxy,
    peer::make_certificate,
    relay, replay, ring,
    simulated::seeded_text,
    streams::{self, Streams, check::Faults},
    tally::{Failure, Tally},
    target::{Target, chat_body},
    tls,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What the server does with one request.
enum Reply {
    /// Sends this and waits for the next request.
    Send(String),
    /// Sends this after a pause.
    SendLate(String, Duration),
    /// Sends this and closes.
    SendAndClose(String),
    /// Stays silent until the client closes.
    Silence,
}

/// Answers request number N (over all connections, from 0) with `script(N, its head)`.
fn serve(script: impl Fn(u64, &str) -> Reply + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let script = Rc::new(script);
    let number = Rc::new(Cell::new(0));
    monoio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            monoio::spawn(answer(stream, Rc::clone(&script), Rc::clone(&number)));
        }
    });
    address
}

async fn answer(mut stream: TcpStream, script: Rc<impl Fn(u64, &str) -> Reply>, number: Rc<Cell<u64>>) {
    let mut request = String::new();
    loop {
        let (read, bytes) = stream.read(vec![0; 64 * 1024]).await;
        let Ok(length @ 1..) = read else { return };
        request.push_str(&String::from_utf8_lossy(&bytes[..length]));
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |text| text.parse().expect("a length"));
        if body.len() < length {
            continue;
        }
        let reply = script(number.replace(number.get() + 1), head);
        request.clear();
        let (text, closes) = match reply {
            Reply::Send(text) => (text, false),
            Reply::SendLate(text, pause) => {
                monoio::time::sleep(pause).await;
                (text, false)
            }
            Reply::SendAndClose(text) => (text, true),
            Reply::Silence => continue,
        };
        if stream.write_all(text.into_bytes()).await.0.is_err() || closes {
            return;
        }
    }
}

fn load_of(address: SocketAddr, requests: u64) -> Load {
    let target = Target::parse(&format!("http://{address}/v1/chat/completions")).expect("loopback");
    Load {
        request: target.post(&[], &chat_body("m", 1024)),
        target,
        connections: 1,
        pace: Pace::Closed,
        until: Until::Requests(requests),
        silence_max: Duration::from_millis(300),
        tls: None,
        reconnects: false,
        expected_bytes: None,
    }
}

fn failures(tally: &Tally) -> Vec<(Failure, u64)> {
    tally.failures.iter().map(|(failure, count)| (*failure, *count)).collect()
}

#[test]
fn every_kind_of_answer_is_counted_as_what_it_is() {
    let result = ring::run(async |_| {
        let address = serve(|number, _| match number {
            1 => Reply::Send("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned()),
            2 => Reply::SendAndClose("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_owned()),
            3 => Reply::Send(format!("{OK}more")),
            4 => Reply::Send("HTTP/1.1 100 Continue\r\n\r\n".to_owned() + OK),
            5 => Reply::SendAndClose("SSH-2.0\r\n\r\n".to_owned()),
            6 => Reply::Silence,
            7 => Reply::Send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok".to_owned()),
            _ => Reply::Send(OK.to_owned()),
        });
        load::run(Load { expected_bytes: None, ..load_of(address, 10) }).await
    });
    let result = result.expect("a ring").expect("a run");
    assert_eq!(result.tally.with_status(200), 5);
    assert_eq!(result.tally.with_status(500), 1);
    let expected = [(Failure::Truncated, 1), (Failure::Malformed, 1), (Failure::Surplus, 1), (Failure::Deadline, 1)];
    assert_eq!(failures(&result.tally), expected);
    assert_eq!(result.connects, 6, "one at first, one after each failure, one after the close");
}

#[test]
fn a_body_of_another_length_is_a_failure_where_it_was_asked_for() {
    let result = ring::run(async |_| {
        let address = serve(|_, _| Reply::Send(OK.to_owned()));
        load::run(Load { expected_bytes: Some(3), ..load_of(address, 2) }).await
    });
    let result = result.expect("a ring").expect("a run");
    assert_eq!(failures(&result.tally), [(Failure::WrongLength, 2)]);
}

#[test]
fn an_open_loop_charges_a_stall_to_every_request_that_it_delays() {
    let stall = Duration::from_millis(200);
    let result = ring::run(async move |_| {
        let address = serve(move |number, _| match number {
            0 => Reply::SendLate(OK.to_owned(), stall),
            _ => Reply::Send(OK.to_owned()),
        });
        let load = load_of(address, 20);
        // Twenty requests within 100 ms over one connection: all of them wait for the first.
        load::run(Load { pace: Pace::Open { rate: 200.0 }, ..load }).await
    });
    let result = result.expect("a ring").expect("a run");
    assert_eq!(result.tally.not_ok(), 0);
    assert!(result.tally.latency.micros_at(0.05) >= 99_000.0, "the last one still waited 105 ms");
}

/// Bound and let go, so that the port is free for a floor.
fn free_address() -> SocketAddr {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port")
}

#[test]
fn the_relay_changes_nothing() {
    let result = ring::run(async |_| {
        let provider = serve(|_, _| Reply::Send(OK.to_owned()));
        let listen = free_address();
        monoio::spawn(relay::serve(listen, provider, clock::now() + Duration::from_mins(1)));
        load::run(Load { connections: 8, expected_bytes: Some(2), ..load_of(listen, 400) }).await
    });
    let result = result.expect("a ring").expect("a run");
    assert_eq!((result.tally.with_status(200), result.tally.not_ok()), (400, 0));
}

#[test]
fn the_relay_on_epoll_changes_nothing_however_much_waits_to_be_sent() {
    const ANSWER_BYTES: usize = 3_000_000;
    let (listen, deadline) = (free_address(), clock::now() + Duration::from_mins(1));
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let is_over = &AtomicBool::new(false);
    // It has no runtime, so it has a thread.
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            let provider: SocketAddr = told.recv().expect("an address");
            epoll_relay::serve(listen, provider, || is_over.load(Ordering::Relaxed) || clock::now() >= deadline)
        });
        let result = ring::run(async move |_| {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER_BYTES}\r\n\r\n");
            let provider = serve(move |_, _| Reply::Send(head.clone() + &"x".repeat(ANSWER_BYTES)));
            tell.send(provider).expect("the relay waits for it");
            while std::net::TcpStream::connect(listen).is_err() && clock::now() < deadline {
                monoio::time::sleep(Duration::from_millis(5)).await;
            }
            let load = Load { connections: 4, expected_bytes: Some(ANSWER_BYTES as u64), ..load_of(listen, 12) };
            load::run(Load { silence_max: Duration::from_secs(20), ..load }).await
        });
        is_over.store(true, Ordering::Relaxed);
        result
    });
    let result = result.expect("a ring").expect("a run");
    assert_eq!((result.tally.with_status(200), result.tally.not_ok(), result.connects), (12, 0, 4));
}

#[test]
fn a_provider_behind_tls_answers_whole_over_kept_and_new_connections() {
    const ANSWER_BYTES: usize = 100_000;
    let folder = Scratch::new().expect("a folder");
    let certificate = make_certificate(folder.path()).expect("openssl makes one");
    let server = tls::Server::new(&certificate.chain, &certificate.key).expect("a certificate");
    let client = tls::Client::new(&certificate.chain).expect("a certificate");
    let result = ring::run(async move |_| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER_BYTES}\r\n\r\n");
        let provider = serve(move |_, _| Reply::Send(head.clone() + &"x".repeat(ANSWER_BYTES)));
        let listen = free_address();
        monoio::spawn(tls::serve(server, listen, provider, clock::now() + Duration::from_mins(1)));
        let load = load_of(listen, 40);
        let load = Load {
            request: load.target.post(&[], &chat_body("m", 50_000)),
            connections: 4,
            tls: Some(client),
            silence_max: Duration::from_secs(20),
            expected_bytes: Some(ANSWER_BYTES as u64),
            ..load
        };
        let kept = load::run(load.clone()).await?;
        let new = load::run(Load { reconnects: true, ..load.clone() }).await?;
        // Not encrypted at all: no answer.
        let plain = load::run(Load { tls: None, until: Until::Requests(1), ..load }).await?;
        Ok::<_, std::io::Error>((kept, new, plain))
    });
    let (kept, new, plain) = result.expect("a ring").expect("runs");
    assert_eq!((kept.tally.with_status(200), kept.tally.not_ok(), kept.connects), (40, 0, 4));
    assert_eq!((new.tally.with_status(200), new.tally.not_ok(), new.connects), (40, 0, 40));
    assert_eq!((plain.tally.with_status(200), plain.tally.not_ok()), (0, 1));
}

#[test]
fn a_connection_for_each_request_is_one() {
    let result = ring::run(async |_| {
        let address = serve(|_, _| Reply::Send(OK.to_owned()));
        load::run(Load { reconnects: true, ..load_of(address, 9) }).await
    });
    let result = result.expect("a ring").expect("a run");
    assert_eq!((result.tally.with_status(200), result.connects), (9, 9));
}

#[test]
fn idle_connections_are_counted_only_with_their_answer() {
    let result = ring::run(async |_| {
        let address = serve(|number, _| match number {
            3 => Reply::SendAndClose("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()),
            _ => Reply::Send(OK.to_owned()),
        });
        let Load { target, request, .. } = load_of(address, 0);
        let (rest, pid) = (Duration::from_millis(10), std::process::id());
        idle::run(Idle { target, request, connections: 10, ramp_rate: 10_000.0, rest, pid }).await
    });
    let result = result.expect("a ring").expect("a run");
    assert_eq!(result.open, 9);
    assert!(result.before.resident > 0 && result.during.resident > 0);
}

#[test]
fn the_minimal_proxy_passes_bodies_of_any_length_and_keeps_its_connections() {
    const ANSWER_BYTES: usize = 100_000;
    let result = ring::run(async |_| {
        // Lengths on both sides of one read.
        let provider = serve(|_, head| {
            assert!(head.contains("content-length: 30000"), "{head}");
            Reply::Send(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {ANSWER_BYTES}\r\n\r\n{}",
                "x".repeat(ANSWER_BYTES)
            ))
        });
        let listen = free_address();
        monoio::spawn(minimal_proxy::serve(listen, provider, clock::now() + Duration::from_mins(1)));
        let mut load = load_of(listen, 200);
        load.request = load.target.post(&[], &vec![b'x'; 30_000]);
        load::run(Load { connections: 8, expected_bytes: Some(ANSWER_BYTES as u64), ..load }).await
    });
    let result = result.expect("a ring").expect("a run");
    assert_eq!((result.tally.with_status(200), result.tally.not_ok(), result.connects), (200, 0, 8));
}

/// A stream as the simulated provider sends it, of the content events that are named.
fn stream(head: &str, events: &[u32]) -> Reply {
    let seed = head.lines().find_map(|line| line.strip_prefix("x-sim-seed: ")).map(str::parse::<u64>);
    let seed = seed.expect("a seed").expect("a number");
    let contents = events.iter().map(|&event| {
        let text: String = seeded_text(seed, event, 40).map(char::from).collect();
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    });
    let mut body: String = contents.collect();
    body.push_str("data: {\"choices\":[],\"usage\":{\"total_tokens\":9}}\n\ndata: [DONE]\n\n");
    Reply::Send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

#[test]
fn a_lost_event_of_one_stream_among_many_is_found() {
    let result = ring::run(async |_| {
        let address = serve(|number, head| match number {
            7 => stream(head, &[0, 2]),
            _ => stream(head, &[0, 1, 2]),
        });
        streams::run(Streams {
            target: Target::parse(&format!("http://{address}/v1/chat/completions")).expect("loopback"),
            headers: Vec::new(),
            model: "m".to_owned(),
            at_once: 20,
            events: 3,
            event_bytes: 86,
            interval: Duration::ZERO,
            ramp_rate: 10_000.0,
            seed: 1,
            silence_max: Duration::from_secs(5),
            pid: None,
        })
        .await
    });
    let result = result.expect("a ring");
    assert_eq!(result.faults, Faults { lost: 1, ..Faults::default() });
    assert_eq!((result.whole, result.events_right), (19, 59));
}

#[test]
fn a_replay_notes_what_became_of_every_request() {
    let rows = replay::trace::parse(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.0,10,5\n2023-11-16 18:15:47.0,99,1\n\
         2023-11-16 18:15:47.0,1,1\n2023-11-16 19:15:47.0,1,1\n",
        100,
    );
    let rows = rows.expect("a trace");
    let result = ring::run(async move |_| {
        let address = serve(|_, head| {
            if head.contains("x-sim-completion-tokens: 5\r\n") || head.ends_with("x-sim-completion-tokens: 5") {
                let body = "{\"usage\":{\"total_tokens\":15}}";
                Reply::Send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
            } else {
                Reply::Send("HTTP/1.1 429 Later\r\ncontent-length: 0\r\n\r\n".to_owned())
            }
        });
        replay::run(replay::Replay {
            target: Target::parse(&format!("http://{address}/")).expect("loopback"),
            headers: Vec::new(),
            model: "m".to_owned(),
            rows,
            speed: 100.0,
            time_max: Duration::from_secs(1),
            prompt_tokens_max: 20,
            max_tokens: None,
            connections: 4,
            silence_max: Duration::from_secs(5),
        })
        .await
    });
    let result = result.expect("a ring");
    let sent: Vec<_> = result.sent.iter().map(|sent| (sent.tokens, sent.billed, sent.fate)).collect();
    let refused = replay::Fate::Answered(429);
    let expected = [(15, Some(15), replay::Fate::Answered(200)), (21, None, refused), (2, None, refused)];
    assert_eq!(sent, expected);
    assert_eq!(result.not_due, 1, "an hour later is 36 s later, and the replay takes one second");
}
