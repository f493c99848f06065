//! What the kernel counts of a process while it works: time, switches, system calls, and what goes through
//! its rings. Tracepoints are counted, not recorded.

use std::path::Path;

use super::{PROXY, Subject};
use crate::{
    bed::BedError,
    counters::PerfStat,
    rows::{Rows, say},
};

/// Counters of the scheduler, and of the machine where it has any: event, metric, unit, divisor.
const COUNTERS: [(&str, &str, &str, f64); 7] = [
    ("task-clock", "cpu_per_request", "us", 1e-3),
    ("context-switches", "context_switches_per_request", "switches", 1.0),
    ("cpu-migrations", "cpu_migrations_per_request", "migrations", 1.0),
    ("page-faults", "page_faults_per_request", "faults", 1.0),
    ("instructions:u", "user_instructions_per_request", "instructions", 1.0),
    ("instructions:k", "kernel_instructions_per_request", "instructions", 1.0),
    ("cycles", "cycles_per_request", "cycles", 1.0),
];

const ENTERS: &str = "syscalls:sys_enter_io_uring_enter";
const SUBMITTED: &str = "io_uring:io_uring_submit_req";
const COMPLETED: &str = "io_uring:io_uring_complete";
const WAITS: &str = "io_uring:io_uring_cqring_wait";

/// What a ring does.
const RING: [(&str, &str, &str, f64); 7] = [
    (ENTERS, "ring_enters_per_request", "calls", 1.0),
    (SUBMITTED, "ring_submissions_per_request", "operations", 1.0),
    (COMPLETED, "ring_completions_per_request", "operations", 1.0),
    (WAITS, "ring_wakes_per_request", "wakes", 1.0),
    ("io_uring:io_uring_poll_arm", "ring_polls_armed_per_request", "operations", 1.0),
    ("io_uring:io_uring_queue_async_work", "ring_kernel_thread_work_per_request", "operations", 1.0),
    ("raw_syscalls:sys_enter", "system_calls_per_request", "calls", 1.0),
];

/// System calls by name: those of a program that serves. All of them at once would be hundreds of tracepoints,
/// which a kernel takes longer to let go than we wait.
const SYSTEM_CALLS: [&str; 20] = [
    "io_uring_enter",
    "read",
    "write",
    "readv",
    "writev",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
    "accept4",
    "connect",
    "socket",
    "setsockopt",
    "shutdown",
    "close",
    "futex",
    "clock_gettime",
    "madvise",
    "mmap",
    if cfg!(target_arch = "x86_64") { "epoll_wait" } else { "epoll_pwait" },
];
/// Rarer ones are left out.
const RARE: f64 = 0.0005;

/// Counts in three windows. Says whether the machine has counters of its own.
pub(super) fn count(subject: &Subject<'_>, scratch: &Path, rows: &mut Rows) -> Result<bool, BedError> {
    let events = |table: &[(&str, &str, &str, f64)]| {
        let names: Vec<&str> = table.iter().map(|(event, ..)| *event).collect();
        names.join(",")
    };
    let counters = window(subject, scratch, &events(&COUNTERS))?;
    write(rows, &counters, &COUNTERS);
    let ring = window(subject, scratch, &events(&RING))?;
    write(rows, &ring, &RING);
    let of = |event: &str| ring.iter().find(|(name, _)| name == event).map(|(_, value)| *value);
    for (metric, event, per) in [
        ("ring_submissions_per_enter", SUBMITTED, ENTERS),
        ("ring_completions_per_enter", COMPLETED, ENTERS),
        ("ring_submissions_per_wake", SUBMITTED, WAITS),
        ("ring_completions_per_wake", COMPLETED, WAITS),
    ] {
        if let (Some(events), Some(per)) = (of(event), of(per).filter(|per| *per > 0.0)) {
            rows.add(PROXY, metric, events / per, "operations");
        }
    }
    if ring.is_empty() {
        say("no tracepoints of system calls and rings here (root, or kernel.perf_event_paranoid below 0)");
    }
    let by_name = SYSTEM_CALLS.map(|call| format!("syscalls:sys_enter_{call}")).join(",");
    for (event, value) in window(subject, scratch, &by_name)? {
        if let Some(call) = event.strip_prefix("syscalls:sys_enter_").filter(|_| value >= RARE) {
            rows.add(PROXY, &format!("system_call_{call}_per_request"), value, "calls");
        }
    }
    Ok(counters.iter().any(|(event, _)| event == "cycles"))
}

/// Events of one window, each for one request. None where the kernel does not let us count them.
fn window(subject: &Subject<'_>, scratch: &Path, events: &str) -> Result<Vec<(String, f64)>, BedError> {
    let stat = match PerfStat::attach_to(subject.pid, scratch, events) {
        Ok(stat) => stat,
        Err(error) => {
            say(&format!("not counted: {events}: {error}"));
            return Ok(Vec::new());
        }
    };
    subject.work(subject.count)?;
    let counted = stat.finish_events().into_iter();
    Ok(counted.map(|(event, value)| (event, value / subject.count.max(1) as f64)).collect())
}

fn write(rows: &mut Rows, counted: &[(String, f64)], table: &[(&str, &str, &'static str, f64)]) {
    for (event, metric, unit, divisor) in table {
        if let Some((_, value)) = counted.iter().find(|(name, _)| name == event) {
            rows.add(PROXY, metric, value / divisor, unit);
        }
    }
}
