//! Peers from Kubernetes: the ready pods of a namespace that match a label selector. They are
//! listed once, in pages, and watched from there; listed again when the API server has forgotten
//! the version that we know (410), or when a watch ended without a word.
//!
//! Plain list and watch, not streaming lists: those never finish with older API servers, and one
//! page holds what a cluster can have. Absent: proxies to the API server, writing anything to it.

use super::{Failure, Source, Surroundings};
use crate::discovery::kubernetes::api::{Event, Question, Trouble, Watch};
use crate::discovery::kubernetes::pods::{PODS_MAX, Pods, Reading};
use hyper::StatusCode;
use kube::Client;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{sleep, timeout};

mod api;
mod pods;
#[cfg(test)]
mod tests;

/// A watch lasts so many discovery intervals, 60 s where nothing else is said: the longest time
/// for which a connection that died silently is taken for a quiet one.
const INTERVALS_A_WATCH: u32 = 6;
/// The shortest and the longest watch in seconds; API servers end them after 300 s to 600 s.
const WATCH_SECONDS: (u64, u64) = (2, 290);
/// A watch that ended sooner, without an event, was of no use.
const WATCH_USEFUL: Duration = Duration::from_secs(1);
/// Pages of a list: those of [`PODS_MAX`] pods, and some that are not full.
const PAGES_MAX: usize = 32;

const LISTING: &str = "error listing pods";
const WATCHING: &str = "error listing pods (watch)";
const CONFIG: &str = "error getting kubernetes config";

/// What the configuration says of Kubernetes alone.
pub(crate) struct Settings {
    /// `k8s_namespace`
    pub(crate) namespace: String,
    /// `k8s_label_selector`
    pub(crate) label_selector: Option<String>,
    /// `k8s_kubeconfig`
    pub(crate) kubeconfig: Option<String>,
}

/// Peers by the Kubernetes API.
pub(crate) struct Kubernetes {
    kubeconfig: Option<String>,
    /// `None`: there is no label selector, and nobody is asked.
    question: Option<Question>,
    reading: Reading,
    watch_seconds: u32,
    client: Option<Client>,
    /// The client was accepted at least once; a 401 then means that its token has been replaced.
    was_accepted: bool,
    pods: Pods,
    /// What `pods` are as of; `None`: they have to be listed.
    version: Option<String>,
    watch: Option<OpenWatch>,
    /// A version was gone, and no event came since.
    was_gone: bool,
    /// The last look failed; the next success is told at once, not with the next change.
    is_recovering: bool,
    said: Said,
}

struct OpenWatch {
    watch: Watch,
    /// An event or a bookmark came.
    was_heard: bool,
    /// That, or it lasted for [`WATCH_USEFUL`].
    was_useful: bool,
}

impl OpenWatch {
    async fn next(&mut self, silence: Duration) -> Result<Option<Event>, Trouble> {
        let useful = sleep(WATCH_USEFUL);
        let next = timeout(silence, self.watch.next());
        tokio::pin!(useful, next);
        loop {
            tokio::select! {
                event = &mut next => return event.map_err(|_| Trouble::Late(silence)).flatten(),
                () = &mut useful, if !self.was_useful => self.was_useful = true,
            }
        }
    }
}

/// What was said once.
#[derive(Default)]
struct Said {
    no_selector: bool,
    no_pods: bool,
    too_many: bool,
}

impl Kubernetes {
    /// Connects to nobody yet.
    pub(crate) fn new(surroundings: &Surroundings, settings: Settings) -> Self {
        let Settings { namespace, label_selector, kubeconfig } = settings;
        let within = surroundings.dial_timeout;
        let watch = surroundings.interval.saturating_mul(INTERVALS_A_WATCH).as_secs();
        Self {
            kubeconfig,
            question: label_selector.map(|label_selector| Question { namespace, label_selector, within }),
            reading: Reading { prefers_ipv4: surroundings.advertise.is_ipv4(), port_default: surroundings.bind_port },
            watch_seconds: u32::try_from(watch.clamp(WATCH_SECONDS.0, WATCH_SECONDS.1)).unwrap_or(60),
            client: None,
            was_accepted: false,
            pods: Pods::default(),
            version: None,
            watch: None,
            was_gone: false,
            is_recovering: false,
            said: Said::default(),
        }
    }

    /// Goes on until there is something to tell.
    async fn follow_pods(&mut self) -> Result<(), (&'static str, Trouble)> {
        loop {
            let (line, step) = if self.watch.is_some() {
                (WATCHING, self.hear().await)
            } else if self.version.is_some() {
                (WATCHING, self.open().await)
            } else {
                (LISTING, self.list().await)
            };
            match step {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Trouble::Denied { status: StatusCode::UNAUTHORIZED, .. }) if self.was_accepted => {
                    (self.client, self.was_accepted, self.watch) = (None, false, None);
                }
                Err(Trouble::Gone) if !self.was_gone => {
                    (self.was_gone, self.version, self.watch) = (true, None, None);
                }
                Err(trouble) => return Err((line, trouble)),
            }
        }
    }

    /// Lists all pods; they are always worth telling.
    async fn list(&mut self) -> Result<bool, Trouble> {
        let client = self.client().await?;
        let Some(question) = &self.question else { return Ok(false) };
        let mut pods = Pods::default();
        let (mut version, mut continued) = (None, None);
        for _ in 0..PAGES_MAX {
            let page = api::page(&client, question, continued.as_deref()).await?;
            self.was_accepted = true;
            page.items.iter().for_each(|pod| {
                pods.put(pod, self.reading);
            });
            version = page.metadata.resource_version.filter(|version| !version.is_empty());
            continued = page.metadata.continue_.filter(|token| !token.is_empty());
            if continued.is_none() {
                break;
            }
        }
        let version = version.ok_or_else(|| Trouble::Unreadable("a list without a version".to_owned()))?;
        if (continued.is_some() || pods.len() >= PODS_MAX) && !self.said.too_many {
            self.said.too_many = true;
            tracing::warn!(followed = pods.len(), "more pods than can be followed; narrow `k8s_label_selector`");
        }
        if pods.len() == 0 && !self.said.no_pods {
            tracing::warn!(
                "no pod in namespace {:?} has the labels {:?}, not even this node's own; compare `k8s_namespace` and `k8s_label_selector` with `kubectl get pods --show-labels`",
                question.namespace,
                question.label_selector
            );
        }
        self.said.no_pods = pods.len() == 0;
        (self.pods, self.version) = (pods, Some(version));
        Ok(true)
    }

    /// Opens a watch. That is worth telling after a failure only.
    async fn open(&mut self) -> Result<bool, Trouble> {
        let client = self.client().await?;
        let (Some(question), Some(version)) = (&self.question, &self.version) else { return Ok(false) };
        match api::watch(&client, question, version, self.watch_seconds).await {
            Ok(watch) => {
                self.was_accepted = true;
                self.watch = Some(OpenWatch { watch, was_heard: false, was_useful: false });
                Ok(self.is_recovering)
            }
            Err(trouble) => {
                // Another version may be what it wants.
                if matches!(trouble, Trouble::Refused { code: 400..429, .. }) {
                    self.version = None;
                }
                Err(trouble)
            }
        }
    }

    /// Waits for one event; whether it changed the peers.
    async fn hear(&mut self) -> Result<bool, Trouble> {
        let Some(open) = &mut self.watch else { return Ok(false) };
        // The server ends a watch by itself; silence beyond that is a connection that died.
        let within = self.question.as_ref().map_or(Duration::ZERO, |question| question.within);
        let silence = Duration::from_secs(u64::from(self.watch_seconds)).saturating_add(within);
        let event = open.next(silence).await;
        match event {
            Ok(Some(event)) => {
                (open.was_heard, open.was_useful, self.was_gone) = (true, true, false);
                Ok(self.apply(event))
            }
            Ok(None) => {
                let (was_heard, was_useful) = (open.was_heard, open.was_useful);
                self.watch = None;
                if !was_heard {
                    // Not even a bookmark: perhaps our version is ahead of a server that was
                    // restored from a backup, and would stay silent for long.
                    self.version = None;
                }
                // Telling what is known already costs nothing, and paces what follows.
                if was_useful { Ok(true) } else { Err(Trouble::Broken("the watch ended at once".to_owned())) }
            }
            Err(trouble) => {
                self.watch = None;
                if matches!(trouble, Trouble::Refused { .. } | Trouble::Unreadable(_)) {
                    self.version = None;
                }
                Err(trouble)
            }
        }
    }

    fn apply(&mut self, event: Event) -> bool {
        let (changed, version) = match event {
            Event::Present(pod) => (self.pods.put(&pod, self.reading), pod.metadata.resource_version),
            Event::Absent(pod) => (self.pods.take(&pod), pod.metadata.resource_version),
            Event::Bookmark(version) => (false, Some(version)),
        };
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            self.version = Some(version);
        }
        changed
    }

    async fn client(&mut self) -> Result<Client, Trouble> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let within = self.question.as_ref().map_or(Duration::ZERO, |question| question.within);
        let client = api::client(self.kubeconfig.as_deref(), within).await?;
        self.client = Some(client.clone());
        Ok(client)
    }
}

impl Source for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        if self.question.is_none() {
            if self.said.no_selector {
                return pending().await;
            }
            self.said.no_selector = true;
            tracing::error!(
                "no pods are looked for: set `k8s_label_selector` to the labels of this node's pods, to \"app=deepintshield\" for example"
            );
            return Ok(Vec::new());
        }
        match self.follow_pods().await {
            Ok(()) => {
                self.is_recovering = false;
                Ok(self.pods.peers())
            }
            Err((line, trouble)) => {
                // Credentials are read again, since they may be what was wrong.
                (self.client, self.was_accepted, self.watch, self.is_recovering) = (None, false, None, true);
                Err(self.failure(line, &trouble))
            }
        }
    }

    /// Lists, and opens a watch too: the right to it is one of its own.
    async fn peek(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        let found = self.look().await?;
        let Some(question) = &self.question else { return Ok(found) };
        if found.is_empty() && self.pods.len() > 0 {
            tracing::warn!(
                "{} pods in namespace {:?} have the labels {:?}, and none of them is running and ready; see `kubectl get pods`",
                self.pods.len(),
                question.namespace,
                question.label_selector
            );
        }
        self.open().await.map_err(|trouble| self.failure(WATCHING, &trouble))?;
        self.watch = None;
        Ok(found)
    }
}

impl Kubernetes {
    fn failure(&self, line: &'static str, trouble: &Trouble) -> Failure {
        let namespace = self.question.as_ref().map_or("", |question| question.namespace.as_str());
        let remedy = match trouble {
            Trouble::Config(_) => {
                return Failure {
                    line: CONFIG,
                    cause: trouble.to_string(),
                    remedy: "in a pod, give it a ServiceAccount and do not switch `automountServiceAccountToken` off; elsewhere, name a file in `k8s_kubeconfig` or in KUBECONFIG".to_owned(),
                };
            }
            Trouble::Denied { status: StatusCode::UNAUTHORIZED, .. } => {
                "the API server does not accept our credentials: verify that the ServiceAccount exists and that its token or the kubeconfig's user has not expired".to_owned()
            }
            Trouble::Denied { .. } => format!(
                "give the ServiceAccount of this pod a Role in namespace {namespace:?} with the verbs get, list and watch on pods, and a RoleBinding to it"
            ),
            Trouble::Refused { code: 400..429, .. } => {
                "verify that `k8s_label_selector` is one, as `kubectl get pods -l` takes it".to_owned()
            }
            Trouble::Broken(_) | Trouble::Late(_) => {
                "verify that the API server can be reached from here, and that no NetworkPolicy forbids it".to_owned()
            }
            Trouble::Gone | Trouble::Refused { .. } | Trouble::Unreadable(_) => {
                "look into the API server's log; it will be tried again".to_owned()
            }
        };
        Failure { line, cause: trouble.to_string(), remedy }
    }
}
