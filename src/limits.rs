//! `deepintshield limits`: what a running node knows of every limit, its own part and the others', as
//! a table.
//!
//! Shows what the node says and judges nothing. Peers' own words are foreign text, and are stripped of
//! what a terminal would obey.

use crate::admin_client::{Admin, AdminOptions};
use crate::cluster::{ago, cell, lay_out};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// Of `deepintshield limits`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    admin: AdminOptions,

    /// Prints the node's own figures, as JSON.
    #[arg(long)]
    json: bool,
}

/// Asks and prints. Exit code 0: all limits may be spent here, 1: some may not, 69: nobody answers, 77: not let in.
pub(crate) fn run(path: &Path, options: &Options) -> ExitCode {
    let status = match Admin::find(path, &options.admin).and_then(|admin| admin.status()) {
        Ok((_, status)) => status,
        Err((code, why)) => return crate::fail(code, &why),
    };
    let shown = if options.json {
        let parts = json!({ "escrow": status["escrow"], "limits": status["limits"] });
        format!("{parts}\n")
    } else {
        table(&status)
    };
    // A reader that closes early (`head`) has seen enough.
    let _ = io::stdout().lock().write_all(shown.as_bytes());
    let waits = list(&status["limits"]).any(|limit| limit["waits_for"].is_string());
    ExitCode::from(u8::from(waits))
}

/// Who shares, and then for each limit a line for all nodes and one for each.
fn table(status: &Value) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    for book in list(&status["escrow"]["books"]) {
        let _ = writeln!(text, "{}", of_book(book));
    }
    if status["escrow"]["is_kept"] == false {
        text.push_str("what this node has is not kept: if it is started again it begins with nothing\n");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let head = [
        "LIMIT", "NODE", "AMOUNT", "HAS", "USED", "USE", "HELD", "GOT", "GAVE", "REFUSED", "STRANDED", "BEYOND", "MODE",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for limit in list(&status["limits"]) {
        rows.push(of_all(limit));
        rows.extend(list(&limit["by_node"]).map(|node| of_node(node, limit, status)));
    }
    if rows.len() == 1 {
        text.push_str("this node has no limits\n");
        return text;
    }
    lay_out(&mut text, &rows);
    text.push_str("* this node; GOT, GAVE and REFUSED since starts, the rest in the window that ends now\n");
    for limit in list(&status["limits"]) {
        notes(&mut text, limit);
    }
    text
}

fn of_book(book: &Value) -> String {
    let [policy, limits, epoch] = ["on_node_loss", "limits", "epoch"].map(|field| cell(&book[field]));
    let members: Vec<String> = list(&book["members"]).map(cell).collect();
    let mut line = format!("{limits} limits by {policy}: ");
    if members.is_empty() {
        line.push_str("no nodes have agreed to share them yet");
    } else {
        let _ = write!(line, "{} members in epoch {epoch} ({})", members.len(), members.join(", "));
        let _ = write!(line, ", heir {}", cell(&book["heir"]));
    }
    if let Some(lease) = book["lease_ms"].as_u64() {
        let _ = write!(line, ", lease {}", ago(lease));
    }
    if book["waits_for"].is_string() {
        let _ = write!(line, "; nothing may be spent: {}", waits(book));
    }
    line
}

fn of_all(limit: &Value) -> [String; 13] {
    let known = |field: &str| if limit[field].is_null() { "-".to_owned() } else { cell(&limit[field]) };
    let use_of_all = limit["utilisation"].as_f64().map_or_else(String::new, |part| format!("{:.1} %", part * 100.0));
    [
        cell(&limit["id"]),
        "all".to_owned(),
        cell(&limit["amount"]),
        known("entitlement"),
        cell(&limit["used"]),
        use_of_all,
        String::new(),
        String::new(),
        String::new(),
        cell(&limit["refused"]),
        known("stranded"),
        beyond(limit),
        cell(&limit["enforcement"]),
    ]
}

/// The bound on what may come beyond the limit, or how often an estimate may be too low.
fn beyond(limit: &Value) -> String {
    let probability = limit["overshoot_probability"].as_f64().unwrap_or(0.0);
    if probability > 0.0 { format!("1 in {:.0}", 1.0 / probability) } else { cell(&limit["overshoot_bound"]) }
}

fn of_node(node: &Value, limit: &Value, status: &Value) -> [String; 13] {
    let id = cell(&node["node"]);
    let is_own = id == crate::cluster::own_id(status);
    let own = |field: &str| if is_own { cell(&limit[field]) } else { String::new() };
    [
        String::new(),
        if is_own { format!("{id} *") } else { id },
        String::new(),
        if node["entitlement"].is_null() { "-".to_owned() } else { cell(&node["entitlement"]) },
        cell(&node["used"]),
        String::new(),
        own("held_here"),
        own("borrowed"),
        own("lent"),
        cell(&node["refused"]),
        String::new(),
        String::new(),
        String::new(),
    ]
}

/// What a figure alone does not say.
fn notes(text: &mut String, limit: &Value) {
    let id = cell(&limit["id"]);
    if limit["waits_for"].is_string() {
        let _ = writeln!(text, "{id}: nothing may be spent here: {}", waits(limit));
    }
    if let Some(after) = limit["stranded_ms"].as_u64() {
        let _ = writeln!(text, "{id}: {} stranded, back within {}", cell(&limit["stranded"]), ago(after));
    }
    if limit["reduced_by"].is_string() {
        let configured = if limit["configured"].is_null() { "auto".to_owned() } else { cell(&limit["configured"]) };
        let _ = writeln!(text, "{id}: {} of {configured} ({})", cell(&limit["amount"]), cell(&limit["reduced_by"]));
    }
}

fn waits(of: &Value) -> String {
    let why = crate::cluster::plain(&of["waits_for"]);
    of["waits_ms"].as_u64().map_or(why.clone(), |after| format!("{why} ({} more)", ago(after)))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Value {
        json!({
            "local_node": "deepintshield-n0-10101",
            "escrow": { "is_kept": true, "minted": 1, "books": [{
                "on_node_loss": "reclaim", "limits": 2, "epoch": 3, "members": ["n0/0001", "n1/0002"], "heir": "n0/0001",
                "lease_ms": 4_100, "waits_for": null, "waits_ms": null }] },
            "limits": [
                { "id": "team/requests", "unit": "requests", "amount": 90, "entitlement": 60, "used": 45, "refused": 7,
                  "utilisation": 0.5, "stranded": 30, "stranded_ms": 61_000, "overshoot_bound": 0,
                  "overshoot_probability": 0.0, "enforcement": "strict", "held_here": 2, "borrowed": 11, "lent": 12,
                  "waits_for": null, "reduced_by": null, "by_node": [
                    { "node": "n0", "entitlement": 40, "used": 40, "refused": 7 },
                    { "node": "n1", "entitlement": 20, "used": 5, "refused": 0 }] },
                { "id": "key/tokens", "unit": "tokens", "amount": 100, "configured": 400, "entitlement": null, "used": 0,
                  "refused": 0, "utilisation": 0.0, "stranded": null, "stranded_ms": null, "overshoot_bound": 0,
                  "overshoot_probability": 0.01, "enforcement": "statistical", "reduced_by": "provider_limit",
                  "waits_for": "1 of 2\u{1b} nodes have met", "waits_ms": 900, "by_node": [] },
            ],
        })
    }

    #[test]
    fn every_limit_has_a_line_for_all_and_one_for_each_node() {
        let text = table(&status());
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        for line in [
            "2 limits by reclaim: 2 members in epoch 3 (n0/0001, n1/0002), heir n0/0001, lease 4100 ms",
            "team/requests all 90 60 45 50.0 % 7 30 0 strict",
            "n0 * 40 40 2 11 12 7",
            "n1 20 5 0",
            "key/tokens all 100 - 0 0.0 % 0 - 1 in 100 statistical",
            "team/requests: 30 stranded, back within 61 s",
            "key/tokens: nothing may be spent here: 1 of 2? nodes have met (900 ms more)",
            "key/tokens: 100 of 400 (provider_limit)",
        ] {
            assert!(lines.iter().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "a peer's words are no commands");
    }

    #[test]
    fn who_does_not_share_yet_says_so() {
        let mut status = status();
        status["escrow"]["books"][0] =
            json!({ "on_node_loss": "keep", "limits": 1, "members": [], "waits_for": "why" });
        status["escrow"]["is_kept"] = json!(false);
        let text = table(&status);
        assert!(text.contains("1 limits by keep: no nodes have agreed to share them yet; nothing may be spent: why\n"));
        assert!(text.contains("is not kept"), "{text}");
    }

    #[test]
    fn an_answer_without_fields_has_no_limits() {
        assert_eq!(table(&json!({})), "this node has no limits\n");
    }
}
