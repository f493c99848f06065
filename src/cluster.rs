//! `deepintshield cluster`: what a running node believes of its cluster, as a table.
//!
//! Shows what the node says and judges nothing; `doctor` looks for causes. Peers' own words are
//! foreign text, and are stripped of what a terminal would obey.

use crate::admin_client::{Admin, AdminOptions};
use clap::Args;
use serde_json::Value;
use shared::foreign::one_line;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// Characters of one cell.
const CELL_MAX: usize = 48;

/// Of `deepintshield cluster`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    admin: AdminOptions,

    /// Prints the node's own answer, as JSON.
    #[arg(long)]
    json: bool,
}

/// Asks and prints. Exit code 0: HEALTHY, 1: NOT HEALTHY, 69: nobody answers, 77: not let in.
pub(crate) fn run(path: &Path, options: &Options) -> ExitCode {
    let (body, status) = match Admin::find(path, &options.admin).and_then(|admin| admin.status()) {
        Ok(found) => found,
        Err((code, why)) => return crate::fail(code, &why),
    };
    // A reader that closes early (`head`) has seen enough.
    let mut out = io::stdout().lock();
    let _ = if options.json { writeln!(out, "{body}") } else { write!(out, "{}", table(&status)) };
    ExitCode::from(u8::from(status["cluster_health"] != "HEALTHY"))
}

/// A summary, a table of all nodes, and what discovery says.
fn table(status: &Value) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(
        text,
        "{}: {}, {} of {} members healthy{}",
        cell(&status["local_node"]),
        cell(&status["cluster_health"]),
        cell(&status["healthy_members"]),
        cell(&status["members"]),
        if status["doubts_itself"] == true { "; this node doubts itself" } else { "" },
    );
    let mut reason = cell(&status["reason"]);
    if !reason.is_empty() {
        reason = format!(" ({reason})");
    }
    let _ = writeln!(text, "state {}{reason}, digest {} B\n", cell(&status["state"]), cell(&status["digest_bytes"]));

    let head = ["NODE", "ADDRESS", "REGION", "VERSION", "STATE", "HEALTH", "HEARD", "RTT", "CONFIG", "CLOCK", "VIA"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.push([
        format!("{} *", own_id(status)),
        String::new(),
        cell(&status["region"]),
        cell(&status["version"]),
        cell(&status["state"]),
        String::new(),
        String::new(),
        String::new(),
        configuration(&status["configuration"], true),
        String::new(),
        String::new(),
    ]);
    for peer in status["peers"].as_array().into_iter().flatten() {
        let ours = peer["configuration"]["matches_ours"] == true;
        rows.push([
            cell(&peer["id"]),
            cell(&peer["address"]),
            cell(&peer["region"]),
            cell(&peer["version"]),
            cell(&peer["state"]),
            cell(&peer["health"]),
            peer["last_heard_ms"].as_u64().map_or_else(String::new, ago),
            peer["round_trip_ms"].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
            configuration(&peer["configuration"], ours),
            peer["clock_offset_ms"].as_i64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:+} ms")),
            format!("{}{}", cell(&peer["transport"]), if peer["speaks_our_key"] == false { ", other key" } else { "" }),
        ]);
    }
    lay_out(&mut text, &rows);
    text.push_str("* this node\n");
    for key in status["resting_keys"].as_array().into_iter().flatten() {
        let [provider, name, reason] = ["provider", "key", "reason"].map(|field| cell(&key[field]));
        let model = if key["model"].is_string() { format!(" for {}", cell(&key["model"])) } else { String::new() };
        let left = key["remaining_ms"].as_u64().map_or_else(|| "?".to_owned(), ago);
        let _ = writeln!(text, "key {provider}/{name} rests{model} ({reason}), {left} left");
    }
    for provider in status["demoted_providers"].as_array().into_iter().flatten() {
        let share = provider["share_permille"].as_f64().unwrap_or(0.0) / 10.0;
        let _ = writeln!(text, "provider {} is asked after others ({share} % first)", cell(&provider["provider"]));
    }
    for source in status["discovery"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "discovery {}: {} peers", cell(&source["source"]), cell(&source["peers"]));
        let failure = &source["last_failure"];
        if failure.is_object() {
            let [line, cause, remedy] = ["line", "cause", "remedy"].map(|name| plain(&failure[name]));
            let _ = writeln!(text, "  discovery failed: {line}: {cause}\n  {remedy}");
        }
    }
    text
}

/// The part of `deepintshield-ID-PORT` that tells nodes apart.
pub(crate) fn own_id(status: &Value) -> String {
    let name = cell(&status["local_node"]);
    let id = name.strip_prefix("deepintshield-").and_then(|rest| rest.rsplit_once('-')).map(|(id, _)| id.to_owned());
    id.unwrap_or(name)
}

/// Epoch and hash; what differs from ours is marked.
fn configuration(mark: &Value, is_ours: bool) -> String {
    let epoch = cell(&mark["epoch"]);
    let hash: String = plain(&mark["hash"]).chars().take(8).collect();
    let differs = if is_ours { "" } else { " (differs)" };
    format!("{epoch} {hash}{differs}").trim().to_owned()
}

pub(crate) fn ago(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{} s", ms / 1_000),
        _ => format!("{} min", ms / 60_000),
    }
}

/// Columns as wide as their widest cell, two blanks apart.
pub(crate) fn lay_out<const COLUMNS: usize>(text: &mut String, rows: &[[String; COLUMNS]]) {
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width =
                rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

pub(crate) fn cell(value: &Value) -> String {
    plain(value).chars().take(CELL_MAX).collect()
}

/// A value as a person reads it, without control characters.
pub(crate) fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    one_line(&text, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status() -> Value {
        json!({
            "local_node": "deepintshield-n-0-10101", "members": 3, "healthy_members": 2, "cluster_health": "HEALTHY",
            "state": "ready", "reason": "", "region": "eu", "version": "0.1.0", "digest_bytes": 153,
            "doubts_itself": false, "configuration": {"epoch": 4, "author": "n1", "hash": "0123456789abcdef"},
            "peers": [
                {"id": "n1", "address": "10.0.0.2:10101", "region": "eu", "version": "0.1.0", "state": "ready",
                 "health": "healthy", "last_heard_ms": 120, "round_trip_ms": 0.412, "clock_offset_ms": -3,
                 "transport": "udp", "speaks_our_key": true,
                 "configuration": {"epoch": 4, "hash": "0123456789abcdef", "matches_ours": true}},
                {"id": "n2", "address": "10.0.0.3:10101", "health": "dead", "last_heard_ms": 61_000,
                 "round_trip_ms": null, "clock_offset_ms": null, "transport": "tcp", "speaks_our_key": false,
                 "version": "\u{1b}[31mred", "configuration": {"epoch": 3, "hash": "ff", "matches_ours": false}},
            ],
            "resting_keys": [{"provider": "openai", "key": "k1", "model": "m", "reason": "limited", "remaining_ms": 900}],
            "demoted_providers": [{"provider": "cohere", "share_permille": 10}],
            "discovery": [{"source": "etcd", "peers": 2, "last_failure": {
                "line": "etcd client error", "cause": "refused", "remedy": "check it", "age_ms": 5}}],
        })
    }

    #[test]
    fn every_node_has_a_line_and_columns_stand_below_each_other() {
        let text = table(&status());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "deepintshield-n-0-10101: HEALTHY, 2 of 3 members healthy");
        assert_eq!(lines[1], "state ready, digest 153 B");
        assert!(lines[4].starts_with("n-0 *"), "{text}");
        for (line, holds) in
            [(5, "120 ms  0.4 ms"), (5, "4 01234567"), (5, "-3 ms"), (6, "61 s"), (6, "3 ff (differs)")]
        {
            assert!(lines[line].contains(holds), "{holds} in {text}");
        }
        assert!(lines[6].ends_with("tcp, other key"), "{text}");
        let column = |line: usize, cell: &str| lines[line].find(cell).expect("the cell is there");
        assert_eq!(column(3, "ADDRESS"), column(5, "10.0.0.2"));
        assert_eq!(column(3, "VIA"), column(6, "tcp"));
        assert!(text.contains("key openai/k1 rests for m (limited), 900 ms left\n"), "{text}");
        assert!(text.contains("provider cohere is asked after others (1 % first)\n"), "{text}");
        assert!(text.ends_with("  discovery failed: etcd client error: refused\n  check it\n"), "{text}");
    }

    #[test]
    fn a_peers_words_do_not_reach_the_terminal_as_commands() {
        assert!(!table(&status()).contains('\u{1b}'));
    }

    #[test]
    fn an_answer_without_fields_is_a_table_without_words() {
        assert!(table(&json!({})).contains("NODE"));
    }
}
