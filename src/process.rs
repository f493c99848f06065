//! What the program does to its own process: logs, limits, and what must never reach the disk.

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shared::config::model::LogFormat;
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Version and build.
pub(crate) const VERSION: &str = env!("DEEPINTSHIELD_VERSION");

/// What a node logs where `RUST_LOG` says nothing. chitchat has a line for each value that it asks for
/// again, so that a peer could write as many as it likes; what matters of that is said by gossip.
pub(crate) const LOG_DEFAULT: &str = "info,chitchat=error";

/// Starts logging: to the journal under systemd, as JSON on request, as text otherwise. What is
/// logged is said by `RUST_LOG`, or by `default`.
pub(crate) fn start_logging(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal();
    let text = || {
        tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
    };
    // A second call in one process (tests) finds a logger in place and leaves it there.
    let _ = match format {
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr))
            .try_init(),
        LogFormat::Auto if is_journal => match tracing_journald::layer() {
            Ok(journal) => registry.with(journal).try_init(),
            Err(_) => registry.with(text()).try_init(),
        },
        LogFormat::Auto | LogFormat::Text => registry.with(text()).try_init(),
    };
}

/// Keys are in this process's memory: no core file, and no other process of the user may look.
pub(crate) fn protect_memory() {
    // Either may be refused in odd sandboxes; the other still holds.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Descriptors whose places in the kernel's table are made at the start: 8 bytes each.
const DESCRIPTORS_READY_MAX: u64 = 32 * 1024;

/// As many descriptors as the hard limit allows, since every client and every provider connection is
/// one; what cannot be raised is seen later, when an accept fails. To be called while the process has
/// one thread only: the table of a process with several grows each time it is full (at 64, 128, …) with
/// a wait for all cores of the machine, 10 ms in which a core of ours would serve nobody.
pub(crate) fn prepare_descriptors() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let highest = i32::try_from(limit.min(DESCRIPTORS_READY_MAX)).unwrap_or(i32::MAX).saturating_sub(1);
    // The table stays as large as its highest descriptor needed it.
    if let Ok(descriptor) = fcntl(io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(highest)) {
        let _ = nix::unistd::close(descriptor);
    }
}
