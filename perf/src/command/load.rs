//! `perf load`.

use std::{fs, path::PathBuf};

use clap::Args;

use super::{CommandError, Output, Verdict, doing, seconds};
use crate::{
    load::{self, CONNECTIONS_MAX, Load, LoadResult, Pace, Until},
    ring,
    rows::Rows,
    target::{BODY_BYTES_MAX, Header, Target, chat_body},
};

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Whom to send to; a loopback address
    #[arg(long, default_value = "http://127.0.0.1:8080/v1/chat/completions")]
    url: String,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// End after so many requests
    #[arg(long, conflicts_with = "seconds")]
    requests: Option<u64>,
    /// End after so many seconds (10 where neither is given)
    #[arg(long)]
    seconds: Option<f64>,
    /// Open loop: so many requests a second at fixed moments, latency from the planned moment
    #[arg(long)]
    rate: Option<f64>,
    /// Length of the chat request that is sent
    #[arg(long, default_value_t = 1024, conflicts_with = "body")]
    body_bytes: usize,
    /// Send this file instead
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The model that the chat request names
    #[arg(long, default_value = "openai/gpt-4o-mini")]
    model: String,
    /// A further header, `name: value`; may be given again
    #[arg(long)]
    header: Vec<Header>,
    /// Count an answer as a failure when its body has another length
    #[arg(long)]
    expect_bytes: Option<u64>,
    /// Longest silence of the peer before a request counts as failed, in seconds
    #[arg(long, default_value_t = 30.0)]
    silence: f64,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &LoadArgs) -> Result<Verdict, CommandError> {
    let target = Target::parse(&args.url)?;
    let body = match &args.body {
        Some(path) => fs::read(path).map_err(doing("reading the body"))?,
        None => chat_body(&args.model, args.body_bytes),
    };
    if body.len() > BODY_BYTES_MAX || args.connections > CONNECTIONS_MAX {
        return Err(CommandError::Usage(format!(
            "at most {BODY_BYTES_MAX} bytes of body and {CONNECTIONS_MAX} connections"
        )));
    }
    let until = match args.requests {
        Some(requests) => Until::Requests(requests),
        None => Until::Elapsed(seconds(args.seconds.unwrap_or(10.0))?),
    };
    let load = Load {
        request: target.post(&args.header, &body),
        target,
        connections: args.connections,
        pace: args.rate.map_or(Pace::Closed, |rate| Pace::Open { rate }),
        until,
        silence_max: seconds(args.silence)?,
        tls: None,
        reconnects: false,
        expected_bytes: args.expect_bytes,
    };
    args.output.pin()?;
    let (driver, result) =
        ring::run(async |driver| (driver.name(), load::run(load).await)).map_err(doing("starting the ring"))?;
    let result = result.map_err(doing("making timers"))?;

    crate::rows::say(&format!("load: sent over {driver}"));
    let mut rows = Rows::new("load");
    write(&mut rows, &args.output.proxy, &result);
    args.output.finish(&rows)?;
    Ok(Verdict::clean_if(result.tally.not_ok() == 0))
}

fn write(rows: &mut Rows, proxy: &str, result: &LoadResult) {
    let answers = result.tally.answers() as f64;
    rows.add(proxy, "answered", answers, "requests");
    rows.add(proxy, "failures", result.tally.not_ok() as f64, "requests");
    result.tally.write(rows, proxy);
    rows.add(proxy, "connects", result.connects as f64, "connections");
    rows.add(proxy, "took", result.took.as_secs_f64(), "s");
    // A run with one failed request has no throughput.
    if result.tally.not_ok() == 0 {
        let rate = answers / result.took.as_secs_f64().max(1e-9);
        rows.add(proxy, "throughput", rate, "requests/s");
    }
    result.tally.latency.write(rows, proxy, "latency");
}
