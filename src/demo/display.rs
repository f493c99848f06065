//! The demo's main loop: waits for the nodes, says what to try, then shows how they are doing and
//! looks after those that end.
//!
//! It knows a node as any scraper does, by its metrics and its cluster status.

use super::ask::get;
use super::config::{NODES, Ports};
use super::figures::{Figures, NodeNow};
use super::nodes::{BACK_AFTER, Change, Nodes};
use super::sample::Sample;
use super::screen::{Screen, say};
use super::seen::Seen;
use super::try_lines;
use nix::sys::signalfd::SignalFd;
use shared::clock::{Clock, Nanos};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How often the nodes are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Nodes that have not found each other by then are shown as they are.
const TOGETHER_WAIT_MAX: Duration = Duration::from_secs(20);
/// How often the nodes are asked for their figures.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How many samples make one line where there is no terminal.
const SAMPLES_PER_LINE: u64 = 5;
/// With `--show`, from the beginning to the kill.
const KILL_AFTER: Duration = Duration::from_secs(10);

/// What is shown.
pub(super) struct Display<'d> {
    /// Where the nodes listen.
    pub(super) ports: Ports,
    /// Where their logs are.
    pub(super) folder: &'d Path,
    /// Whose limits are shown.
    pub(super) owners: &'static [&'static str],
    /// Whether the last node is killed, to show what happens.
    pub(super) kills_one: bool,
    /// The program's clock.
    pub(super) clock: Clock,
    /// Tells that the demo is to end. Does not block.
    pub(super) signals: &'d SignalFd,
}

/// A node did not start.
#[derive(Debug)]
pub(super) struct NotStarted {
    /// Which, counted from 0.
    pub(super) index: usize,
    /// In words.
    pub(super) how: String,
    /// The end of what it logged.
    pub(super) log_end: String,
}

/// Whether a node has its part of every limit, as its metrics say.
fn may_spend(metrics: &str) -> bool {
    let mut limits = metrics.lines().filter(|line| line.starts_with("deepintshield_limit_may_spend{")).peekable();
    limits.peek().is_some() && limits.all(|line| line.ends_with(" 1"))
}

impl Display<'_> {
    /// Shows until a signal comes.
    pub(super) fn run(&self, nodes: &mut Nodes) -> Result<(), NotStarted> {
        if !self.wait_together(nodes)? {
            return Ok(());
        }
        let mut screen = Screen::new();
        let processes: [Option<u32>; NODES] = std::array::from_fn(|index| nodes.process(index));
        say(&try_lines::text(self.ports, self.folder, &processes));
        if self.kills_one {
            say(&format!("node {NODES} is killed in {} s\n", KILL_AFTER.as_secs()));
        }
        self.show(nodes, &mut screen);
        screen.leave_panel();
        Ok(())
    }

    /// Until every node is ready and sees all of them healthy, or time is up. `false` when a signal
    /// came first.
    fn wait_together(&self, nodes: &mut Nodes) -> Result<bool, NotStarted> {
        let begun_at = self.clock.now();
        while !self.is_told_to_end() {
            // Here an end is a failure to start: nobody has killed anything yet.
            for change in nodes.look() {
                if let Change::Ended { index, how } = change {
                    return Err(NotStarted { index, how, log_end: nodes.log_end(index) });
                }
            }
            if (0..NODES).all(|index| self.is_together(index)) || self.since(begun_at) >= TOGETHER_WAIT_MAX {
                return Ok(true);
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
        Ok(false)
    }

    /// The control thread says so, and the core, which hears of it a tick later, by `/ready`.
    fn is_together(&self, index: usize) -> bool {
        let seen = get(self.ports.admin_address(index), "/cluster/status").and_then(|answer| Seen::read(&answer));
        seen.is_some_and(|seen| seen.healthy_members == NODES as u64)
            && get(self.ports.node_address(index), "/ready").is_some()
            && get(self.ports.admin_address(index), "/metrics").is_some_and(|page| may_spend(&page))
    }

    /// Samples every second: a panel on a terminal; elsewhere a line every few seconds, when it says
    /// something new.
    fn show(&self, nodes: &mut Nodes, screen: &mut Screen) {
        let mut figures = Figures::default();
        let mut last_line = String::new();
        let begun_at = self.clock.now();
        let mut kill_at = self.kills_one.then(|| begun_at.after(KILL_AFTER));
        let mut due = begun_at;
        let mut number: u64 = 0;
        while !self.is_told_to_end() {
            if kill_at.is_some_and(|at| self.clock.now() >= at) {
                nodes.kill(NODES - 1);
                kill_at = None;
            }
            nodes.look().iter().for_each(say_change);
            let now = self.clock.now();
            if now < due {
                thread::park_timeout(LOOK_INTERVAL.min(due.since(now)));
                continue;
            }
            due = due.after(SAMPLE_INTERVAL).max(now);
            figures.add((0..NODES).map(|index| self.look_at(index, nodes)).collect(), self.clock.now());
            if screen.is_terminal() {
                screen.draw(&figures.panel(self.owners));
            } else if number.is_multiple_of(SAMPLES_PER_LINE) {
                let line = figures.line(self.owners);
                if line != last_line {
                    say(&format!("{line}\n"));
                    last_line = line;
                }
            }
            number = number.wrapping_add(1);
        }
    }

    fn look_at(&self, index: usize, nodes: &Nodes) -> NodeNow {
        let process = nodes.process(index);
        let ask = |path| process.and_then(|_| get(self.ports.admin_address(index), path));
        let sample = ask("/metrics").map(|metrics| Sample::read(&metrics, self.clock.now()));
        let seen = sample.as_ref().and_then(|_| ask("/cluster/status")).and_then(|answer| Seen::read(&answer));
        NodeNow { address: self.ports.node_address(index), process, back_in: nodes.back_in(index), sample, seen }
    }

    fn is_told_to_end(&self) -> bool {
        // A descriptor that cannot be read cannot tell of Ctrl-C either.
        !matches!(self.signals.read_signal(), Ok(None))
    }

    fn since(&self, at: Nanos) -> Duration {
        self.clock.now().since(at)
    }
}

fn say_change(change: &Change) {
    say(&match change {
        Change::Ended { index, how } => {
            format!("node {} {how}; it is started again in {} s\n", index + 1, BACK_AFTER.as_secs())
        }
        Change::StartedAgain { index, process } => {
            format!("node {} is started again, as process {process}\n", index + 1)
        }
        Change::Lost { index, why } => format!("node {} could not be started again: {why}\n", index + 1),
    });
}
