//! What the operating system says about this process. Linux only, like the node.

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

/// A reading; what could not be read is `None` and is not shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// User and system time of all threads, seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory in RAM, bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, bytes.
    pub virtual_bytes: Option<u64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// Descriptors that may be open.
    pub max_fds: Option<u64>,
}

impl Process {
    /// Reads `/proc/self` and the kernel's accounting.
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpu_seconds = getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| {
            let (user, system) = (usage.user_time(), usage.system_time());
            (user.tv_sec() + system.tv_sec()) as f64 + (user.tv_usec() + system.tv_usec()) as f64 / 1e6
        });
        Self {
            cpu_seconds,
            resident_bytes: status_bytes(&status, "VmRSS:"),
            virtual_bytes: status_bytes(&status, "VmSize:"),
            // One of them is the folder that is being read.
            open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

/// `VmRSS:     1234 kB`
fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::read();
        assert!(process.resident_bytes.unwrap() > 0);
        assert!(process.virtual_bytes > process.resident_bytes);
        assert!((3..=process.max_fds.unwrap()).contains(&process.open_fds.unwrap()));
    }

    #[test]
    fn a_status_of_another_form_reads_as_nothing() {
        assert_eq!(status_bytes("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12 * 1024));
        for other in ["", "VmRSS: x kB", "VmRSS: 12 MB", "VmRSS: 99999999999999999999 kB"] {
            assert_eq!(status_bytes(other, "VmRSS:"), None);
        }
    }
}
