//! Every proxy under every load, in one run: rounds, in each of them all scenarios, in each of
//! those all proxies one after the other, so that a machine that changes its mood changes it for
//! all. A proxy has a core to itself and a new process for each cell; load and provider have the
//! other core. A failure disqualifies its cell.

mod bars;
mod goals;
mod measure;
mod results;
mod scenario;
mod start_up;
mod streaming;
mod system_calls;
mod table;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use scenario::Scenario;

use crate::{
    peer::Peer,
    rig::{Rig, RigError, RigSettings, io_error},
    rows::{Rows, say},
};
use results::{Figure, Outcome, Results};
use scenario::Method;

/// Most rounds.
pub(crate) const ROUNDS_MAX: u32 = 50;
/// The load against the provider itself, without a proxy: what latency is counted from.
const DIRECT: &str = "direct";

/// What to compare.
#[derive(Debug, Clone)]
pub(crate) struct Compare {
    /// What is started, and where.
    pub(crate) rig: RigSettings,
    /// Who is measured.
    pub(crate) peers: Vec<Peer>,
    /// At what.
    pub(crate) scenarios: Vec<Scenario>,
    /// Rounds.
    pub(crate) rounds: u32,
    /// Of one measurement.
    pub(crate) seconds: Duration,
    /// After streams, before memory is looked at again.
    pub(crate) settle: Duration,
    /// The model that requests name.
    pub(crate) model: String,
    /// Where the JSON lines go, after every cell.
    pub(crate) json: Option<PathBuf>,
    /// Where the plots go.
    pub(crate) plots: Option<PathBuf>,
}

/// Why a cell has no figures.
enum Trouble {
    Failed(String),
    Absent(String),
}

impl From<RigError> for Trouble {
    fn from(error: RigError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs everything. Says whether nothing failed; what is absent is no failure.
pub(crate) fn run(what: &Compare) -> Result<bool, RigError> {
    let mut rig = Rig::new(&what.rig)?;
    let needs_tls = what.scenarios.iter().any(|scenario| scenario.needs_tls());
    let no_tls = if needs_tls { rig.add_tls().err().map(|error| error.to_string()) } else { None };
    let mut rows = Rows::new("compare");
    let mut results = Results::default();
    for round in 1..=what.rounds.min(ROUNDS_MAX) {
        rows.set_run(round);
        for &scenario in &what.scenarios {
            rows.set_scenario(scenario.name());
            for (name, peer) in subjects(what, scenario) {
                say(&format!("round {round}: {}: {name}", scenario.name()));
                let no_tls = no_tls.as_deref().filter(|_| scenario.needs_tls());
                let outcome = match peer.and_then(|peer| scenario.excludes(peer)).or(no_tls) {
                    Some(reason) => Outcome::Absent(reason.to_owned()),
                    None => cell(what, &rig, scenario, peer),
                };
                write(&mut rows, name, &outcome);
                save(&rows, what.json.as_deref())?;
                results.add(scenario, name, outcome);
            }
        }
    }
    rig.stop()?;
    rows.set_run(0);
    summarise(&mut rows, &what.scenarios, &results);
    save(&rows, what.json.as_deref())?;
    for &scenario in &what.scenarios {
        say(&table::of_scenario(&results, scenario));
    }
    say(&table::of_goals(&goals::judge(&results), &what.scenarios));
    if let Some(folder) = &what.plots {
        bars::write_all(&results, &what.scenarios, folder).map_err(io_error("writing the plots"))?;
    }
    Ok(results.is_clean())
}

/// Names and proxies of a scenario; `None` is the provider itself.
fn subjects(what: &Compare, scenario: Scenario) -> Vec<(&'static str, Option<Peer>)> {
    let is_timed = matches!(scenario.method(), Method::Open(scenario::Rate::Fixed(_)) | Method::Streams(_));
    let direct = is_timed.then_some((DIRECT, None));
    direct.into_iter().chain(what.peers.iter().map(|peer| (peer.name(), Some(*peer)))).collect()
}

/// One measurement of one proxy.
fn cell(what: &Compare, rig: &Rig, scenario: Scenario, peer: Option<Peer>) -> Outcome {
    let figures = match (scenario.method(), peer) {
        (Method::Streams(shape), peer) => streaming::streams(what, rig, scenario, shape, peer),
        (Method::Open(rate), peer) => measure::open(what, rig, scenario, rate, peer),
        (Method::Closed { .. }, Some(peer)) => measure::closed(what, rig, scenario, peer),
        (Method::Idle { connections }, Some(peer)) => streaming::idle(what, rig, scenario, connections, peer),
        (Method::StartUp, Some(peer)) => start_up::start_up(what, rig, peer),
        (Method::SystemCalls, Some(peer)) => system_calls::count(what, rig, scenario, peer),
        (_, None) => Err(Trouble::Absent("has no process".to_owned())),
    };
    match figures {
        Ok(figures) => Outcome::Measured(figures),
        Err(Trouble::Failed(reason)) => Outcome::Failed(reason),
        Err(Trouble::Absent(reason)) => Outcome::Absent(reason),
    }
}

fn write(rows: &mut Rows, proxy: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Measured(figures) => {
            for Figure { metric, value, unit } in figures {
                rows.add(proxy, metric, *value, unit);
            }
        }
        Outcome::Failed(reason) | Outcome::Absent(reason) => {
            say(&format!("{proxy}: {reason}"));
            rows.disqualify(proxy, reason);
        }
    }
}

/// Medians and ranges over all rounds.
fn summarise(rows: &mut Rows, scenarios: &[Scenario], results: &Results) {
    for &scenario in scenarios {
        rows.set_scenario(scenario.name());
        for proxy in results.proxies(scenario) {
            for metric in results.metrics(scenario, proxy) {
                let Some((spread, unit)) = results.spread(scenario, proxy, metric) else { continue };
                for (what, value) in [("median", spread.median), ("least", spread.least), ("most", spread.most)] {
                    rows.add(proxy, &format!("{metric}_{what}"), value, unit);
                }
            }
        }
    }
}

fn save(rows: &Rows, json: Option<&Path>) -> Result<(), RigError> {
    rows.save(json).map_err(io_error("writing the results"))
}
