//! What a node starts from: its configuration file, or the last good snapshot where the file is
//! gone. Opens what must be free (state directory, admin port) before any core exists.
//!
//! A file that is there and wrong is never replaced by the snapshot: somebody has just changed
//! it, and is told every fault.

use crate::addresses::Addresses;
use crate::admin::accounts::{Accounts, AccountsError};
use crate::admin::tls::{AdminIdentity, AdminTls, AdminTlsError};
use crate::cluster::{ClusterError, OpenCluster};
use crate::compile::Compiled;
use crate::gossip::identity::establish;
use crate::gossip::network::SystemNetwork;
use crate::last_good::{self, EncryptionKey, LastGood, LastGoodError};
use crate::listener_identity::{IdentityError, IdentityWatch};
use crate::live::split::{Parts, split};
use crate::sources;
use crate::state_dir::{StateDir, StateDirError, random_key};
use shared::clock::Clock;
use shared::config::model::{Cluster, Config, NodeId, Server};
use shared::config::{Fault, Sources, Warning, load, plain_json, text_of};
use shared::secret::Secret;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

/// Largest configuration file that is read, in bytes. The reader's own bound is lower; this one
/// keeps an endless file from filling the memory.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum ConfigSource {
    /// A file, read again when it changes and on SIGHUP.
    File(PathBuf),
    /// A text in the program itself.
    Embedded(&'static str),
}

/// What the caller decides.
pub struct Settings {
    /// Where the configuration comes from.
    pub config: ConfigSource,
    /// The state directory, where the caller knows better than the configuration does.
    pub state_dir: Option<PathBuf>,
    /// The admin listener's address, where the caller knows better; port 0 takes a free one.
    pub admin_listen: Option<SocketAddr>,
    /// What secrets on disk are sealed with.
    pub encryption_key: Option<EncryptionKey>,
    /// Version and build of the program, for metrics and the admin interface.
    pub version: &'static str,
    /// The node's clock.
    pub clock: Clock,
}

/// Why a node does not start. Nothing was started; the lock is released.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has faults.
    #[error("{}", listed(.name, .faults))]
    Faults {
        /// The file's name.
        name: String,
        /// All of them, in the order of the text.
        faults: Vec<Fault>,
    },
    /// There is no configuration, and no snapshot to start from instead.
    #[error("could not read {}: {source}; {instead}", path.display())]
    NoConfiguration {
        /// The configuration file.
        path: PathBuf,
        /// Why it could not be read.
        source: io::Error,
        /// Why the last good snapshot does not stand in for it.
        instead: String,
    },
    /// Another process runs on the same state directory.
    #[error(transparent)]
    InUse(StateDirError),
    /// The admin port is taken, or not ours to take.
    #[error("the admin listener could not open {address}: {source}; see `server.admin_host` and `server.admin_port`")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificate or key of the client listener could not be read.
    #[error("the client listener has no certificate: {0}; see `server.tls`")]
    Identity(#[from] IdentityError),
    /// Certificate or key of the admin listener cannot be used.
    #[error("the admin listener has no certificate: {0}; see `server.admin_tls`")]
    AdminTls(#[from] AdminTlsError),
    /// Nobody could be let in at the admin listener.
    #[error("{0}; see `governance.auth_config`")]
    Accounts(#[from] AccountsError),
    /// The node cannot be a part of its cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The runtime of the control thread could not be built.
    #[error("the control thread could not start: {0}")]
    Runtime(io::Error),
    /// The operating system has no random bytes.
    #[error("no random bytes: {0}")]
    Random(io::Error),
}

impl StartError {
    /// The exit code, as `sysexits.h` has them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Faults { .. } | Self::Identity(_) | Self::AdminTls(_) | Self::Accounts(_) => 78, // EX_CONFIG
            Self::NoConfiguration { .. } => 66,                                                    // EX_NOINPUT
            Self::InUse(_) => 75,                                                                  // EX_TEMPFAIL
            Self::Cluster(error) if error.is_configuration() => 78,
            Self::Admin { .. } | Self::Cluster(_) => 69, // EX_UNAVAILABLE
            Self::Random(_) | Self::Runtime(_) => 71,    // EX_OSERR
        }
    }
}

fn listed(name: &str, faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{name}:{fault}")).collect::<Vec<_>>().join("\n")
}

/// What was found, and opened, before the cores start.
pub(crate) struct Start {
    pub(crate) settings: Settings,
    pub(crate) server: Server,
    pub(crate) from: StartsFrom,
    /// Known from before; used until DNS answers.
    pub(crate) addresses: Addresses,
    /// Epoch of the last snapshot of an earlier process; 0 without one.
    pub(crate) last_epoch: u64,
    pub(crate) state_dir: Option<Arc<StateDir>>,
    /// Stays the same until the process ends.
    pub(crate) node_id: NodeId,
    /// `None`: the node runs alone.
    pub(crate) cluster: Option<OpenCluster>,
    /// See [`Read::parts`]; `None` where there was no configuration to read.
    pub(crate) parts: Option<Parts>,
    /// See [`Read::cluster_text`].
    pub(crate) cluster_text: Option<Secret>,
    /// See [`Read::hash`]; empty where there was no configuration to read.
    pub(crate) configuration_hash: String,
    pub(crate) lookup_key: [u8; 32],
    pub(crate) admin: TcpListener,
    /// `None`: the admin listener speaks plain HTTP.
    pub(crate) admin_tls: Option<(AdminIdentity, AdminTls)>,
    /// Who is let in there.
    pub(crate) accounts: Accounts,
    pub(crate) identity: IdentityWatch,
    /// For the log, once there is one.
    pub(crate) remarks: Vec<String>,
}

pub(crate) enum StartsFrom {
    Config(Box<Config>),
    LastGood(Box<(Compiled, Cluster)>),
}

/// Finds and opens everything. Sockets of the control thread belong to `runtime`.
pub(crate) fn open(settings: Settings, runtime: &Runtime) -> Result<Start, StartError> {
    let mut remarks = Vec::new();
    let read = match read_config(&settings.config) {
        Ok(read) => {
            remarks.extend(read.warnings.iter().map(|warning| format!("{}:{warning}", settings.config.name())));
            Ok(read)
        }
        Err(ReadError::Faults(faults)) => return Err(StartError::Faults { name: settings.config.name(), faults }),
        Err(ReadError::Io(source)) => Err(source),
    };
    let configured_dir =
        read.as_ref().map_or_else(|_| Server::default().state_dir, |read| read.config.server.state_dir.clone());
    let path = settings.state_dir.clone().unwrap_or_else(|| PathBuf::from(configured_dir));
    let state_dir = open_state_dir(&path, &mut remarks)?.map(Arc::new);
    let lookup_key = match state_dir.as_ref().map(|dir| dir.lookup_key()) {
        Some(Ok(key)) => key,
        Some(Err(error)) => {
            remarks
                .push(format!("{error}; virtual keys work, but the last good snapshot will not survive this process"));
            random_key().map_err(StartError::Random)?
        }
        None => random_key().map_err(StartError::Random)?,
    };
    let last_good = state_dir
        .as_ref()
        .map_or(Ok(None), |dir| last_good::read(dir, &lookup_key, settings.encryption_key.as_ref(), &sources::resolve));

    let last_epoch = last_good.iter().flatten().map(|last_good| last_good.compiled.record.epoch).next().unwrap_or(0);
    let mut addresses = Addresses::default();
    if let Ok(Some(last_good)) = &last_good {
        addresses = Addresses::of_snapshot(&last_good.compiled.record);
    }
    let (from, server, configuration_hash, cluster_text, parts) = match read {
        Ok(Read { config, hash, cluster_text, parts, .. }) => {
            if let Err(error) = last_good {
                remarks.push(format!("{error}; it is replaced by one of the configuration"));
            }
            let server = config.server.clone();
            (StartsFrom::Config(Box::new(config)), server, hash, cluster_text, Some(parts))
        }
        Err(source) => {
            let (last_good, source) = instead_of_file(&settings, &path, source, last_good)?;
            let wall = settings.clock.wall().as_secs();
            remarks.push(serving_from_last_good(&settings.config, &source, wall, &last_good));
            let LastGood { compiled, server, cluster: text, .. } = last_good;
            let cluster = text.as_ref().map_or_else(Cluster::default, |text| cluster_of(text, &mut remarks));
            (StartsFrom::LastGood(Box::new((compiled, cluster))), server, String::new(), text, None)
        }
    };
    let identity = IdentityWatch::open(server.tls.clone())?;
    let admin = bind(settings.admin_listen.unwrap_or(server.admin_listen))?;
    let admin_tls = AdminIdentity::open(server.admin_tls.clone())?;
    let accounts = match &from {
        StartsFrom::Config(config) => Accounts::of(&config.governance.auth)?,
        StartsFrom::LastGood(_) => Accounts::Unknown,
    };
    if matches!(accounts, Accounts::Off) {
        remarks.push(without_accounts(&admin));
    }
    let random = getrandom::u32().map_err(|error| StartError::Random(io::Error::other(error)))?;
    let configured = from.cluster();
    let node = establish(configured.node_id.as_ref(), state_dir.as_ref(), &host_name(), random, &mut remarks);
    let node_id = node.id.clone();
    let cluster = if configured.enabled {
        let opening = OpenCluster::open(configured, node, Arc::new(SystemNetwork), settings.clock);
        match (runtime.block_on(opening), &from) {
            (Ok(open), _) => Some(open),
            // What is left of the configuration may not be enough; to serve alone is better than not to.
            (Err(error), StartsFrom::LastGood(_)) if error.is_configuration() => {
                remarks.push(format!(
                    "{error}; the node runs alone until its configuration file is back and it is restarted"
                ));
                None
            }
            (Err(error), _) => return Err(error.into()),
        }
    } else {
        None
    };
    if let Some(error) = cluster.as_ref().and_then(OpenCluster::not_kept) {
        remarks.push(format!(
            "{error}; if the clock is set back before the next start, the other nodes need longer to see it"
        ));
    }
    Ok(Start {
        settings,
        server,
        from,
        addresses,
        last_epoch,
        state_dir,
        node_id,
        cluster,
        parts,
        cluster_text,
        configuration_hash,
        lookup_key,
        admin,
        admin_tls,
        accounts,
        identity,
        remarks,
    })
}

fn without_accounts(admin: &TcpListener) -> String {
    let is_loopback = admin.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let who = if is_loopback {
        "everybody on this machine may change the configuration"
    } else {
        "nobody may change anything"
    };
    format!("the admin listener asks for no credentials (governance.auth_config is off): {who} through it")
}

impl StartsFrom {
    /// `cluster_config`.
    pub(crate) fn cluster(&self) -> &Cluster {
        match self {
            Self::Config(config) => &config.cluster,
            Self::LastGood(last_good) => &last_good.1,
        }
    }
}

/// As the kernel has it; empty where it does not say.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// A configuration that was read.
pub(crate) struct Read {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Warning>,
    /// Tells whether two nodes run the same configuration: 16 hexadecimal digits.
    pub(crate) hash: String,
    /// `cluster_config` as it is written, for the last good snapshot; `None` where there is none.
    pub(crate) cluster_text: Option<Secret>,
    /// Taken apart into the node's own and what is shared.
    pub(crate) parts: Parts,
}

/// A configuration could not be had from its source.
pub(crate) enum ReadError {
    Io(io::Error),
    Faults(Vec<Fault>),
}

impl ConfigSource {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Embedded(_) => "the embedded configuration".to_owned(),
        }
    }
}

/// Reads and checks the configuration.
pub(crate) fn read_config(source: &ConfigSource) -> Result<Read, ReadError> {
    let text = match source {
        ConfigSource::File(path) => read_text(path)?,
        ConfigSource::Embedded(text) => (*text).to_owned(),
    };
    // The text may hold literal secrets.
    let text = Zeroizing::new(text);
    let sources = Sources { env: &sources::env, file: &sources::file, ..Sources::none() };
    let loaded = load(&text, &sources).map_err(ReadError::Faults)?;
    let (hash, cluster_text) = hash_and_cluster(&text);
    let plain = Zeroizing::new(plain_json(&text));
    let parts = split(&plain).ok_or_else(|| ReadError::Faults(vec![not_taken_apart()]))?;
    Ok(Read { config: loaded.config, warnings: loaded.warnings, hash, cluster_text, parts })
}

/// Such as a number in a field without effect that no double can hold.
fn not_taken_apart() -> Fault {
    Fault {
        path: String::new(),
        line: 1,
        column: 1,
        problem: "this JSON cannot be represented".to_owned(),
        expected: "numbers that fit 64 bits".to_owned(),
        nearest: None,
    }
}

/// What is left of `cluster_config`; faults, as of a file that is gone, cost the cluster only.
fn cluster_of(text: &Secret, remarks: &mut Vec<String>) -> Cluster {
    let whole = Zeroizing::new(format!("{{\"cluster_config\": {}}}", text.expose()));
    match load(&whole, &Sources { env: &sources::env, file: &sources::file, ..Sources::none() }) {
        Ok(loaded) => loaded.config.cluster,
        Err(faults) => {
            let why = listed("the last good snapshot", &faults);
            remarks
                .push(format!("{why}; the node runs alone until its configuration file is back and it is restarted"));
            Cluster::default()
        }
    }
}

/// The hash is of what all nodes have in common: not of `server` and `cluster_config`, which name addresses,
/// nor of blanks and comments.
fn hash_and_cluster(text: &str) -> (String, Option<Secret>) {
    let mut common = Zeroizing::new(String::new());
    let mut cluster = None;
    let plain = Zeroizing::new(plain_json(text));
    if let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_str(&plain) {
        cluster = fields.get("cluster_config").map(|config| Secret::new(&config.to_string()));
        fields.retain(|name, _| name != "server" && name != "cluster_config");
        *common = serde_json::Value::Object(fields).to_string();
    }
    let hashed = if common.is_empty() { text } else { common.as_str() };
    let hash = ring::digest::digest(&ring::digest::SHA256, hashed.as_bytes());
    let first = hash.as_ref().first_chunk::<8>().copied().unwrap_or_default();
    (format!("{:016x}", u64::from_be_bytes(first)), cluster)
}

fn read_text(path: &Path) -> Result<String, ReadError> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)).map_err(ReadError::Io)?;
    text_of(&bytes).map(str::to_owned).map_err(|fault| ReadError::Faults(vec![fault]))
}

/// A folder that is in use stops the start; one that cannot be used does not.
fn open_state_dir(path: &Path, remarks: &mut Vec<String>) -> Result<Option<StateDir>, StartError> {
    match StateDir::open(path) {
        Ok(dir) => Ok(Some(dir)),
        Err(error @ StateDirError::InUse(_)) => Err(StartError::InUse(error)),
        Err(error) => {
            remarks.push(format!(
                "{error}; the node runs without a state directory and cannot start without its configuration file"
            ));
            Ok(None)
        }
    }
}

fn instead_of_file(
    settings: &Settings,
    dir: &Path,
    source: io::Error,
    last_good: Result<Option<LastGood>, LastGoodError>,
) -> Result<(LastGood, io::Error), StartError> {
    let instead = match last_good {
        Ok(Some(last_good)) => return Ok((last_good, source)),
        Ok(None) => format!(
            "there is no last good snapshot in {} either (`--state-dir` or DEEPINTSHIELD_STATE_DIR names another \
             state directory)",
            dir.display()
        ),
        Err(error) => error.to_string(),
    };
    let path = match &settings.config {
        ConfigSource::File(path) => path.clone(),
        ConfigSource::Embedded(_) => PathBuf::new(),
    };
    Err(StartError::NoConfiguration { path, source, instead })
}

fn serving_from_last_good(config: &ConfigSource, error: &io::Error, wall_seconds: u64, last_good: &LastGood) -> String {
    let written_at = last_good.written_at.as_secs();
    format!(
        "serving from the last good snapshot of {} ({} s ago), because {} could not be read: {error}",
        utc(written_at),
        wall_seconds.saturating_sub(written_at),
        config.name(),
    )
}

/// `2026-01-31 09:05:00 UTC`, from seconds since 1970 (days to a date as the proleptic Gregorian
/// calendar has them).
fn utc(seconds: u64) -> String {
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is a year's last.
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| StartError::Admin { address, source })
}

#[cfg(test)]
mod tests;
