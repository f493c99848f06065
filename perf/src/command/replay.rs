//! `perf replay`.

use std::{fs, path::PathBuf, time::Duration};

use clap::Args;

use super::{CommandError, Output, Verdict, doing, seconds};
use crate::{
    replay::{
        self, Fate, Replay, ReplayResult, Sent,
        exact::{admitted_exactly, fullest_window},
        trace,
    },
    ring,
    rows::{Rows, say},
    simulated::{self, Stats, StatsError},
    target::{Header, Target},
};

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Recorded traffic: lines of `TIMESTAMP,ContextTokens,GeneratedTokens`
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Whom to send to; a gateway in front of a simulated provider
    #[arg(long, default_value = "http://127.0.0.1:8080/v1/chat/completions")]
    url: String,
    /// The simulated provider, for its exact counts (they are set to zero first)
    #[arg(long, value_name = "URL")]
    sim: Option<String>,
    /// How many times faster than recorded
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Read so many rows
    #[arg(long, default_value_t = trace::ROWS_MAX)]
    limit_rows: usize,
    /// Send nothing more after so many seconds
    #[arg(long = "for", default_value_t = 600.0, value_name = "SECONDS")]
    time: f64,
    /// Cut longer prompts to so many tokens
    #[arg(long, default_value_t = 4_096)]
    max_prompt_tokens: u64,
    /// `max_tokens` of every request (otherwise what the trace generated)
    #[arg(long)]
    max_tokens: Option<u64>,
    /// Requests under way at a time
    #[arg(long, default_value_t = 512)]
    connections: usize,
    /// The model that every request names
    #[arg(long, default_value = "openai/gpt-4o-mini")]
    model: String,
    /// A further header, `name: value`; may be given again
    #[arg(long)]
    header: Vec<Header>,
    /// The limit that the gateway has: requests in a window
    #[arg(long)]
    requests_limit: Option<u64>,
    /// The limit that the gateway has: tokens in a window
    #[arg(long)]
    tokens_limit: Option<u64>,
    /// Length of the window, in seconds
    #[arg(long, default_value_t = 60.0)]
    window: f64,
    /// Fail when less than this part of what an exact limiter admits was admitted
    #[arg(long)]
    require_utilisation: Option<f64>,
    /// Longest silence of the gateway, in seconds
    #[arg(long, default_value_t = 30.0)]
    silence: f64,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &ReplayArgs) -> Result<Verdict, CommandError> {
    let text = fs::read_to_string(&args.trace).map_err(doing("reading the trace"))?;
    let replay = Replay {
        target: Target::parse(&args.url)?,
        headers: args.header.clone(),
        model: args.model.clone(),
        rows: trace::parse(&text, args.limit_rows)?,
        speed: args.speed,
        time_max: seconds(args.time)?,
        prompt_tokens_max: args.max_prompt_tokens,
        max_tokens: args.max_tokens,
        connections: args.connections,
        silence_max: seconds(args.silence)?,
    };
    if !(replay.speed.is_finite() && replay.speed > 0.0) {
        return Err(CommandError::Usage("--speed must be above 0".to_owned()));
    }
    let window = seconds(args.window)?;
    let sim = args.sim.as_deref().map(Target::parse).transpose()?;
    args.output.pin()?;

    let (result, stats) = ring::run(async |driver| {
        say(&format!("replay: sent over {}", driver.name()));
        if let Some(sim) = &sim {
            simulated::reset(sim).await?;
        }
        let result = replay::run(replay).await;
        let stats = match &sim {
            Some(sim) => Some(simulated::stats(sim, window).await?),
            None => None,
        };
        Ok::<_, StatsError>((result, stats))
    })
    .map_err(doing("starting the ring"))??;

    let mut rows = Rows::new("replay");
    let mut judge = Judge { args, window, rows: &mut rows, is_clean: true };
    judge.counts(&result, stats);
    judge.limit("requests", args.requests_limit, &result, |_| 1, |stats| stats.fullest_requests, stats);
    judge.limit("tokens", args.tokens_limit, &result, |sent| sent.tokens, |stats| stats.fullest_tokens, stats);
    let verdict = Verdict::clean_if(judge.is_clean);
    result.lag.write(&mut rows, &args.output.proxy, "lag");
    result.latency.write(&mut rows, &args.output.proxy, "latency");
    args.output.finish(&rows)?;
    Ok(verdict)
}

/// Writes the values and remembers whether one of them is a failure.
struct Judge<'a> {
    args: &'a ReplayArgs,
    window: Duration,
    rows: &'a mut Rows,
    is_clean: bool,
}

impl Judge<'_> {
    fn add(&mut self, metric: &str, value: f64, unit: &'static str) {
        self.rows.add(&self.args.output.proxy, metric, value, unit);
    }

    /// Sent is answered and refused, and the provider saw exactly what was answered.
    fn counts(&mut self, result: &ReplayResult, stats: Option<Stats>) {
        let with = |wanted: fn(&Fate) -> bool| result.sent.iter().filter(|sent| wanted(&sent.fate)).count() as u64;
        let sent = result.sent.len() as u64;
        let answered = with(|fate| *fate == Fate::Answered(200));
        let refused = with(|fate| *fate == Fate::Answered(429));
        let failed = sent - answered - refused;
        let misbilled = result
            .sent
            .iter()
            .filter(|sent| sent.fate == Fate::Answered(200) && sent.billed != Some(sent.tokens))
            .count() as u64;
        for (metric, value) in [
            ("sent", sent),
            ("answered", answered),
            ("refused", refused),
            ("failed", failed),
            ("not_due", result.not_due),
            ("answers_with_other_usage", misbilled),
        ] {
            self.add(metric, value as f64, "requests");
        }
        self.is_clean &= failed == 0;
        if let Some(stats) = stats {
            self.add("provider_admitted", stats.admitted as f64, "requests");
            self.add("provider_refused", stats.refused as f64, "requests");
            self.is_clean &= stats.admitted == answered && stats.refused == 0;
        }
    }

    /// Compares with an exact limiter on the same arrivals, and the provider's fullest
    /// window (or, without it, that of the answered requests as they were sent) with the limit.
    fn limit(
        &mut self,
        what: &'static str,
        limit: Option<u64>,
        result: &ReplayResult,
        units: impl Fn(&Sent) -> u64,
        fullest: impl Fn(&Stats) -> u64,
        stats: Option<Stats>,
    ) {
        let Some(limit) = limit else { return };
        let exact = admitted_exactly(result.sent.iter().map(|sent| (sent.at, units(sent))), limit, self.window);
        let admitted: Vec<_> = result
            .sent
            .iter()
            .filter(|sent| sent.fate == Fate::Answered(200))
            .map(|sent| (sent.at, units(sent)))
            .collect();
        let admitted_units: u64 = admitted.iter().map(|(_, units)| units).sum();
        let fullest = stats.as_ref().map_or_else(|| fullest_window(&admitted, self.window), fullest);
        let utilisation = admitted_units as f64 / exact.units.max(1) as f64;
        let overshoot = fullest.saturating_sub(limit);
        self.add(&format!("{what}_limit"), limit as f64, what);
        self.add(&format!("{what}_admitted"), admitted_units as f64, what);
        self.add(&format!("{what}_admitted_by_exact"), exact.units as f64, what);
        self.add(&format!("{what}_answers_by_exact"), exact.arrivals as f64, "requests");
        self.add(&format!("{what}_fullest_window"), fullest as f64, what);
        self.add(&format!("{what}_overshoot"), overshoot as f64, what);
        self.add(&format!("{what}_utilisation"), utilisation, "ratio");
        self.is_clean &= overshoot == 0 && self.args.require_utilisation.is_none_or(|required| utilisation >= required);
    }
}
