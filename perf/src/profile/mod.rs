//! Where does a node spend what a request costs? One folder of results: a flame graph of its CPU time, where
//! its threads wait, what the kernel counted, and what was allocated.
//!
//! Every question is asked in a window of its own, of the same requests, since watching costs: samples with
//! stacks slow a node down by some per cent, a tracepoint on every system call by more. So figures of one
//! window belong together, and none of them is a time that a quiet node would need.

pub(crate) mod compare;
pub(crate) mod flame;
pub(crate) mod kernel;
pub(crate) mod off_cpu;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    bed::{
        self, Bed, BedError, CONNECTIONS, doing,
        shape::{Answer, Shape},
    },
    counters::Switched,
    rows::{Rows, say},
    target::Target,
};

/// The column of the results.
const PROXY: &str = "gateway";

/// What to look at, and where to write.
#[derive(Debug)]
pub(crate) struct Profile {
    /// The node's program, unless one runs already.
    pub(crate) node: PathBuf,
    /// The same, built to count allocations; `None`: they are not counted.
    pub(crate) counting_node: Option<PathBuf>,
    /// What is asked for.
    pub(crate) answer: Answer,
    /// Requests of each window.
    pub(crate) requests: u64,
    /// The folder of results.
    pub(crate) folder: PathBuf,
    /// First of three ports.
    pub(crate) port: u16,
    /// Core of the node.
    pub(crate) node_core: usize,
    /// Core of load and provider.
    pub(crate) load_core: usize,
}

/// A node that runs, and how it is kept busy.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// Its process.
    pub(crate) pid: u32,
    /// Where it listens.
    pub(crate) target: Target,
    /// What it is asked, one after the other.
    pub(crate) requests: &'a [Vec<u8>],
    /// Requests of a window.
    pub(crate) count: u64,
}

impl Subject<'_> {
    fn work(&self, count: u64) -> Result<(), BedError> {
        bed::send(&self.target, self.requests, CONNECTIONS, count)
    }

    fn threads(&self) -> io::Result<BTreeSet<i32>> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid))?;
        let ids = tasks.map(|task| Ok(task?.file_name().to_string_lossy().parse().unwrap_or_default()));
        ids.collect()
    }
}

/// Starts a node and asks everything about it.
pub(crate) fn run(what: &Profile, rows: &mut Rows) -> Result<(), BedError> {
    let bed = Bed::start(&what.node, what.port, what.load_core)?;
    let shape = Shape::default();
    let requests = shape.requests(bed.listen(), CONNECTIONS, what.answer)?;
    let cores = [what.node_core];
    let node = bed.begin("node", bed.node(&what.node, shape)?, &cores, &requests[0])?;
    let target = Target::parse(&format!("http://{}/", bed.listen()))?;
    let subject = Subject { pid: node.pid(), target, requests: &requests, count: what.requests };
    look_at(&subject, &what.folder, bed.folder(), rows)?;
    node.stop().map_err(doing("the node"))?;
    let Some(program) = &what.counting_node else {
        say("allocations: no build that counts them beside this program; perf/README.md says how to make one");
        return Ok(());
    };
    allocations(what, &bed, program, &requests, rows)
}

/// Everything that can be seen of a running process.
pub(crate) fn look_at(subject: &Subject<'_>, folder: &Path, scratch: &Path, rows: &mut Rows) -> Result<(), BedError> {
    subject.work(subject.count / 10)?;
    let hardware = kernel::count(subject, scratch, rows)?;
    // A picture that cannot be had is missed and said; the others are still there.
    let event = if hardware { "cycles" } else { "cpu-clock" };
    let drawn = samples(subject, event, folder, scratch)?;
    drawn.unwrap_or_else(|error| say(&format!("no flame graph: {error}")));
    let drawn = waits(subject, folder, scratch, rows)?;
    drawn.unwrap_or_else(|error| say(&format!("no view of what is off the CPU: {error}")));
    Ok(())
}

/// Runs a `perf record` while the node works.
fn recorded(subject: &Subject<'_>, count: u64, mut command: Command, scratch: &Path) -> Result<(), BedError> {
    let record = Switched::on("perf record", &mut command, scratch).map_err(doing("perf record"))?;
    subject.work(count)?;
    record.off().map_err(doing("perf record"))
}

fn samples(subject: &Subject<'_>, event: &str, folder: &Path, scratch: &Path) -> Result<io::Result<()>, BedError> {
    let data = scratch.join("samples.data");
    recorded(subject, subject.count, flame::record(subject.pid, event, &data), scratch)?;
    let folded = folder.join("on-cpu.folded");
    let title = format!("on the CPU, by {event}");
    // A sample counts for the time, or the cycles, since the one before.
    let unit = if event == "cycles" { event } else { "ns" };
    Ok(flame::fold(&data, &folded).and_then(|()| flame::draw(&folded, &title, unit, &folder.join("on-cpu.svg"))))
}

fn waits(subject: &Subject<'_>, folder: &Path, scratch: &Path, rows: &mut Rows) -> Result<io::Result<()>, BedError> {
    let threads = subject.threads().map_err(doing("the node's threads"))?;
    let data = scratch.join("switches.data");
    // On the whole machine, for a thread comes back in the switch of another one.
    let either: Vec<String> = threads.iter().map(|id| format!("prev_pid == {id} || next_pid == {id}")).collect();
    let mut command = Command::new("perf");
    command.args(["record", "-a", "-g", "-e", "sched:sched_switch", "--filter", &either.join(" || "), "-o"]).arg(&data);
    // A tenth: a switch with its stack is a kilobyte.
    let count = subject.count.div_ceil(10);
    recorded(subject, count, command, scratch)?;
    let mut script = Command::new("perf");
    script.args(["script", "-F", "comm,tid,time,event,trace,ip,sym", "-i"]).arg(&data);
    let written = script.output().and_then(|output| {
        let off_cpu = off_cpu::fold(&String::from_utf8_lossy(&output.stdout), &threads);
        if off_cpu.is_empty() {
            return Err(io::Error::other("the kernel shows no switches here (sched:sched_switch)"));
        }
        let of = |reason: &str| -> f64 {
            let core = off_cpu.iter().filter(|(stack, _)| stack.starts_with("core-") && stack.contains(reason));
            core.map(|(_, micros)| micros).sum::<f64>() / count as f64
        };
        rows.add(PROXY, "core_waits_per_request", of(";waits"), "us");
        rows.add(PROXY, "core_lets_others_run_per_request", of(";had to"), "us");
        let folded = folder.join("off-cpu.folded");
        let lines: Vec<String> = off_cpu.iter().map(|(stack, micros)| format!("{stack} {micros:.0}\n")).collect();
        fs::write(&folded, lines.concat())?;
        flame::draw(&folded, "off the CPU", "us", &folder.join("off-cpu.svg"))
    });
    Ok(written)
}

/// Two lives of a node that counts, the second with twice the requests: what it has more is what they took.
fn allocations(
    what: &Profile,
    bed: &Bed,
    program: &Path,
    requests: &[Vec<u8>],
    rows: &mut Rows,
) -> Result<(), BedError> {
    let life = |count: u64| {
        let node = bed.node(program, Shape::default())?;
        let node = bed.begin("counting node", node, &[what.node_core], &requests[0])?;
        bed.send(requests, CONNECTIONS, what.requests / 10)?;
        bed.send(requests, CONNECTIONS, count)?;
        node.stop().map_err(doing("the counting node"))?;
        let log = fs::read_to_string(bed.folder().join("counting-node.log")).map_err(doing("its log"))?;
        allocated(&log).ok_or_else(|| BedError::Failed("this node's build counts no allocations".to_owned()))
    };
    let (once, twice) = (life(what.requests)?, life(2 * what.requests)?);
    let metrics = [("core_allocations", "calls"), ("core_allocated_bytes", "bytes"), ("other_allocations", "calls")];
    for ((metric, unit), (once, twice)) in metrics.into_iter().zip(once.into_iter().zip(twice)) {
        let more = twice.saturating_sub(once) as f64 / what.requests.max(1) as f64;
        rows.add(PROXY, &format!("{metric}_per_request"), more, unit);
    }
    Ok(())
}

/// The sums that a counting node logs when it ends.
fn allocated(log: &str) -> Option<[u64; 3]> {
    let line = log.lines().rev().find(|line| line.contains("core_calls="))?;
    let sum = |name: &str| line.split_once(name)?.1.split([' ', ',']).next()?.parse().ok();
    Some([sum("core_calls=")?, sum("core_bytes=")?, sum("other_calls=")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_from_the_last_line_that_has_them() {
        let log = "INFO stopped\nINFO allocations core_calls=12 core_bytes=3400 other_calls=56\n";
        assert_eq!(allocated(log), Some([12, 3400, 56]));
        assert_eq!(allocated("INFO stopped\n"), None);
    }
}
