//! The one table of what the admin listener answers: the paths are made of it, and so is
//! `/api/openapi.json`. What stands in neither is not there.

use super::answer::Refusal;
use super::asked::Asked;
use super::resources::{RESOURCES, Resource};
use super::{Desk, audit, change, entities, gossip_keys, history, models, node_pages, openapi, whole};
use crate::live::EntityKind;
use axum::http::Method;
use axum::response::Response;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Act = Arc<dyn Fn(Arc<Desk>, Asked) -> BoxFuture<'static, Result<Response, Refusal>> + Send + Sync>;

/// What a body may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    /// An entity of this kind; in part, as a merge patch.
    Entity {
        kind: EntityKind,
        is_new: bool,
        is_part: bool,
    },
    /// A configuration file.
    Document,
    /// `{"to": NUMBER}`
    Revision,
    /// `{"key": "BASE64"}`
    GossipKey,
}

/// What an answer of success holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gives {
    /// Text, not JSON.
    Text,
    /// Some object.
    Object,
    /// A page of entities.
    Page,
    /// A page of other things.
    Items,
    /// What became of a change.
    Change,
}

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: Method,
    /// As axum has it: `{*name}` takes the rest of the path.
    pub(super) path: String,
    pub(super) summary: String,
    /// Parameters of the query.
    pub(super) query: &'static [&'static str],
    pub(super) takes: Takes,
    pub(super) gives: Gives,
    /// Status codes of success.
    pub(super) done: &'static [u16],
    /// Status codes of refusals beside those that the door and every path may give.
    pub(super) refused: &'static [u16],
    pub(super) act: Act,
}

fn operation<F, R>(
    method: Method,
    path: impl Into<String>,
    summary: impl Into<String>,
    gives: Gives,
    act: F,
) -> Operation
where
    F: Fn(Arc<Desk>, Asked) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response, Refusal>> + Send + 'static,
{
    Operation {
        method,
        path: path.into(),
        summary: summary.into(),
        query: &[],
        takes: Takes::Nothing,
        gives,
        done: &[200],
        refused: &[],
        act: Arc::new(move |desk, asked| Box::pin(act(desk, asked))),
    }
}

impl Operation {
    fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    fn takes(self, takes: Takes) -> Self {
        Self { takes, ..self }
    }

    fn done(self, done: &'static [u16]) -> Self {
        Self { done, ..self }
    }

    fn refused(self, refused: &'static [u16]) -> Self {
        Self { refused, ..self }
    }
}

const PAGE: &[&str] = &["limit", "cursor"];
/// Of a change, whatever it is.
const CHANGE: [u16; 3] = [409, 412, 422];

/// All of them.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = pages();
    for resource in &RESOURCES {
        let (kind, noun) = (resource.kind, resource.noun);
        all.extend(collection(resource, resource.path.to_owned(), noun));
        all.extend(item(resource, resource.item_path(), noun));
        if kind == EntityKind::Key {
            let path = "/api/providers/{provider}/keys";
            all.extend(collection(resource, path.to_owned(), "key of this provider"));
            all.extend(item(resource, format!("{path}/{{*key}}"), "key of this provider"));
        }
    }
    all.extend(configuration());
    all.extend(gossip());
    all
}

/// What needs no document.
fn pages() -> Vec<Operation> {
    vec![
        operation(
            Method::GET,
            "/metrics",
            "Metrics in the text format of Prometheus",
            Gives::Text,
            |desk, _| async move { node_pages::metrics(&desk).await },
        ),
        operation(Method::GET, "/health", "Whether the process runs", Gives::Object, |_, _| async {
            Ok(node_pages::health())
        }),
        operation(Method::GET, "/ready", "Whether the node takes requests", Gives::Object, |desk, _| async move {
            node_pages::ready(&desk).await
        }),
        operation(
            Method::GET,
            "/cluster/status",
            "Node and cluster as this node sees them",
            Gives::Object,
            |desk, _| async move { node_pages::cluster_status(&desk).await },
        ),
        operation(Method::GET, "/api/version", "Version and build", Gives::Object, |desk, _| async move {
            Ok(node_pages::version(&desk))
        }),
        operation(Method::GET, "/api/openapi.json", "This document", Gives::Object, |desk, _| async move {
            openapi::answer(desk).await
        }),
        operation(
            Method::GET,
            "/api/audit",
            "Who changed what, the newest first",
            Gives::Items,
            |desk, asked| async move { audit::list(&desk, &asked).await },
        )
        .query(PAGE),
    ]
}

fn collection(resource: &'static Resource, path: String, noun: &str) -> [Operation; 2] {
    let new = Takes::Entity { kind: resource.kind, is_new: true, is_part: false };
    [
        operation(
            Method::GET,
            path.clone(),
            format!("A page of each {noun}"),
            Gives::Page,
            move |desk, asked| async move { entities::list(&desk, resource, &asked) },
        )
        .query(PAGE)
        .refused(&[404]),
        operation(Method::POST, path, format!("A new {noun}"), Gives::Change, move |desk, asked| async move {
            entities::post(&desk, resource, asked).await
        })
        .query(&change::QUERY)
        .takes(new)
        .done(&[200, 201])
        .refused(&CHANGE),
    ]
}

fn item(resource: &'static Resource, path: String, noun: &str) -> [Operation; 4] {
    const CHANGE_OF_ONE: [u16; 4] = [404, 409, 412, 422];
    let entity = |is_part| Takes::Entity { kind: resource.kind, is_new: false, is_part };
    [
        operation(Method::GET, path.clone(), format!("One {noun}"), Gives::Object, move |desk, asked| async move {
            entities::get(&desk, resource, &asked)
        })
        .refused(&[404]),
        operation(
            Method::PUT,
            path.clone(),
            format!("This {noun}, whatever was there"),
            Gives::Change,
            move |desk, asked| async move { entities::put(&desk, resource, asked).await },
        )
        .query(&change::QUERY)
        .takes(entity(false))
        .done(&[200, 201])
        .refused(&CHANGE),
        operation(
            Method::PATCH,
            path.clone(),
            format!("Some fields of one {noun}"),
            Gives::Change,
            move |desk, asked| async move { entities::patch(&desk, resource, asked).await },
        )
        .query(&change::QUERY)
        .takes(entity(true))
        .refused(&CHANGE_OF_ONE),
        operation(Method::DELETE, path, format!("Removes one {noun}"), Gives::Change, move |desk, asked| async move {
            entities::delete(&desk, resource, asked).await
        })
        .query(&change::QUERY)
        .refused(&CHANGE_OF_ONE),
    ]
}

fn configuration() -> Vec<Operation> {
    vec![
        operation(Method::GET, "/api/config", "Everything that all nodes share", Gives::Object, |desk, _| async move {
            Ok(whole::get(&desk))
        }),
        operation(
            Method::PUT,
            "/api/config",
            "Another configuration in its place",
            Gives::Change,
            |desk, asked| async move { whole::put(&desk, asked).await },
        )
        .query(&change::QUERY)
        .takes(Takes::Document)
        .refused(&CHANGE),
        operation(
            Method::GET,
            "/api/config/history",
            "Revisions, the newest first",
            Gives::Items,
            |desk, asked| async move { history::list(&desk, &asked).await },
        )
        .query(PAGE),
        operation(
            Method::GET,
            "/api/config/history/{number}",
            "One revision with its changes",
            Gives::Object,
            |desk, asked| async move { history::get(&desk, &asked).await },
        )
        .refused(&[404]),
        operation(
            Method::GET,
            "/api/config/diff",
            "What differs between two revisions",
            Gives::Object,
            |desk, asked| async move { history::diff(&desk, &asked).await },
        )
        .query(&["from", "to"])
        .refused(&[404]),
        operation(
            Method::POST,
            "/api/config/rollback",
            "The configuration as it was",
            Gives::Change,
            |desk, asked| async move { history::roll_back(&desk, asked).await },
        )
        .query(&change::QUERY)
        .takes(Takes::Revision)
        .refused(&[404, 409, 412, 422]),
        operation(
            Method::GET,
            "/api/models",
            "Models that clients may ask for",
            Gives::Items,
            |desk, asked| async move { models::list(&desk, &asked) },
        )
        .query(PAGE),
    ]
}

fn gossip() -> Vec<Operation> {
    const PATH: &str = "/api/cluster/gossip-keys";
    vec![
        operation(Method::GET, PATH, "Gossip keys and who accepts them", Gives::Object, |desk, _| async move {
            gossip_keys::show(&desk).await
        })
        .refused(&[404]),
        operation(Method::POST, PATH, "Accepts one more gossip key", Gives::Object, |desk, asked| async move {
            gossip_keys::add(&desk, asked).await
        })
        .takes(Takes::GossipKey)
        .refused(&[404, 409]),
        operation(
            Method::POST,
            format!("{PATH}/{{id}}/send"),
            "Sends with this gossip key",
            Gives::Object,
            |desk, asked| async move { gossip_keys::send_with(&desk, &asked).await },
        )
        .query(&["force"])
        .refused(&[404, 409]),
        operation(
            Method::DELETE,
            format!("{PATH}/{{id}}"),
            "Accepts this gossip key no longer",
            Gives::Object,
            |desk, asked| async move { gossip_keys::drop_key(&desk, &asked).await },
        )
        .query(&["force"])
        .refused(&[404, 409]),
    ]
}
