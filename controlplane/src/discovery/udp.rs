//! `udp`: peers of the same subnets. A beacon goes to every allowed broadcast address at each
//! discovery interval, more often at first; who hears one answers its sender, and either has found
//! the other. Who was silent for three intervals is no peer any more. IPv4 only: IPv6 has no
//! broadcast.
//!
//! Only allowed addresses are heard, and only with the cluster's gossip key, where it has one. An
//! answer is as long as its question and goes to where that came from, and there are so many a
//! second at most: nobody can be flooded through us.

use super::{Failure, Source, Surroundings};
use crate::gossip::keyring::Keyring;
use beacon::{BYTES, Beacon, Kind, Refused, ServiceHash, service_hash};
use heard::{Allowance, Heard, Remarks};
use shared::clock::{Clock, Nanos};
use sockets::{Sockets, targets};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::sync::watch;

mod beacon;
mod heard;
mod sockets;

/// Between the first two beacons; doubled up to the interval, so that a lost one costs little.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Intervals without a word after which a peer is forgotten.
const SILENT_INTERVALS_MAX: u32 = 3;
/// Answers a second.
const ANSWERS_MAX: u32 = 64;
/// Datagrams a second that are looked at; the kernel drops the rest.
const DATAGRAMS_MAX: u32 = 2_000;
/// Pause once there were too many.
const FLOODED: Duration = Duration::from_millis(50);
/// A signed message of another time is an old recording, or a clock is wrong.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(300);
/// Own questions whose answers are still taken.
const QUESTIONS_KEPT: usize = 8;

/// Sends and hears beacons.
pub(crate) struct Udp {
    port: u16,
    surroundings: Surroundings,
    /// The gossip keys as they are now.
    keyring: watch::Receiver<Keyring>,
    clock: Clock,
    service: ServiceHash,
    sockets: Option<Sockets>,
    heard: Heard,
    /// Nonces of our last beacons.
    asked: VecDeque<u64>,
    beacons_sent: u32,
    next_beacon: Nanos,
    answers: Allowance,
    datagrams: Allowance,
    remarks: Remarks,
    has_looked: bool,
    asks_as: Kind,
}

impl Udp {
    /// Opens nothing yet.
    pub(crate) fn new(port: u16, surroundings: Surroundings, keyring: watch::Receiver<Keyring>, clock: Clock) -> Self {
        Self {
            port,
            keyring,
            clock,
            service: service_hash(&surroundings.service_name),
            sockets: None,
            heard: Heard::new(surroundings.interval.saturating_mul(SILENT_INTERVALS_MAX)),
            asked: VecDeque::new(),
            beacons_sent: 0,
            next_beacon: Nanos(0),
            answers: Allowance::new(ANSWERS_MAX, Duration::from_secs(1)),
            datagrams: Allowance::new(DATAGRAMS_MAX, Duration::from_secs(1)),
            remarks: Remarks::new(),
            has_looked: false,
            asks_as: Kind::Beacon,
            surroundings,
        }
    }

    /// Until the list changed, or it is time to say that it did not.
    async fn look_with(&mut self, sockets: &Sockets) -> Result<(), Failure> {
        let wait = if self.has_looked { self.surroundings.interval } else { self.surroundings.dial_timeout };
        let end = self.clock.now().after(wait);
        loop {
            let now = self.clock.now();
            let has_changed = self.heard.expire(now);
            if now >= self.next_beacon {
                // One that could not be sent stays due.
                self.ask(sockets).await?;
                self.next_beacon = now.after(self.pause());
            }
            if has_changed || now >= end {
                return Ok(());
            }
            let next = self.heard.next_expiry().map_or(end, |expiry| expiry.min(end)).min(self.next_beacon);
            // One byte more than a message has, so that a longer one is seen to be longer.
            let (mut from_all, mut from_asked) = ([0; BYTES + 1], [0; BYTES + 1]);
            let (bytes, sender) = tokio::select! {
                Ok((length, sender)) = sockets.hears.recv_from(&mut from_all) => (from_all.get(..length), sender),
                Ok((length, sender)) = sockets.asks.recv_from(&mut from_asked) => (from_asked.get(..length), sender),
                () = tokio::time::sleep(next.since(now)) => continue,
            };
            let now = self.clock.now();
            if !self.datagrams.take(now) {
                tokio::time::sleep(FLOODED).await;
            } else if self.take(bytes.unwrap_or_default(), sender, sockets, now) {
                return Ok(());
            }
        }
    }

    /// Whether the list has changed.
    fn take(&mut self, bytes: &[u8], sender: SocketAddr, sockets: &Sockets, now: Nanos) -> bool {
        let heard = Beacon::decode(bytes, &self.service, &self.keyring.borrow());
        if heard == Err(Refused::NotABeacon) {
            return false;
        }
        if !self.surroundings.allows(sender.ip()) {
            self.remark(
                sender.ip(),
                "not in allowed address space; add its network to `allowed_address_space` if it is a node of this \
                 cluster",
                now,
            );
            return false;
        }
        let beacon = match heard {
            Ok(beacon) => beacon,
            Err(refused) => {
                self.remark(sender.ip(), refused.remark(), now);
                return false;
            }
        };
        if beacon.kind != Kind::Acknowledgement && self.asked.contains(&beacon.nonce) {
            // Our own; a broadcast comes back.
            return false;
        }
        let wall = self.clock.wall().as_secs();
        let is_signed = !self.keyring.borrow().is_plain();
        if is_signed && wall.abs_diff(beacon.wall_seconds) > CLOCKS_APART_MAX.as_secs() {
            self.remark(
                sender.ip(),
                "its clock and ours are more than five minutes apart, so it is not believed; set both by NTP",
                now,
            );
            return false;
        }
        let peer = SocketAddr::new(sender.ip(), beacon.gossip_port);
        match beacon.kind {
            Kind::Beacon | Kind::Question => {
                if self.asks_as == Kind::Beacon && self.answers.take(now) {
                    let answer = self.message(Kind::Acknowledgement, beacon.nonce);
                    // A lost answer is made up for by the next beacon of either side.
                    drop(sockets.asks.try_send_to(&answer, sender));
                }
                beacon.kind == Kind::Beacon && self.heard.hear(peer, now)
            }
            Kind::Acknowledgement => self.asked.contains(&beacon.nonce) && self.heard.hear(peer, now),
            Kind::Farewell => self.heard.forget(peer),
        }
    }

    /// Sends a beacon everywhere; a failure where it got nowhere.
    async fn ask(&mut self, sockets: &Sockets) -> Result<(), Failure> {
        let nonce = getrandom::u64().map_err(|error| Failure {
            line: "no random numbers",
            cause: error.to_string(),
            remedy: "the kernel's random source has to be readable".to_owned(),
        })?;
        if self.asked.len() >= QUESTIONS_KEPT {
            self.asked.pop_front();
        }
        self.asked.push_back(nonce);
        let message = self.message(self.asks_as, nonce);
        self.send_everywhere(sockets, &message).await?;
        self.beacons_sent = self.beacons_sent.saturating_add(1);
        Ok(())
    }

    async fn send_everywhere(&self, sockets: &Sockets, message: &[u8]) -> Result<(), Failure> {
        let mut refusal = None;
        let mut sent = 0;
        for target in targets(&self.surroundings, self.port)? {
            match sockets.asks.send_to(message, target).await {
                Ok(_) => sent += 1,
                Err(error) => refusal = Some(format!("to {target}: {error}")),
            }
        }
        match refusal {
            Some(cause) if sent == 0 => Err(Failure {
                line: "beacons cannot be sent",
                cause,
                remedy:
                    "see whether the interface is up and has broadcast (`ip link`), and whether a firewall of this \
                         machine drops them (`nft list ruleset`)"
                        .to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn message(&self, kind: Kind, nonce: u64) -> Vec<u8> {
        let beacon = Beacon {
            kind,
            gossip_port: self.surroundings.advertise.port(),
            wall_seconds: self.clock.wall().as_secs(),
            nonce,
            node_id: self.surroundings.node_id.clone(),
        };
        beacon.encode(&self.service, &self.keyring.borrow())
    }

    fn pause(&self) -> Duration {
        FIRST_PAUSE.saturating_mul(1 << self.beacons_sent.saturating_sub(1).min(16)).min(self.surroundings.interval)
    }

    fn remark(&mut self, sender: IpAddr, remark: &'static str, now: Nanos) {
        if self.remarks.is_new(sender, remark, now) {
            tracing::warn!(source = "udp", %sender, "{remark}");
        }
    }

    /// Sends from where gossip listens, so that others see the right address.
    fn open(&self) -> Result<Sockets, Failure> {
        let from = match self.surroundings.listen.ip() {
            IpAddr::V4(listen) => listen,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        Sockets::open(self.port, from)
    }
}

impl Refused {
    fn remark(self) -> &'static str {
        match self {
            Self::NotABeacon => "something else uses `udp_broadcast_port`",
            Self::OtherName => "a node of another `service_name`; compare it with this one's",
            Self::WrongTag => {
                "a node with another gossip key or `cluster_name`; compare `gossip.encryption_keys` and `cluster_name` \
                 with this one's"
            }
        }
    }
}

impl Source for Udp {
    fn name(&self) -> &'static str {
        "udp"
    }

    async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        if self.sockets.is_none() {
            self.sockets = Some(self.open()?);
        }
        // Taken out, so that it can be used beside the rest; a future that is dropped closes them,
        // and the next look opens them again.
        let Some(sockets) = self.sockets.take() else { return Ok(self.heard.list()) };
        let looked = self.look_with(&sockets).await;
        self.sockets = Some(sockets);
        looked?;
        self.has_looked = true;
        Ok(self.heard.list())
    }

    /// Asks without becoming a peer of those who hear it.
    async fn peek(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        self.asks_as = Kind::Question;
        self.look().await
    }

    /// Says farewell, so that others forget this node at once.
    async fn leave(&mut self) {
        let Some(sockets) = self.sockets.take().or_else(|| self.open().ok()) else { return };
        let Ok(nonce) = getrandom::u64() else { return };
        let farewell = self.message(Kind::Farewell, nonce);
        // Whoever misses it forgets us after three intervals.
        drop(self.send_everywhere(&sockets, &farewell).await);
    }
}

#[cfg(test)]
mod tests;
