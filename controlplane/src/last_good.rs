//! The last good snapshot on disk: what a node starts from when its configuration file and DNS
//! are gone.
//!
//! Read whole and checked byte by byte, never mapped. A secret is in it sealed, or as the
//! reference it came from, or both; a literal without an encryption key is left out, and its
//! key cannot be used after such a start. Limits' spend is not in it.

mod cluster_part;
mod frame;
mod seal;
mod server_part;

pub use frame::FrameFault;
pub use seal::{ENCRYPTION_KEY_BYTES_MIN, EncryptionKey, EncryptionKeyTooShort};

use crate::compile::{Compiled, TableSecret, lookup_hash};
use crate::state_dir::{StateDir, StateDirError, random_key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cluster_part::ClusterPart;
use serde::{Deserialize, Serialize};
use server_part::ServerPart;
use shared::bounds::ROUTING_HEADERS_MAX;
use shared::config::model::{Origin, Server};
use shared::secret::Secret;
use shared::snapshot::model_list::ModelList;
use shared::snapshot::names::NameIndex;
use shared::snapshot::routing::{ConditionRecord, HopRecord, NO_KEY, Subject};
use shared::snapshot::{Snapshot, SnapshotError, SnapshotRecord};
use std::time::Duration;

/// Its name in the state directory.
pub const FILE_NAME: &str = "last-good.snapshot";

/// What a node starts from.
pub struct LastGood {
    /// The snapshot with its addresses and epoch, and the secrets that could be found again.
    pub compiled: Compiled,
    /// Addresses, cores and TLS files of the process that wrote it.
    pub server: Server,
    /// Text of `cluster_config`; `None` where there was none, or it cannot be opened.
    pub cluster: Option<Secret>,
    /// When it was written, since 1970.
    pub written_at: Duration,
}

/// Why there is no last good snapshot to start from. The file stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    /// It could not be read.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The bytes are damaged or another version's.
    #[error("the last good snapshot cannot be used: {0}")]
    Frame(#[from] FrameFault),
    /// The description in it is not what this version writes.
    #[error("the last good snapshot cannot be used: its description is not readable: {0}")]
    Description(serde_json::Error),
    /// The records in it are not valid.
    #[error("the last good snapshot cannot be used: {0}")]
    Snapshot(#[from] SnapshotError),
    /// Its virtual keys were hashed with a lookup key that is gone.
    #[error("the last good snapshot cannot be used: it was written with another lookup key")]
    LookupKey,
    /// Records and secrets of different lengths, or an address that is none.
    #[error("the last good snapshot cannot be used: {0}")]
    Content(&'static str),
}

/// What stands in front of the snapshot bytes, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    written_at_seconds: u64,
    /// Proves that the lookup key is the same, and says nothing about it.
    lookup_key_proof: String,
    salt: String,
    secrets: Vec<StoredSecret>,
    server: ServerPart,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterPart>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSecret {
    label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    /// The text is empty, and meant to be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_empty: bool,
}

/// What is written; borrowed from the loop.
pub struct Content<'a> {
    /// With its addresses.
    pub snapshot: &'a Snapshot,
    /// Epoch in the snapshot.
    pub epoch: u64,
    /// By the indices in the snapshot.
    pub secrets: &'a [TableSecret],
    /// How the process was told to listen.
    pub server: &'a Server,
    /// Text of `cluster_config`.
    pub cluster: Option<&'a Secret>,
    /// Key that the snapshot's virtual keys are hashed with.
    pub lookup_key: &'a [u8; 32],
}

/// Makes the file's bytes. `None` where the operating system has no random bytes to give.
pub fn encode(content: &Content<'_>, key: Option<&EncryptionKey>, wall: Duration) -> Option<Vec<u8>> {
    let salt = random_key().ok()?;
    let snapshot = content.snapshot.as_bytes();
    let file_key = key.map(|key| key.for_file(&salt, content.epoch, frame::sha256(snapshot)));
    let secrets = content
        .secrets
        .iter()
        .zip(0_u32..)
        .map(|(entry, index)| StoredSecret {
            label: entry.label.clone(),
            env: if let Origin::Env(name) = &entry.origin { Some(name.clone()) } else { None },
            file: if let Origin::File(path) = &entry.origin { Some(path.clone()) } else { None },
            sealed: file_key.as_ref().map(|key| BASE64.encode(key.seal(index, &entry.secret))),
            is_empty: entry.secret.is_empty() && entry.origin == Origin::Literal,
        })
        .collect();
    let description = Description {
        written_at_seconds: wall.as_secs(),
        lookup_key_proof: lookup_key_proof(content.lookup_key),
        salt: BASE64.encode(salt),
        secrets,
        server: ServerPart::from(content.server),
        cluster: content
            .cluster
            .map(|text| ClusterPart::write(text, file_key.as_ref(), cluster_index(content.secrets.len()))),
    };
    let description = serde_json::to_vec(&description).expect("strings and numbers are always JSON");
    Some(frame::encode(&description, snapshot))
}

/// Reads the file's bytes. `resolve` finds the text of an `env.` or `file:` reference.
pub fn decode(
    bytes: &[u8],
    lookup_key: &[u8; 32],
    key: Option<&EncryptionKey>,
    resolve: &dyn Fn(&Origin) -> Option<Secret>,
) -> Result<LastGood, LastGoodError> {
    let (description, snapshot) = frame::decode(bytes)?;
    let description: Description = serde_json::from_slice(description).map_err(LastGoodError::Description)?;
    if description.lookup_key_proof != lookup_key_proof(lookup_key) {
        return Err(LastGoodError::LookupKey);
    }
    let record = Snapshot::from_bytes(snapshot)?.to_record()?;
    check_indices(&record, description.secrets.len())?;
    let salt = BASE64.decode(&description.salt).ok().and_then(|salt| <[u8; 32]>::try_from(salt).ok());
    let salt = salt.ok_or(LastGoodError::Content("its salt is not 32 bytes"))?;
    let file_key = key.map(|key| key.for_file(&salt, record.epoch, frame::sha256(snapshot)));

    let mut warnings = Vec::new();
    let cluster_index = cluster_index(description.secrets.len());
    let cluster = description.cluster.and_then(|cluster| cluster.read(file_key.as_ref(), cluster_index));
    let mut secrets = Vec::with_capacity(description.secrets.len());
    for (stored, index) in description.secrets.into_iter().zip(0_u32..) {
        let origin = match (stored.env, stored.file) {
            (Some(name), _) => Origin::Env(name),
            (None, Some(path)) => Origin::File(path),
            (None, None) => Origin::Literal,
        };
        // The reference first: what it says now is newer than what was sealed.
        let found = resolve(&origin).or_else(|| {
            let sealed = BASE64.decode(stored.sealed.as_ref()?).ok()?;
            file_key.as_ref()?.open(index, &sealed)
        });
        if found.is_none() && !stored.is_empty {
            warnings.push(not_found(&stored.label, &origin));
        }
        let secret = found.unwrap_or_else(|| Secret::new(""));
        secrets.push(TableSecret { secret, origin, label: stored.label });
    }
    let server = Server::try_from(description.server).map_err(LastGoodError::Content)?;
    let compiled = Compiled { record, secrets, warnings };
    Ok(LastGood { compiled, server, cluster, written_at: Duration::from_secs(description.written_at_seconds) })
}

/// Behind the last secret.
fn cluster_index(secrets: usize) -> u32 {
    u32::try_from(secrets).unwrap_or(u32::MAX)
}

/// Reads the file in the state directory; `None` when there is none.
pub fn read(
    dir: &StateDir,
    lookup_key: &[u8; 32],
    key: Option<&EncryptionKey>,
    resolve: &dyn Fn(&Origin) -> Option<Secret>,
) -> Result<Option<LastGood>, LastGoodError> {
    match dir.read(FILE_NAME, frame::FILE_BYTES_MAX)? {
        Some(bytes) => decode(&bytes, lookup_key, key, resolve).map(Some),
        None => Ok(None),
    }
}

fn not_found(label: &str, origin: &Origin) -> String {
    match origin {
        Origin::Env(name) => format!("the {label} is not usable: {name} is not in the environment"),
        Origin::File(path) => format!("the {label} is not usable: {path} cannot be read"),
        Origin::Literal | Origin::Sealed => format!(
            "the {label} is not usable: it stood in the configuration file itself, and was not kept or cannot be \
             opened without the DEEPINTSHIELD_ENCRYPTION_KEY it was sealed with"
        ),
    }
}

/// A core indexes by these without looking again.
fn check_indices(record: &SnapshotRecord, secrets: usize) -> Result<(), LastGoodError> {
    let fits = |index: &u32, length: usize| (*index as usize) < length;
    let limits_fit = |limits: &[u32]| limits.iter().all(|limit| fits(limit, record.limits.len()));
    let (providers, keys) = (record.providers.len(), record.keys.len());
    let providers_fit = record.providers.iter().all(|provider| {
        limits_fit(&provider.limits)
            && provider.keys.iter().all(|key| fits(key, keys))
            && provider.extra_headers.iter().all(|(_, secret)| fits(secret, secrets))
    });
    let keys_fit = record
        .keys
        .iter()
        .all(|key| fits(&key.provider, providers) && fits(&key.secret, secrets) && limits_fit(&key.limits));
    let virtual_keys_fit = record.virtual_keys.iter().all(|virtual_key| {
        let mut grants = virtual_key.grants.iter().flatten();
        limits_fit(&virtual_key.limits)
            && grants.all(|grant| {
                fits(&grant.provider, providers)
                    && limits_fit(&grant.limits)
                    && grant.keys.iter().flatten().all(|key| fits(key, keys))
            })
    });
    let index_fits = record.virtual_key_index.iter().all(|(_, at)| fits(at, record.virtual_keys.len()))
        && record.virtual_key_index.is_sorted();
    let models_fit = record
        .models
        .iter()
        .all(|model| limits_fit(&model.limits) && model.provider.iter().all(|at| fits(at, providers)))
        && record.relay.iter().all(|at| fits(at, providers));
    if providers_fit
        && keys_fit
        && virtual_keys_fit
        && index_fits
        && models_fit
        && known_models_fit(record)
        && routing_fits(record)
    {
        Ok(())
    } else {
        Err(LastGoodError::Content("its records refer to others that are not there"))
    }
}

/// Names and lists are found by what would be made of them again.
fn known_models_fit(record: &SnapshotRecord) -> bool {
    let fits = |number: &u32| (*number as usize) < record.known_models.len();
    let list_fits = |list: &ModelList| list.numbers.iter().all(fits) && *list == ModelList::new(list.numbers.clone());
    let names: Vec<&str> = record.known_models.iter().map(|known| known.model.as_str()).collect();
    let provider_names: Vec<&str> = record.providers.iter().map(|provider| provider.name.as_str()).collect();
    names.is_sorted_by(|a, b| a < b)
        && record.model_index == NameIndex::new(&names)
        && record.provider_index == NameIndex::new(&provider_names)
        && record.known_models.iter().flat_map(|known| &known.providers).all(|at| (*at as usize) < provider_names.len())
        && record.keys.iter().all(|key| {
            key.models.iter().all(list_fits)
                && list_fits(&key.blacklisted_models)
                && key.aliases.iter().all(|(number, _)| fits(number))
                && key.aliases.is_sorted_by_key(|(number, _)| number)
        })
        && record
            .virtual_keys
            .iter()
            .flat_map(|key| key.grants.iter().flatten())
            .all(|grant| grant.models.iter().all(list_fits))
}

fn routing_fits(record: &SnapshotRecord) -> bool {
    let routing = &record.routing;
    let fits = |index: &u32, length: usize| (*index as usize) < length;
    let hop_fits = |hop: &HopRecord| {
        hop.provider.iter().all(|at| fits(at, record.providers.len()))
            && hop.key.iter().all(|at| *at == NO_KEY || fits(at, record.keys.len()))
    };
    let header_fits = |condition: &ConditionRecord| match condition.subject {
        Subject::Header(at) => fits(&at, routing.headers.len()),
        _ => true,
    };
    routing.headers.len() <= ROUTING_HEADERS_MAX
        && routing.rules.iter().all(|rule| {
            rule.targets.iter().map(|target| &target.hop).chain(&rule.fallbacks).all(hop_fits)
                && rule.sticky_header.iter().all(|at| fits(at, routing.headers.len()))
        })
        && routing
            .routes
            .iter()
            .all(|route| fits(&route.rule, routing.rules.len()) && route.conditions.iter().all(header_fits))
        && routing.by_model.is_sorted_by(|a, b| a.0 < b.0)
        && routing
            .by_model
            .iter()
            .flat_map(|(_, at)| at)
            .chain(&routing.any_model)
            .all(|at| fits(at, routing.routes.len()))
        && record.virtual_keys.iter().all(|key| {
            key.team.iter().all(|at| fits(at, routing.teams.len()))
                && key.customer.iter().all(|at| fits(at, routing.customers.len()))
        })
}

fn lookup_key_proof(lookup_key: &[u8; 32]) -> String {
    BASE64.encode(lookup_hash(lookup_key, "deepintshield lookup key proof"))
}

#[cfg(test)]
mod tests;
