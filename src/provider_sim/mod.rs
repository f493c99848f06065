//! `deepintshield provider-sim`: an AI provider that is not one, for tests, demos and load.
//!
//! It speaks the dialects of `OpenAI`, Anthropic, Gemini and Cohere, answers with as many tokens as
//! it is told, enforces its own rate limits and counts exactly what it admitted, and makes the
//! mistakes it is asked for. It shares no code with the gateway's data plane, whose independent
//! counterpart it is: what both read or write the same way, they agree on by the standard.
//!
//! Settings of one request come as headers `x-sim-NAME` or as `metadata.sim` in the body (see
//! [`settings`]); what was counted is at `GET /__sim/stats` (see [`stats`]), the log itself at
//! `GET /__sim/admissions` (see [`admissions`]), and both are forgotten with `POST /__sim/reset`.
//!
//! Order of things for one request: key, then body, then faults that refuse, then limits, then the
//! log, then the answer with the faults that spoil it. So a 401, a 400 and a 500 on purpose are
//! never counted as admitted, and a reset on purpose is.

mod admissions;
mod answer;
mod arrivals;
mod client;
mod connection;
mod core;
mod dialect;
mod fault;
mod head;
mod ledger;
mod limit;
mod request;
mod route;
mod server;
mod settings;
mod stats;
mod stream;
mod text;

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use self::core::Provider;

/// What the simulated provider does unless a request says otherwise.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9100")]
    pub(crate) listen: SocketAddr,
    /// Threads that serve.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,
    /// Accepted API key (repeatable); without one, every key is accepted, and none too.
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Vec<String>,
    /// Name in the list of models (repeatable). Requests may name any model.
    #[arg(long, value_name = "NAME", default_values = ["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "text-embedding-3-small"])]
    pub(crate) model: Vec<String>,
    /// Tokens of an answer, unless the request allows fewer.
    #[arg(long, value_name = "N", default_value = "16")]
    pub(crate) completion_tokens: u32,
    /// Tokens in one event of a stream.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) tokens_per_event: NonZeroU32,
    /// Milliseconds from a request to its first token.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = settings::parse_millis)]
    pub(crate) ttft_ms: Duration,
    /// Milliseconds from one token to the next.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = settings::parse_millis)]
    pub(crate) token_ms: Duration,
    /// Rate limit (repeatable):
    /// name=NAME,requests=N,tokens=N,window=60s,kind=sliding-log|token-bucket,scope=all|key|model
    #[arg(long, value_name = "RULE")]
    pub(crate) limit: Vec<limit::Rule>,
    /// Fault that strikes at random (repeatable): KIND:PROBABILITY[:ARGUMENT]
    #[arg(long, value_name = "FAULT")]
    pub(crate) fault: Vec<fault::FaultRule>,
    /// What the random faults repeat from.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,
    /// Admitted requests that the log remembers, 16 bytes each; GET /__sim/admissions shows them.
    #[arg(long, value_name = "ROWS", default_value = "2000000")]
    pub(crate) log_rows: usize,
}

/// Runs until `stop` is set, or a thread fails. Prints one line once connections are accepted.
///
/// # Errors
/// The address cannot be bound, or no runtime can be built. Nothing is left behind.
pub(crate) fn run(options: Options, stop: &AtomicBool) -> io::Result<()> {
    let opened = open(options)?;
    writeln!(io::stdout(), "provider-sim listening on {}", opened.address)?;
    opened.serve(stop)
}

/// A provider whose address is bound, and that serves nobody yet: who connects waits.
pub(crate) struct Opened {
    /// Tells the port where the options say 0.
    pub(crate) address: SocketAddr,
    options: Options,
    listeners: Vec<TcpListener>,
}

/// Binds the address that `options` name.
///
/// # Errors
/// It is taken, or not ours to take. Nothing is left behind.
pub(crate) fn open(options: Options) -> io::Result<Opened> {
    let listeners = server::bind(options.listen, options.threads.get())?;
    let address = listeners.first().map_or(Ok(options.listen), TcpListener::local_addr)?;
    Ok(Opened { address, options, listeners })
}

impl Opened {
    /// Serves until `stop` is set, or a thread fails.
    ///
    /// # Errors
    /// No runtime can be built. Nothing is left behind.
    pub(crate) fn serve(self, stop: &AtomicBool) -> io::Result<()> {
        crate::process::prepare_descriptors();
        serve_all(&Provider::new(self.options), self.listeners, stop)
    }
}

/// One thread a listener; this one serves the last.
fn serve_all(provider: &Arc<Provider>, mut listeners: Vec<TcpListener>, stop: &AtomicBool) -> io::Result<()> {
    let Some(last) = listeners.pop() else { return Ok(()) };
    std::thread::scope(|scope| {
        let others: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(thread, listener)| {
                let provider = provider.clone();
                scope.spawn(move || {
                    let served = server::serve(provider, thread + 1, listener, stop);
                    // A thread that cannot serve takes the others with it: half a provider would
                    // look like a slow one.
                    stop.store(true, Ordering::Relaxed);
                    served
                })
            })
            .collect();
        let served = server::serve(provider.clone(), 0, last, stop);
        stop.store(true, Ordering::Relaxed);
        let mut outcome = served;
        for other in others {
            let served =
                other.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the simulated provider panicked")));
            outcome = outcome.and(served);
        }
        outcome
    })
}
