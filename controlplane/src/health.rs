//! How this node is: processors, memory, network, descriptors, and what its cores say. Read once
//! a second from /proc and, where there is one, from the cgroup (version 2) that bounds the
//! process; the tighter of machine and cgroup counts.
//!
//! What cannot be read is shown as 0: a node must not look overloaded because of a missing file.
//! Linux only, like the node. Absent: cgroups of version 1; what an overloaded node does.

mod kernel_text;

use crate::gossip::values::Load;
use crate::metrics::Totals;
use kernel_text as kernel;
use nix::sys::resource::{Resource, getrlimit};
use shared::clock::Nanos;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel shows cgroups of version 2.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Cgroups around the process that are looked at, from the inside.
const CGROUP_DEPTH_MAX: usize = 16;
/// Where the kernel does not tell the number of descriptors at once, they are counted at every
/// so many samples: with a hundred thousand of them, counting takes milliseconds.
const COUNTED_EVERY: u64 = 10;

/// What only grows, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counters {
    machine: Option<kernel::Processors>,
    /// Microseconds of processor time in each cgroup that bounds it, and the bound in permille of
    /// one processor.
    cgroups: Vec<(u64, u64)>,
    network_bytes: u64,
}

/// Reads, and remembers what it read last.
pub struct Sampler {
    cgroups: Vec<PathBuf>,
    before: Option<(Nanos, Counters)>,
    samples: u64,
    descriptors: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampler {
    /// Finds out which cgroups the process is in. It is not moved later.
    pub fn new() -> Self {
        let own = kernel::cgroup_path(&read("/proc/self/cgroup"));
        Self { cgroups: cgroups(own.as_deref()), before: None, samples: 0, descriptors: 0 }
    }

    /// How the node is. Rates are those since the sample before; the first has none.
    pub fn sample(&mut self, totals: &Totals, is_overloaded: bool, now: Nanos) -> Load {
        let after = self.counters();
        let mut load = Load {
            memory_permille: self.memory_permille(),
            descriptors_permille: self.descriptors_permille(),
            is_overloaded,
            ..Load::default()
        };
        if let Some((at, before)) = &self.before {
            let elapsed_us = u64::try_from(now.since(*at).as_micros()).unwrap_or(u64::MAX);
            load.cpu_permille = cpu_permille(before, &after, elapsed_us);
            let bytes = after.network_bytes.saturating_sub(before.network_bytes);
            load.network_bytes_per_second = bytes.saturating_mul(1_000_000).checked_div(elapsed_us).unwrap_or(0);
        }
        for gauges in totals.gauges() {
            load.streams = load.streams.saturating_add(gauges.streams);
            load.requests_in_flight = load.requests_in_flight.saturating_add(gauges.requests_in_flight);
            // In tenths of a millisecond, so that an idle core says the same every second.
            load.tick_delay_us.push(gauges.tick_delay_us / 100 * 100);
        }
        self.before = Some((now, after));
        self.samples = self.samples.saturating_add(1);
        load
    }

    fn counters(&self) -> Counters {
        let cgroups = self.cgroups.iter().filter_map(|path| {
            let bound = kernel::cpu_max_permille(&read(path.join("cpu.max")))?;
            Some((kernel::cpu_usage_us(&read(path.join("cpu.stat")))?, bound))
        });
        Counters {
            machine: kernel::processors(&read("/proc/stat")),
            cgroups: cgroups.collect(),
            network_bytes: kernel::network_bytes(&read("/proc/self/net/dev")),
        }
    }

    fn memory_permille(&self) -> u16 {
        let machine = kernel::machine_memory(&read("/proc/meminfo"));
        let cgroups = self.cgroups.iter().filter_map(|path| {
            let bound = kernel::bytes(&read(path.join("memory.max")))?;
            let used = kernel::bytes(&read(path.join("memory.current")))?;
            // What the kernel would drop first is not in use.
            let dropped = kernel::inactive_file_bytes(&read(path.join("memory.stat"))).unwrap_or(0);
            Some((used.saturating_sub(dropped), bound))
        });
        machine.into_iter().chain(cgroups).map(|(used, bound)| permille(used, bound)).max().unwrap_or(0)
    }

    fn descriptors_permille(&mut self) -> u16 {
        let folder = Path::new("/proc/self/fd");
        // Since Linux 6.2 the folder's size is their number.
        let told = fs::metadata(folder).map_or(0, |folder| folder.len());
        if told > 0 {
            self.descriptors = told;
        } else if self.samples.is_multiple_of(COUNTED_EVERY) {
            self.descriptors = fs::read_dir(folder).map_or(0, |found| found.count() as u64);
        }
        getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| permille(self.descriptors, soft))
    }
}

/// The process's cgroup and those around it, from the inside.
fn cgroups(own: Option<&str>) -> Vec<PathBuf> {
    let Some(own) = own else { return Vec::new() };
    let root = Path::new(CGROUP_ROOT);
    let path = root.join(own.trim_start_matches('/'));
    let around = path.ancestors().take_while(|path| path.starts_with(root));
    around.take(CGROUP_DEPTH_MAX).map(Path::to_owned).collect()
}

/// The fuller of the machine and each cgroup that bounds processor time.
fn cpu_permille(before: &Counters, after: &Counters, elapsed_us: u64) -> u16 {
    let machine = before
        .machine
        .zip(after.machine)
        .map(|(before, after)| permille(after.busy.saturating_sub(before.busy), after.all.saturating_sub(before.all)));
    let cgroups = before.cgroups.iter().zip(&after.cgroups).map(|((before, _), (after, bound_permille))| {
        let available = u128::from(elapsed_us).saturating_mul(u128::from(*bound_permille)) / 1_000;
        permille(after.saturating_sub(*before), u64::try_from(available).unwrap_or(u64::MAX))
    });
    machine.into_iter().chain(cgroups).max().unwrap_or(0)
}

/// `part` of `whole`, at most all of it; 0 where there is no whole.
fn permille(part: u64, whole: u64) -> u16 {
    let permille = (u128::from(part) * 1_000).checked_div(u128::from(whole)).unwrap_or(0);
    u16::try_from(permille.min(1_000)).unwrap_or(1_000)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::report::{Gauges, Report};

    #[test]
    fn this_machine_is_read_without_a_fault() {
        let mut sampler = Sampler::new();
        let mut totals = Totals::default();
        let gauges = Gauges { streams: 2, requests_in_flight: 3, tick_delay_us: 1_234, ..Gauges::default() };
        totals.add(&Report { core: 0, gauges: gauges.clone(), ..Report::default() });
        totals.add(&Report { core: 1, gauges, ..Report::default() });
        let first = sampler.sample(&totals, false, Nanos(0));
        assert_eq!((first.cpu_permille, first.network_bytes_per_second), (0, 0));
        assert!((1..=1_000).contains(&first.memory_permille), "{first:?}");
        assert_eq!((first.streams, first.requests_in_flight, first.tick_delay_us), (4, 6, vec![1_200, 1_200]));
        assert!(sampler.descriptors >= 3);
        assert!(sampler.sample(&totals, true, Nanos(1_000_000_000)).is_overloaded);
    }

    fn counters(busy: u64, all: u64, cgroups: &[(u64, u64)]) -> Counters {
        let machine = Some(kernel::Processors { busy, all });
        Counters { machine, cgroups: cgroups.to_vec(), network_bytes: 0 }
    }

    #[test]
    fn the_fuller_of_machine_and_cgroup_counts() {
        let second = 1_000_000;
        let check = |cgroup_us, bound, expected| {
            let (before, after) = (counters(100, 1_000, &[(0, bound)]), counters(150, 1_200, &[(cgroup_us, bound)]));
            assert_eq!(cpu_permille(&before, &after, second), expected);
        };
        // 0.9 s of two processors; of half a processor; nothing.
        check(900_000, 2_000, 450);
        check(900_000, 500, 1_000);
        check(0, 2_000, 250);
    }

    #[test]
    fn counters_that_went_back_or_stood_still_are_no_load() {
        let (before, after) = (counters(100, 1_000, &[(5, 1_000)]), counters(90, 900, &[(1, 1_000)]));
        assert_eq!(cpu_permille(&before, &after, 1_000_000), 0);
        assert_eq!(cpu_permille(&after, &after, 0), 0);
        assert_eq!(cpu_permille(&Counters::default(), &after, 1), 0);
    }

    #[test]
    fn cgroups_are_looked_at_from_the_inside_out() {
        let found = cgroups(Some("/kubepods/pod1/c1"));
        assert_eq!(found.first(), Some(&PathBuf::from("/sys/fs/cgroup/kubepods/pod1/c1")));
        assert_eq!(found.last(), Some(&PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(found.len(), 4);
        assert_eq!(cgroups(None), Vec::<PathBuf>::new());
        assert_eq!(cgroups(Some("/a".repeat(100).as_str())).len(), CGROUP_DEPTH_MAX);
    }
}
