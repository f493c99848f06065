//! Instructions, cycles and CPU time of another process.
//!
//! `perf stat` is attached while the process runs and switched on and off around the load
//! over a pair of FIFOs, so that neither the start nor the warm-up is counted. Virtual
//! machines often have no counters: then only CPU time comes, which `/proc` has too.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{sys::signal::Signal, sys::stat::Mode, unistd::mkfifo};

use crate::child::Child;
use crate::clock;

/// Longest wait for `perf stat` to acknowledge.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(5);
/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// What was counted; what the machine cannot count is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counted {
    /// Instructions in user space.
    pub(crate) user_instructions: Option<f64>,
    /// Instructions in the kernel.
    pub(crate) kernel_instructions: Option<f64>,
    /// Cycles, both together.
    pub(crate) cycles: Option<f64>,
    /// CPU time of all threads, both together.
    pub(crate) cpu: Option<Duration>,
}

/// A `perf stat` that counts.
#[derive(Debug)]
pub(crate) struct PerfStat {
    perf: Switched,
    output: PathBuf,
}

impl PerfStat {
    /// Attaches to all threads of the process and begins to count.
    ///
    /// # Errors
    /// `perf` is not installed, or it may not look at the process. Nothing is left behind.
    pub(crate) fn attach(pid: u32, folder: &Path) -> io::Result<Self> {
        Self::attach_to(pid, folder, "instructions:u,instructions:k,cycles,task-clock")
    }

    /// The same for other events, separated by commas.
    pub(crate) fn attach_to(pid: u32, folder: &Path, events: &str) -> io::Result<Self> {
        let output = folder.join("counters");
        let mut command = Command::new("perf");
        command.args(["stat", "-x", ",", "-e", events, "-p", &pid.to_string(), "-o"]).arg(&output);
        Ok(Self { perf: Switched::on("perf stat", &mut command, folder)?, output })
    }

    /// Stops counting. What cannot be read counts as absent.
    pub(crate) fn finish(self) -> Counted {
        let mut counted = Counted::default();
        for (event, value) in self.finish_events() {
            match event.as_str() {
                "instructions:u" => counted.user_instructions = Some(value),
                "instructions:k" => counted.kernel_instructions = Some(value),
                "cycles" => counted.cycles = Some(value),
                "task-clock" => counted.cpu = Duration::try_from_secs_f64(value / 1e3).ok(),
                _ => {}
            }
        }
        counted
    }

    /// The same, event by event; `task-clock` in milliseconds.
    pub(crate) fn finish_events(self) -> Vec<(String, f64)> {
        let stopped = self.perf.off();
        match fs::read_to_string(&self.output) {
            Ok(text) if stopped.is_ok() => parse(&text),
            _ => Vec::new(),
        }
    }
}

/// A `perf stat` or `perf record` that was switched on, and is switched off before it ends.
#[derive(Debug)]
pub(crate) struct Switched {
    process: Child,
    control: File,
    acknowledged: File,
}

impl Switched {
    /// Starts the command and returns when it is on.
    pub(crate) fn on(name: &str, command: &mut Command, folder: &Path) -> io::Result<Self> {
        let [control, acknowledged] = ["control", "acknowledged"].map(|name| folder.join(name));
        for fifo in [&control, &acknowledged] {
            if !fifo.exists() {
                mkfifo(fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
            }
        }
        command.args(["-D", "-1", "--control"]);
        command.arg(format!("fifo:{},{}", control.display(), acknowledged.display()));
        let mut perf = Self {
            control: open_fifo(&control)?,
            acknowledged: open_fifo(&acknowledged)?,
            process: Child::start(name, command, folder)?,
        };
        perf.say(b"enable\n")?;
        Ok(perf)
    }

    /// Switches it off, and returns when it has written what it knows.
    pub(crate) fn off(mut self) -> io::Result<()> {
        self.say(b"disable\n")?;
        self.process.end_with(Signal::SIGINT).map(drop)
    }

    /// Sends a command and waits for its `ack`.
    fn say(&mut self, command: &[u8]) -> io::Result<()> {
        self.control.write_all(command)?;
        let deadline = clock::now() + ACKNOWLEDGE_MAX;
        let mut answer = [0; 64];
        while clock::now() < deadline {
            match self.acknowledged.read(&mut answer) {
                Ok(length) if answer.iter().take(length).any(|byte| *byte == b'k') => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => std::thread::sleep(LOOK_INTERVAL),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "perf does not acknowledge"))
    }
}

/// Opened for both directions, so that opening waits for nobody.
fn open_fifo(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)
}

/// Lines of `value,unit,event,…`; a value that is not a number is absent.
fn parse(text: &str) -> Vec<(String, f64)> {
    let line = |line: &str| {
        let mut columns = line.split(',');
        let (value, _unit, event) = (columns.next()?, columns.next()?, columns.next()?);
        Some((event.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// CPU time of a process from `/proc/PID/stat`, to 10 ms.
#[derive(Debug)]
pub(crate) struct CpuClock {
    pid: u32,
    from: Duration,
}

impl CpuClock {
    /// Counts from here on.
    pub(crate) fn start(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, from: cpu_time(pid)? })
    }

    /// CPU time since then.
    pub(crate) fn used(&self) -> io::Result<Duration> {
        Ok(cpu_time(self.pid)?.saturating_sub(self.from))
    }
}

fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat"))?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100).max(1);
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// `utime` and `stime`: the 14th and 15th field. The second may hold anything, so it is
/// counted from the bracket that ends it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_are_not_there_are_absent() {
        let text = "# started on\n\n1200,,instructions:u,9,100.00,,\n<not supported>,,instructions:k,0,100.00,,\n\
                    <not counted>,,cycles,0,100.00,,\n12.5,msec,task-clock,9,100.00,0.1,CPUs utilized\n";
        let counted = [("instructions:u".to_owned(), 1200.0), ("task-clock".to_owned(), 12.5)];
        assert_eq!(parse(text), counted);
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 25 17 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (short) S 1"), None);
    }
}
