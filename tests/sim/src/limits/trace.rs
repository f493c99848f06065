//! Recorded traffic against a limit on tokens a minute, however it is kept: what the provider counts
//! in its fullest window, and how much of the limit is used. The tables of docs/limits-simulation.md.
//!
//! ```text
//! recorded → placed on nodes and cores → course: admitted or refused, ends later
//!     clustered: the cores' slices and reservations (cores) on rings that the escrow (cluster) or
//!                news of the others (news) entitles; by a compiled configuration (rules)
//!     plain:     charged when the answer ends, as other gateways do
//! what was admitted → counts: what the provider says of it; the same arrivals → central
//! ```
//!
//! Of production are the compiled configuration, reservations, answer sizes, slices, permits, rings,
//! escrow, entitlements by news and paces. Of this simulation are clocks, wires, disks, how late
//! gossip is, the clients, and how fast answers come.

mod cluster;
mod clustered;
mod cores;
mod counts;
mod course;
mod news;
mod plain;
mod recorded;
mod rules;

#[cfg(test)]
mod tests;

use super::scenario::{MILLISECOND_NS, SECOND_NS, Terms};
use crate::seeds::say;
use clustered::Clustered;
use counts::Count;
use course::{Figures, run_course};
use plain::AtTheEnd;
use recorded::{Answers, Recorded, Request, Spread, placed};
use rules::{RULES, Rule};
use std::path::Path;

/// Of what the trace offers on the average: far enough below for most windows to be full.
const LIMITED_TO: f64 = 0.6;
const WINDOW_NS: u64 = 60 * SECOND_NS;
/// Clients, each of which stays with one core of one node. A few send most of the requests, and a
/// few nodes have most of the clients.
const SPREAD: Spread = Spread { nodes: 0, cores: 2, clients: 100, skew: 1.0, seed: 1 };
/// What a client asks for at most; the longest answer of the trace.
const ANSWER_TOKENS_MAX: u64 = 1_000;
/// Forty tokens a second, half a second after the request.
const ANSWERS: Answers = Answers { first_after_ns: 500 * MILLISECOND_NS, token_ns: 25 * MILLISECOND_NS };

/// Prints the tables; true where no rule that promises it exceeded a limit.
pub(crate) fn run(path: &Path, nodes: &[usize], speed: f64) -> bool {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            say(&format!("{}: {error}", path.display()));
            return false;
        }
    };
    match recorded::read(&text, speed) {
        Ok(trace) if !trace.is_empty() => tables(&trace, nodes),
        Ok(_) => {
            say(&format!("{}: no requests", path.display()));
            false
        }
        Err(fault) => {
            say(&format!("{}: {fault}", path.display()));
            false
        }
    }
}

fn tables(trace: &[Recorded], nodes: &[usize]) -> bool {
    let mut holds = true;
    for count in [Count::Produced, Count::Door, Count::Prompt] {
        let amount = amount_for(trace, count);
        say(&format!("\n{}; {} requests, {amount} tokens a minute\n", count.described(), trace.len()));
        say(
            "| kept by | nodes | fullest window | overshoot | used | of a central one's | refused | needed more | tokens beyond | reserved for a token used |",
        );
        say("|---|---|---|---|---|---|---|---|---|---|");
        for keeper in Keeper::all_for(count) {
            for nodes in keeper.worth_a_row(nodes) {
                let figures = measured(trace, keeper, *nodes, count, amount);
                say(&row(&keeper.named(), *nodes, amount, &figures));
                holds &= figures.fault.is_none() && !(keeper.is_firm() && figures.fullest > amount);
            }
        }
    }
    holds
}

/// How the limit is kept.
#[derive(Clone, Copy)]
enum Keeper {
    /// As a configuration says.
    Rule(&'static Rule),
    /// As others do, by one counter of all nodes or one each.
    AtTheEnd { is_shared: bool },
}

impl Keeper {
    fn all_for(count: Count) -> impl Iterator<Item = Self> {
        let rules = RULES.iter().filter(move |rule| rule.count == count).map(Keeper::Rule);
        rules.chain([true, false].map(|is_shared| Self::AtTheEnd { is_shared }))
    }

    /// Of these numbers of nodes: one counter of all does not know how many there are.
    fn worth_a_row(self, nodes: &[usize]) -> &[usize] {
        match self {
            Self::AtTheEnd { is_shared: true } => nodes.get(..1).unwrap_or_default(),
            Self::AtTheEnd { is_shared: false } | Self::Rule(_) => nodes,
        }
    }

    fn named(self) -> String {
        match self {
            Self::Rule(rule) => rule.named(),
            Self::AtTheEnd { is_shared: true } => "at the end, one counter".to_owned(),
            Self::AtTheEnd { is_shared: false } => "at the end, one a node".to_owned(),
        }
    }

    /// Never exceeds in this count.
    fn is_firm(self) -> bool {
        matches!(self, Self::Rule(rule) if rule.is_firm())
    }
}

/// The limit for what a provider counts in this way.
fn amount_for(trace: &[Recorded], count: Count) -> u64 {
    let offered: u64 = trace.iter().map(|request| count.cost(request, ANSWER_TOKENS_MAX)).sum();
    let lasts_ns = trace.last().map_or(1, |last| last.at_ns.max(1));
    (offered as f64 * WINDOW_NS as f64 / lasts_ns as f64 * LIMITED_TO) as u64
}

fn measured(trace: &[Recorded], keeper: Keeper, nodes: usize, count: Count, amount: u64) -> Figures {
    let requests: Vec<Request> = placed(trace, Spread { nodes, ..SPREAD }, ANSWERS);
    let terms = Terms { amount, window_ns: WINDOW_NS };
    match keeper {
        Keeper::Rule(rule) => {
            let compiled = rules::compiled(rule, amount, nodes);
            let scenario = cluster::scenario(SPREAD.seed, nodes, terms);
            let clustered = Clustered::new(&scenario, rule, compiled, SPREAD.cores, ANSWER_TOKENS_MAX);
            run_course(&requests, clustered, count, terms, ANSWER_TOKENS_MAX)
        }
        Keeper::AtTheEnd { is_shared } => {
            let counters = if is_shared { 1 } else { nodes };
            run_course(&requests, AtTheEnd::new(counters, terms, count), count, terms, ANSWER_TOKENS_MAX)
        }
    }
}

fn row(name: &str, nodes: usize, amount: u64, figures: &Figures) -> String {
    if let Some(fault) = &figures.fault {
        return format!("| {name} | {nodes} | FAILED: {fault} |");
    }
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    let over = figures.fullest.saturating_sub(amount);
    let needed_more = if figures.estimated > 0 {
        let beyond = percent(figures.beyond_tokens, figures.answered_tokens);
        format!("{:.2} % | {beyond:.3} %", percent(figures.exceeded, figures.estimated))
    } else {
        "- | -".to_owned()
    };
    let reserved = if figures.reserved_tokens > 0 {
        format!("{:.2}", figures.reserved_tokens as f64 / figures.answered_tokens.max(1) as f64)
    } else {
        "-".to_owned()
    };
    format!(
        "| {name} | {nodes} | {} | {} | {:.3} | {:.3} | {:.1} % | {needed_more} | {reserved} |",
        figures.fullest,
        if over == 0 { "0".to_owned() } else { format!("{:.1} %", percent(over, amount)) },
        figures.used,
        figures.of_central,
        percent(figures.refused, figures.offered),
    )
}
