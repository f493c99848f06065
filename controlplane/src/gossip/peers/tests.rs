use super::*;
use crate::gossip::frame::{Kind, NodeName};
use crate::gossip::keyring::KeyId;

const WALL: Duration = Duration::from_secs(1_000_000);

fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], number))
}

fn at(millis: u64) -> Nanos {
    Nanos::default().after(Duration::from_millis(millis))
}

fn frame(name: &str, generation: u64, from: SocketAddr) -> Opened {
    Opened {
        version: 1,
        speaks: 1,
        key: KeyId([1; 4]),
        from: Identity { name: NodeName::new(name).unwrap(), generation },
        address: from,
        to: Identity::ANYONE,
        sequence: 1,
        kind: Kind::Pong,
        queued: None,
        payload: Vec::new(),
    }
}

/// Rounds of pings every half second from `from` on, of which those by `way` are answered.
fn rounds(peers: &mut Peers, times: std::ops::Range<u64>, udp_works: bool, tcp_works: bool) -> Vec<Remark> {
    let mut said = Vec::new();
    for time in times.map(|round| at(2_000 * round)) {
        let round = peers.round(address(1), time).unwrap();
        said.extend(round.remark);
        let ways = [(Via::Udp, round.udp, udp_works), (Via::Tcp, round.tcp, tcp_works)];
        for (number, (via, _, _)) in (0..).zip(ways).filter(|(_, (_, is_sent, works))| *is_sent && *works) {
            let sequence = time.0 + number;
            peers.pinged(sequence, address(1), via, time, WALL);
            let pong = Pong { answers: sequence, received: WALL, sent: WALL, takes: vec![KeyId([1; 4])] };
            let answered = peers.answered(&frame("b", 1, address(1)), &pong, time, WALL);
            said.extend(answered.unwrap().2);
        }
    }
    said
}

#[test]
fn hosts_that_are_talked_to_are_told_from_strangers() {
    let mut peers = Peers::default();
    let hosts = ["10.0.0.2", "fd00::2"].map(|host| host.parse::<IpAddr>().unwrap());
    for host in hosts {
        peers.round(SocketAddr::new(host, 10_101), at(0)).unwrap();
    }
    assert!(hosts.into_iter().all(|host| peers.talks_to(host)));
    let strangers = ["10.0.0.1", "10.0.0.3", "fd00::1", "fd00::3"].map(|host| host.parse::<IpAddr>().unwrap());
    assert!(!strangers.into_iter().any(|host| peers.talks_to(host)));
}

#[test]
fn a_peer_that_only_tcp_reaches_is_found_out_and_udp_is_tried_again() {
    let mut peers = Peers::default();
    assert_eq!(rounds(&mut peers, 0..10, true, true), []);
    assert!(!peers.route(address(1), at(20_000)).unwrap().prefers_tcp);
    assert_eq!(rounds(&mut peers, 10..13, false, true), []);
    assert!(peers.route(address(1), at(26_000)).unwrap().prefers_tcp, "before it is sure");
    assert_eq!(rounds(&mut peers, 13..20, false, true), [Remark::TcpOnly]);
    assert!(peers.get(address(1)).unwrap().is_tcp_only);
    assert_eq!(rounds(&mut peers, 20..40, false, true), []);
    assert_eq!(rounds(&mut peers, 40..50, true, true), [Remark::UdpAgain]);
    assert!(!peers.route(address(1), at(100_000)).unwrap().prefers_tcp);
}

#[test]
fn a_peer_that_nothing_reaches_is_said_once_and_then_ever_more_rarely() {
    let mut peers = Peers::default();
    assert_eq!(rounds(&mut peers, 0..3, true, true), []);
    let said = rounds(&mut peers, 3..103, false, false);
    assert_eq!(said, [3, 6, 12, 24, 48, 96].map(Remark::Timeout));
    assert!(peers.get(address(1)).unwrap().is_unreachable());
    let said: Vec<Remark> = (0..100).filter_map(|_| peers.sends(address(1), at(300_000))).collect();
    assert_eq!(said, [1, 8, 64].map(Remark::FailedToBroadcast));
    assert_eq!(rounds(&mut peers, 200..203, true, true), []);
    assert!(!peers.get(address(1)).unwrap().is_unreachable());
    assert_eq!(peers.sends(address(1), at(500_000)), None);
}

#[test]
fn rounds_keep_their_distance() {
    let mut peers = Peers::default();
    let times = |peers: &mut Peers, range: std::ops::Range<u64>| -> Vec<u64> {
        range.filter(|time| peers.round(address(1), at(*time)).is_some()).collect()
    };
    assert_eq!(times(&mut peers, 0..8_000), [0, 200, 600, 1_400, 3_000, 5_000, 7_000], "nobody was heard there");
    peers.heard(&frame("b", 1, address(1)), at(8_000));
}

#[test]
fn a_restart_is_news_behind_every_address_of_the_node() {
    let mut peers = Peers::default();
    peers.pinged(7, address(2), Via::Udp, at(0), WALL);
    let pong = Pong { answers: 7, ..Pong::default() };
    assert_eq!(peers.heard(&frame("b", 1, address(1)), at(0)), [address(1)]);
    let (asked, is_news, _) = peers.answered(&frame("b", 1, address(1)), &pong, at(0), WALL).unwrap();
    assert_eq!((asked, is_news), (address(2), true), "known by another address than its own");
    assert_eq!(peers.heard(&frame("b", 1, address(1)), at(1)), [] as [SocketAddr; 0]);
    assert_eq!(peers.heard(&frame("b", 2, address(1)), at(2)), [address(1), address(2)]);
    assert_eq!(peers.route(address(2), at(3)).unwrap().to.generation, 2);
}

#[test]
fn an_answer_counts_once() {
    let mut peers = Peers::default();
    peers.pinged(7, address(1), Via::Udp, at(0), WALL);
    let pong = Pong { answers: 7, received: WALL, sent: WALL + Duration::from_millis(1), takes: Vec::new() };
    assert!(peers.answered(&frame("b", 1, address(1)), &pong, at(5), WALL).is_some());
    assert_eq!(peers.get(address(1)).unwrap().round_trip, Some(Duration::from_millis(4)));
    assert!(peers.answered(&frame("b", 1, address(1)), &pong, at(50), WALL).is_none());
}

#[test]
fn the_newest_message_waits_for_a_node_to_be_known() {
    let mut peers = Peers::default();
    assert!(peers.route(address(1), at(0)).is_none());
    assert!(!peers.wait(address(1), vec![1], at(0)) && peers.wait(address(1), vec![2], at(0)));
    assert_eq!(peers.heard(&frame("b", 1, address(1)), at(1)), [address(1)]);
    assert_eq!(peers.take_waiting(address(1)), Some(vec![2]));
    assert_eq!(peers.take_waiting(address(1)), None);
}

#[test]
fn addresses_and_pings_have_bounds() {
    let mut peers = Peers::default();
    for number in 0..3 * PEERS_MAX as u64 {
        let address = SocketAddr::from((std::net::Ipv4Addr::from_bits(number as u32), 1));
        peers.round(address, at(number));
        peers.pinged(number, address, Via::Udp, at(number), WALL);
    }
    assert_eq!(peers.by_address.len(), PEERS_MAX);
    assert_eq!(peers.pings.len(), PINGS_MAX);
}
