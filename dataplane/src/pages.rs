//! What the node says about itself on the data port. Answered by the core from what it has;
//! strangers can ask, so nothing about peers, keys or addresses is here.

use crate::core::{Core, Serving};
use crate::http1::{HeadWriter, Known, Method};
use crate::respond::Manner;
use shared::published::Readiness;

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// The process is alive.
    Health,
    /// The node wants traffic.
    Ready,
    /// The cluster in four fields.
    ClusterStatus,
}

impl Page {
    /// The page at `path`, if there is one.
    pub(crate) fn at(path: &[u8]) -> Option<Self> {
        match path {
            b"/health" => Some(Self::Health),
            b"/ready" => Some(Self::Ready),
            b"/cluster/status" => Some(Self::ClusterStatus),
            _ => None,
        }
    }
}

/// Composes the page's answer.
pub(crate) fn write(page: Page, core: &Core, serving: &Serving, manner: Manner, out: &mut Vec<u8>) -> u16 {
    let live = core.advice.live();
    let (status, content_type, body) = match page {
        Page::Health => (200, "text/plain; charset=utf-8", "healthy\n".to_owned()),
        Page::Ready => match &live.readiness {
            _ if core.is_draining() => (503, "text/plain; charset=utf-8", "draining\n".to_owned()),
            Readiness::Ready => (200, "text/plain; charset=utf-8", "ready\n".to_owned()),
            Readiness::Starting(why) => (503, "text/plain; charset=utf-8", format!("starting: {why}\n")),
            Readiness::Overloaded(why) => (503, "text/plain; charset=utf-8", format!("overloaded: {why}\n")),
            Readiness::Draining => (503, "text/plain; charset=utf-8", "draining\n".to_owned()),
        },
        Page::ClusterStatus => {
            let health = if live.is_cluster_healthy { "HEALTHY" } else { "NOT HEALTHY" };
            let ready = live.readiness == Readiness::Ready && !core.is_draining();
            let body = format!(
                "{{\"local_node\":\"{}\",\"members\":{},\"healthy_members\":{},\"cluster_health\":\"{health}\",\"ready\":{ready}}}\n",
                serving.records().local_node,
                live.members,
                live.healthy_members
            );
            (200, "application/json", body)
        }
    };
    if let Ok(mut writer) = HeadWriter::response(out, status) {
        let _ = writer.known(Known::ContentType, content_type.as_bytes());
        let _ = writer.known(Known::CacheControl, b"no-store");
        manner.write(&mut writer);
        writer.content_length(body.len() as u64);
        writer.finish();
        if manner.method != Method::Head {
            out.extend_from_slice(body.as_bytes());
        }
    }
    status
}
