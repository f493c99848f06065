//! The demo's display: waits for the node, says what to try, then shows how the node is doing.
//!
//! It knows the node as any scraper does, by its metrics.

use super::ask::get;
use super::figures::Figures;
use super::sample::Sample;
use super::screen::{Screen, say};
use super::try_lines;
use nix::sys::signal::SigSet;
use shared::clock::Clock;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often the node is asked whether it is ready.
const READY_INTERVAL: Duration = Duration::from_millis(20);
/// A node that is not ready by then is shown as it is.
const READY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often the node is asked for its figures.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How many samples make one line where there is no terminal.
const SAMPLES_PER_LINE: u64 = 5;

/// What is shown.
pub(super) struct Display {
    /// Where clients connect.
    pub(super) node: SocketAddr,
    /// Where the metrics are.
    pub(super) admin: SocketAddr,
    /// Whose limits are shown.
    pub(super) owners: &'static [&'static str],
    /// The program's clock.
    pub(super) clock: Clock,
    /// What all threads of the process block, until the control thread listens for it.
    pub(super) signals: SigSet,
}

impl Display {
    /// Shows until `stop` is set.
    pub(super) fn run(&self, stop: &AtomicBool) {
        self.wait_ready(stop);
        if stop.load(Ordering::Acquire) {
            // It did not start. A signal that waits has what it wants, and would cut the tidying up.
            return;
        }
        // The control loop listens for signals before it answers questions. One that came earlier
        // has waited, and is delivered now; a node that gives no answers must be stoppable too.
        let _ = self.signals.thread_unblock();
        let mut screen = Screen::new();
        say(&try_lines::text(self.node, self.admin));
        if screen.is_terminal() { self.draw(&mut screen, stop) } else { self.write_lines(stop) }
    }

    /// Until the control thread says so in its metrics, and the core, which hears of it a tick
    /// later, by `/ready`.
    fn wait_ready(&self, stop: &AtomicBool) {
        let begun_at = self.clock.now();
        while !stop.load(Ordering::Acquire) && self.clock.now().since(begun_at) < READY_WAIT_MAX {
            if self.sample().is_some_and(|sample| sample.is_ready) && get(self.node, "/ready").is_some() {
                return;
            }
            thread::park_timeout(READY_INTERVAL);
        }
    }

    fn draw(&self, screen: &mut Screen, stop: &AtomicBool) {
        let mut figures = Figures::default();
        self.each_second(stop, |sample, _| {
            figures.add(sample);
            screen.draw(&figures.panel(self.owners));
        });
        screen.leave_panel();
    }

    /// A line every few seconds, when it says something new.
    fn write_lines(&self, stop: &AtomicBool) {
        let mut figures = Figures::default();
        let mut last = String::new();
        self.each_second(stop, |sample, number| {
            figures.add(sample);
            if number % SAMPLES_PER_LINE == 0 {
                let line = figures.line(self.owners);
                if line != last {
                    say(&format!("{line}\n"));
                    last = line;
                }
            }
        });
    }

    /// Calls `show` with every sample and its number. A node that does not answer has no sample.
    fn each_second(&self, stop: &AtomicBool, mut show: impl FnMut(Sample, u64)) {
        let mut due = self.clock.now();
        let mut number = 0;
        while !stop.load(Ordering::Acquire) {
            let now = self.clock.now();
            if now < due {
                thread::park_timeout(due.since(now));
                continue;
            }
            due = due.after(SAMPLE_INTERVAL).max(now);
            if let Some(sample) = self.sample() {
                show(sample, number);
            }
            number += 1;
        }
    }

    fn sample(&self) -> Option<Sample> {
        let metrics = get(self.admin, "/metrics")?;
        Some(Sample::read(&metrics, self.clock.now()))
    }
}
