//! User-space instructions without a machine's counters: the proxy runs under valgrind.
//!
//! Every instruction of every thread is counted, from start to end, so one figure takes two runs:
//! what the second one sent more is what its further instructions were for. Valgrind knows
//! neither `io_uring` nor all of this CPU: programs on monoio wait with epoll there, and code that
//! chooses its instructions at run time (SHA-2, copying) takes older ones. So these figures
//! compare with each other, and with nothing that was counted by hardware.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Most threads that are looked for.
const THREADS_MAX: usize = 99;

/// Where the proxy's instructions are written when it ends.
pub(crate) fn output(folder: &Path) -> PathBuf {
    folder.join("callgrind.out")
}

/// The same command under valgrind.
pub(crate) fn under_valgrind(proxy: &Command, output: &Path) -> Command {
    counted(proxy, output, &[])
}

/// The same, with a count for each thread, in files that [`by_thread`] reads. Threads take turns there, so
/// they are made to be fair.
pub(crate) fn thread_by_thread(proxy: &Command, output: &Path) -> Command {
    counted(proxy, output, &["--separate-threads=yes", "--fair-sched=try"])
}

fn counted(proxy: &Command, output: &Path, options: &[&str]) -> Command {
    let mut option = std::ffi::OsString::from("--callgrind-out-file=");
    option.push(output);
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").args(options).arg(option).arg(proxy.get_program()).args(proxy.get_args());
    command.env("MONOIO_FORCE_LEGACY_DRIVER", "1");
    for (name, value) in proxy.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The instructions of a process that has ended.
pub(crate) fn total(output: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(output)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "callgrind wrote no total"))
}

/// The instructions of each thread of a process that has ended, in the order in which threads began. The
/// files are gone afterwards, for the next process must not find them.
pub(crate) fn by_thread(output: &Path) -> io::Result<Vec<u64>> {
    let mut threads = Vec::new();
    for number in 1..=THREADS_MAX {
        let file = PathBuf::from(format!("{}-{number:02}", output.display()));
        match total(&file) {
            Ok(instructions) => threads.push(instructions),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
        fs::remove_file(file)?;
    }
    if threads.is_empty() { Err(io::Error::other("callgrind wrote nothing")) } else { Ok(threads) }
}

/// What the `busiest` threads that work most did more in the second life than in the first. The others
/// go by time, which has no meaning under valgrind.
pub(crate) fn more_by_busiest(first: &[u64], second: &[u64], busiest: usize) -> u64 {
    let differences = first.iter().zip(second).map(|(first, second)| second.saturating_sub(*first));
    let mut differences: Vec<u64> = differences.collect();
    differences.sort_unstable();
    differences.iter().rev().take(busiest).sum()
}

/// The line `totals: N`; only one event is counted.
fn parse(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_stands_at_the_end() {
        assert_eq!(parse("events: Ir\nsummary: 8\nfn=(1) a\n0 8\n\ntotals: 12345\n"), Some(12_345));
        assert_eq!(parse("events: Ir\n"), None);
    }

    #[test]
    fn threads_that_grew_most_are_the_cores() {
        assert_eq!(more_by_busiest(&[900, 100, 50], &[990, 400, 50], 1), 300);
        assert_eq!(more_by_busiest(&[900, 100, 50], &[990, 400, 50], 2), 390);
        assert_eq!(more_by_busiest(&[], &[1], 1), 0);
    }

    #[test]
    fn the_environment_of_the_proxy_stays() {
        let mut proxy = Command::new("proxy");
        proxy.arg("--config").arg("file").env("PATH", "/somewhere");
        let command = under_valgrind(&proxy, Path::new("out"));
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        assert_eq!(arguments, ["--tool=callgrind", "--callgrind-out-file=out", "proxy", "--config", "file"]);
        assert!(command.get_envs().any(|(name, value)| name == "PATH" && value == Some("/somewhere".as_ref())));
    }
}
