//! Peers from Consul: this node registers with its agent, which tries the gossip port, and asks
//! by blocking queries which instances pass, in its own datacenter and in those that are named.
//!
//! A look first makes sure that the agent still has our registration: an agent that was started
//! anew has lost it. A node that may not register still learns of the others. No namespaces or
//! partitions (Consul Enterprise), no key-value store, no translation of addresses of our own.

use super::{Failure, Source, Surroundings};
use crate::discovery::consul::agent::Agent;
use crate::discovery::consul::answers::Standing;
use crate::discovery::consul::asker::{Asker, Datacenter};
use futures_util::future::{join_all, select_all};
use shared::config::model::{BaseUrl, Secret};
use std::net::SocketAddr;
use std::time::Duration;

mod agent;
mod answers;
mod asker;
#[cfg(test)]
mod tests;

/// Pause of another datacenter that cannot be asked; each further one doubles it.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest of them.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Answers without ourselves, while our own agent says that we pass, that are taken for a delay.
const UNSEEN_MAX: u32 = 3;

/// What the configuration says of Consul alone.
pub(crate) struct Settings {
    /// `consul_address`
    pub(crate) address: BaseUrl,
    /// `consul_token`
    pub(crate) token: Option<Secret>,
    /// `consul_ca_cert_pem`
    pub(crate) ca_cert_pem: Option<String>,
    /// `consul_datacenters`
    pub(crate) datacenters: Vec<String>,
    /// `consul_check_interval`
    pub(crate) check_interval: Duration,
    /// `consul_deregister_after`
    pub(crate) deregister_after: Duration,
}

/// Peers by Consul.
pub(crate) struct Consul {
    asker: Asker,
    registration: Registration,
    /// Our agent's own one is the first.
    datacenters: Vec<Datacenter>,
    reported: Option<Vec<SocketAddr>>,
}

#[derive(Default)]
struct Registration {
    /// It was tried; whether it came to be known or not, it has to be taken back.
    was_tried: bool,
    is_made: bool,
    /// What was said of our check, so that it is said once.
    was_called_failing: bool,
    is_passing: bool,
    /// Answers in a row without us, though our check passes.
    unseen: u32,
}

impl Consul {
    /// Connects to nobody yet.
    pub(crate) fn new(surroundings: Surroundings, settings: Settings) -> Self {
        let Settings { address, token, ca_cert_pem, datacenters, check_interval, deregister_after } = settings;
        let agent = Agent::new(address, token.as_ref(), ca_cert_pem.as_deref(), surroundings.dial_timeout);
        let named = datacenters.into_iter().map(Some);
        Self {
            datacenters: std::iter::once(None).chain(named).map(Datacenter::new).collect(),
            asker: Asker {
                id: format!("{}-{}", surroundings.service_name, surroundings.node_id),
                surroundings,
                agent,
                check_interval,
                deregister_after,
            },
            registration: Registration::default(),
            reported: None,
        }
    }

    /// Makes sure that the agent knows this node, and says once what it thinks of it.
    async fn keep_registered(&mut self) -> Result<(), Failure> {
        let Self { asker, registration, .. } = self;
        if registration.is_made {
            let standing = asker.standing().await?;
            registration.is_passing = standing == Some(Standing::Passing);
            match standing {
                None => {
                    tracing::warn!("Consul's agent has lost this node, as after a restart; registering again");
                    registration.is_made = false;
                }
                Some(Standing::Failing(output)) if !registration.was_called_failing => {
                    registration.was_called_failing = true;
                    let address = asker.surroundings.advertise;
                    tracing::warn!(
                        "Consul's check of this node fails: {output}; verify that Consul's agent can reach {address} by TCP, and that `advertise_address` is right"
                    );
                }
                Some(Standing::Failing(_) | Standing::Unchecked) => {}
                Some(Standing::Passing) => registration.was_called_failing = false,
            }
        }
        if !registration.is_made {
            registration.was_tried = true;
            asker.register().await?;
            registration.is_made = true;
            registration.unseen = 0;
        }
        Ok(())
    }

    /// Asks all datacenters at once and waits for nothing.
    async fn look_around(&mut self) -> Result<(), Failure> {
        let asker = &self.asker;
        let asked = self.datacenters.iter_mut().map(|datacenter| asker.ask_or_keep(datacenter, None));
        join_all(asked).await.into_iter().collect()
    }

    /// Waits until one of the datacenters says something.
    async fn wait_for_news(&mut self) -> Result<(), Failure> {
        let asker = &self.asker;
        // The agent knows us and the catalogue does not: soon it will, or something is wrong.
        let is_seen = self.datacenters.first().is_some_and(|own| own.has_us);
        let wait = if is_seen { asker.wait() } else { asker.wait().min(asker.check_interval) };
        let watched = self.datacenters.iter_mut().map(|datacenter| {
            Box::pin(async move {
                loop {
                    if let Some(doublings) = datacenter.failures.checked_sub(1) {
                        tokio::time::sleep(PAUSE.saturating_mul(1 << doublings.min(5)).min(PAUSE_MAX)).await;
                    }
                    asker.ask_or_keep(datacenter, Some(wait)).await?;
                    if datacenter.failures == 0 {
                        return Ok(());
                    }
                }
            })
        });
        select_all(watched).await.0
    }

    /// Consul leaves out what a token may not see, and says nothing about it.
    fn doubt_unseen(&mut self) {
        let has_us = self.datacenters.first().is_some_and(|own| own.has_us);
        let registration = &mut self.registration;
        if has_us || !registration.is_passing {
            registration.unseen = 0;
            return;
        }
        registration.unseen = registration.unseen.saturating_add(1);
        if registration.unseen == UNSEEN_MAX {
            tracing::warn!(
                "Consul's agent says that this node passes, but it is not among the instances of {:?}; give `consul_token` {}",
                self.asker.surroundings.service_name,
                self.asker.permission_to_read()
            );
        }
    }

    fn found(&self) -> Vec<SocketAddr> {
        self.datacenters.iter().flat_map(|datacenter| datacenter.found.iter().copied()).collect()
    }
}

impl Source for Consul {
    fn name(&self) -> &'static str {
        "consul"
    }

    async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        let registered = self.keep_registered().await;
        let was_asked = self.datacenters.first().is_some_and(|own| own.index.is_some());
        if registered.is_ok() && was_asked {
            self.wait_for_news().await?;
        } else if let Err(asking) = self.look_around().await {
            return Err(registered.err().unwrap_or(asking));
        }
        let found = self.found();
        if let Err(failure) = registered
            && self.reported.as_ref() == Some(&found)
        {
            return Err(failure);
        }
        self.doubt_unseen();
        self.reported = Some(found.clone());
        Ok(found)
    }

    /// Consul has no way to ask whether it would register us; a token that may not is found out by
    /// the node itself. A datacenter that cannot be asked is a failure here.
    async fn peek(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        for datacenter in &mut self.datacenters {
            self.asker.ask(datacenter, None).await.map_err(|failure| match &datacenter.name {
                Some(name) => Failure { cause: format!("datacenter {name:?}: {}", failure.cause), ..failure },
                None => failure,
            })?;
        }
        self.asker.say_unfit().await;
        Ok(self.found())
    }

    async fn leave(&mut self) {
        if !self.registration.was_tried {
            return;
        }
        match self.asker.deregister().await {
            Ok(()) => tracing::info!("deregistered from Consul"),
            Err(Failure { cause, .. }) => {
                let after = self.asker.deregister_after;
                tracing::warn!(
                    "not deregistered from Consul: {cause}; its check fails from now on, and it will do so itself after {after:?}"
                );
            }
        }
        self.registration = Registration::default();
    }
}
