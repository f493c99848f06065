//! Names that stand for peers, asked again and again. Which question is due, what its answer
//! changes and what a failure leaves in place is pure; the asking is at the end of the file.
//!
//! A name is asked again when the smallest TTL of its answer is over, at least a second later, and
//! at the discovery interval at the latest. A name that fails keeps what it stood for; one that is
//! said not to exist, or to have no addresses, stands for nobody from then on. The DNS library's
//! cache is not used.

use super::Failure;
use super::pace::Pace;
use crate::resolver::{System, TTL_MAX, TTL_MIN, without_dns};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use shared::clock::{Clock, Nanos};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Addresses, or targets, of one answer that are used.
const ANSWERS_MAX: usize = 256;
/// Questions in flight.
const IN_FLIGHT_MAX: usize = 32;

/// What a name is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ipv4,
    Ipv6,
    /// Names and ports (RFC 2782). Priority and weight say nothing about peers.
    Srv,
}

/// One question, with what its answer means.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Of peers whose answer has none.
    pub(super) port: u16,
    /// The whole name that answered last, found through the search list of this machine. It is
    /// asked for alone: else a server's failure would look like the last search name's absence.
    known_as: Option<Name>,
}

impl Question {
    /// What there is to ask about a name: SRV for one that begins with `_`, addresses otherwise.
    pub(super) fn about(name: &str, port: u16) -> Vec<Self> {
        if name.starts_with('_') { vec![Self::new(name, Kind::Srv, port)] } else { Self::addresses(name, port).into() }
    }

    /// What there is to ask about a host.
    pub(super) fn addresses(name: &str, port: u16) -> [Self; 2] {
        [Kind::Ipv4, Kind::Ipv6].map(|kind| Self::new(name, kind, port))
    }

    fn new(name: &str, kind: Kind, port: u16) -> Self {
        Self { name: name.to_owned(), kind, port, known_as: None }
    }
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// It stands for these, for so long.
    Peers { peers: Vec<Peers>, ttl: Duration, known_as: Option<Name> },
    /// It does not exist, or has nothing of this kind.
    Nobody { exists: bool, ttl: Option<Duration> },
    /// Nobody could say.
    Failed(String),
}

/// Addresses behind one name: the asked one, or a target of SRV.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Peers {
    target: String,
    port: u16,
    /// `None`: the target could not be looked up now.
    addresses: Option<Vec<IpAddr>>,
}

/// A question with what it stands for.
struct Entry {
    question: Question,
    peers: Vec<Peers>,
    due: Nanos,
    pace: Pace,
    /// Of the last answer, where that was none.
    fault: Option<String>,
}

impl Entry {
    fn addresses(&self) -> usize {
        self.peers.iter().filter_map(|peers| peers.addresses.as_ref()).map(Vec::len).sum()
    }
}

/// All questions of one source. Pure.
pub(super) struct Table {
    entries: Vec<Entry>,
    interval: Duration,
}

impl Table {
    pub(super) fn new(questions: Vec<Question>, interval: Duration) -> Self {
        let entry = |question| Entry { question, peers: Vec::new(), due: Nanos(0), pace: Pace::new(), fault: None };
        Self { entries: questions.into_iter().map(entry).collect(), interval }
    }

    /// Until the next question is due; zero where one is.
    fn pause(&self, now: Nanos) -> Duration {
        self.entries.iter().map(|entry| entry.due.since(now)).min().unwrap_or(self.interval)
    }

    /// Questions to be asked now.
    fn due(&self, now: Nanos) -> Vec<(usize, Question)> {
        let due = |entry: &&Entry| entry.due <= now;
        let entries = self.entries.iter().enumerate().filter(|(_, entry)| due(entry));
        entries.map(|(index, entry)| (index, entry.question.clone())).collect()
    }

    /// Takes an answer over. A sentence where there is something to say about it.
    fn take(&mut self, index: usize, answer: Answer, now: Nanos) -> Option<String> {
        let interval = self.interval;
        let entry = self.entries.get_mut(index)?;
        let pause = |ttl: Duration| ttl.clamp(TTL_MIN, TTL_MAX).min(interval.max(TTL_MIN));
        match answer {
            Answer::Peers { mut peers, ttl, known_as } => {
                let mut lost = None;
                for one in &mut peers {
                    if one.addresses.is_none() {
                        lost.get_or_insert_with(|| one.target.clone());
                        let same = |known: &&Peers| known.target == one.target;
                        one.addresses = entry.peers.iter().find(same).and_then(|known| known.addresses.clone());
                    }
                }
                entry.peers = peers;
                entry.question.known_as = known_as;
                entry.due = now.after(pause(ttl));
                entry.fault = None;
                let Some(target) = lost else {
                    entry.pace = Pace::new();
                    return None;
                };
                let name = &entry.question.name;
                let is_news = entry.pace.after_failure().is_worth_saying;
                is_news.then(|| format!("{name}: its target {target} could not be looked up; {}", remedy(&target)))
            }
            Answer::Nobody { exists, ttl } => {
                entry.peers.clear();
                entry.question.known_as = None;
                entry.due = now.after(pause(ttl.unwrap_or(interval)));
                entry.fault = None;
                // One family alone is the usual case, and the other question says the same.
                let is_news =
                    entry.pace.after_failure().is_worth_saying && !exists && entry.question.kind != Kind::Ipv6;
                let name = &entry.question.name;
                is_news.then(|| format!("{name}: the name does not exist; {}", remedy(name)))
            }
            Answer::Failed(cause) => {
                let again = entry.pace.after_failure();
                entry.due = now.after(again.length);
                let name = &entry.question.name;
                let kept = entry.addresses();
                let sentence = format!("{name}: {cause}; keeping {kept} addresses; {}", remedy(name));
                entry.fault = Some(cause);
                again.is_worth_saying.then_some(sentence)
            }
        }
    }

    /// Everybody that is known now.
    fn peers(&self) -> Vec<SocketAddr> {
        let peers = self.entries.iter().flat_map(|entry| &entry.peers);
        let with_port = |peers: &Peers| {
            let port = peers.port;
            let addresses = peers.addresses.clone().unwrap_or_default();
            addresses.into_iter().map(move |address| SocketAddr::new(address, port))
        };
        peers.flat_map(with_port).collect()
    }

    /// Where no question has an answer: the first one's fault.
    fn failure(&self) -> Option<Failure> {
        let first = self.entries.first()?;
        let fault = first.fault.as_ref()?;
        self.entries.iter().all(|entry| entry.fault.is_some()).then(|| Failure {
            line: "dns lookup error",
            cause: format!("{}: {fault}", first.question.name),
            remedy: remedy(&first.question.name),
        })
    }
}

fn remedy(name: &str) -> String {
    let kind = if name.starts_with('_') { "-type=SRV " } else { "" };
    format!(
        "try `nslookup {kind}{name}` on this machine (in the container, where there is one), and compare the \
         nameserver in /etc/resolv.conf"
    )
}

/// A table with somebody to ask.
pub(super) struct Names {
    table: Table,
    system: Arc<System>,
    clock: Clock,
    dial_timeout: Duration,
}

impl Names {
    pub(super) fn new(table: Table, clock: Clock, dial_timeout: Duration) -> Self {
        Self { table, system: Arc::new(System::new(clock)), clock, dial_timeout }
    }

    /// Waits until a question is due, asks what is due, and tells everybody that is known then;
    /// a failure only where nothing at all has an answer.
    pub(super) async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        if self.table.entries.is_empty() {
            return std::future::pending().await;
        }
        tokio::time::sleep(self.table.pause(self.clock.now())).await;
        let mut due = self.table.due(self.clock.now());
        let mut sentences = Vec::new();
        while !due.is_empty() {
            let mut asked = JoinSet::new();
            for (index, question) in due.drain(..due.len().min(IN_FLIGHT_MAX)) {
                let (system, timeout) = (Arc::clone(&self.system), self.dial_timeout);
                asked.spawn(async move {
                    let answer = tokio::time::timeout(timeout, ask(&system, &question)).await;
                    let late = |_| Answer::Failed(format!("no answer within {} ms", timeout.as_millis()));
                    (index, answer.unwrap_or_else(late))
                });
            }
            while let Some(answered) = asked.join_next().await {
                // A task that panicked said so itself; its question stays due.
                if let Ok((index, answer)) = answered {
                    sentences.extend(self.table.take(index, answer, self.clock.now()));
                }
            }
        }
        if let Some(failure) = self.table.failure() {
            return Err(failure);
        }
        for sentence in sentences {
            tracing::error!("dns lookup error: {sentence}");
        }
        Ok(self.table.peers())
    }
}

async fn ask(system: &System, question: &Question) -> Answer {
    let resolver = match system.resolver() {
        Ok(resolver) => resolver,
        Err(cause) => return Answer::Failed(cause),
    };
    let kind = match question.kind {
        Kind::Ipv4 => RecordType::A,
        Kind::Ipv6 => RecordType::AAAA,
        Kind::Srv => RecordType::SRV,
    };
    if let Some(known) = without_dns(&question.name) {
        let own = |address: &IpAddr| address.is_ipv4() == (question.kind == Kind::Ipv4);
        let addresses = known.addresses.into_iter().filter(own).collect();
        let peers = vec![Peers { target: question.name.clone(), port: question.port, addresses: Some(addresses) }];
        return Answer::Peers { peers, ttl: TTL_MAX, known_as: None };
    }
    let looked_up = match &question.known_as {
        Some(name) => resolver.lookup(name.clone(), kind).await,
        None => resolver.lookup(question.name.as_str(), kind).await,
    };
    let lookup = match looked_up {
        Ok(lookup) => lookup,
        Err(error) => return refusal(&error),
    };
    let mut ttl = ttl_of(&lookup);
    let mut peers = Vec::new();
    if question.kind == Kind::Srv {
        for (target, port) in targets(&lookup) {
            let addresses = target_addresses(&resolver, &target, &mut ttl).await;
            peers.push(Peers { target: target.to_string(), port, addresses });
        }
    } else {
        let addresses = Some(addresses_of(&lookup));
        peers.push(Peers { target: question.name.clone(), port: question.port, addresses });
    }
    Answer::Peers { peers, ttl, known_as: Some(lookup.query().name().clone()) }
}

/// `None` where nobody could say; empty where there are none.
async fn target_addresses(
    resolver: &hickory_resolver::TokioResolver,
    target: &Name,
    ttl: &mut Duration,
) -> Option<Vec<IpAddr>> {
    let mut found = Vec::new();
    let mut is_uncertain = false;
    for kind in [RecordType::A, RecordType::AAAA] {
        match resolver.lookup(target.clone(), kind).await {
            Ok(lookup) => {
                *ttl = ttl_of(&lookup).min(*ttl);
                found.extend(addresses_of(&lookup));
            }
            Err(error) => is_uncertain |= matches!(refusal(&error), Answer::Failed(_)),
        }
    }
    (!found.is_empty() || !is_uncertain).then_some(found)
}

fn refusal(error: &NetError) -> Answer {
    if !error.is_no_records_found() {
        return Answer::Failed(error.to_string());
    }
    let ttl = error.clone().into_soa().map(|soa| Duration::from_secs(u64::from(soa.ttl.min(soa.data.minimum))));
    Answer::Nobody { exists: !error.is_nx_domain(), ttl }
}

fn ttl_of(lookup: &Lookup) -> Duration {
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    Duration::from_secs(u64::from(ttl))
}

fn addresses_of(lookup: &Lookup) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    lookup.answers().iter().filter_map(|record| address(&record.data)).take(ANSWERS_MAX).collect()
}

/// A target of one dot says that there is nobody (RFC 2782).
fn targets(lookup: &Lookup) -> Vec<(Name, u16)> {
    let target = |data: &RData| match data {
        RData::SRV(srv) if !srv.target.is_root() => Some((srv.target.clone(), srv.port)),
        _ => None,
    };
    lookup.answers().iter().filter_map(|record| target(&record.data)).take(ANSWERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1_000);

    fn at(seconds: u64) -> Nanos {
        Nanos(0).after(Duration::from_secs(seconds))
    }

    fn table(names: &[&str]) -> Table {
        Table::new(names.iter().flat_map(|name| Question::about(name, 10_101)).collect(), INTERVAL)
    }

    fn stands_for(addresses: &[&str], ttl_seconds: u64) -> Answer {
        let addresses = Some(addresses.iter().map(|text| text.parse().unwrap()).collect());
        let peers = vec![Peers { target: "a".to_owned(), port: 10_101, addresses }];
        Answer::Peers { peers, ttl: Duration::from_secs(ttl_seconds), known_as: None }
    }

    fn target(name: &str, port: u16, address: Option<&str>) -> Peers {
        Peers { target: name.to_owned(), port, addresses: address.map(|text| vec![text.parse().unwrap()]) }
    }

    fn seen(table: &Table) -> Vec<String> {
        table.peers().iter().map(ToString::to_string).collect()
    }

    const GONE: Answer = Answer::Nobody { exists: false, ttl: None };

    fn failed() -> Answer {
        Answer::Failed("SERVFAIL".to_owned())
    }

    #[test]
    fn a_name_is_asked_for_addresses_and_one_with_an_underscore_for_srv() {
        let kinds = |name| Question::about(name, 1).iter().map(|question| question.kind).collect::<Vec<_>>();
        assert_eq!(kinds("nodes.example"), [Kind::Ipv4, Kind::Ipv6]);
        assert_eq!(kinds("_gossip._udp.nodes.example"), [Kind::Srv]);
    }

    #[test]
    fn a_question_is_due_when_its_ttl_is_over_within_bounds() {
        for (ttl, interval, pause) in [(30, 1_000, 30), (0, 1_000, 1), (86_400, 1_000, 300), (30, 10, 10)] {
            let mut table = table(&["_a"]);
            table.interval = Duration::from_secs(interval);
            table.take(0, stands_for(&["192.0.2.1"], ttl), at(5));
            assert_eq!(table.pause(at(5)).as_secs(), pause, "ttl {ttl}, interval {interval}");
            assert!(table.due(at(4 + pause)).is_empty());
            assert_eq!(table.due(at(5 + pause)).len(), 1);
        }
    }

    #[test]
    fn questions_have_ttls_of_their_own() {
        let mut table = table(&["a"]);
        table.take(0, stands_for(&["192.0.2.1"], 10), at(0));
        table.take(1, stands_for(&["2001:db8::1"], 60), at(0));
        let due = table.due(at(10));
        assert_eq!(due.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0]);
        assert_eq!(seen(&table), ["192.0.2.1:10101", "[2001:db8::1]:10101"]);
    }

    #[test]
    fn a_failure_keeps_the_addresses_and_is_said_once() {
        let mut table = table(&["_a"]);
        table.take(0, stands_for(&["192.0.2.1"], 1), at(0));
        let said = table.take(0, failed(), at(1)).unwrap();
        assert!(said.contains("SERVFAIL; keeping 1 addresses; try `nslookup -type=SRV _a`"), "{said}");
        assert_eq!(table.take(0, failed(), at(2)), None);
        assert_eq!(seen(&table), ["192.0.2.1:10101"]);
    }

    #[test]
    fn a_name_that_is_gone_stands_for_nobody_and_is_asked_again() {
        let mut table = table(&["a"]);
        table.take(0, stands_for(&["192.0.2.1"], 1), at(0));
        let said = table.take(0, GONE, at(1)).unwrap();
        assert!(said.contains("does not exist"), "{said}");
        assert_eq!(table.take(1, GONE, at(1)), None, "the other family says the same");
        assert!(seen(&table).is_empty() && table.failure().is_none());
        assert_eq!(table.pause(at(1)), TTL_MAX);
    }

    #[test]
    fn one_name_that_fails_does_not_lose_the_others() {
        let mut table = table(&["_a", "_b"]);
        table.take(0, failed(), at(0));
        assert!(table.failure().is_none(), "the other one has not been asked yet");
        table.take(1, stands_for(&["192.0.2.2"], 1), at(0));
        assert!(table.failure().is_none());
        assert_eq!(seen(&table), ["192.0.2.2:10101"]);
        table.take(1, failed(), at(1));
        let failure = table.failure().unwrap();
        assert_eq!((failure.line, failure.cause.as_str()), ("dns lookup error", "_a: SERVFAIL"));
    }

    #[test]
    fn a_target_that_cannot_be_looked_up_keeps_its_last_address() {
        let mut table = table(&["_a"]);
        let answer = |peers| Answer::Peers { peers, ttl: TTL_MIN, known_as: None };
        table.take(0, answer(vec![target("x", 1, Some("192.0.2.1")), target("y", 2, Some("192.0.2.2"))]), at(0));
        let said = table.take(0, answer(vec![target("x", 3, None), target("z", 4, None)]), at(1)).unwrap();
        assert!(said.contains("its target x"), "{said}");
        assert_eq!(seen(&table), ["192.0.2.1:3"]);
    }
}
