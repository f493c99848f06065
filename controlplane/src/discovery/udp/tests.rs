//! Several sources on one machine, with real sockets on loopback addresses.

use super::*;
use crate::discovery::tests::surroundings;
use shared::secret::Secret;
use std::net::UdpSocket;

const ONE: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const TWO: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

fn free_port() -> u16 {
    UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

fn source(port: u16, last: u8, gossip_port: u16, key: &str) -> Udp {
    let listen = SocketAddr::from(([127, 9, 9, last], gossip_port));
    let surroundings = Surroundings {
        node_id: format!("n{last}-{gossip_port}"),
        advertise: listen,
        listen,
        allowed: vec!["127.0.0.0/8".parse().unwrap()],
        ..surroundings()
    };
    let keys: Vec<_> = [key].into_iter().filter(|key| !key.is_empty()).map(Secret::new).collect();
    let (_, keyring) = watch::channel(Keyring::new("c", &keys).unwrap());
    Udp::new(port, surroundings, keyring, Clock::start())
}

/// Looks until the list is this one; the test runner's patience ends a test that waits for ever.
async fn looks_until(source: &mut Udp, peers: &[&str]) {
    while source.look().await.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>() != peers {}
}

#[tokio::test]
async fn nodes_of_one_machine_share_the_port_and_find_each_other() {
    let port = free_port();
    let (mut one, mut two, mut three) = (source(port, 1, 7, ONE), source(port, 2, 7, ONE), source(port, 2, 8, ONE));
    tokio::join!(
        looks_until(&mut one, &["127.9.9.2:7", "127.9.9.2:8"]),
        looks_until(&mut two, &["127.9.9.1:7", "127.9.9.2:8"]),
        looks_until(&mut three, &["127.9.9.1:7", "127.9.9.2:7"]),
    );
    let farewell = async {
        three.leave().await;
        drop(three);
    };
    tokio::join!(farewell, looks_until(&mut one, &["127.9.9.2:7"]), looks_until(&mut two, &["127.9.9.1:7"]));
}

#[tokio::test]
async fn a_node_without_the_key_is_not_heard_and_hears_nothing() {
    let port = free_port();
    let (mut one, mut two) = (source(port, 1, 7, ONE), source(port, 2, 7, ONE));
    let (mut other, mut open) = (source(port, 3, 7, TWO), source(port, 4, 7, ""));
    other.surroundings.dial_timeout = Duration::from_millis(300);
    open.surroundings.dial_timeout = Duration::from_millis(300);
    let (heard_by_other, heard_by_open, (), ()) = tokio::join!(
        other.look(),
        open.look(),
        looks_until(&mut one, &["127.9.9.2:7"]),
        looks_until(&mut two, &["127.9.9.1:7"]),
    );
    assert_eq!((heard_by_other, heard_by_open), (Ok(vec![]), Ok(vec![])));
}

#[tokio::test]
async fn an_answer_is_as_long_as_its_question_and_goes_to_its_sender() {
    let port = free_port();
    let (mut node, asker) = (source(port, 1, 7, ONE), source(port, 5, 9, ONE));
    let socket = tokio::net::UdpSocket::bind("127.9.9.5:0").await.unwrap();
    let question = asker.message(Kind::Beacon, 77);
    let ask = async {
        // The node's socket is open after its first beacon, and a lost question is asked again.
        let mut answer = [0; 200];
        loop {
            socket.send_to(&question, ("127.0.0.1", port)).await.unwrap();
            let answered = tokio::time::timeout(Duration::from_millis(50), socket.recv_from(&mut answer)).await;
            if let Ok(answered) = answered {
                let (length, from) = answered.unwrap();
                return (answer[..length].to_vec(), from.ip());
            }
        }
    };
    let ((answer, from), ()) = tokio::join!(ask, looks_until(&mut node, &["127.9.9.5:9"]));
    assert_eq!((answer.len(), from), (question.len(), node.surroundings.listen.ip()));
    let beacon = Beacon::decode(&answer, &asker.service, &asker.keyring.borrow()).unwrap();
    assert_eq!((beacon.kind, beacon.nonce, beacon.gossip_port), (Kind::Acknowledgement, 77, 7));
}

#[tokio::test]
async fn who_only_asks_finds_nodes_and_is_found_by_none() {
    let port = free_port();
    let (mut node, mut asker) = (source(port, 1, 7, ONE), source(port, 2, 7, ONE));
    node.surroundings.dial_timeout = Duration::from_millis(300);
    let asks = async { while asker.peek().await.unwrap().is_empty() {} };
    let (heard, ()) = tokio::join!(node.look(), asks);
    assert_eq!(heard, Ok(vec![]));
}

/// A source with sockets, to which messages are given by hand.
fn deaf() -> (Udp, Sockets) {
    let source = source(free_port(), 1, 7, ONE);
    let sockets = source.open().unwrap();
    (source, sockets)
}

#[tokio::test]
async fn an_answer_to_a_question_that_was_not_asked_is_not_believed() {
    let (mut node, sockets) = deaf();
    let other = source(1, 2, 7, ONE);
    let sender = "127.9.9.2:5000".parse().unwrap();
    let now = node.clock.now();
    let answer = other.message(Kind::Acknowledgement, 5);
    assert!(!node.take(&answer, sender, &sockets, now));
    node.asked.push_back(5);
    assert!(node.take(&answer, sender, &sockets, now));
    assert!(!node.take(&other.message(Kind::Beacon, 5), sender, &sockets, now), "our own beacon comes back");
}

#[tokio::test]
async fn what_comes_from_outside_or_from_another_time_is_not_believed() {
    let (mut node, sockets) = deaf();
    let other = source(1, 2, 7, ONE);
    let now = node.clock.now();
    let (inside, outside) = ("127.9.9.2:5000".parse().unwrap(), "192.0.2.1:5000".parse().unwrap());
    assert!(!node.take(&other.message(Kind::Beacon, 5), outside, &sockets, now));
    for (apart, is_believed) in [(301, false), (299, true)] {
        let beacon = Beacon {
            kind: Kind::Beacon,
            gossip_port: 7,
            wall_seconds: node.clock.wall().as_secs() - apart,
            nonce: apart,
            node_id: "n2".to_owned(),
        };
        let bytes = beacon.encode(&other.service, &other.keyring.borrow());
        assert_eq!(node.take(&bytes, inside, &sockets, now), is_believed, "{apart}");
    }
}

#[tokio::test]
async fn a_flood_of_questions_gets_a_bounded_number_of_answers() {
    let (mut node, sockets) = deaf();
    let asker = source(1, 6, 7, ONE);
    let socket = UdpSocket::bind("127.9.9.6:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let sender = socket.local_addr().unwrap();
    // A node has sent a beacon before it hears one.
    sockets.asks.writable().await.unwrap();
    let now = node.clock.now();
    for nonce in 0..1_000 {
        node.take(&asker.message(Kind::Beacon, nonce), sender, &sockets, now);
    }
    let mut answers = 0;
    while socket.recv(&mut [0; 200]).is_ok() {
        answers += 1;
    }
    assert_eq!(answers, ANSWERS_MAX);
}
