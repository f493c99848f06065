use super::*;
use crate::discovery::stand_ins::{Certificate, StandIn};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::panic::Location;
use tokio::time::timeout;

/// No step takes this long unless it is broken.
const WAIT: Duration = Duration::from_secs(15);
const ALL: &[&str] = &["service:write", "service:read", "node:read"];
const TOKEN: &str = "b1gs35-canary";

/// A gossip port that Consul can check.
fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("it is bound")
}

fn settings(server: &StandIn) -> Settings {
    Settings {
        address: BaseUrl::parse(&format!("http://127.0.0.1:{}", server.port)).expect("a URL"),
        token: None,
        ca_cert_pem: None,
        datacenters: Vec::new(),
        check_interval: Duration::from_secs(1),
        deregister_after: Duration::from_secs(60),
    }
}

fn source(node_id: &str, advertise: SocketAddr, settings: Settings) -> Consul {
    let surroundings = Surroundings {
        node_id: node_id.to_owned(),
        advertise,
        service_name: "gate".to_owned(),
        dial_timeout: Duration::from_secs(2),
        // Waits of three seconds.
        interval: Duration::from_millis(500),
        ..crate::discovery::tests::surroundings()
    };
    Consul::new(surroundings, settings)
}

/// Looks until these are the peers; a look that fails is not expected.
#[track_caller]
fn sees<'a>(source: &'a mut Consul, expected: &[SocketAddr]) -> impl Future<Output = ()> + use<'a> {
    let place = Location::caller();
    let mut expected = expected.to_vec();
    expected.sort();
    async move {
        let mut last = None;
        let looks = async {
            while last.as_ref() != Some(&expected) {
                let mut found = source.look().await.unwrap_or_else(|failure| panic!("{place}: {failure:?}"));
                found.sort();
                last = Some(found);
            }
        };
        let is_done = timeout(WAIT, looks).await.is_ok();
        assert!(is_done, "{place}: {last:?}, not {expected:?}");
    }
}

/// Looks until that fails, and says what it says.
#[track_caller]
fn fails(source: &mut Consul) -> impl Future<Output = Failure> {
    let place = Location::caller();
    async move {
        let looks = async {
            loop {
                if let Err(failure) = source.look().await {
                    return failure;
                }
            }
        };
        timeout(WAIT, looks).await.unwrap_or_else(|_| panic!("{place}: no failure"))
    }
}

fn put(server: &mut StandIn, id: &str, host: &str, port: u16, dc: &str) {
    server.tell("put", json!({"id": id, "name": "gate", "address": host, "port": port, "dc": dc}));
}

#[tokio::test]
async fn nodes_find_each_other_and_notice_who_leaves_and_who_dies() {
    let mut server = StandIn::start("consul", None);
    server.tell("minute", json!({"seconds": 0.5}));
    let ports = [listener(), listener(), listener()];
    let [a, b, c] = ports.each_ref().map(address);
    let mut sources = [("a", a), ("b", b), ("c", c)].map(|(id, at)| source(id, at, settings(&server)));
    let [at_a, at_b, at_c] = &mut sources;
    tokio::join!(sees(at_a, &[a, b, c]), sees(at_b, &[a, b, c]), sees(at_c, &[a, b, c]));
    let registered = server.tell("registration", json!({"id": "gate-a"}));
    let expected = json!({
        "Name": "gate", "Address": "127.0.0.1", "Port": a.port(), "tcp": a.to_string(),
        "seconds": {"Interval": 1.0, "Timeout": 1.0, "DeregisterCriticalServiceAfter": 60.0},
    });
    assert_eq!(registered, expected);

    at_c.leave().await;
    assert_eq!(server.just("instances"), json!({"gate-a": "passing", "gate-b": "passing"}));
    tokio::join!(sees(at_a, &[a, b]), sees(at_b, &[a, b]));
    // One dies without a word: first its check fails, then Consul forgets it.
    let [_kept, dying, _left] = ports;
    drop(dying);
    sees(at_a, &[a]).await;
    let deregistered = async {
        while server.just("instances") != json!({"gate-a": "passing"}) {
            at_a.look().await.expect("Consul is there");
        }
    };
    timeout(WAIT, deregistered).await.expect("Consul deregisters what stays critical");
}

#[tokio::test]
async fn an_agent_that_was_started_anew_is_told_of_us_again() {
    let mut server = StandIn::start("consul", None);
    let port = listener();
    let us = address(&port);
    let other: SocketAddr = "10.0.0.2:7000".parse().expect("an address");
    put(&mut server, "gate-x", "10.0.0.2", 7_000, "dc1");
    let mut source = source("a", us, settings(&server));
    sees(&mut source, &[us, other]).await;
    server.just("stop");
    let failure = fails(&mut source).await;
    assert!(failure.remedy.contains("firewall") && failure.cause.contains("127.0.0.1"), "{failure:?}");
    fails(&mut source).await;
    server.tell("forget", json!({"index": 3}));
    server.just("start");
    sees(&mut source, &[us]).await;
    put(&mut server, "gate-x", "10.0.0.2", 7_000, "dc1");
    sees(&mut source, &[us, other]).await;
    // And one that loses us while it runs.
    server.tell("forget", json!({"id": "gate-a"}));
    sees(&mut source, &[other]).await;
    sees(&mut source, &[us, other]).await;
    assert_eq!(server.tell("seen", json!({"text": "service/register"})).as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn an_index_that_goes_backwards_loses_no_change() {
    let mut server = StandIn::start("consul", None);
    let port = listener();
    let us = address(&port);
    let mut source = source("a", us, settings(&server));
    sees(&mut source, &[us]).await;
    server.tell("forget", json!({"id": "nobody", "index": 2}));
    let other: SocketAddr = "10.0.0.2:7000".parse().expect("an address");
    put(&mut server, "gate-x", "10.0.0.2", 7_000, "dc1");
    sees(&mut source, &[us, other]).await;
    put(&mut server, "gate-x", "10.0.0.2", 0, "dc1");
    sees(&mut source, &[us, "10.0.0.2:10101".parse().expect("an address")]).await;
    let asked = server.tell("seen", json!({"text": "/v1/health/service/gate?passing=1"}));
    let asked: Vec<_> = asked.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(asked.iter().any(|line| line.contains("&index=0&")), "{asked:?}");
    assert!(asked.len() < 20, "it waits, it does not poll: {asked:?}");
}

#[tokio::test]
async fn answers_that_are_broken_keep_the_list() {
    let mut server = StandIn::start("consul", None);
    let port = listener();
    let us = address(&port);
    let mut source = source("a", us, settings(&server));
    sees(&mut source, &[us]).await;
    for (fault, cause) in [("error", "No cluster leader"), ("garbage", "<html>"), ("cut", "broke off")] {
        server.tell("faults", json!({"faults": [fault]}));
        let failure = fails(&mut source).await;
        assert_eq!(failure.line, "error asking Consul for instances");
        assert!(failure.cause.contains(cause), "{failure:?}");
        sees(&mut source, &[us]).await;
    }
    server.tell("faults", json!({"faults": ["no-index"]}));
    sees(&mut source, &[us]).await;
}

#[tokio::test]
async fn a_token_that_may_not_says_which_right_it_lacks() {
    let mut server = StandIn::start("consul", None);
    let port = listener();
    let us = address(&port);
    put(&mut server, "gate-x", "10.0.0.2", 7_000, "dc1");
    let other: SocketAddr = "10.0.0.2:7000".parse().expect("an address");
    server.tell("tokens", json!({"tokens": {"another": ALL}}));
    let mut with_token = settings(&server);
    with_token.token = Some(Secret::new(TOKEN));
    let mut source = source("a", us, with_token);
    let failure = fails(&mut source).await;
    assert_eq!(failure.line, "failed to register service with Consul");
    assert!(failure.cause.contains("403") && failure.cause.contains("ACL not found"), "{failure:?}");
    assert!(failure.remedy.contains("service:write"), "{failure:?}");
    assert!(!format!("{failure:?}").contains(TOKEN), "{failure:?}");

    // It may read: what it finds is of use, and the failure is told with the next look.
    server.tell("tokens", json!({"tokens": {TOKEN: ["service:read", "node:read"]}}));
    assert_eq!(source.look().await, Ok(vec![other]));
    let failure = source.look().await.expect_err("it still may not register");
    assert_eq!(failure.line, "failed to register service with Consul");
    server.tell("tokens", json!({"tokens": {TOKEN: ALL}}));
    sees(&mut source, &[us, other]).await;

    // Consul hides without a word what a token may not read.
    server.tell("tokens", json!({"tokens": {TOKEN: ["service:write", "service:read"]}}));
    put(&mut server, "gate-y", "10.0.0.3", 7_000, "dc1");
    sees(&mut source, &[]).await;
    while source.registration.unseen < UNSEEN_MAX {
        timeout(WAIT, source.look()).await.expect("it does not wait for long").expect("an empty list is an answer");
    }
    server.tell("tokens", json!({"tokens": {TOKEN: ["service:write"]}}));
    let failure = fails(&mut source).await;
    assert!(failure.remedy.contains("service:read") && failure.remedy.contains("node:read"), "{failure:?}");
}

#[tokio::test]
async fn other_datacenters_are_looked_at_and_do_no_harm_when_they_are_away() {
    let mut server = StandIn::start("consul", None);
    let port = listener();
    let us = address(&port);
    put(&mut server, "gate-x", "10.2.0.2", 7_000, "dc2");
    let mut with_datacenters = settings(&server);
    with_datacenters.datacenters = vec!["dc2".to_owned(), "dc3".to_owned()];
    let mut source = source("a", us, with_datacenters);
    let in_dc2: SocketAddr = "10.2.0.2:7000".parse().expect("an address");
    sees(&mut source, &[us, in_dc2]).await;
    put(&mut server, "gate-y", "10.3.0.2", 7_000, "dc3");
    let in_dc3: SocketAddr = "10.3.0.2:7000".parse().expect("an address");
    sees(&mut source, &[us, in_dc2, in_dc3]).await;
    server.tell("forget", json!({"id": "gate-x"}));
    sees(&mut source, &[us, in_dc3]).await;
}

#[tokio::test]
async fn tls_is_spoken_with_the_given_authority_alone() {
    let folder = std::env::temp_dir().join(format!("deepintshield-consul-{}", std::process::id()));
    let other_folder = folder.join("other");
    std::fs::create_dir_all(&other_folder).expect("a folder");
    let (certificate, other) = (Certificate::new(&folder), Certificate::new(&other_folder));
    let pem = |certificate: &Certificate| std::fs::read_to_string(&certificate.authority).ok();
    let (trusted, untrusted) = (pem(&certificate), pem(&other));
    let server = StandIn::start("consul", Some(&certificate));
    let _ = std::fs::remove_dir_all(&folder);
    let port = listener();
    let us = address(&port);
    let with_tls = |scheme: &str, ca_cert_pem: Option<String>| {
        let address = BaseUrl::parse(&format!("{scheme}://localhost:{}", server.port)).expect("a URL");
        source("a", us, Settings { address, ca_cert_pem, ..settings(&server) })
    };
    sees(&mut with_tls("https", trusted), &[us]).await;
    for mut stranger in [with_tls("https", untrusted), with_tls("https", None)] {
        let failure = fails(&mut stranger).await;
        assert!(failure.cause.contains("TLS") && failure.cause.contains("certificate"), "{failure:?}");
    }
    assert!(fails(&mut with_tls("http", None)).await.remedy.contains("https://"));
    let failure = fails(&mut with_tls("https", Some("no certificate".to_owned()))).await;
    assert!(failure.cause.contains("consul_ca_cert_pem"), "{failure:?}");
}

#[tokio::test]
async fn names_of_instances_are_resolved_or_skipped() {
    let mut server = StandIn::start("consul", None);
    let port = listener();
    let us = address(&port);
    put(&mut server, "gate-x", "localhost", 7_000, "dc1");
    put(&mut server, "gate-y", "nowhere.invalid", 7_000, "dc1");
    put(&mut server, "gate-z", "", 7_001, "dc1");
    let mut source = source("a", us, settings(&server));
    let known = ["127.0.0.1:7000", "127.0.0.1:7001"].map(|peer| peer.parse().expect("an address"));
    sees(&mut source, &[us, known[0], known[1]]).await;
    assert_eq!(source.datacenters[0].unresolved, ["nowhere.invalid"]);
}

#[tokio::test]
async fn leaving_takes_back_what_was_registered_or_gives_up_in_time() {
    let mut server = StandIn::start("consul", None);
    let port = listener();
    let mut source = source("a", address(&port), settings(&server));
    source.leave().await;
    assert_eq!(server.just("seen"), json!([]), "nothing was registered");
    source.look().await.expect("Consul is there");
    server.just("stop");
    timeout(WAIT, source.leave()).await.expect("an agent that is away");
    server.just("start");
    source.look().await.expect("it registers again");
    source.leave().await;
    assert_eq!(server.just("instances"), json!({}));
    assert_eq!(source.asker.deregister().await, Ok(()), "an agent that knows nothing of us has nothing to take back");
}

#[tokio::test]
async fn a_peek_registers_nothing() {
    let mut server = StandIn::start("consul", None);
    put(&mut server, "gate-x", "10.0.0.2", 7_000, "dc1");
    let port = listener();
    let mut source = source("a", address(&port), settings(&server));
    assert_eq!(source.peek().await, Ok(vec!["10.0.0.2:7000".parse().expect("an address")]));
    source.leave().await;
    assert_eq!(server.tell("seen", json!({"text": "PUT"})), json!([]));
    server.just("stop");
    assert_eq!(source.peek().await.map_err(|failure| failure.line), Err("error asking Consul for instances"));
}
