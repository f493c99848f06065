//! Where threads wait: from switches of the scheduler, time by thread, reason and stack. Pure.
//!
//! A thread leaves the CPU with a stack and a state, and comes back when somebody else leaves for it. What
//! lies between is time off the CPU: a wait, or, where it could have run on, somebody else's turn.

use std::collections::{BTreeMap, BTreeSet};

/// Most different stacks; further ones are left out, and there are never so many.
const STACKS_MAX: usize = 100_000;

/// Microseconds off the CPU, by folded stack: `thread;waits;outermost;…;innermost`.
pub(crate) type OffCpu = BTreeMap<String, f64>;

/// Reads what `perf script -F comm,tid,time,event,trace,ip,sym` prints of `sched:sched_switch`.
pub(crate) fn fold(script: &str, threads: &BTreeSet<i32>) -> OffCpu {
    let mut gone: BTreeMap<i32, (f64, String)> = BTreeMap::new();
    let mut folded = OffCpu::new();
    for event in script.split("\n\n") {
        let mut lines = event.trim_matches('\n').lines();
        let Some(switch) = lines.next().and_then(Switch::parse) else { continue };
        if let Some((left_at, stack)) = gone.remove(&switch.next)
            && (folded.len() < STACKS_MAX || folded.contains_key(&stack))
        {
            *folded.entry(stack).or_default() += (switch.at - left_at) * 1e6;
        }
        if threads.contains(&switch.previous) {
            // Innermost first; the scheduler itself is in all of them.
            let frames = lines.filter_map(|line| line.trim().split_once(' ')).map(|(_, name)| name.trim());
            let frames: Vec<&str> = frames.filter(|name| !name.contains("schedule")).collect();
            let mut stack = format!("{};{}", switch.name, switch.reason);
            for frame in frames.iter().rev() {
                stack.push(';');
                // A semicolon would be two frames.
                stack.push_str(&frame.replace(';', ":"));
            }
            gone.insert(switch.previous, (switch.at, stack));
        }
    }
    folded
}

struct Switch<'a> {
    at: f64,
    previous: i32,
    name: &'a str,
    reason: &'static str,
    next: i32,
}

impl<'a> Switch<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (head, fields) = line.split_once(": sched:sched_switch:")?;
        let between = |from: &str, to: &str| {
            let rest = fields.split_once(from)?.1;
            Some(rest.split_once(to)?.0)
        };
        Some(Self {
            at: head.split_ascii_whitespace().next_back()?.parse().ok()?,
            previous: between("prev_pid=", " ")?.parse().ok()?,
            name: between("prev_comm=", " prev_pid=")?,
            reason: if between("prev_state=", " ==>")?.starts_with('R') { "had to let others run" } else { "waits" },
            next: between("next_pid=", " ")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "core-0 7 10.500000: sched:sched_switch: prev_comm=core-0 prev_pid=7 prev_prio=120 prev_state=S ==> next_comm=bash next_pid=9 next_prio=120
\tffff0001 __schedule
\tffff0002 io_cqring_wait
\tffff0003 entry_SYSCALL_64

bash 9 10.500250: sched:sched_switch: prev_comm=bash prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=core-0 next_pid=7 next_prio=120
\tffff0001 __schedule

core-0 7 10.600000: sched:sched_switch: prev_comm=core-0 prev_pid=7 prev_prio=120 prev_state=R+ ==> next_comm=bash next_pid=9 next_prio=120
\tffff0001 __schedule

bash 9 10.600100: sched:sched_switch: prev_comm=bash prev_pid=9 prev_prio=120 prev_state=S ==> next_comm=core-0 next_pid=7 next_prio=120
";

    #[test]
    fn time_off_the_cpu_ends_when_somebody_leaves_for_the_thread() {
        let folded = fold(SCRIPT, &BTreeSet::from([7]));
        let rounded: Vec<(&str, i64)> =
            folded.iter().map(|(stack, micros)| (stack.as_str(), micros.round() as i64)).collect();
        assert_eq!(
            rounded,
            [("core-0;had to let others run", 100), ("core-0;waits;entry_SYSCALL_64;io_cqring_wait", 250)]
        );
    }

    #[test]
    fn lines_that_are_no_switch_are_passed_over() {
        assert!(fold("perf: something else\n\n", &BTreeSet::from([7])).is_empty());
    }
}
