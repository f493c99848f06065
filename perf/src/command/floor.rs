//! `perf relay`, `perf relay-epoll` and `perf minimal-proxy`: the floors; and `perf tls-front`,
//! which stands before a provider that is reached with TLS. All are started the same way.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;

use super::{CommandError, Verdict, doing};
use crate::{clock, epoll_relay, minimal_proxy, relay, ring, rows::say, target::loopback, tls};

/// Longest life of a floor that nobody stopped, in seconds.
const LIFE_SECONDS_MAX: u64 = 86_400;

#[derive(Debug, Args)]
pub(super) struct FloorArgs {
    /// Address to listen on, loopback only
    #[arg(long)]
    listen: String,
    /// Address to pass everything on to, loopback only
    #[arg(long)]
    to: String,
    /// Pin this program to a core
    #[arg(long, value_name = "CORE")]
    pin: Option<usize>,
    /// Accept nothing more after so many seconds
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
}

pub(super) fn relay(args: &FloorArgs) -> Result<Verdict, CommandError> {
    on_ring("relay", args, relay::serve)
}

pub(super) fn relay_epoll(args: &FloorArgs) -> Result<Verdict, CommandError> {
    let (listen, to, end) = args.start()?;
    say(&format!("relay-epoll: {listen} -> {to} over epoll"));
    epoll_relay::serve(listen, to, || clock::now() >= end).map_err(doing("listening"))?;
    Ok(Verdict::Clean)
}

pub(super) fn minimal_proxy(args: &FloorArgs) -> Result<Verdict, CommandError> {
    on_ring("minimal-proxy", args, minimal_proxy::serve)
}

#[derive(Debug, Args)]
pub(super) struct TlsFrontArgs {
    #[command(flatten)]
    floor: FloorArgs,
    /// The certificate chain that is shown, PEM
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

pub(super) fn tls_front(args: &TlsFrontArgs) -> Result<Verdict, CommandError> {
    let server = tls::Server::new(&args.certificate, &args.key).map_err(doing("reading the certificate"))?;
    on_ring("tls-front", &args.floor, async |listen, to, end| tls::serve(server, listen, to, end).await)
}

fn on_ring(
    name: &str,
    args: &FloorArgs,
    serve: impl AsyncFnOnce(SocketAddr, SocketAddr, Instant) -> io::Result<()>,
) -> Result<Verdict, CommandError> {
    let (listen, to, end) = args.start()?;
    ring::run(async |driver| {
        say(&format!("{name}: {listen} -> {to} over {}", driver.name()));
        serve(listen, to, end).await
    })
    .map_err(doing("starting the ring"))?
    .map_err(doing("listening"))?;
    Ok(Verdict::Clean)
}

impl FloorArgs {
    /// Pins this program; then where it listens, what it passes everything on to, and until when.
    fn start(&self) -> Result<(SocketAddr, SocketAddr, Instant), CommandError> {
        let listen = loopback(&self.listen)?;
        let to = loopback(&self.to)?;
        if let Some(id) = self.pin
            && !core_affinity::set_for_current(core_affinity::CoreId { id })
        {
            return Err(CommandError::Usage(format!("core {id} cannot be pinned to")));
        }
        Ok((listen, to, clock::now() + Duration::from_secs(self.seconds.min(LIFE_SECONDS_MAX))))
    }
}
