//! Clusters that share limits, in virtual time: the escrow and the rings that production runs, on
//! simulated machines. A seed chooses cluster, limits, load and faults.
//!
//! ```text
//! arrivals → machine (rings, escrow, disk) ⇄ wires;   the same arrivals → central;   log → provider
//! ```
//!
//! Absent: gossip (what it knows of other nodes is a table here), transport, and the cores' slices
//! (but for [`trace`]).

mod arrivals;
mod audit;
mod broken;
mod central;
mod faults;
mod machine;
mod outcome;
mod provider;
mod scale;
mod scenario;
mod table;
mod trace;
mod wires;
mod world;

pub(crate) use scale::run as scale;
pub(crate) use table::run as table;
pub(crate) use trace::run as trace;

use crate::seeds::say;
use audit::largest_amount;
use broken::Breakage;
use controlplane::escrow::Policy;
use outcome::Outcome;
use scenario::{SECOND_NS, Scenario};
use world::World;

/// What a cluster may be short of shares after it has healed: nothing but what is lost by rounding.
const WHOLE: f64 = 1.0 - 1e-9;

/// A run with its seed's faults, and then without any.
struct Course {
    heals_ns: u64,
    ends_ns: u64,
}

impl Course {
    fn of(scenario: &Scenario) -> Self {
        let hold_ns = scenario.hold_max().as_nanos() as u64;
        let window_ns = scenario.window_ns() + hold_ns;
        // A roster or two, a lease each, and the window behind them.
        let heals_ns = scenario.faults_end_ns + 6 * scenario.lease_ns + 2 * window_ns + 25 * SECOND_NS;
        Self { heals_ns, ends_ns: heals_ns + window_ns.max(10 * SECOND_NS) * 3 / 2 }
    }
}

/// Runs a seed; true where it held.
pub(crate) fn run(seed: u64, is_traced: bool) -> bool {
    let scenario = Scenario::of(seed);
    let (outcome, wrong) = live_through(&scenario, Breakage::Nothing, is_traced);
    let course = Course::of(&scenario);
    say(&format!(
        "limits {seed}: {} nodes, {} faults, {:?}, {:?}, offered {}, {:?}; trace {:016x}, used {:.3} during the faults and {:.3} after",
        scenario.nodes,
        scenario.faults.len(),
        scenario.limits,
        scenario.policy,
        scenario.offered,
        scenario.charge,
        outcome.trace,
        outcome.progress.utilisation(10 * SECOND_NS, scenario.faults_end_ns),
        outcome.progress.utilisation(course.heals_ns, course.ends_ns),
    ));
    if wrong.is_empty() {
        return true;
    }
    if is_traced {
        say(&format!("{scenario:#?}"));
    }
    say(&format!("seed {seed} FAILED: {}", wrong.join("; ")));
    false
}

/// The run, and what was wrong with it.
fn live_through(scenario: &Scenario, broken: Breakage, is_traced: bool) -> (Outcome, Vec<String>) {
    let course = Course::of(scenario);
    let mut world = World::new(scenario, broken, is_traced);
    if is_traced {
        for second in (0..course.ends_ns / SECOND_NS).step_by(5) {
            world.run_until(second * SECOND_NS);
            say(&described(&world));
        }
    }
    world.run_until(course.ends_ns);
    let should_be_whole = should_be_whole(&world);
    // A lease may lapse for a moment where messages are lost.
    let mut whole = world.whole();
    while should_be_whole && whole < WHOLE && world.now_ns < course.ends_ns + 10 * SECOND_NS {
        world.run_until(world.now_ns + SECOND_NS);
        whole = whole.max(world.whole());
    }
    let outcome = world.finish();
    let mut wrong: Vec<String> = Vec::new();
    if let Some((at_ns, what)) = &outcome.progress.wrong {
        wrong.push(format!("at {:.3} s: {what}", *at_ns as f64 / 1e9));
    }
    for excess in &outcome.excesses {
        let at_s = excess.at_ns as f64 / 1e9;
        wrong.push(format!("{} units above {} by {} from {at_s:.3} s on", excess.units, excess.amount, excess.model));
    }
    if outcome.progress.wrong.is_none() && should_be_whole && whole < WHOLE {
        wrong.push(format!("only {whole} of a limit's shares may be spent after all faults"));
    }
    (outcome, wrong)
}

/// Whether the nodes that are there can have everything: a majority that reclaims, or all of them
/// with all that they ever had.
fn should_be_whole(world: &World<'_>) -> bool {
    let up = world.machines.iter().filter(|machine| machine.process.is_some()).count();
    let ever = world.machines.len().max(usize::from(world.expected));
    match world.scenario.policy {
        Policy::Reclaim => up > ever / 2,
        Policy::Keep => !world.progress.has_forgotten && !world.progress.has_left,
    }
}

/// How the nodes stand.
fn described(world: &World<'_>) -> String {
    let mut text = format!("{:>5} s of {}:", world.now_ns / SECOND_NS, largest_amount(&world.machines, 0));
    for machine in &world.machines {
        let Some(process) = &machine.process else {
            text += " -";
            continue;
        };
        let now = machine.now(world.now_ns);
        let books = process.escrow.books(now);
        let book = books.iter().find(|book| book.policy == world.scenario.policy);
        let (epoch, members) = book.map_or((0, 0), |book| (book.epoch, book.members.len()));
        let is_heir = book.is_some_and(|book| book.heir == Some(book.account));
        let ring = &process.rings[0];
        let mark = if machine.is_paused {
            "~"
        } else if !ring.is_valid_at(now) {
            "!"
        } else {
            ""
        };
        let heir = if is_heir { "*" } else { "" };
        let figures = format!(" {mark}{}/{}@{epoch}.{members}{heir}", ring.used(), ring.entitlement());
        text.push_str(&figures);
    }
    text
}
