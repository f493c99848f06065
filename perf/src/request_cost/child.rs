//! A process of ours: started, waited for, and ended by its own id. Nothing else is ever
//! signalled.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::clock;

/// Longest wait for a process to listen.
const START_MAX: Duration = Duration::from_secs(20);
/// Longest wait for a process to end after it was asked to; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A folder for configurations, state and logs that is removed with this value.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder under the system's folder for temporary files.
    pub(crate) fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("deepintshield-perf-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It stays behind where it cannot be removed: some small files, no secret.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running process. It is ended when this value is dropped before [`Child::stop`].
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts it on the cores of this thread, its output in a file that errors quote.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> io::Result<Self> {
        let log = folder.join(format!("{}.log", name.replace(' ', "-")));
        let output = fs::File::create(&log)?;
        let process =
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn().map_err(|error| {
                let program = command.get_program().to_string_lossy().into_owned();
                io::Error::new(error.kind(), format!("starting {program}: {error}"))
            })?;
        Ok(Self { process, log })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns when it accepts connections at `address`.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) -> io::Result<()> {
        let deadline = clock::now() + START_MAX;
        while clock::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                return Err(self.told(&format!("it ended with {status} instead of listening")));
            }
            let is_accepted = TcpStream::connect_timeout(&address, LOOK_INTERVAL).is_ok();
            std::thread::sleep(LOOK_INTERVAL);
            // Somebody else may have the address, and then this process has just given up.
            if is_accepted && self.process.try_wait()?.is_none() {
                return Ok(());
            }
        }
        Err(self.told(&format!("it does not listen on {address}")))
    }

    /// Asks it to end, with a deadline.
    pub(crate) fn stop(mut self) -> io::Result<ExitStatus> {
        self.end_with(Signal::SIGTERM)
    }

    /// Sends `signal`, waits, and kills it where that was not enough.
    pub(crate) fn end_with(&mut self, signal: Signal) -> io::Result<ExitStatus> {
        let pid = i32::try_from(self.pid()).map_err(io::Error::other)?;
        // The process has not been waited for, so its id is still its own.
        kill(Pid::from_raw(pid), signal)?;
        let deadline = clock::now() + STOP_MAX;
        while clock::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.process.kill()?;
        self.process.wait()
    }

    fn told(&self, what: &str) -> io::Error {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        io::Error::other(format!("{what}; it said: {}", last.join(" | ")))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Asked first: the kernel gives the sockets of a killed process back late, and the next
        // measurement wants its addresses.
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.end_with(Signal::SIGTERM);
        }
    }
}
