//! `deepintshield doctor`: looks for what keeps this node out of its cluster, and prints each
//! finding with symptom, cause and remedy. What is looked for is `controlplane::doctor`'s matter.

use crate::admin_client::{Admin, AdminOptions};
use crate::process;
use clap::Args;
use controlplane::doctor::{Finding, Patient, Remark, examine};
use serde_json::Value;
use shared::clock::Clock;
use shared::config::model::LogFormat;
use shared::config::{self, Sources};
use shared::foreign::one_line;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// What of the log is shown, unless `RUST_LOG` says otherwise.
const LOG_WARNINGS: &str = "warn";

/// Of `deepintshield doctor`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    admin: AdminOptions,
}

/// Examines and prints. Exit code 0: nothing is wrong, 1: something is, 78: not even the configuration loads.
pub(crate) fn run(path: &Path, options: &Options) -> ExitCode {
    let name = path.display();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return crate::fail(66, &format!("cannot read {name}: {error}")),
    };
    let sources = Sources { env: &controlplane::sources::env, file: &controlplane::sources::file, ..Sources::none() };
    let loaded = config::text_of(&bytes).map_err(|fault| vec![fault]).and_then(|text| config::load(text, &sources));
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(faults) => {
            return crate::fail(78, &format!("{name} has {} faults; see `deepintshield check`", faults.len()));
        }
    };
    let admin = match Admin::find(path, &options.admin) {
        Ok(admin) => admin,
        Err((code, why)) => return crate::fail(code, &why),
    };
    let page = |path: &str| admin.ask("GET", path, "", "").ok().filter(|answer| answer.status == 200);
    let status = page("/cluster/status").and_then(|answer| serde_json::from_str(&answer.body).ok());
    let status: Option<Value> = status;
    let metrics = || page("/metrics").map(|answer| answer.body);

    // What sources and gossip warn of is part of the picture; it goes to standard error.
    process::start_logging(LogFormat::Text, LOG_WARNINGS);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return crate::fail(71, &format!("the examination could not start: {error}")),
    };
    let mut out = io::stdout().lock();
    let mut wrong = 0_usize;
    let patient = Patient { config: &loaded.config, status: status.as_ref(), metrics: &metrics, clock: Clock::start() };
    let mut say = |remark: Remark| {
        // A reader that closes early (`head`) has seen enough.
        let _ = match remark {
            Remark::Good(text) => writeln!(out, "ok    {}", plain(&text)),
            Remark::Note(text) => writeln!(out, "note  {}", plain(&text)),
            Remark::Wrong(Finding { symptom, cause, remedy }) => {
                wrong += 1;
                let [symptom, cause, remedy] = [symptom, cause, remedy].map(|text| plain(&text));
                writeln!(out, "WRONG {symptom}\n      cause:  {cause}\n      remedy: {remedy}")
            }
        };
    };
    runtime.block_on(examine(&patient, &mut say));
    // A look-up may hang; nothing is lost by not waiting for it.
    runtime.shutdown_background();
    let _ = match wrong {
        0 => writeln!(out, "nothing is wrong"),
        1 => writeln!(out, "1 finding"),
        _ => writeln!(out, "{wrong} findings"),
    };
    ExitCode::from(u8::from(wrong > 0))
}

/// Parts of a remark are others' words, which a terminal must not obey.
fn plain(text: &str) -> String {
    one_line(text, usize::MAX)
}
