//! What the configuration was: revisions, the difference between two, and the way back to one.

use super::Desk;
use super::answer::Refusal;
use super::asked::Asked;
use super::change::{self, Plan};
use super::hidden::hidden;
use crate::live::{Change, Entities, EntityId, Live, Recorded};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Revisions on one page: where nothing is asked for, and at most.
const PAGE: u64 = 50;
pub(super) const PAGE_MAX: u64 = 200;
/// Revisions that one question looks back over.
const LOOK_BACK_MAX: usize = 20_000;
/// Ids of one revision that a list shows.
const IDS_MAX: usize = 20;

/// Revisions, the newest first; superseded ones too.
pub(super) async fn list(desk: &Desk, asked: &Asked) -> Result<Response, Refusal> {
    let count = asked.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE);
    let before = asked.number("cursor", 1, u64::MAX)?;
    // One more tells whether there is a next page. A cursor is a number, so that revisions of one
    // number stay on one page.
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let asked_for = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    let mut page = history(&desk.live, before, asked_for).await?;
    let left_out = page.get(count).map(|recorded| recorded.revision.number);
    page.truncate(count);
    if page.first().map(|first| first.revision.number) != left_out {
        page.retain(|recorded| Some(recorded.revision.number) != left_out);
    }
    let next = left_out.and(page.last()).map(|recorded| recorded.revision.number.to_string());
    let items: Vec<Value> = page.iter().map(summary).collect();
    Ok(Json(json!({"items": items, "next": next})).into_response())
}

/// One revision with its changes, by number: the one that holds, or a superseded one where none does.
pub(super) async fn get(desk: &Desk, asked: &Asked) -> Result<Response, Refusal> {
    let number = number_of(asked.parameter("number"))?;
    let found = history(&desk.live, number.checked_add(1), 16).await?;
    let mut of_number: Vec<&Recorded> = found.iter().filter(|recorded| recorded.revision.number == number).collect();
    of_number.sort_by_key(|recorded| recorded.is_superseded);
    let recorded = of_number.first().ok_or_else(|| Refusal::not_found(format!("there is no revision {number}")))?;
    let mut shown = summary(recorded);
    let changes: Vec<Value> = recorded
        .revision
        .changes
        .iter()
        .enumerate()
        .map(|(at, change)| {
            let before = recorded.before.get(at).and_then(Option::as_ref);
            difference(&change.id, before, change.value.as_ref())
        })
        .collect();
    shown["changes"] = changes.into();
    Ok(Json(shown).into_response())
}

/// What differs between two revisions.
pub(super) async fn diff(desk: &Desk, asked: &Asked) -> Result<Response, Refusal> {
    let live = &desk.live;
    let head = live.document().head.number;
    let to = asked.number("to", 0, u64::MAX)?.unwrap_or(head);
    let from = asked.number("from", 0, u64::MAX)?.unwrap_or(to.saturating_sub(1));
    let (before, after) = (as_of(live, from).await?, as_of(live, to).await?);
    let ids: BTreeSet<&EntityId> = before.keys().chain(after.keys()).collect();
    let changes: Vec<Value> = ids
        .into_iter()
        .map(|id| (id, before.get(id), after.get(id)))
        .filter(|(_, before, after)| before != after)
        .map(|(id, before, after)| difference(id, before.map(|value| &**value), after.map(|value| &**value)))
        .collect();
    Ok(Json(json!({"from": from, "to": to, "changes": changes})).into_response())
}

/// Makes the configuration what it was, as a new revision.
pub(super) async fn roll_back(desk: &Desk, mut asked: Asked) -> Result<Response, Refusal> {
    let body = asked.json(&["application/json"], 1_024).await?;
    let fields = body.as_object().filter(|fields| fields.len() == 1);
    let Some(to) = fields.and_then(|fields| fields.get("to")).and_then(Value::as_u64) else {
        return Err(Refusal::malformed("the body has to be {\"to\": NUMBER} and nothing else"));
    };
    let wanted = as_of(&desk.live, to).await?;
    change::make(desk, &asked, |document| {
        let now = &document.entities;
        let ids: BTreeSet<&EntityId> = now.keys().chain(wanted.keys()).collect();
        let changes = ids
            .into_iter()
            .filter(|id| now.get(id) != wanted.get(id))
            .map(|id| Change { id: id.clone(), value: wanted.get(id).map(|value| (**value).clone()) })
            .collect();
        Ok(Plan { changes, name: None, status: StatusCode::OK, warnings: Vec::new() })
    })
    .await
}

/// Every entity as it was at this revision: now, with everything undone that came after it.
async fn as_of(live: &Live, number: u64) -> Result<Entities, Refusal> {
    let document = live.document();
    let head = document.head.number;
    if number > head {
        return Err(Refusal::not_found(format!("there is no revision {number}; the newest is {head}")));
    }
    let mut entities = Entities::clone(&document.entities);
    let mut before = head.saturating_add(1);
    let mut seen = 0_usize;
    let page = u32::try_from(PAGE_MAX).unwrap_or(u32::MAX);
    while before > number.saturating_add(1) {
        let found = history(live, Some(before), page).await?;
        let Some(last) = found.last().map(|recorded| recorded.revision.number) else {
            return Err(Refusal::not_found(format!("what was before revision {before} is no longer known here")));
        };
        // A page that ends within a number is read again from there, unless it is all one number.
        let is_whole = found.len() < page as usize || found.first().is_some_and(|f| f.revision.number == last);
        let after = number.max(if is_whole { 0 } else { last });
        for recorded in found.iter().filter(|r| !r.is_superseded && r.revision.number > after) {
            undo(&mut entities, recorded);
        }
        seen = seen.saturating_add(found.len());
        if seen > LOOK_BACK_MAX {
            return Err(Refusal::not_found(format!("more than {LOOK_BACK_MAX} revisions have come since {number}")));
        }
        before = if is_whole { last } else { last.saturating_add(1) };
    }
    Ok(entities)
}

fn undo(entities: &mut Entities, recorded: &Recorded) {
    for (change, before) in recorded.revision.changes.iter().zip(&recorded.before) {
        match before {
            Some(value) => drop(entities.insert(change.id.clone(), Arc::new(value.clone()))),
            None => drop(entities.remove(&change.id)),
        }
    }
}

async fn history(live: &Live, before: Option<u64>, count: u32) -> Result<Vec<Recorded>, Refusal> {
    live.history(before, count).await.map_err(|refused| Refusal::of(refused, false))
}

fn number_of(text: &str) -> Result<u64, Refusal> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_digits);
    number.ok_or_else(|| Refusal::not_found("a revision is named by its number"))
}

fn summary(recorded: &Recorded) -> Value {
    let revision = &recorded.revision;
    let ids: Vec<String> = revision.changes.iter().take(IDS_MAX).map(|change| change.id.to_string()).collect();
    json!({
        "number": revision.number,
        "node": revision.node,
        "author": revision.author,
        "at_ms": revision.at_ms,
        "comment": revision.comment,
        "digest": recorded.digest.to_string(),
        "parent": revision.parent.to_string(),
        "is_superseded": recorded.is_superseded,
        "entities": ids,
        "change_count": revision.changes.len(),
    })
}

fn difference(id: &EntityId, before: Option<&Value>, after: Option<&Value>) -> Value {
    let shown = |value: Option<&Value>| value.map(|value| hidden(id.kind, value));
    json!({"entity": id.to_string(), "before": shown(before), "after": shown(after)})
}
