//! `deepintshield check`: every fault of a configuration at once, and nothing started.

use shared::config::{self, Sources};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Checks the file and prints what there is to say about it.
pub(crate) fn run(path: &Path) -> ExitCode {
    let name = path.display();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return crate::fail(66, &format!("cannot read {name}: {error}")),
    };
    let sources = Sources { env: &controlplane::sources::env, file: &controlplane::sources::file, ..Sources::none() };
    let mut out = io::stdout().lock();
    // A reader that closes early (`head`) has seen enough.
    match config::text_of(&bytes).map_err(|fault| vec![fault]).and_then(|text| config::load(text, &sources)) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                let _ = writeln!(out, "{name}:{warning}");
            }
            let _ = writeln!(out, "{name}: good, {} warnings", loaded.warnings.len());
            ExitCode::SUCCESS
        }
        Err(faults) => {
            for fault in &faults {
                let _ = writeln!(out, "{name}:{fault}");
            }
            let _ = writeln!(out, "{name}: {} faults", faults.len());
            ExitCode::from(78)
        }
    }
}
