//! System calls of a request. strace counts them, and slows the process down so much that it finds
//! more work at each wait: for whoever takes work in batches, the figure of 64 connections is a
//! lower bound, and that of a single connection, where there is no batch, an upper one.

use std::{fs, io, process::Command, time::Duration};

use nix::sys::signal::Signal;

use super::{
    Compare, Trouble,
    measure::{all_answered, closed_load, start, trouble},
    results::Figure,
    scenario::Scenario,
};
use crate::{
    child::Child,
    clock,
    load::{Load, Until},
    peer::Peer,
    rig::{Rig, child_error, send},
};

/// Counted requests.
const REQUESTS: u64 = 20_000;
/// Longest wait for strace to hold every thread.
const ATTACH_MAX: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

pub(super) fn count(what: &Compare, rig: &Rig, scenario: Scenario, peer: Peer) -> Result<Vec<Figure>, Trouble> {
    let load = closed_load(what, rig, scenario, Some(peer))?;
    let running = start(rig, scenario, peer, &load)?;
    send(Load { until: Until::Requests(REQUESTS / 10), ..load.clone() })?;
    let one = Load { connections: 1, until: Until::Requests(REQUESTS / 10), ..load.clone() };
    let many = Load { until: Until::Requests(REQUESTS), ..load };
    let figures = vec![
        Figure::new("system_calls_per_request", traced(rig, running.pid(), many)?, "calls"),
        Figure::new("system_calls_of_one_at_a_time", traced(rig, running.pid(), one)?, "calls"),
    ];
    running.stop(peer.name())?;
    Ok(figures)
}

/// System calls of all threads for each request of `load`.
fn traced(rig: &Rig, pid: u32, load: Load) -> Result<f64, Trouble> {
    let output = rig.places.scratch.join("strace");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-q", "-p", &pid.to_string(), "-o"]).arg(&output);
    let strace = Child::start("strace", &mut command, &rig.places.scratch);
    let mut strace = strace.map_err(|error| Trouble::Absent(format!("strace: {error}")))?;
    wait_until_attached(pid).map_err(child_error("strace"))?;
    let result = send(load)?;
    strace.end_with(Signal::SIGINT).map_err(child_error("strace"))?;
    let text = fs::read_to_string(output).map_err(trouble("reading strace's table"))?;
    Ok(total(&text) as f64 / all_answered(&result)?)
}

fn wait_until_attached(pid: u32) -> io::Result<()> {
    let deadline = clock::now() + ATTACH_MAX;
    while clock::now() < deadline {
        let mut all = true;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            all &= !fs::read_to_string(thread?.path().join("status"))?.contains("TracerPid:\t0\n");
        }
        if all {
            return Ok(());
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "it does not attach"))
}

/// The column `calls` of every line but the last, which is their sum.
fn total(table: &str) -> u64 {
    let lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let calls = lines.filter(|columns| columns.last().is_some_and(|name| *name != "total"));
    calls.filter_map(|columns| columns.get(3)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_summed_with_and_without_errors() {
        let table = "% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 90.00    0.900000           9       100        10 recvfrom
 10.00    0.100000           1        20           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    1.000000           8       120        10 total
";
        assert_eq!(total(table), 120);
    }
}
