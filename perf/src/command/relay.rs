//! `perf relay`.

use std::time::Duration;

use clap::Args;

use super::{CommandError, Verdict, doing};
use crate::{clock, relay, ring, rows::say, target::loopback};

/// Longest life of a relay that nobody stopped, in seconds.
const LIFE_SECONDS_MAX: u64 = 86_400;

#[derive(Debug, Args)]
pub(super) struct RelayArgs {
    /// Address to listen on, loopback only
    #[arg(long)]
    listen: String,
    /// Address to relay to, loopback only
    #[arg(long)]
    to: String,
    /// Pin this program to a core
    #[arg(long, value_name = "CORE")]
    pin: Option<usize>,
    /// Accept nothing more after so many seconds
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
}

pub(super) fn run(args: &RelayArgs) -> Result<Verdict, CommandError> {
    let listen = loopback(&args.listen)?;
    let to = loopback(&args.to)?;
    if let Some(id) = args.pin
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(CommandError::Usage(format!("core {id} cannot be pinned to")));
    }
    let end = clock::now() + Duration::from_secs(args.seconds.min(LIFE_SECONDS_MAX));
    ring::run(async |driver| {
        say(&format!("relay: {listen} -> {to} over {}", driver.name()));
        relay::serve(listen, to, end).await
    })
    .map_err(doing("starting the ring"))?
    .map_err(doing("listening"))?;
    Ok(Verdict::Clean)
}
