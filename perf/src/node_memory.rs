//! The memory of a process, as `/proc` tells it.

use std::{fs, io, path::PathBuf};

/// Memory of one process at one moment, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident, with shared pages (`VmRSS`).
    pub(crate) resident: u64,
    /// Resident and not backed by a file (`RssAnon`): what the process allocated.
    pub(crate) anonymous: u64,
    /// Resident, shared pages divided among those who share them (`Pss`). 0 where it was
    /// not asked for: it costs a walk over all pages.
    pub(crate) proportional: u64,
}

impl Memory {
    /// The cheap part, good for sampling under load.
    pub(crate) fn sample(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(proc_file(pid, "status"))?;
        Ok(Self { resident: field(&status, "VmRSS:")?, anonymous: field(&status, "RssAnon:")?, proportional: 0 })
    }

    /// Everything.
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let rollup = fs::read_to_string(proc_file(pid, "smaps_rollup"))?;
        Ok(Self { proportional: field(&rollup, "Pss:")?, ..Self::sample(pid)? })
    }
}

fn proc_file(pid: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// `NAME:   123 kB` in bytes.
fn field(text: &str, name: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .and_then(|kib| kib.checked_mul(1024))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {name} in /proc")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_bytes() {
        let status = "VmHWM:\t  9 kB\nVmRSS:\t   1200 kB\nRssAnon:\t 7 kB\n";
        assert_eq!(field(status, "VmRSS:").ok(), Some(1_228_800));
        assert!(field(status, "Pss:").is_err());
    }

    #[test]
    fn this_process_uses_memory() {
        let memory = Memory::read(std::process::id()).expect("/proc of this process");
        assert!(memory.resident > 0 && memory.proportional > 0);
        assert!(memory.anonymous <= memory.resident);
    }
}
