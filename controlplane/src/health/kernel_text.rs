//! What stands in /proc and in a cgroup's folder, as figures. Pure. A text of another form reads
//! as nothing.

/// Time of all processors since the start of the machine, in ticks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Processors {
    pub(super) busy: u64,
    pub(super) all: u64,
}

/// `/proc/stat`: `cpu  user nice system idle iowait irq softirq steal guest guest_nice`, where
/// guests are in user and nice already.
pub(super) fn processors(text: &str) -> Option<Processors> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let all = sum(ticks.iter().copied());
    let idle = ticks.get(3)?.saturating_add(ticks.get(4).copied().unwrap_or(0));
    Some(Processors { busy: all.saturating_sub(idle), all })
}

/// `/proc/meminfo`: bytes in use and bytes in all.
pub(super) fn machine_memory(text: &str) -> Option<(u64, u64)> {
    let kib = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
    };
    let all = kib("MemTotal:")?;
    Some((all.saturating_sub(kib("MemAvailable:")?), all))
}

/// `/proc/net/dev`: bytes received and sent, all interfaces but loopback.
pub(super) fn network_bytes(text: &str) -> u64 {
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let bytes = interfaces.filter(|(name, _)| name.trim() != "lo").map(|(_, counts)| {
        let counts: Vec<&str> = counts.split_ascii_whitespace().take(9).collect();
        let count = |at: usize| counts.get(at).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        // Eight columns are about what was received.
        count(0).saturating_add(count(8))
    });
    sum(bytes)
}

/// `/proc/self/cgroup`: the path in the hierarchy of version 2, whose line is `0::PATH`. `None`
/// where it is out of what this process may see.
pub(super) fn cgroup_path(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let is_seen = path.starts_with('/') && !path.split('/').any(|part| part == "..");
    is_seen.then(|| path.to_owned())
}

/// `cpu.max`: `QUOTA PERIOD` in microseconds, as permille of one processor; `None` for `max`.
pub(super) fn cpu_max_permille(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    quota.parse::<u64>().ok()?.checked_mul(1_000)?.checked_div(period.parse().ok()?)
}

/// `usage_usec` of `cpu.stat`.
pub(super) fn cpu_usage_us(text: &str) -> Option<u64> {
    field(text, "usage_usec")
}

/// `inactive_file` of `memory.stat`.
pub(super) fn inactive_file_bytes(text: &str) -> Option<u64> {
    field(text, "inactive_file")
}

/// A file of one number; `None` for `max`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let mut fields = text.lines().filter_map(|line| line.split_once(' '));
    fields.find(|(found, _)| *found == name)?.1.trim().parse().ok()
}

fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_busy_but_for_idle_and_waiting() {
        let text = "cpu  1133641 176934 240271 771167 284519 0 35473 1239 0 0\n\
                    cpu0 563553 69911 110998 398401 158692 0 18895 609 0 0\nintr 1 2 3\n";
        let busy = 1_133_641 + 176_934 + 240_271 + 35_473 + 1_239;
        assert_eq!(processors(text), Some(Processors { busy, all: busy + 771_167 + 284_519 }));
        for other in ["", "cpu", "cpu  1 2 3", "cpu  1 2 x 4 5", "cpu0 1 2 3 4 5", "cpu  -1 2 3 4 5"] {
            assert_eq!(processors(other), None, "{other}");
        }
    }

    #[test]
    fn memory_that_is_available_is_not_in_use() {
        let text = "MemTotal:       24684096 kB\nMemFree:         2714216 kB\nMemAvailable:   22095548 kB\n";
        assert_eq!(machine_memory(text), Some(((24_684_096 - 22_095_548) * 1_024, 24_684_096 * 1_024)));
        for other in ["", "MemTotal: 1 kB\n", "MemTotal: 1 MB\nMemAvailable: 1 kB\n"] {
            assert_eq!(machine_memory(other), None);
        }
    }

    #[test]
    fn every_interface_but_loopback_is_counted_both_ways() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 100276720232 133191301    0    0    0     0          0         0 100276720232 133191301    0    0    0     0       0          0
  ifb0:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  eth0: 1221511667   37645    0    0    0     0          0         0  2512621   24741    0    0    0     0       0          0
eth1.7:5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0
";
        assert_eq!(network_bytes(text), 1_221_511_667 + 2_512_621 + 5 + 7);
        assert_eq!(network_bytes("eth0: x\neth1: 1\nnothing"), 1);
    }

    #[test]
    fn only_the_second_version_of_cgroups_is_followed() {
        let both = "9:name=systemd:/\n4:memory:/docker/6a3a\n0::/system.slice/deepintshield.service\n";
        assert_eq!(cgroup_path(both).as_deref(), Some("/system.slice/deepintshield.service"));
        assert_eq!(cgroup_path("0::/\n").as_deref(), Some("/"));
        for other in ["4:memory:/docker/6a3a\n", "0::/../../other\n", "0::here\n", ""] {
            assert_eq!(cgroup_path(other), None, "{other}");
        }
    }

    #[test]
    fn a_cgroup_without_a_bound_has_none() {
        assert_eq!(cpu_max_permille("150000 100000\n"), Some(1_500));
        for other in ["max 100000\n", "150000\n", "150000 0\n", ""] {
            assert_eq!(cpu_max_permille(other), None, "{other}");
        }
        assert_eq!(bytes("536870912\n"), Some(536_870_912));
        assert_eq!(bytes("max\n"), None);
    }

    #[test]
    fn figures_of_a_cgroup_are_found_by_their_names() {
        let stat = "usage_usec 81230011\nuser_usec 60000000\nsystem_usec 21230011\nnr_periods 0\n";
        assert_eq!(cpu_usage_us(stat), Some(81_230_011));
        let stat = "anon 4096\nfile 8192\nactive_file 1\ninactive_file 7340032\nunevictable 0\n";
        assert_eq!(inactive_file_bytes(stat), Some(7_340_032));
        assert_eq!(cpu_usage_us("user_usec 1\n"), None);
    }
}
