//! Events in virtual time, and what they lead to.

use super::*;
use crate::compile::tests::{FULL, compiled};
use crate::discovery::{Failure, SourceName};
use crate::failover::RESTING_KEYS_MAX;
use shared::published::RestReason;
use shared::report::Report;
use std::net::IpAddr;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Nanos {
    Nanos(seconds * SECOND)
}

fn configured(text: &str) -> Event {
    Event::Configured(Box::new(compiled(text)))
}

fn resolved(host: &str, address: &str) -> Event {
    Event::Resolved { host: host.to_owned(), addresses: vec![address.parse::<IpAddr>().unwrap()] }
}

fn failed(host: &str) -> Event {
    Event::ResolveFailed { host: host.to_owned(), reason: "SERVFAIL".to_owned() }
}

fn rests(core: u32, key: &str, until: u64) -> Event {
    let reason = RestReason::Limited;
    let resting = RestingKey { provider: "openai".into(), key: key.into(), model: None, reason, until: at(until) };
    Event::Report(Box::new(Report { core, resting_keys: vec![resting], ..Report::default() }))
}

/// What there is to publish is published, and the cores had time to take it.
fn taken(state: &mut ClusterState) {
    state.published();
    state.apply(Event::Tick, at(0));
}

/// Configured, every name resolved, published.
fn ready() -> ClusterState {
    let mut state = ClusterState::default();
    state.apply(configured(FULL), at(0));
    for host in ["api.openai.com", "api.anthropic.com", "127.0.0.1"] {
        state.apply(resolved(host, "192.0.2.1"), at(0));
    }
    taken(&mut state);
    assert_eq!(state.readiness(), Readiness::Ready);
    state
}

#[test]
fn a_configuration_is_published_and_its_hosts_are_followed() {
    let outcome = ClusterState::default().apply(configured(FULL), at(0));
    assert!(outcome.publish && outcome.is_new_configuration && outcome.publish_live);
    let hosts: Vec<_> = outcome.follow_hosts.unwrap().into_iter().collect();
    assert_eq!(hosts, ["127.0.0.1", "api.anthropic.com", "api.openai.com"]);
}

#[test]
fn a_node_is_ready_once_published_and_every_name_was_tried() {
    let mut state = ClusterState::default();
    assert!(matches!(state.readiness(), Readiness::Starting(_)));
    state.apply(configured(FULL), at(0));
    state.published();
    state.apply(resolved("api.openai.com", "192.0.2.1"), at(0));
    state.apply(resolved("127.0.0.1", "127.0.0.1"), at(0));
    taken(&mut state);
    let Readiness::Starting(reason) = state.readiness() else { panic!("not all names were tried") };
    assert!(reason.contains("api.anthropic.com"), "{reason}");
    let outcome = state.apply(failed("api.anthropic.com"), at(1));
    assert_eq!(state.readiness(), Readiness::Ready, "a provider without an address does not hold up the others");
    assert!(outcome.publish_live);
}

/// Before, a node was ready when its last name was resolved, and cores that had not yet taken the
/// address answered with 503.
#[test]
fn a_node_is_not_ready_before_its_cores_had_time_to_take_the_addresses() {
    let mut state = ClusterState::default();
    state.apply(configured(FULL), at(0));
    taken(&mut state);
    for host in ["api.openai.com", "api.anthropic.com", "127.0.0.1"] {
        state.apply(resolved(host, "192.0.2.1"), at(0));
    }
    assert_ne!(state.readiness(), Readiness::Ready, "not published");
    state.published();
    assert_ne!(state.readiness(), Readiness::Ready, "not taken");
    assert!(state.apply(Event::Tick, at(1)).publish_live);
    assert_eq!(state.readiness(), Readiness::Ready);
}

#[test]
fn a_node_that_was_ready_is_held_up_by_nothing() {
    let mut state = ready();
    state.hold_up(Some("units"));
    assert_eq!(state.readiness(), Readiness::Ready);
    let (record, _) = state.record(1).unwrap();
    let mut state = ClusterState::new(Addresses::of_snapshot(&record));
    state.hold_up(Some("units"));
    state.apply(configured(FULL), at(0));
    taken(&mut state);
    assert_eq!(state.readiness(), Readiness::Starting("units".to_owned()));
    state.hold_up(None);
    assert_eq!(state.readiness(), Readiness::Ready);
}

#[test]
fn addresses_known_from_before_make_a_node_ready_without_dns() {
    let mut state = ready();
    let (record, _) = state.record(1).unwrap();
    state = ClusterState::new(Addresses::of_snapshot(&record));
    state.apply(configured(FULL), at(0));
    taken(&mut state);
    assert_eq!(state.readiness(), Readiness::Ready);
    assert_eq!(state.record(2).unwrap().0.providers[0].endpoints, record.providers[0].endpoints);
}

#[test]
fn endpoints_follow_the_answers_with_the_providers_own_port() {
    let (record, _) = ready().record(9).unwrap();
    let ports: Vec<_> = record.providers.iter().map(|provider| provider.endpoints[0].port).collect();
    assert_eq!((record.epoch, ports), (9, vec![443, 443, 9000]));
}

#[test]
fn only_an_answer_that_differs_is_published() {
    let mut state = ready();
    assert!(!state.apply(resolved("api.openai.com", "192.0.2.1"), at(1)).publish);
    let outcome = state.apply(resolved("api.openai.com", "192.0.2.2"), at(2));
    assert!(outcome.publish && !outcome.is_new_configuration);
    assert!(!state.apply(resolved("left.example", "192.0.2.3"), at(3)).publish, "nobody asks for it any more");
}

#[test]
fn failures_are_told_at_the_first_second_and_fourth_time() {
    let mut state = ready();
    let told: Vec<bool> =
        (0..8).map(|second| !state.apply(failed("api.openai.com"), at(second)).notes.is_empty()).collect();
    assert_eq!(told, [true, true, false, true, false, false, false, true]);
    let note = state.apply(failed("api.anthropic.com"), at(9)).notes;
    let expected =
        Note::Unresolved { host: "api.anthropic.com".into(), reason: "SERVFAIL".into(), kept: 1, failures: 1 };
    assert_eq!(note, [expected]);
}

#[test]
fn an_answer_after_failures_is_told_once_even_where_it_changes_nothing() {
    let mut state = ready();
    let host = "api.openai.com";
    state.apply(failed(host), at(1));
    state.apply(failed(host), at(2));
    let outcome = state.apply(resolved(host, "192.0.2.1"), at(3));
    assert!(!outcome.publish);
    assert_eq!(outcome.notes, [Note::ResolvedAgain { host: host.into(), failures: 2 }]);
    assert_eq!(state.apply(resolved(host, "192.0.2.1"), at(4)).notes, []);
}

#[test]
fn a_serving_node_stays_ready_through_a_new_configuration() {
    let mut state = ready();
    let text = FULL.replace("\"anthropic\": {", "\"mistral\": {").replace("\"anthropic\"", "\"mistral\"");
    state.apply(configured(&text), at(5));
    assert_eq!(state.readiness(), Readiness::Ready);
    assert_eq!(state.record(2).unwrap().0.providers[0].endpoints.len(), 1, "known hosts keep their addresses");
}

#[test]
fn a_key_that_rests_on_one_core_rests_on_all_until_its_time() {
    let mut state = ready();
    assert!(state.apply(rests(0, "first", 10), at(0)).publish_live);
    assert!(!state.apply(rests(1, "first", 10), at(1)).publish_live, "nothing new");
    assert!(state.apply(rests(1, "first", 20), at(1)).publish_live, "the later end counts");
    assert!(!state.apply(rests(0, "first", 15), at(2)).publish_live);
    assert_eq!(state.live().resting_keys.len(), 1);
    assert_eq!(state.live().resting_keys[0].until, at(20));
    assert!(state.apply(Event::Tick, at(18)).publish_live, "with which weight it will come back");
    assert!(!state.apply(Event::Tick, at(19)).publish_live);
    assert!(state.apply(Event::Tick, at(20)).publish_live);
    assert!(state.live().resting_keys.is_empty());
    assert!(!state.apply(rests(0, "first", 20), at(21)).publish_live, "over before it was heard");
}

#[test]
fn resting_keys_are_bounded_and_the_soonest_to_wake_is_forgotten() {
    let mut state = ready();
    for index in 0..RESTING_KEYS_MAX as u64 {
        state.apply(rests(0, &format!("key-{index}"), 1_000 + index), at(0));
    }
    state.apply(rests(0, "one-more", 500_000), at(0));
    let resting = state.live().resting_keys;
    assert_eq!(resting.len(), RESTING_KEYS_MAX);
    assert!(!resting.iter().any(|known| known.key == "key-0"));
    assert!(resting.iter().any(|known| known.key == "one-more"));
}

#[test]
fn a_drain_cannot_be_taken_back() {
    let mut state = ready();
    assert!(state.apply(Event::Drain, at(1)).publish_live);
    state.apply(configured(FULL), at(2));
    state.published();
    assert_eq!(state.live().readiness, Readiness::Draining);
}

const DNS: SourceName = SourceName { method: "dns", number: 1 };

#[test]
fn two_sources_of_one_method_keep_a_list_each() {
    let mut state = ClusterState::default();
    let peers = [2, 3].map(|last| SocketAddr::from(([10, 0, 0, last], 10_101)));
    state.apply(Event::Discovered { source: DNS, peers: vec![peers[0]] }, at(0));
    let second = SourceName { number: 2, ..DNS };
    let outcome = state.apply(Event::Discovered { source: second, peers: vec![peers[1]] }, at(1));
    assert_eq!(outcome.follow_peers, Some(peers.into()));
    let names: Vec<_> = state.discovered().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["dns", "dns-2"]);
}

#[test]
fn a_source_that_fails_keeps_its_peers_and_its_failure_is_known_until_it_sees_again() {
    let mut state = ClusterState::default();
    let peers = vec![SocketAddr::from(([10, 0, 0, 2], 10_101))];
    let outcome = state.apply(Event::Discovered { source: DNS, peers: peers.clone() }, at(0));
    assert_eq!(outcome.follow_peers, Some(peers.iter().copied().collect()));
    let failure =
        Failure { line: "dns lookup error", cause: "timed out".into(), remedy: "look at the resolver".into() };
    let outcome = state.apply(Event::DiscoveryFailed { source: DNS, failure: failure.clone() }, at(3));
    assert_eq!(outcome.follow_peers, None);
    let sight = state.discovered().next().unwrap().1.clone();
    assert_eq!(sight, SourceSight { peers: peers.clone(), failures: 1, failed: Some((failure, at(3))) });
    state.apply(Event::Discovered { source: DNS, peers: peers.clone() }, at(4));
    assert_eq!(state.discovered().next().unwrap().1, &SourceSight { peers, failures: 1, failed: None });
}
