//! Who changed what through the admin interface, or was not let in: in the log under the target
//! `audit`, and in two files of bounded length in the state directory, one JSON object a line.
//!
//! Holds no value of the configuration, only names. An answer is given once its line is on disk; where
//! the disk refuses it, the log says so and the answer is given all the same, since the change is done.

use super::Desk;
use super::answer::Refusal;
use super::asked::Asked;
use crate::live::EntityId;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const FILE: &str = "audit.jsonl";
/// What [`FILE`] becomes when it is full; the one before it goes.
const FULL_FILE: &str = "audit.jsonl.1";
/// Length of one file at most, and one line more.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Names of entities in one line.
const NAMES_MAX: usize = 50;
/// Characters of a name or a path.
const TEXT_MAX: usize = 256;
/// Callers that were not let in, of which one minute keeps lines.
const DENIED_PER_MINUTE: u32 = 20;

/// Lines on one page: where nothing is asked for, and at most.
const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1_000;

/// What an answer tells the audit log; carried in its extensions.
#[derive(Clone, Default)]
pub(super) struct Told {
    pub(super) entities: Vec<String>,
    /// The revision that came of it.
    pub(super) revision: Option<u64>,
    pub(super) is_dry_run: bool,
}

/// How a refusal tells what it is; carried in its extensions.
#[derive(Clone, Copy)]
pub(super) struct Outcome(pub(super) &'static str);

impl Told {
    /// As many as a line holds.
    pub(super) fn names(ids: &[EntityId]) -> Vec<String> {
        ids.iter().take(NAMES_MAX).map(|id| cut(&id.to_string())).collect()
    }
}

/// One line.
pub(super) struct Line {
    pub(super) at_ms: u64,
    pub(super) who: String,
    pub(super) from: Option<IpAddr>,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) outcome: &'static str,
    pub(super) told: Told,
}

/// The log of one node. Cheap to copy.
#[derive(Clone)]
pub(super) struct Audit(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    dir: Option<PathBuf>,
    /// Of the next line; found out by the first.
    next: Option<u64>,
    has_failed: bool,
    /// The minute, and how many were not let in within it.
    denied: (u64, u32),
}

impl Audit {
    /// In this folder; without one, in the log alone.
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(Kept { dir, ..Kept::default() })))
    }

    /// Whether one more caller that was not let in may have a line.
    pub(super) fn has_room_for_denied(&self, at_ms: u64) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = at_ms / 60_000;
        if kept.denied.0 != minute {
            kept.denied = (minute, 0);
        }
        kept.denied.1 = kept.denied.1.saturating_add(1);
        kept.denied.1 <= DENIED_PER_MINUTE
    }

    /// Writes a line, on the blocking pool. Returns when it is on disk.
    pub(super) async fn write(&self, line: Line) {
        tracing::info!(
            target: "audit",
            who = line.who,
            from = line.from.map(tracing::field::display),
            method = line.method,
            path = cut(&line.path),
            status = line.status,
            outcome = line.outcome,
            revision = line.told.revision,
            dry_run = line.told.is_dry_run,
            entities = line.told.entities.join(" "),
            "{} {} by {}: {}", line.method, cut(&line.path), line.who, line.outcome,
        );
        let kept = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let outcome = kept.append(&line);
            let was_failing = std::mem::replace(&mut kept.has_failed, outcome.is_err());
            outcome.map_err(|error| (error, was_failing))
        });
        if let Ok(Err((error, false))) = written.await {
            tracing::error!(%error, "the audit log cannot be written; its lines stand in this log only");
        }
    }

    /// The newest lines with a number below `before`, the newest first.
    async fn read(&self, before: u64, count: usize) -> io::Result<Vec<Value>> {
        let kept = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.newest(before, count)
        });
        read.await.map_err(io::Error::other)?
    }
}

impl Kept {
    fn append(&mut self, line: &Line) -> io::Result<()> {
        let Some(dir) = self.dir.clone() else { return Ok(()) };
        let number = match self.next {
            Some(number) => number,
            None => self.newest(u64::MAX, 1)?.first().and_then(|line| line["number"].as_u64()).unwrap_or(0) + 1,
        };
        let path = dir.join(FILE);
        if fs::metadata(&path).is_ok_and(|file| file.len() >= FILE_BYTES_MAX) {
            fs::rename(&path, dir.join(FULL_FILE))?;
        }
        let mut text = json!({
            "number": number,
            "at_ms": line.at_ms,
            "who": line.who,
            "from": line.from.map(|from| from.to_string()),
            "method": line.method,
            "path": cut(&line.path),
            "entities": line.told.entities,
            "revision": line.told.revision,
            "dry_run": line.told.is_dry_run,
            "status": line.status,
            "outcome": line.outcome,
        })
        .to_string();
        text.push('\n');
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        self.next = Some(number.saturating_add(1));
        Ok(())
    }

    fn newest(&self, before: u64, count: usize) -> io::Result<Vec<Value>> {
        let Some(dir) = &self.dir else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in [FILE, FULL_FILE] {
            let text = read(&dir.join(name))?;
            // A line that a crash has cut is passed over.
            let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let wanted = lines.filter(|line| line["number"].as_u64().is_some_and(|number| number < before));
            found.extend(wanted.take(count.saturating_sub(found.len())));
        }
        Ok(found)
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => drop(file.take(2 * FILE_BYTES_MAX).read_to_end(&mut bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Without what a terminal would obey, and not longer than a line can be.
fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(TEXT_MAX).collect()
}

/// `GET /api/audit`.
pub(super) async fn list(desk: &Desk, asked: &Asked) -> Result<Response, Refusal> {
    let count = usize::try_from(asked.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE)).unwrap_or(usize::MAX);
    let before = asked.number("cursor", 1, u64::MAX)?.unwrap_or(u64::MAX);
    let found = desk.audit.read(before, count.saturating_add(1)).await;
    let mut lines = found.map_err(|error| Refusal::unavailable(format!("the audit log cannot be read: {error}")))?;
    let has_more = lines.len() > count;
    lines.truncate(count);
    let next = lines.last().filter(|_| has_more).and_then(|line| line["number"].as_u64());
    Ok(Json(json!({"items": lines, "next": next.map(|number| number.to_string())})).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::tests::Scratch;

    fn line(path: &str) -> Line {
        Line {
            at_ms: 7,
            who: "ann".to_owned(),
            from: None,
            method: "PUT".to_owned(),
            path: path.to_owned(),
            status: 200,
            outcome: "done",
            told: Told::default(),
        }
    }

    #[tokio::test]
    async fn lines_are_numbered_on_over_a_restart_and_read_from_the_newest() {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).unwrap();
        for path in ["/a", "/b\n"] {
            Audit::new(Some(scratch.0.clone())).write(line(path)).await;
        }
        let audit = Audit::new(Some(scratch.0.clone()));
        let lines = audit.read(u64::MAX, 10).await.unwrap();
        let seen: Vec<_> = lines.iter().map(|line| (line["number"].as_u64(), line["path"].as_str())).collect();
        assert_eq!(seen, [(Some(2), Some("/b?")), (Some(1), Some("/a"))]);
        assert_eq!(audit.read(2, 10).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_full_file_makes_room_for_the_next_one() {
        let scratch = Scratch::new();
        fs::create_dir(&scratch.0).unwrap();
        let audit = Audit::new(Some(scratch.0.clone()));
        audit.write(line("/first")).await;
        let mut whole = fs::read(scratch.0.join(FILE)).unwrap();
        whole.resize(usize::try_from(FILE_BYTES_MAX).unwrap(), b' ');
        whole.push(b'\n');
        fs::write(scratch.0.join(FILE), whole).unwrap();
        audit.write(line("/second")).await;
        let lines = audit.read(u64::MAX, 10).await.unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!((&lines[0]["path"], &lines[1]["path"]), (&json!("/second"), &json!("/first")));
    }

    #[test]
    fn whoever_is_not_let_in_cannot_push_out_what_was_done() {
        let audit = Audit::new(None);
        let kept = (0..100).filter(|_| audit.has_room_for_denied(1)).count();
        assert_eq!(kept, DENIED_PER_MINUTE as usize);
        assert!(audit.has_room_for_denied(60_001));
    }
}
