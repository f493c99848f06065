//! Puts the build into the version: the commit where there is one, and the profile.

use std::process::Command;

fn main() {
    let commit = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok();
    let commit =
        commit.filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok());
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let profile = std::env::var("PROFILE").unwrap_or_default();
    let build = commit.map_or_else(|| profile.clone(), |commit| format!("{} {profile}", commit.trim()));
    println!("cargo::rustc-env=DEEPINTSHIELD_VERSION={version} ({build})");
    println!("cargo::rerun-if-changed=.git/HEAD");
}
