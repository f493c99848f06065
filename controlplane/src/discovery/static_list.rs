//! `peers`: nodes that the configuration lists. An address is taken as it stands; a name is looked
//! up again and again, since its node may move.

use super::names::{Names, Question, Table};
use super::{Failure, Source, Surroundings};
use shared::clock::Clock;
use shared::config::model::HostPort;
use std::net::SocketAddr;

/// Reads a list, and asks for its names.
pub(crate) struct StaticList {
    fixed: Vec<SocketAddr>,
    names: Names,
    is_told: bool,
}

impl StaticList {
    /// Asks nobody yet.
    pub(crate) fn new(peers: &[HostPort], surroundings: &Surroundings, clock: Clock) -> Self {
        let mut fixed = Vec::new();
        let mut questions = Vec::new();
        for peer in peers {
            match peer.host().parse() {
                Ok(address) => fixed.push(SocketAddr::new(address, peer.port())),
                // A listed name has its port; it is never asked for SRV.
                Err(_) => questions.extend(Question::addresses(peer.host(), peer.port())),
            }
        }
        let table = Table::new(questions, surroundings.interval);
        Self { fixed, names: Names::new(table, clock, surroundings.dial_timeout), is_told: false }
    }
}

impl Source for StaticList {
    fn name(&self) -> &'static str {
        "peers"
    }

    /// Addresses are told at once, whatever becomes of the names.
    async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        let mut found = self.fixed.clone();
        if !self.is_told && !found.is_empty() {
            self.is_told = true;
            return Ok(found);
        }
        found.extend(self.names.look().await?);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::tests::surroundings;

    #[tokio::test]
    async fn addresses_are_told_at_once_and_names_when_they_are_known() {
        let peers: Vec<_> =
            ["192.0.2.1:7", "[2001:db8::1]:8", "localhost:9"].map(|text| HostPort::parse(text, None).unwrap()).into();
        let mut source = StaticList::new(&peers, &surroundings(), Clock::start());
        let told = |peers: Vec<SocketAddr>| peers.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(source.look().await.unwrap()), ["192.0.2.1:7", "[2001:db8::1]:8"]);
        assert_eq!(told(source.look().await.unwrap()), ["192.0.2.1:7", "[2001:db8::1]:8", "127.0.0.1:9"]);
    }
}
