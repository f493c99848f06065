//! The configuration, read again while the node runs. What is wrong with it is logged and changes
//! nothing.

use crate::admin::accounts::Accounts;
use crate::compile::{Compiled, NodeFacts, compile};
use crate::live::split::Parts;
use crate::start::{ConfigSource, Read, ReadError, read_config};
use shared::config::model::{Cluster, Server};
use shared::secret::Secret;

/// What a reload comes to.
pub(crate) struct ReadAgain {
    /// `None` where a store says what is shared.
    pub(super) compiled: Option<Compiled>,
    pub(super) parts: Parts,
    pub(super) cluster: Cluster,
    pub(super) cluster_text: Option<Secret>,
    pub(super) hash: String,
    /// `None`: those that are there stay.
    pub(super) accounts: Option<Accounts>,
}

/// Reads and compiles; faults are logged and change nothing.
pub(super) fn read_again(
    source: &ConfigSource,
    facts: &NodeFacts,
    server: &Server,
    has_store: bool,
) -> Option<ReadAgain> {
    let Read { config, warnings, hash, cluster_text, parts } = match read_config(source) {
        Ok(read) => read,
        Err(ReadError::Io(error)) => {
            tracing::error!(file = source.name(), %error, "the configuration could not be read; the node keeps the one it has");
            return None;
        }
        Err(ReadError::Faults(faults)) => {
            for fault in &faults {
                tracing::error!(file = source.name(), "{fault}");
            }
            tracing::error!(faults = faults.len(), "the configuration has faults; the node keeps the one it has");
            return None;
        }
    };
    for warning in &warnings {
        tracing::warn!(file = source.name(), "{warning}");
    }
    if config.server != *server {
        tracing::warn!("`server` has changed; that part of the configuration is used after a restart");
    }
    if config.config_store.is_some() != has_store {
        tracing::warn!("`config_store` has changed; that part of the configuration is used after a restart");
    }
    let accounts = Accounts::of(&config.governance.auth)
        .inspect_err(|error| tracing::error!(%error, "the accounts of the admin listener stay as they are"))
        .ok();
    if has_store {
        return Some(ReadAgain { compiled: None, parts, cluster: config.cluster, cluster_text, hash, accounts });
    }
    match compile(&config, facts) {
        Ok(compiled) => {
            compiled.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            Some(ReadAgain { compiled: Some(compiled), parts, cluster: config.cluster, cluster_text, hash, accounts })
        }
        Err(error) => {
            tracing::error!(%error, "the configuration cannot be used; the node keeps the one it has");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::facts;

    #[test]
    fn a_wrong_or_lost_file_comes_to_nothing_when_read_again() {
        for source in [
            ConfigSource::Embedded("{\"providers\": 7}"),
            ConfigSource::Embedded("{"),
            ConfigSource::File("/nowhere/config.json".into()),
        ] {
            assert!(read_again(&source, &facts(), &Server::default(), false).is_none());
        }
        let right = read_again(&ConfigSource::Embedded("{}"), &facts(), &Server::default(), false);
        assert_eq!(right.unwrap().hash.len(), 16);
    }
}
