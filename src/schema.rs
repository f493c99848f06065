//! `deepintshield schema`: what may stand in a configuration file, as a JSON Schema for editors.

use controlplane::config_schema::known;
use std::io::{self, Write};
use std::process::ExitCode;

/// Prints it.
pub(crate) fn run() -> ExitCode {
    // A reader that closes early (`head`) has seen enough.
    let _ = writeln!(io::stdout().lock(), "{:#}", known().schema());
    ExitCode::SUCCESS
}
