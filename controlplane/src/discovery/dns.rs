//! `dns`: peers behind `dns_names`. A name that begins with `_` is asked for SRV, whose ports are
//! used; any other one for A and AAAA, with `bind_port`.

use super::names::{Names, Question, Table};
use super::{Failure, Source, Surroundings};
use shared::clock::Clock;
use std::net::SocketAddr;

/// Asks DNS.
pub(crate) struct Dns {
    names: Names,
}

impl Dns {
    /// Asks nobody yet.
    pub(crate) fn new(names: &[String], surroundings: &Surroundings, clock: Clock) -> Self {
        let questions = names.iter().flat_map(|name| Question::about(name, surroundings.bind_port)).collect();
        let table = Table::new(questions, surroundings.interval);
        Self { names: Names::new(table, clock, surroundings.dial_timeout) }
    }
}

impl Source for Dns {
    fn name(&self) -> &'static str {
        "dns"
    }

    async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        self.names.look().await
    }
}
