//! The questions that a node has for Consul, and what went wrong with them, in an operator's words.

use crate::discovery::consul::agent::{Agent, Answer, NoAnswer, SettingsError};
use crate::discovery::consul::answers::{Instance, Standing, escaped, instances, next_index, standing, unfit};
use crate::discovery::{Failure, Surroundings};
use hyper::StatusCode;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A blocking query lasts so many discovery intervals, 60 s where nothing else is said.
const INTERVALS_A_WAIT: u32 = 6;
/// Consul makes every longer wait this long.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Names that are resolved of one answer.
const NAMES_MAX: usize = 64;
/// Instances that do not pass and are named.
const UNFIT_SHOWN_MAX: usize = 8;
/// A check may take no longer, however rarely it runs.
const CHECK_TIMEOUT_MAX: Duration = Duration::from_secs(5);

const REGISTERING: &str = "failed to register service with Consul";
const ASKING: &str = "error asking Consul for instances";

/// What stays as it is.
pub(super) struct Asker {
    pub(super) surroundings: Surroundings,
    pub(super) agent: Result<Agent, SettingsError>,
    /// `service_name` and node id: two nodes never share one, and a node comes back to its own.
    pub(super) id: String,
    pub(super) check_interval: Duration,
    pub(super) deregister_after: Duration,
}

/// One datacenter, as of its last answer.
pub(super) struct Datacenter {
    /// `None`: the agent's own.
    pub(super) name: Option<String>,
    /// `None`: never asked with success.
    pub(super) index: Option<u64>,
    pub(super) found: Vec<SocketAddr>,
    pub(super) has_us: bool,
    pub(super) failures: u32,
    /// Names that did not resolve, so that each is said once.
    pub(super) unresolved: Vec<String>,
}

impl Asker {
    fn agent(&self, line: &'static str) -> Result<&Agent, Failure> {
        self.agent.as_ref().map_err(|fault| Failure {
            line,
            cause: fault.to_string(),
            remedy: "correct the configuration; this is not tried".to_owned(),
        })
    }

    pub(super) fn wait(&self) -> Duration {
        let wait = self.surroundings.interval.saturating_mul(INTERVALS_A_WAIT);
        wait.clamp(Duration::from_secs(1), WAIT_MAX)
    }

    pub(super) async fn register(&self) -> Result<(), Failure> {
        let agent = self.agent(REGISTERING)?;
        let advertise = self.surroundings.advertise;
        let body = serde_json::json!({
            "ID": self.id,
            "Name": self.surroundings.service_name,
            "Address": advertise.ip().to_string(),
            "Port": advertise.port(),
            "Check": {
                "Name": "gossip port",
                "TCP": advertise.to_string(),
                "Interval": written(self.check_interval),
                "Timeout": written(self.check_interval.min(CHECK_TIMEOUT_MAX)),
                "DeregisterCriticalServiceAfter": written(self.deregister_after),
            },
        });
        // Without the replacement, checks of an older registration would stay beside the new one.
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        let answer = agent.put(path, body.to_string().into_bytes(), self.surroundings.dial_timeout).await;
        let answer = answer.map_err(|fault| unanswered(REGISTERING, agent, &fault))?;
        match answer.status {
            StatusCode::OK => Ok(()),
            _ => Err(refused(REGISTERING, agent, &answer, &self.permission_to_write())),
        }
    }

    pub(super) async fn deregister(&self) -> Result<(), Failure> {
        let agent = self.agent(REGISTERING)?;
        let path = format!("/v1/agent/service/deregister/{}", escaped(&self.id));
        let answer = agent.put(&path, Vec::new(), self.surroundings.dial_timeout).await;
        let answer = answer.map_err(|fault| unanswered(REGISTERING, agent, &fault))?;
        match answer.status {
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(()),
            // As agents of before 1.11 say that there is nothing to take back.
            StatusCode::INTERNAL_SERVER_ERROR if agent.words(&answer.body).starts_with("Unknown service") => Ok(()),
            _ => Err(refused(REGISTERING, agent, &answer, &self.permission_to_write())),
        }
    }

    /// What the agent thinks of this node; `None`: it does not know it.
    pub(super) async fn standing(&self) -> Result<Option<Standing>, Failure> {
        let agent = self.agent(ASKING)?;
        let path = format!("/v1/agent/health/service/id/{}", escaped(&self.id));
        let answer = agent.get(&path, self.surroundings.dial_timeout).await;
        let answer = answer.map_err(|fault| unanswered(ASKING, agent, &fault))?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let standing = standing(&answer.body).map(|standing| match standing {
                    Standing::Failing(output) => Standing::Failing(agent.words(output.as_bytes())),
                    standing => standing,
                });
                standing.map(Some).map_err(|_| refused(ASKING, agent, &answer, ""))
            }
            _ => Err(refused(ASKING, agent, &answer, &self.permission_to_read())),
        }
    }

    /// As [`Asker::ask`]; but another datacenter that cannot be asked keeps its list, says so once,
    /// and is no failure: the own one's instances are worth having without it.
    pub(super) async fn ask_or_keep(&self, datacenter: &mut Datacenter, wait: Option<Duration>) -> Result<(), Failure> {
        let asked = self.ask(datacenter, wait).await;
        let Err(failure) = asked else {
            datacenter.failures = 0;
            return Ok(());
        };
        // What an agent counted before it failed need not be what it counts afterwards.
        datacenter.index = None;
        let Some(name) = &datacenter.name else { return Err(failure) };
        if datacenter.failures == 0 {
            let (Failure { line, cause, remedy }, kept) = (failure, datacenter.found.len());
            tracing::error!(datacenter = name, kept, "{line}: {cause}; {remedy}");
        }
        datacenter.failures = datacenter.failures.saturating_add(1);
        Ok(())
    }

    /// The passing instances of one datacenter; with `wait`, once they differ from the last ones
    /// or that long has passed.
    pub(super) async fn ask(&self, datacenter: &mut Datacenter, wait: Option<Duration>) -> Result<(), Failure> {
        let agent = self.agent(ASKING)?;
        let mut path = format!("/v1/health/service/{}?passing=1", escaped(&self.surroundings.service_name));
        if let Some(name) = &datacenter.name {
            path.push_str("&dc=");
            path.push_str(&escaped(name));
        }
        let mut within = self.surroundings.dial_timeout;
        if let (Some(wait), Some(index)) = (wait, datacenter.index) {
            path = format!("{path}&index={index}&wait={}", written(wait));
            // Consul waits up to a sixteenth longer, so that not all clients come back at once.
            within = within.saturating_add(wait).saturating_add(wait / 16);
        }
        let answer = agent.get(&path, within).await.map_err(|fault| unanswered(ASKING, agent, &fault))?;
        if answer.status != StatusCode::OK {
            return Err(refused(ASKING, agent, &answer, &self.permission_to_read()));
        }
        let instances = instances(&answer.body, self.surroundings.bind_port);
        let instances = instances.map_err(|_| refused(ASKING, agent, &answer, ""))?;
        datacenter.has_us = instances.iter().any(|instance| instance.id == self.id);
        datacenter.found = self.addresses(instances, &mut datacenter.unresolved).await;
        datacenter.index = Some(next_index(datacenter.index.unwrap_or(0), answer.index));
        Ok(())
    }

    /// Says which instances are registered here and not told to anybody, since a check of theirs
    /// does not pass. For somebody who looks on; what cannot be found out is not said.
    pub(super) async fn say_unfit(&self) {
        let Ok(agent) = self.agent(ASKING) else { return };
        let path = format!("/v1/health/service/{}", escaped(&self.surroundings.service_name));
        let Ok(answer) = agent.get(&path, self.surroundings.dial_timeout).await else { return };
        for instance in unfit(&answer.body).unwrap_or_default().into_iter().take(UNFIT_SHOWN_MAX) {
            tracing::warn!(
                instance = agent.words(instance.id.as_bytes()),
                "registered in Consul, and found by nobody while Consul's check of it fails: {}; verify that Consul's \
                 agent can reach that node's gossip port by TCP, and that the address it registered is its own",
                agent.words(instance.output.as_bytes())
            );
        }
    }

    /// Names are resolved here, all of them within one look-up's time; those that cannot be are
    /// left out.
    async fn addresses(&self, instances: Vec<Instance>, unresolved: &mut Vec<String>) -> Vec<SocketAddr> {
        let (mut found, mut names) = (Vec::new(), Vec::new());
        for instance in instances {
            match instance.host.parse::<IpAddr>() {
                Ok(ip) => found.push(SocketAddr::new(ip, instance.port)),
                Err(_) => names.push((instance.host, instance.port)),
            }
        }
        let mut resolved = Vec::new();
        let resolving = async {
            for (name, port) in names.iter().take(NAMES_MAX) {
                let addresses = tokio::net::lookup_host((name.as_str(), *port)).await;
                let addresses: Vec<_> = addresses.map(Iterator::collect).unwrap_or_default();
                let is_ours = |peer: &&SocketAddr| peer.is_ipv4() == self.surroundings.advertise.is_ipv4();
                if let Some(address) = addresses.iter().find(is_ours).or(addresses.first()) {
                    found.push(*address);
                    resolved.push(name.clone());
                }
            }
        };
        // Late ones are unresolved ones; the next answer tries them again.
        let _ = tokio::time::timeout(self.surroundings.dial_timeout, resolving).await;
        names.retain(|(name, _)| !resolved.contains(name));
        for (name, _) in &names {
            if !unresolved.contains(name) {
                tracing::warn!(
                    host = name,
                    "skipping invalid host address: an instance in Consul has a name that does not resolve here; register it with its address"
                );
            }
        }
        *unresolved = names.into_iter().map(|(name, _)| name).collect();
        found
    }

    fn permission_to_write(&self) -> String {
        format!("service:write on {:?}", self.surroundings.service_name)
    }

    pub(super) fn permission_to_read(&self) -> String {
        format!("service:read on {:?} and node:read on all nodes", self.surroundings.service_name)
    }
}

impl Datacenter {
    pub(super) fn new(name: Option<String>) -> Self {
        Self { name, index: None, found: Vec::new(), has_us: false, failures: 0, unresolved: Vec::new() }
    }
}

/// As Go reads durations.
fn written(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn unanswered(line: &'static str, agent: &Agent, fault: &NoAnswer) -> Failure {
    Failure {
        line,
        cause: format!("{}: {fault}", agent.address()),
        remedy: "verify that `consul_address` names a Consul agent, with https:// if it speaks TLS, and that no firewall keeps its port from us".to_owned(),
    }
}

/// An answer that is no 200, or one that cannot be read.
fn refused(line: &'static str, agent: &Agent, answer: &Answer, permission: &str) -> Failure {
    let Answer { status, body, .. } = answer;
    let words = agent.words(body);
    let remedy = match *status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            format!("set `consul_token` to an ACL token with {permission}")
        }
        _ if words.contains("HTTP request to an HTTPS server") => {
            "begin `consul_address` with https://, and set `consul_ca_cert_pem`".to_owned()
        }
        _ if words.contains("No path to datacenter") => {
            "compare `consul_datacenters` with what `consul catalog datacenters` lists".to_owned()
        }
        StatusCode::OK => "verify that `consul_address` names a Consul agent and nothing else".to_owned(),
        _ => "look into the Consul agent's log; it will be tried again".to_owned(),
    };
    Failure { line, cause: format!("{} answered {status}: {words}", agent.address()), remedy }
}
