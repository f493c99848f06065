//! `deepintshield config`: what all nodes share, looked at and changed through a running node.
//!
//! Decides nothing: what may be changed, and what is wrong with a change, is said by the node.

use crate::admin_client::{Admin, AdminOptions, Answer};
use crate::cluster::{cell, lay_out, plain};
use clap::{Args, Subcommand};
use controlplane::admin::path_of;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Longest file that is sent.
const FILE_BYTES_MAX: u64 = 48 * 1024 * 1024;

/// Of `deepintshield config`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    admin: AdminOptions,

    /// Prints the node's own answer, as JSON.
    #[arg(long)]
    json: bool,

    #[command(subcommand)]
    action: Action,
}

/// How something is changed.
#[derive(Args)]
struct How {
    /// Changes nothing, and says what would be.
    #[arg(long)]
    dry_run: bool,

    /// Why, for the history.
    #[arg(long, short = 'm', value_name = "TEXT")]
    message: Option<String>,

    /// Only if the configuration is at this revision.
    #[arg(long, value_name = "NUMBER")]
    at: Option<u64>,
}

#[derive(Subcommand)]
enum Action {
    /// Shows everything, all entities of a kind (`rate_limit`), or one (`rate_limit/basic`).
    Get {
        /// `KIND` or `KIND/NAME`: provider, key, `rate_limit`, budget, customer, team, `virtual_key`, …
        entity: Option<String>,
    },
    /// Changes fields of one entity, or puts a whole one in its place.
    Set {
        /// `KIND/NAME`.
        entity: String,
        /// `FIELD=VALUE`, where the value is JSON or a text; without a value the field goes.
        fields: Vec<String>,
        /// The whole entity, from this file or `-`.
        #[arg(long, short, conflicts_with = "fields")]
        file: Option<PathBuf>,
        /// Removes the entity.
        #[arg(long, conflicts_with_all = ["fields", "file"])]
        remove: bool,
        #[command(flatten)]
        how: How,
    },
    /// Makes the configuration what a file says. Doing it again changes nothing.
    Apply {
        /// The file, or `-`. `server` and other sections of one node are left alone.
        #[arg(long, short)]
        file: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Shows what differs between two revisions: by default what the newest one changed.
    Diff {
        /// The earlier one.
        from: Option<u64>,
        /// The later one, by default the newest.
        to: Option<u64>,
    },
    /// Lists revisions, the newest first.
    History {
        /// How many.
        #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=200))]
        count: u64,
        /// Before this one.
        #[arg(long, value_name = "NUMBER")]
        before: Option<u64>,
    },
    /// Makes the configuration what it was, as a new revision.
    Rollback {
        /// The revision to go back to.
        to: u64,
        #[command(flatten)]
        how: How,
    },
}

/// A refusal: exit code, as `sysexits.h` has them, and why.
type Refused = (u8, String);

/// Asks and prints. Exit code 0: done, 1: not there, 65: the configuration would be wrong, 69: nobody
/// answers, or not now, 75: somebody else was faster, 77: not let in.
pub(crate) fn run(path: &Path, options: &Options) -> ExitCode {
    let admin = match Admin::find(path, &options.admin) {
        Ok(admin) => admin,
        Err((code, why)) => return crate::fail(code, &why),
    };
    match act(&admin, &options.action) {
        Ok(answer) => {
            let shown = if options.json { format!("{answer:#}\n") } else { shown(&options.action, &answer) };
            // A reader that closes early (`head`) has seen enough.
            let _ = io::stdout().lock().write_all(shown.as_bytes());
            ExitCode::SUCCESS
        }
        Err((code, why)) => crate::fail(code, &why),
    }
}

fn act(admin: &Admin, action: &Action) -> Result<Value, Refused> {
    match action {
        Action::Get { entity: None } => ask(admin, "GET", "/api/config", None, ""),
        Action::Get { entity: Some(entity) } if !entity.contains('/') => every(admin, collection(entity)?),
        Action::Get { entity: Some(entity) } => ask(admin, "GET", &path_of_one(entity)?, None, ""),
        Action::Set { entity, fields, file, remove, how } => {
            let path = path_of_one(entity)?;
            match (file, remove) {
                (Some(file), _) => change(admin, "PUT", &path, how, &read(file)?),
                (None, true) => change(admin, "DELETE", &path, how, ""),
                (None, false) => change(admin, "PATCH", &path, how, &patch(fields)?),
            }
        }
        Action::Apply { file, how } => change(admin, "PUT", "/api/config", how, &read(file)?),
        Action::Diff { from, to } => {
            let mut query: Vec<String> = Vec::new();
            query.extend(from.map(|from| format!("from={from}")));
            query.extend(to.map(|to| format!("to={to}")));
            ask(admin, "GET", &format!("/api/config/diff?{}", query.join("&")), None, "")
        }
        Action::History { count, before } => {
            let cursor = before.map(|before| format!("&cursor={before}")).unwrap_or_default();
            ask(admin, "GET", &format!("/api/config/history?limit={count}{cursor}"), None, "")
        }
        Action::Rollback { to, how } => {
            change(admin, "POST", "/api/config/rollback", how, &json!({"to": to}).to_string())
        }
    }
}

/// All pages of a list.
fn every(admin: &Admin, path: &str) -> Result<Value, Refused> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ask(admin, "GET", &format!("{path}?limit=200{cursor}"), None, "")?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", escaped(next)),
            None => return Ok(json!({"items": items, "revision": page["revision"]})),
        }
    }
}

fn change(admin: &Admin, method: &str, path: &str, how: &How, body: &str) -> Result<Value, Refused> {
    let mut query: Vec<String> = Vec::new();
    if how.dry_run {
        query.push("dry_run=true".to_owned());
    }
    query.extend(how.message.as_ref().map(|message| format!("comment={}", escaped(message))));
    ask(admin, method, &format!("{path}?{}", query.join("&")), how.at, body)
}

fn ask(admin: &Admin, method: &str, path: &str, at: Option<u64>, body: &str) -> Result<Value, Refused> {
    let mut fields = at.map(|number| format!("if-match: \"{number}\"\r\n")).unwrap_or_default();
    if method == "PATCH" {
        fields.push_str("content-type: application/merge-patch+json\r\n");
    } else if !body.is_empty() {
        fields.push_str("content-type: application/json\r\n");
    }
    let Answer { status, body } = admin.ask(method, path, &fields, body)?;
    let Ok(answer) = serde_json::from_str::<Value>(&body) else {
        return Err((69, format!("{} answers, but not as a node does", admin.address())));
    };
    if (200..300).contains(&status) { Ok(answer) } else { Err(refused(status, &answer)) }
}

fn refused(status: u16, answer: &Value) -> Refused {
    let error = &answer["error"];
    let mut why = plain(&error["message"]);
    for fault in error["faults"].as_array().into_iter().flatten() {
        // Writing into a string cannot fail.
        let _ =
            write!(why, "\n  {}{}: {}", plain(&fault["entity"]), plain(&fault["pointer"]), plain(&fault["problem"]));
        if fault["expected"].as_str().is_some_and(|expected| !expected.is_empty()) {
            let _ = write!(why, ", expected {}", plain(&fault["expected"]));
        }
        if fault["nearest"].is_string() {
            let _ = write!(why, ", did you mean {}?", plain(&fault["nearest"]));
        }
    }
    let code = match status {
        401 | 403 => 77,
        404 => 1,
        400 | 413 | 415 | 422 => 65,
        409 | 412 | 429 => 75,
        _ => 69,
    };
    (code, why)
}

fn collection(kind: &str) -> Result<&'static str, Refused> {
    path_of(kind).ok_or_else(|| (64, format!("no kind of entities is called {kind:?}; see `config get --help`")))
}

fn path_of_one(entity: &str) -> Result<String, Refused> {
    let (kind, name) = entity.split_once('/').unwrap_or((entity, ""));
    if name.is_empty() {
        return Err((64, format!("{entity:?} names no entity: it is KIND/NAME")));
    }
    Ok(format!("{}/{}", collection(kind)?, escaped(name)))
}

/// `FIELD=VALUE`s as a merge patch; dots lead into objects.
fn patch(fields: &[String]) -> Result<String, Refused> {
    if fields.is_empty() {
        return Err((64, "nothing to set: FIELD=VALUE, --file or --remove".to_owned()));
    }
    let mut patch = Value::Object(Map::new());
    for field in fields {
        let Some((name, value)) = field.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err((64, "a field is set by FIELD=VALUE".to_owned()));
        };
        let value = match value {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        };
        let mut place = &mut patch;
        for step in name.split('.') {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[step];
        }
        *place = value;
    }
    Ok(patch.to_string())
}

fn read(path: &Path) -> Result<Zeroizing<String>, Refused> {
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        io::stdin().lock().take(FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| (66, format!("cannot read {}: {error}", path.display())))?;
    Ok(text)
}

/// For a path or a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => drop(write!(escaped, "%{byte:02X}")),
        }
    }
    escaped
}

/// For people.
fn shown(action: &Action, answer: &Value) -> String {
    let mut text = String::new();
    match action {
        Action::Get { entity: Some(kind) } if !kind.contains('/') => {
            let mut rows = vec![["NAME".to_owned(), "VALUE".to_owned()]];
            rows.extend(list(answer, "items").map(|item| [cell(&item["name"]), plain(&item["value"])]));
            lay_out(&mut text, &rows);
        }
        Action::Get { .. } => text = format!("{answer:#}\n"),
        Action::History { .. } => {
            let head = ["REVISION", "NODE", "AUTHOR", "CHANGES", "COMMENT"];
            let mut rows = vec![head.map(str::to_owned)];
            rows.extend(list(answer, "items").map(|item| {
                let number = cell(&item["number"]);
                [
                    if item["is_superseded"] == true { format!("{number} superseded") } else { number },
                    cell(&item["node"]),
                    cell(&item["author"]),
                    format!(
                        "{} {}",
                        cell(&item["change_count"]),
                        list(item, "entities").map(cell).collect::<Vec<_>>().join(" ")
                    ),
                    cell(&item["comment"]),
                ]
            }));
            lay_out(&mut text, &rows);
        }
        Action::Diff { .. } => {
            let _ = writeln!(text, "from revision {} to {}", answer["from"], answer["to"]);
            for change in list(answer, "changes") {
                let _ = writeln!(text, "{}", plain(&change["entity"]));
                for (mark, side) in [("-", &change["before"]), ("+", &change["after"])] {
                    if !side.is_null() {
                        let _ = writeln!(text, "  {mark} {}", plain(side));
                    }
                }
            }
        }
        Action::Set { .. } | Action::Apply { .. } | Action::Rollback { .. } => {
            for warning in list(answer, "warnings") {
                let _ = writeln!(text, "warning: {}", plain(warning));
            }
            let (changes, revision) = (&answer["changes"], &answer["revision"]);
            let _ = match (answer["dry_run"] == true, changes.as_u64()) {
                (_, Some(0)) => writeln!(text, "nothing to change at revision {revision}"),
                (true, _) => writeln!(text, "{changes} entities would change; revision {revision} is in force"),
                (false, _) => writeln!(text, "{changes} entities changed, revision {revision}"),
            };
        }
    }
    text
}

fn list<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value[field].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_a_merge_patch() {
        let patch = |fields: &[&str]| patch(&fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            patch(&["a=1", "b.c=x y", "b.d=[\"z\"]", "e=", "f=env.KEY"]),
            Ok(r#"{"a":1,"b":{"c":"x y","d":["z"]},"e":null,"f":"env.KEY"}"#.to_owned())
        );
        assert!(patch(&[]).is_err() && patch(&["a"]).is_err() && patch(&["=1"]).is_err());
    }

    #[test]
    fn an_entity_is_found_at_its_path() {
        assert_eq!(path_of_one("key/openai/a b"), Ok("/api/keys/openai%2Fa%20b".to_owned()));
        assert_eq!(path_of_one("rate_limit/r").as_deref(), Ok("/api/governance/rate-limits/r"));
        for wrong in ["rate_limit", "rate_limit/", "limit/r", "client/x"] {
            assert_eq!(path_of_one(wrong).unwrap_err().0, 64, "{wrong}");
        }
    }

    #[test]
    fn refusals_have_their_exit_codes_and_every_fault() {
        let answer = json!({"error": {"message": "2 faults", "faults": [
            {"entity": "rate_limit/r", "pointer": "/id", "problem": "odd\u{1b}[0m", "expected": "an id", "nearest": "r2"},
            {"entity": null, "pointer": "", "problem": "why", "expected": "", "nearest": null}]}});
        let (code, why) = refused(422, &answer);
        assert_eq!((code, why.lines().count()), (65, 3));
        assert!(why.contains("rate_limit/r/id: odd [0m, expected an id, did you mean r2?"), "{why}");
        for (status, code) in [(401, 77), (403, 77), (404, 1), (409, 75), (412, 75), (503, 69), (500, 69)] {
            assert_eq!(refused(status, &json!({})).0, code);
        }
    }
}
