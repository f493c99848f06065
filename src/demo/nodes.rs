//! The demo's nodes, each a process of this same program, so that one can be killed as a real
//! node is, and so that nothing which belongs to a process (signals, logs, limits) is shared.
//!
//! A node that ends while the demo runs is started again after [`BACK_AFTER`].

use super::config::{Cluster, NODES};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::clock::{Clock, Nanos};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// From a node's end to its next start: time to see it missed, and given up.
pub(super) const BACK_AFTER: Duration = Duration::from_secs(10);
/// The nodes drain for five seconds at most (`config.json`).
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
const STOP_INTERVAL: Duration = Duration::from_millis(20);
/// Of a log that is shown when a node did not start, from its end.
const LOG_LINES_SHOWN: usize = 5;

/// All of them. Killed when this is dropped; [`Nodes::stop`] asks first.
pub(super) struct Nodes {
    nodes: Vec<Node>,
    clock: Clock,
}

struct Node {
    config: PathBuf,
    log: PathBuf,
    life: Life,
}

enum Life {
    Running(Child),
    /// Ended, and when.
    Ended(Nanos),
}

/// What a look at the nodes found. Nodes are counted from 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A node has ended.
    Ended {
        /// Which.
        index: usize,
        /// In words.
        how: String,
    },
    /// It was started again.
    StartedAgain {
        /// Which.
        index: usize,
        /// Its process.
        process: u32,
    },
    /// It could not be started again, and is not tried any more.
    Lost {
        /// Which.
        index: usize,
        /// Why.
        why: String,
    },
}

impl Nodes {
    /// Writes their configurations into `folder` and starts them. Has to be called, as
    /// [`Self::look`] has, on a thread that lives as long as the demo: a node ends with the thread
    /// that started it.
    pub(super) fn start(cluster: &Cluster<'_>, folder: &Path, clock: Clock) -> io::Result<Self> {
        let mut started = Self { nodes: Vec::with_capacity(NODES), clock };
        for index in 0..NODES {
            let name = |rest: &str| folder.join(format!("node-{}{rest}", index + 1));
            let (config, log) = (name(".json"), name(".log"));
            fs::write(&config, cluster.text(index, &name("")))?;
            let life = Life::Running(spawn(&config, &log)?);
            started.nodes.push(Node { config, log, life });
        }
        Ok(started)
    }

    /// Notices nodes that ended, and starts those again whose time has come.
    pub(super) fn look(&mut self) -> Vec<Change> {
        let now = self.clock.now();
        let mut changes = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            match &mut node.life {
                Life::Running(child) => {
                    if let Ok(Some(status)) = child.try_wait() {
                        changes.push(Change::Ended { index, how: in_words(status) });
                        node.life = Life::Ended(now);
                    }
                }
                Life::Ended(at) if now.since(*at) >= BACK_AFTER => match spawn(&node.config, &node.log) {
                    Ok(child) => {
                        changes.push(Change::StartedAgain { index, process: child.id() });
                        node.life = Life::Running(child);
                    }
                    Err(error) => {
                        changes.push(Change::Lost { index, why: error.to_string() });
                        node.life = Life::Ended(Nanos(u64::MAX));
                    }
                },
                Life::Ended(_) => {}
            }
        }
        changes
    }

    /// The process of node `index`, while it runs.
    pub(super) fn process(&self, index: usize) -> Option<u32> {
        match self.nodes.get(index).map(|node| &node.life) {
            Some(Life::Running(child)) => Some(child.id()),
            Some(Life::Ended(_)) | None => None,
        }
    }

    /// Until node `index` is started again; `None` while it runs.
    pub(super) fn back_in(&self, index: usize) -> Option<Duration> {
        match self.nodes.get(index).map(|node| &node.life) {
            Some(Life::Ended(at)) => Some(BACK_AFTER.saturating_sub(self.clock.now().since(*at))),
            Some(Life::Running(_)) | None => None,
        }
    }

    /// Ends node `index` without asking, as a power cut would.
    pub(super) fn kill(&mut self, index: usize) {
        if let Some(Node { life: Life::Running(child), .. }) = self.nodes.get_mut(index) {
            // Fails when it has ended by itself, which the next look finds.
            drop(child.kill());
        }
    }

    /// The end of what node `index` logged.
    pub(super) fn log_end(&self, index: usize) -> String {
        let text = self.nodes.get(index).and_then(|node| fs::read_to_string(&node.log).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default().join("\n")
    }

    /// Asks all of them to finish, and waits. One that does not come to an end is killed; they are
    /// counted.
    pub(super) fn stop(mut self) -> usize {
        for node in &self.nodes {
            if let Life::Running(child) = &node.life
                && let Ok(process) = i32::try_from(child.id())
            {
                // Fails when it has just ended.
                let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
            }
        }
        let end = self.clock.now().after(STOP_WAIT_MAX);
        loop {
            let running = self.nodes.iter_mut().map(|node| u8::from(node.life.is_running())).sum::<u8>();
            if running == 0 || self.clock.now() >= end {
                // Dropping kills those that are left.
                return usize::from(running);
            }
            thread::park_timeout(STOP_INTERVAL);
        }
    }
}

impl Life {
    fn is_running(&mut self) -> bool {
        match self {
            Self::Running(child) => matches!(child.try_wait(), Ok(None)),
            Self::Ended(_) => false,
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Life::Running(child) = &mut node.life {
                // Both fail when it has ended, as it should have.
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}

/// Starts this program again as a node. In a process group of its own, so that Ctrl-C reaches the
/// demo alone, which then asks its nodes to finish.
fn spawn(config: &Path, log: &Path) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    // Not its path: what lies there may have been built anew since.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("deepintshield").arg("--config").arg(config);
    command.args(["demo-node", "--parent", &std::process::id().to_string()]);
    for name in ["CONFIG", "STATE_DIR", "ENCRYPTION_KEY", "GOSSIP_KEY"] {
        command.env_remove(format!("DEEPINTSHIELD_{name}"));
    }
    command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
}

fn in_words(status: ExitStatus) -> String {
    match (status.signal().and_then(|signal| Signal::try_from(signal).ok()), status.code()) {
        (Some(Signal::SIGKILL), _) => "was killed".to_owned(),
        (Some(signal), _) => format!("was ended by {signal}"),
        (None, Some(0)) => "has finished".to_owned(),
        (None, code) => format!("ended with exit code {}", code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        let told = [9, 15, 0, 69 << 8].map(|raw| in_words(ExitStatus::from_raw(raw)));
        assert_eq!(told, ["was killed", "was ended by SIGTERM", "has finished", "ended with exit code 69"]);
    }
}
