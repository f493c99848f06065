//! Peers by etcd: every node keeps one key under a lease, lists the others' keys, and watches
//! them for changes. Dead nodes' keys go with their leases.
//!
//! A change that the watch tells makes us list again, so that the list is the only truth: events
//! are not read, and none can be missed or misunderstood. One endpoint is spoken to at a time;
//! when it fails the next one is, with the same lease, which belongs to all of etcd.
//!
//! Absent: client certificates (the configuration has none), addresses that etcd itself announces.

use super::pace::Pace;
use super::{Failure, PEERS_PER_SOURCE_MAX, Source, Surroundings};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, KeyValue, PutOptions, TlsOptions, Txn,
    TxnOp, WatchOptions, WatchStream,
};
use fault::{Fault, Kind};
use shared::config::base_url::{BaseUrl, Scheme};
use shared::secret::Secret;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

mod entry;
mod fault;
#[cfg(test)]
mod tests;

/// The page's lines.
const CLIENT_ERROR: &str = "etcd client error";
const NOT_REGISTERED: &str = "failed to register with etcd";

/// Bytes of one list: every peer that is kept, with room for what others wrote beside.
const LIST_BYTES_MAX: usize = 1024 * 1024;
/// One endpoint has at least this long, unless `dial_timeout` is shorter.
const ENDPOINT_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// A lease is renewed three times in its life, and this often at least: a renewal is also how an
/// endpoint that went silent is noticed.
const RENEWAL_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// Endpoints that a failure names; the rest are counted.
const CAUSES_SHOWN_MAX: usize = 3;
/// Lines about entries that cannot be read, for one list.
const BAD_ENTRIES_SHOWN_MAX: usize = 8;

/// `etcd_endpoints` and what belongs to them.
pub(crate) struct Settings {
    /// At least one.
    pub(crate) endpoints: Vec<BaseUrl>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    /// Instead of the usual authorities.
    pub(crate) ca_cert_pem: Option<String>,
    pub(crate) lease_ttl: Duration,
}

/// See the module.
pub(crate) struct Etcd {
    settings: Settings,
    surroundings: Surroundings,
    prefix: String,
    key: String,
    value: Vec<u8>,
    session: Option<Session>,
    /// Ours, as far as we know; it ends with us, or with etcd's data.
    lease: Option<i64>,
    renewal: Option<Interval>,
    /// The endpoint that is tried first.
    next_endpoint: usize,
    refusals: Pace,
    lost_leases: Pace,
    /// Keys, with their revision, that were complained about.
    bad_entries: BTreeSet<(Vec<u8>, i64)>,
    is_contested: bool,
}

/// A connection that listed the prefix and watches it.
struct Session {
    client: Client,
    watch: WatchStream,
}

/// What one list said.
struct Listing {
    entries: Vec<KeyValue>,
    revision: i64,
}

impl Source for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        let listing = match self.change().await {
            Some(listing) => listing,
            None => self.open().await?,
        };
        if let Err(fault) = self.register(&listing).await {
            self.say_or_fail(fault)?;
        }
        Ok(self.peers(&listing))
    }

    /// Lists, and asks etcd whether it would let us register.
    async fn peek(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        let listing = self.open().await?;
        self.rehearse().await.map_err(|fault| fault.into_failure(NOT_REGISTERED, &self.prefix))?;
        Ok(self.peers(&listing))
    }

    async fn leave(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        if self.session.is_none() {
            drop(self.open().await);
        }
        let Some(session) = &mut self.session else { return };
        match session.client.lease_revoke(lease).await {
            Ok(_) => tracing::info!(source = "etcd", key = self.key, "unregistered"),
            Err(error) => {
                let Fault { cause, .. } = Fault::of(&error);
                tracing::warn!(source = "etcd", key = self.key, cause, "could not unregister; the lease will expire");
            }
        }
    }
}

impl Etcd {
    /// Asks nobody yet.
    pub(crate) fn new(settings: Settings, surroundings: Surroundings) -> Self {
        let prefix = entry::prefix(&surroundings.service_name);
        Self {
            key: format!("{prefix}{}", surroundings.node_id),
            value: entry::value(&surroundings.node_id, surroundings.advertise),
            prefix,
            settings,
            surroundings,
            session: None,
            lease: None,
            renewal: None,
            next_endpoint: 0,
            refusals: Pace::new(),
            lost_leases: Pace::new(),
            bad_entries: BTreeSet::new(),
            is_contested: false,
        }
    }

    /// Waits until a key changes, and renews the lease meanwhile. `None`: there is no session, or
    /// it has just ended.
    async fn change(&mut self) -> Option<Listing> {
        let bound = self.surroundings.dial_timeout;
        let period = (self.settings.lease_ttl / 3).min(RENEWAL_INTERVAL_MAX);
        loop {
            let session = self.session.as_mut()?;
            let renewal = self.renewal.get_or_insert_with(|| {
                let mut renewal = interval(period);
                renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
                renewal.reset();
                renewal
            });
            tokio::select! {
                message = session.watch.message() => match message {
                    // A compaction overtook us, or the server gave the watch up.
                    Ok(Some(message)) if message.canceled() => {
                        tracing::info!(source = "etcd", reason = message.cancel_reason(), "the watch ended; listing again");
                        self.session = None;
                        return None;
                    }
                    Ok(Some(message)) if message.events().is_empty() => continue,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => {
                        self.session = None;
                        return None;
                    }
                },
                _ = renewal.tick() => {
                    if self.renew().await { continue }
                }
            }
            // Out of the `select!`, so that an answer that is being read is not dropped with it.
            let session = self.session.as_mut()?;
            if let Ok(Ok(listing)) = timeout(bound, list(&mut session.client, &self.prefix)).await {
                return Some(listing);
            }
            self.session = None;
        }
    }

    /// Renews the lease. `false`: there is none (any more), or it cannot be told; to be found out
    /// by listing and registering again.
    async fn renew(&mut self) -> bool {
        let (Some(session), Some(lease)) = (&mut self.session, self.lease) else { return false };
        let bound = self.surroundings.dial_timeout;
        let fault = match timeout(bound, session.client.lease_keep_alive(lease)).await {
            Ok(Ok(_)) => {
                self.lost_leases = Pace::new();
                return true;
            }
            Ok(Err(error)) => Fault::of(&error),
            Err(_) => Fault::silent(bound),
        };
        if fault.kind == Kind::LeaseLost {
            self.lease = None;
        } else {
            self.session = None;
        }
        if self.lost_leases.after_failure().is_worth_saying {
            let remedy = Kind::LeaseLost.remedy(&self.prefix);
            tracing::warn!(
                source = "etcd",
                "etcd lease keepalive failed: {}; registering again; {remedy}",
                fault.cause
            );
        }
        false
    }

    /// Connects to the first endpoint that answers, lists, and watches from there on.
    async fn open(&mut self) -> Result<Listing, Failure> {
        self.session = None;
        let count = self.settings.endpoints.len();
        let whole = self.surroundings.dial_timeout;
        let each = (whole / u32::try_from(count).unwrap_or(u32::MAX).max(1)).max(ENDPOINT_TIMEOUT_MIN).min(whole);
        let mut faults = Vec::new();
        let tried = timeout(whole, async {
            for _ in 0..count {
                let at = self.next_endpoint % count;
                let endpoint = self.settings.endpoints.get(at)?;
                let fault = match timeout(each, connect(&self.settings, endpoint, &self.prefix)).await {
                    Ok(Ok((session, listing))) => {
                        self.session = Some(session);
                        return Some(listing);
                    }
                    Ok(Err(fault)) => fault,
                    Err(_) => Fault::silent(each),
                };
                faults.push((at, fault));
                self.next_endpoint = (at + 1) % count;
            }
            None
        });
        match tried.await {
            Ok(Some(listing)) => Ok(listing),
            Ok(None) | Err(_) => Err(self.failure_of(&faults)),
        }
    }

    /// The causes of all endpoints, and the remedy of the most telling one.
    fn failure_of(&self, faults: &[(usize, Fault)]) -> Failure {
        let shown = faults.iter().take(CAUSES_SHOWN_MAX).filter_map(|(at, fault)| {
            self.settings.endpoints.get(*at).map(|endpoint| format!("{endpoint}: {}", fault.cause))
        });
        let mut cause = shown.collect::<Vec<_>>().join("; ");
        if faults.len() > CAUSES_SHOWN_MAX {
            cause = format!("{cause}; and {} more endpoints", faults.len() - CAUSES_SHOWN_MAX);
        }
        let kind = faults.iter().map(|(_, fault)| fault.kind).max().unwrap_or(Kind::Unreachable);
        Failure { line: CLIENT_ERROR, cause, remedy: kind.remedy(&self.prefix) }
    }

    /// Makes sure of our lease and our key.
    async fn register(&mut self, listing: &Listing) -> Result<(), Fault> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let bound = self.surroundings.dial_timeout;
        let client = &mut session.client;
        if let Some(lease) = self.lease {
            match bounded(bound, client.lease_keep_alive(lease)).await {
                Ok(_) => {}
                Err(fault) if fault.kind == Kind::LeaseLost => {
                    let remedy = fault.kind.remedy(&self.prefix);
                    tracing::warn!(
                        source = "etcd",
                        key = self.key,
                        "the lease is gone; registering with a new one. Where this happens often, {remedy}"
                    );
                    self.lease = None;
                }
                Err(fault) => return Err(fault),
            }
        }
        let found = listing.entries.iter().find(|entry| entry.key() == self.key.as_bytes());
        if let Some(lease) = self.lease {
            match found {
                Some(entry) if entry.lease() == lease && entry.value() == self.value => {
                    self.is_contested = false;
                    return Ok(());
                }
                Some(entry) if entry.lease() != lease => {
                    if !std::mem::replace(&mut self.is_contested, true) {
                        tracing::error!(
                            source = "etcd",
                            key = self.key,
                            "another node has registered under our id and took our place; give each node its own \
                             `node_id`"
                        );
                    }
                    return Ok(());
                }
                _ => {}
            }
        }
        let lease = if let Some(lease) = self.lease {
            lease
        } else {
            let seconds = i64::try_from(self.settings.lease_ttl.as_secs().max(1)).unwrap_or(i64::MAX);
            *self.lease.insert(bounded(bound, client.lease_grant(seconds, None)).await?.id())
        };
        let options = PutOptions::new().with_lease(lease);
        bounded(bound, client.put(self.key.as_str(), self.value.clone(), Some(options))).await?;
        self.refusals = Pace::new();
        self.is_contested = false;
        tracing::info!(source = "etcd", key = self.key, address = %self.surroundings.advertise, "registered");
        Ok(())
    }

    /// A refusal to register does not keep us from seeing the others; everything else ends the
    /// session.
    fn say_or_fail(&mut self, fault: Fault) -> Result<(), Failure> {
        if !fault.is_refusal() {
            self.session = None;
            self.next_endpoint = self.next_endpoint.wrapping_add(1);
            return Err(fault.into_failure(NOT_REGISTERED, &self.prefix));
        }
        if self.refusals.after_failure().is_worth_saying {
            let Failure { line, cause, remedy } = fault.into_failure(NOT_REGISTERED, &self.prefix);
            tracing::error!(source = "etcd", "{line}: {cause}; others cannot find this node; {remedy}");
        }
        Ok(())
    }

    /// Has etcd grant a lease, and check the right to write our key, without writing it: a
    /// transaction's writes are checked before its condition, which here never holds.
    async fn rehearse(&mut self) -> Result<(), Fault> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let bound = self.surroundings.dial_timeout;
        let client = &mut session.client;
        let seconds = i64::try_from(self.settings.lease_ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let lease = bounded(bound, client.lease_grant(seconds, None)).await?.id();
        let never = Compare::version(self.key.as_str(), CompareOp::Less, 0);
        let write = TxnOp::put(self.key.as_str(), self.value.clone(), None);
        let rehearsed = bounded(bound, client.txn(Txn::new().when([never]).and_then([write]))).await;
        bounded(bound, client.lease_revoke(lease)).await?;
        rehearsed.map(drop)
    }

    /// The addresses of a list, ours among them; what is no entry is left out and said once.
    fn peers(&mut self, listing: &Listing) -> Vec<SocketAddr> {
        let mut bad = BTreeSet::new();
        let mut unsaid = 0_usize;
        let mut peers = Vec::with_capacity(listing.entries.len());
        for found in &listing.entries {
            let why = match entry::read(&self.prefix, found.key(), found.value()) {
                Ok(address) => {
                    peers.push(address);
                    continue;
                }
                Err(why) => why,
            };
            let named = (found.key().to_vec(), found.mod_revision());
            if !self.bad_entries.contains(&named) {
                if bad.len() < BAD_ENTRIES_SHOWN_MAX {
                    let key = entry::shown(found.key());
                    tracing::warn!(source = "etcd", key, "not a node's entry, left out: {why}; delete the key");
                } else {
                    unsaid += 1;
                }
            }
            bad.insert(named);
        }
        if unsaid > 0 {
            tracing::warn!(
                source = "etcd",
                keys = unsaid,
                prefix = self.prefix,
                "more keys that are no node's entries"
            );
        }
        self.bad_entries = bad;
        peers
    }
}

/// A session with one endpoint. Names are resolved, TLS is spoken and the user is known when it is there.
async fn connect(settings: &Settings, endpoint: &BaseUrl, prefix: &str) -> Result<(Session, Listing), Fault> {
    let mut options = ConnectOptions::new().with_require_leader(true);
    if endpoint.scheme() == Scheme::Https {
        let tls = TlsOptions::new();
        options = options.with_tls(match &settings.ca_cert_pem {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_webpki_roots(),
        });
    }
    let user = settings.username.as_deref().zip(settings.password.as_ref());
    let with_user = match user {
        Some((name, password)) => options.clone().with_user(name, password.expose()).with_auto_token_refresh(true),
        None => options.clone(),
    };
    let url = [endpoint.to_string()];
    let mut client = match Client::connect(&url, Some(with_user)).await {
        Err(error) if fault::says_auth_is_off(&error) => Client::connect(&url, Some(options)).await,
        connected => connected,
    }
    .map_err(|error| Fault::of(&error))?;
    let opened = async {
        let listing = list(&mut client, prefix).await?;
        let from = listing.revision.saturating_add(1);
        let watched = WatchOptions::new().with_prefix().with_start_revision(from);
        let mut watcher = client.watch_client().max_decoding_message_size(LIST_BYTES_MAX);
        let watch = watcher.watch(prefix, Some(watched)).await?;
        Ok((watch, listing))
    };
    let (watch, listing) = opened.await.map_err(|error: Error| Fault::of(&error))?;
    Ok((Session { client, watch }, listing))
}

async fn list(client: &mut Client, prefix: &str) -> Result<Listing, Error> {
    // One more than are kept, so that too many are noticed.
    let limit = i64::try_from(PEERS_PER_SOURCE_MAX + 1).unwrap_or(i64::MAX);
    let options = GetOptions::new().with_prefix().with_limit(limit);
    let mut kv = client.kv_client().max_decoding_message_size(LIST_BYTES_MAX);
    let mut response = kv.get(prefix, Some(options)).await?;
    let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
    Ok(Listing { entries: response.take_kvs(), revision })
}

async fn bounded<T>(bound: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Fault> {
    match timeout(bound, call).await {
        Ok(answer) => answer.map_err(|error| Fault::of(&error)),
        Err(_) => Err(Fault::silent(bound)),
    }
}
