//! Provider names → addresses, one task a host. Answers and failures become events; what is kept
//! of them is [`crate::addresses`]'s matter.
//!
//! The system's configuration and hosts file are used, and read again now and then, since a
//! machine's DNS may come up after the node. No cache of its own: each answer is asked again when
//! its TTL is over, within bounds that a hostile answer cannot leave.

use crate::event::Event;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use shared::bounds::ENDPOINTS_PER_PROVIDER_MAX;
use shared::clock::{Clock, Nanos};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// An answer is used at least this long, whatever its TTL says.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// And at most this long.
pub const TTL_MAX: Duration = Duration::from_secs(300);
/// Pause after the first failure; doubled for each further one.
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
/// Longest pause after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// One look-up in all, retries by the DNS library included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(6);
/// One question to one server.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long `/etc/resolv.conf` and `/etc/hosts` are believed.
const SYSTEM_CONFIG_AGE_MAX: Duration = Duration::from_secs(60);
/// Look-ups in flight at one time, all hosts together.
const LOOKUPS_IN_FLIGHT_MAX: usize = 32;

/// What a host stands for, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bounded; not empty.
    pub addresses: Vec<IpAddr>,
    /// When to ask again; `None`: never, the answer cannot change.
    pub ttl: Option<Duration>,
}

/// Follows the hosts of the configuration.
pub struct Resolver {
    system: Arc<System>,
    events: mpsc::Sender<Event>,
    tasks: BTreeMap<String, Task>,
}

/// Ends its task when dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Resolver {
    /// Asks nobody yet.
    pub fn new(events: mpsc::Sender<Event>, clock: Clock) -> Self {
        Self { system: Arc::new(System::new(clock)), events, tasks: BTreeMap::new() }
    }

    /// Follows exactly these hosts from now on. To be called inside a tokio runtime.
    pub fn follow(&mut self, hosts: &BTreeSet<String>) {
        self.tasks.retain(|host, _| hosts.contains(host));
        for host in hosts {
            if !self.tasks.contains_key(host) {
                let system = Arc::clone(&self.system);
                let ask = move |host: String| {
                    let system = Arc::clone(&system);
                    async move { system.ask(&host).await }
                };
                let task = tokio::spawn(follow_host(host.clone(), ask, self.events.clone()));
                self.tasks.insert(host.clone(), Task(task));
            }
        }
    }
}

/// Asks for one host until nobody listens. Generic over who answers, so that it can be tested.
async fn follow_host<A, F>(host: String, ask: A, events: mpsc::Sender<Event>)
where
    A: Fn(String) -> F,
    F: Future<Output = Result<Answer, String>>,
{
    let mut failures = 0_u32;
    loop {
        let (event, pause) = match ask(host.clone()).await {
            Ok(answer) => {
                failures = 0;
                let ttl = answer.ttl.map(|ttl| ttl.clamp(TTL_MIN, TTL_MAX));
                (Event::Resolved { host: host.clone(), addresses: answer.addresses }, ttl)
            }
            Err(reason) => {
                let pause = backoff(failures);
                failures = failures.saturating_add(1);
                (Event::ResolveFailed { host: host.clone(), reason }, Some(jittered(pause)))
            }
        };
        // The queue is bounded; waiting for room slows the asking down, which is right.
        if events.send(event).await.is_err() {
            return;
        }
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return,
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_INITIAL.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX)
}

/// Between 0.8 and 1.2 of it, so that nodes that failed together do not ask together.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(0.8 + 0.4 * random)
}

/// The machine's own idea of names.
pub(crate) struct System {
    clock: Clock,
    /// Made when, and from the system's files as they were then.
    resolver: Mutex<Option<(Nanos, TokioResolver)>>,
    lookups: tokio::sync::Semaphore,
}

impl System {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, resolver: Mutex::default(), lookups: tokio::sync::Semaphore::new(LOOKUPS_IN_FLIGHT_MAX) }
    }

    async fn ask(&self, host: &str) -> Result<Answer, String> {
        if let Some(answer) = without_dns(host) {
            return Ok(answer);
        }
        let _permit = self.lookups.acquire().await.map_err(|error| error.to_string())?;
        let resolver = self.resolver()?;
        let lookup = tokio::time::timeout(LOOKUP_TIMEOUT, resolver.lookup_ip(host))
            .await
            .map_err(|_| format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs()))?
            .map_err(|error| error.to_string())?;
        let ttl = lookup.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or(0);
        let addresses = reachable(lookup.iter().take(ENDPOINTS_PER_PROVIDER_MAX).collect());
        if addresses.is_empty() {
            return Err("the answer holds no address".to_owned());
        }
        Ok(Answer { addresses, ttl: Some(Duration::from_secs(u64::from(ttl))) })
    }

    /// A resolver made from the system's files as they are now, or were less than a minute ago.
    pub(crate) fn resolver(&self) -> Result<TokioResolver, String> {
        let mut kept = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_at, resolver)) = kept.as_ref()
            && self.clock.now().since(*made_at) < SYSTEM_CONFIG_AGE_MAX
        {
            return Ok(resolver.clone());
        }
        let provider = TokioRuntimeProvider::default();
        // Without name servers the hosts file still answers; everything else fails and is asked
        // again after a pause.
        let mut builder = TokioResolver::builder(provider.clone()).unwrap_or_else(|_| {
            TokioResolver::builder_with_config(ResolverConfig::from_parts(None, vec![], vec![]), provider)
        });
        let options = builder.options_mut();
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Always;
        options.timeout = options.timeout.min(QUESTION_TIMEOUT);
        options.attempts = options.attempts.min(2);
        let resolver = builder.build().map_err(|error| error.to_string())?;
        *kept = Some((self.clock.now(), resolver.clone()));
        Ok(resolver)
    }
}

/// Hosts that no server is asked for: addresses, and the machine itself (RFC 6761, section 6.3).
/// `localhost` is the IPv4 address, since that is where the usual model servers listen; for the
/// other one there is `[::1]`.
pub(crate) fn without_dns(host: &str) -> Option<Answer> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let address = match name.parse() {
        Ok(address) => address,
        Err(_) if name == "localhost" || name.ends_with(".localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Err(_) => return None,
    };
    Some(Answer { addresses: vec![address], ttl: None })
}

/// Leaves out addresses of a family this machine has no route for: on a machine without IPv6
/// every second connection would fail. If that leaves none, all stay, and connecting says why.
fn reachable(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let reachable: Vec<IpAddr> = addresses.iter().copied().filter(|address| has_route(*address)).collect();
    if reachable.is_empty() { addresses } else { reachable }
}

/// Connecting a datagram socket sends nothing; it looks the route up.
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| socket.connect(SocketAddr::new(address, 443))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn answer(ttl_seconds: u64) -> Answer {
        Answer { addresses: vec![ip("192.0.2.1")], ttl: Some(Duration::from_secs(ttl_seconds)) }
    }

    /// Seconds of virtual time between the questions, when these are the answers.
    async fn pauses(answers: Vec<Result<Answer, String>>) -> Vec<u64> {
        const STEP: Duration = Duration::from_millis(50);
        let count = answers.len();
        let answers = RefCell::new(VecDeque::from(answers));
        let steps = Cell::new(0_u32);
        let asked_at = RefCell::new(Vec::new());
        let (sender, mut receiver) = mpsc::channel(64);
        let ask = |_| {
            asked_at.borrow_mut().push(steps.get());
            let answer = answers.borrow_mut().pop_front();
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        };
        let until_all_are_asked = async {
            while asked_at.borrow().len() <= count {
                tokio::time::sleep(STEP).await;
                steps.set(steps.get() + 1);
            }
        };
        tokio::select! {
            () = follow_host("a".to_owned(), ask, sender) => {}
            () = until_all_are_asked => {}
        }
        receiver.close();
        let asked_at = asked_at.into_inner();
        asked_at.windows(2).map(|pair| (STEP * (pair[1] - pair[0])).as_secs_f64().round() as u64).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_asked_again_when_its_ttl_is_over_within_bounds() {
        let answers = [30, 0, u64::from(u32::MAX), 7].map(answer).map(Ok).to_vec();
        assert_eq!(pauses(answers).await, [30, 1, 300, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_asked_again_ever_more_slowly() {
        let failures = (0..9).map(|_| Err("SERVFAIL".to_owned())).collect();
        let pauses = pauses(failures).await;
        let bounds = [(1, 1), (2, 2), (3, 5), (6, 10), (13, 19), (26, 38), (48, 72), (48, 72), (48, 72)];
        assert_eq!(pauses.len(), bounds.len());
        for (pause, (least, most)) in pauses.iter().zip(bounds) {
            assert!((least..=most).contains(pause), "{pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_cannot_change_is_asked_once() {
        let (sender, mut receiver) = mpsc::channel(4);
        follow_host("127.0.0.1".to_owned(), |host| async move { Ok(without_dns(&host).unwrap()) }, sender).await;
        assert!(matches!(receiver.recv().await, Some(Event::Resolved { .. })));
        assert!(receiver.recv().await.is_none());
    }

    #[test]
    fn addresses_and_localhost_need_no_server() {
        for (host, address) in [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("localhost", "127.0.0.1"),
            ("sim.localhost", "127.0.0.1"),
        ] {
            assert_eq!(without_dns(host).unwrap().addresses, [ip(address)], "{host}");
        }
        assert_eq!(without_dns("localhost.example.com"), None);
    }

    /// Whatever this machine's resolv.conf says: a failure is a sentence, not a panic or a hang.
    #[tokio::test]
    async fn a_name_that_does_not_exist_is_a_failure() {
        let reason = System::new(Clock::start()).ask("no-such-name.invalid").await.unwrap_err();
        assert!(!reason.is_empty());
    }

    #[test]
    fn loopback_always_has_a_route() {
        assert!(has_route(ip("127.0.0.1")));
    }
}
