use super::*;
use crate::discovery::stand_ins::{Certificate, StandIn};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// No step takes this long unless it is broken.
const WAIT: Duration = Duration::from_secs(15);
const ALL: &[&str] = &["default/list", "default/watch"];

/// A stand-in over TLS, and what a node needs to ask it.
struct Rig {
    server: StandIn,
    folder: PathBuf,
}

impl Rig {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("deepintshield-pods-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let certificate = Certificate::new(&folder);
        let server = StandIn::start("kubernetes", Some(&certificate));
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{}", server.port), "certificate-authority": certificate.authority,
            }}],
            "users": [{"name": "c", "user": {"tokenFile": folder.join("token")}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string()).expect("a file");
        let mut rig = Self { server, folder };
        rig.token("first", ALL);
        rig
    }

    /// The server takes this token alone, and the node has it.
    fn token(&mut self, token: &str, allowed: &[&str]) {
        std::fs::write(self.folder.join("token"), token).expect("a file");
        self.server.tell("tokens", json!({"tokens": {token: allowed}}));
    }

    fn source(&self) -> Kubernetes {
        source_with(Some(self.folder.join("kubeconfig")).as_deref(), Some("app=gate"))
    }

    fn put(&mut self, name: &str, ip: &str) {
        self.server.tell("put", json!({"name": name, "ips": [ip]}));
    }

    /// Requests that the server has seen with this in their line.
    fn seen(&mut self, text: &str) -> usize {
        self.server.tell("seen", json!({ "text": text })).as_array().expect("a list").len()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn source_with(kubeconfig: Option<&Path>, selector: Option<&str>) -> Kubernetes {
    let surroundings = Surroundings {
        // Watches of two seconds.
        interval: Duration::from_millis(300),
        ..crate::discovery::tests::surroundings()
    };
    let kubeconfig = kubeconfig.map(|path| path.to_str().expect("UTF-8").to_owned());
    let label_selector = selector.map(str::to_owned);
    Kubernetes::new(&surroundings, Settings { namespace: "default".to_owned(), label_selector, kubeconfig })
}

/// Looks until these are the peers; a look that fails is not expected.
#[track_caller]
fn sees<'a>(source: &'a mut Kubernetes, expected: &[&str]) -> impl Future<Output = ()> + use<'a> {
    let place = std::panic::Location::caller();
    let mut expected: Vec<SocketAddr> = expected.iter().map(|peer| peer.parse().expect("an address")).collect();
    expected.sort();
    async move {
        let mut last = None;
        let looks = async {
            while last.as_ref() != Some(&expected) {
                let mut found = source.look().await.unwrap_or_else(|failure| panic!("{place}: {failure:?}"));
                found.sort();
                last = Some(found);
            }
        };
        let is_done = timeout(WAIT, looks).await.is_ok();
        assert!(is_done, "{place}: {last:?}, not {expected:?}");
    }
}

/// Looks until that fails, and says what it says.
#[track_caller]
fn fails(source: &mut Kubernetes) -> impl Future<Output = Failure> {
    let place = std::panic::Location::caller();
    async move {
        let looks = async {
            loop {
                if let Err(failure) = source.look().await {
                    return failure;
                }
            }
        };
        timeout(WAIT, looks).await.unwrap_or_else(|_| panic!("{place}: no failure"))
    }
}

#[tokio::test]
async fn ready_pods_come_and_go() {
    let mut rig = Rig::new();
    rig.put("gate-0", "127.0.0.1");
    rig.put("gate-1", "127.0.0.2");
    rig.server.tell("put", json!({"name": "gate-2", "ips": ["127.0.0.3", "fd00::3"], "ready": false, "port": 7946}));
    rig.server.tell("put", json!({"name": "other", "ips": ["127.0.0.8"], "labels": {"app": "shop"}}));
    rig.server.tell("put", json!({"name": "elsewhere", "ips": ["127.0.0.9"], "namespace": "shop"}));
    let mut source = rig.source();
    sees(&mut source, &["127.0.0.1:10101", "127.0.0.2:10101"]).await;
    rig.server.tell("put", json!({"name": "gate-2", "ips": ["127.0.0.3", "fd00::3"], "port": 7946}));
    sees(&mut source, &["127.0.0.1:10101", "127.0.0.2:10101", "127.0.0.3:7946"]).await;
    rig.server.tell("delete", json!({"name": "gate-1"}));
    sees(&mut source, &["127.0.0.1:10101", "127.0.0.3:7946"]).await;
    // A StatefulSet gives the name to another pod.
    rig.server.tell("put", json!({"name": "gate-1", "ips": ["127.0.0.4"], "uid": "another"}));
    sees(&mut source, &["127.0.0.1:10101", "127.0.0.4:10101", "127.0.0.3:7946"]).await;
    rig.server.tell("put", json!({"name": "gate-0", "ips": ["127.0.0.1"], "labels": {"app": "shop"}}));
    rig.server.tell("put", json!({"name": "gate-2", "ips": ["127.0.0.3"], "phase": "Failed"}));
    sees(&mut source, &["127.0.0.4:10101"]).await;
}

#[tokio::test]
async fn pieces_doubles_and_cuts_of_events_change_nothing() {
    let mut rig = Rig::new();
    let mut source = rig.source();
    sees(&mut source, &[]).await;
    for (how, ip) in [("pieces", "127.0.0.2"), ("twice", "127.0.0.3"), ("whole", "127.0.0.4")] {
        rig.server.tell("how", json!({ "how": how }));
        rig.put("gate-0", ip);
        sees(&mut source, &[&format!("{ip}:10101")]).await;
    }
    rig.server.tell("how", json!({"how": "cut"}));
    rig.put("gate-0", "127.0.0.5");
    let failure = fails(&mut source).await;
    assert_eq!(failure.line, WATCHING, "{failure:?}");
    let lists = rig.seen("limit=");
    sees(&mut source, &["127.0.0.5:10101"]).await;
    assert_eq!(rig.seen("limit="), lists, "it goes on from where it was");
}

#[tokio::test]
async fn an_outage_keeps_the_list_and_ends_by_itself() {
    let mut rig = Rig::new();
    rig.put("gate-0", "127.0.0.2");
    let mut source = rig.source();
    sees(&mut source, &["127.0.0.2:10101"]).await;
    rig.server.just("stop");
    let failure = fails(&mut source).await;
    assert!(failure.remedy.contains("can be reached"), "{failure:?}");
    assert!(fails(&mut source).await.cause.contains("refused"));
    rig.put("gate-1", "127.0.0.3");
    rig.server.just("start");
    let first = source.look().await.expect("the server is back");
    assert_eq!(first.len(), 1, "told at once, before anything changed: {first:?}");
    sees(&mut source, &["127.0.0.2:10101", "127.0.0.3:10101"]).await;
    rig.server.tell("faults", json!({"faults": [503, 429]}));
    rig.server.just("end_watches");
    for _ in 0..2 {
        assert!(fails(&mut source).await.remedy.contains("API server's log"));
    }
    rig.server.tell("delete", json!({"name": "gate-0"}));
    sees(&mut source, &["127.0.0.3:10101"]).await;
}

#[tokio::test]
async fn a_version_that_is_gone_is_listed_anew() {
    for by_status in [false, true] {
        let mut rig = Rig::new();
        rig.put("gate-0", "127.0.0.2");
        let mut source = rig.source();
        sees(&mut source, &["127.0.0.2:10101"]).await;
        rig.server.tell("how", json!({"how": "no-bookmarks"}));
        sees(&mut source, &["127.0.0.2:10101"]).await;
        rig.server.just("stop");
        rig.put("gate-1", "127.0.0.3");
        rig.server.tell("compact", json!({"by_status": by_status}));
        fails(&mut source).await;
        rig.server.just("start");
        sees(&mut source, &["127.0.0.2:10101", "127.0.0.3:10101"]).await;
    }
}

#[tokio::test]
async fn a_bookmark_spares_a_new_list() {
    let mut rig = Rig::new();
    rig.put("gate-0", "127.0.0.2");
    let mut source = rig.source();
    sees(&mut source, &["127.0.0.2:10101"]).await;
    // The watch hears of a version that no pod of ours has; all before it is forgotten then.
    rig.server.just("bookmark");
    source.look().await.expect("the end of a watch");
    rig.server.tell("compact", json!({"watches_too": false}));
    rig.put("gate-1", "127.0.0.3");
    sees(&mut source, &["127.0.0.2:10101", "127.0.0.3:10101"]).await;
    assert_eq!(rig.seen("limit="), 1);
    assert!(rig.seen("allowWatchBookmarks=true") >= 2);
}

#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let mut rig = Rig::new();
    let mut source = rig.source();
    sees(&mut source, &[]).await;
    rig.server.tell("how", json!({"how": "silent"}));
    rig.put("gate-0", "127.0.0.2");
    let failure = fails(&mut source).await;
    assert!(failure.cause.contains("nothing was heard for 3s"), "{failure:?}");
    rig.server.tell("how", json!({"how": "whole"}));
    sees(&mut source, &["127.0.0.2:10101"]).await;
}

#[tokio::test]
async fn a_server_that_went_back_in_time_is_found_out() {
    let mut rig = Rig::new();
    rig.put("gate-0", "127.0.0.2");
    let mut source = rig.source();
    sees(&mut source, &["127.0.0.2:10101"]).await;
    // As after a backup was restored: versions far below ours, of which a watch tells nothing.
    rig.server.tell("how", json!({"how": "no-bookmarks"}));
    rig.server.tell("compact", json!({"version": 3, "watches_too": false}));
    rig.put("gate-1", "127.0.0.3");
    sees(&mut source, &["127.0.0.2:10101", "127.0.0.3:10101"]).await;
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let mut rig = Rig::new();
    rig.server.tell("crowd", json!({"count": 600}));
    rig.put("a-gate", "127.0.0.2");
    rig.put("z-gate", "127.0.0.3");
    let mut source = rig.source();
    sees(&mut source, &["127.0.0.2:10101", "127.0.0.3:10101"]).await;
    assert_eq!((rig.seen("limit=250"), rig.seen("continue=")), (3, 2));
    // Pages that expire while they are read.
    rig.server.tell("pages_gone", json!({"gone": true}));
    let mut source = rig.source();
    let failure = fails(&mut source).await;
    assert!(failure.cause.contains("gone"), "{failure:?}");
    rig.server.tell("pages_gone", json!({"gone": false}));
    sees(&mut source, &["127.0.0.2:10101", "127.0.0.3:10101"]).await;
}

#[tokio::test]
async fn a_replaced_token_is_read_again_without_a_failure() {
    let mut rig = Rig::new();
    rig.put("gate-0", "127.0.0.2");
    let mut source = rig.source();
    sees(&mut source, &["127.0.0.2:10101"]).await;
    rig.token("second", ALL);
    rig.server.just("end_watches");
    rig.put("gate-1", "127.0.0.3");
    sees(&mut source, &["127.0.0.2:10101", "127.0.0.3:10101"]).await;
}

#[tokio::test]
async fn wrong_credentials_say_what_to_do_and_are_tried_again() {
    let mut rig = Rig::new();
    rig.put("gate-0", "127.0.0.2");
    let absent = rig.folder.join("absent");
    let failure = fails(&mut source_with(Some(&absent), Some("app=gate"))).await;
    assert_eq!(failure.line, "error getting kubernetes config", "{failure:?}");
    assert!(failure.remedy.contains("ServiceAccount") && failure.remedy.contains("KUBECONFIG"), "{failure:?}");

    let mut source = rig.source();
    rig.server.tell("tokens", json!({"tokens": {"another": ALL}}));
    let failure = fails(&mut source).await;
    assert_eq!((failure.line, failure.cause.as_str()), ("error listing pods", "Unauthorized"));
    assert!(failure.remedy.contains("token"), "{failure:?}");
    rig.token("first", &[]);
    let failure = fails(&mut source).await;
    assert!(failure.cause.contains("cannot list resource \"pods\""), "{failure:?}");
    assert!(failure.remedy.contains("namespace \"default\"") && failure.remedy.contains("RoleBinding"), "{failure:?}");
    rig.token("first", &["default/list"]);
    let failure = fails(&mut source).await;
    assert!(failure.cause.contains("cannot watch"), "{failure:?}");
    rig.token("first", ALL);
    sees(&mut source, &["127.0.0.2:10101"]).await;
    std::fs::remove_file(rig.folder.join("token")).expect("the token is there");
    assert_eq!(fails(&mut rig.source()).await.line, "error getting kubernetes config");
}

#[tokio::test]
async fn a_selector_that_is_none_is_named_and_a_missing_one_finds_nobody() {
    let mut rig = Rig::new();
    rig.put("gate-0", "127.0.0.2");
    let kubeconfig = rig.folder.join("kubeconfig");
    let failure = fails(&mut source_with(Some(&kubeconfig), Some("app gate"))).await;
    assert!(failure.cause.starts_with("400") && failure.remedy.contains("k8s_label_selector"), "{failure:?}");
    let mut source = source_with(Some(&kubeconfig), None);
    assert_eq!(source.look().await, Ok(Vec::new()));
    assert!(timeout(Duration::from_millis(200), source.look()).await.is_err());
    assert_eq!(rig.seen("pods"), 1);
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let rig = Rig::new();
    // A file that is a kubeconfig, but for an authority of its own.
    let other = rig.folder.join("other");
    std::fs::create_dir_all(&other).expect("a folder");
    let authority = Certificate::new(&other).authority;
    let text = std::fs::read_to_string(rig.folder.join("kubeconfig")).expect("a file");
    let mut kubeconfig: Value = serde_json::from_str(&text).expect("JSON");
    kubeconfig["clusters"][0]["cluster"]["certificate-authority"] = json!(authority);
    let path = other.join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).expect("a file");
    let failure = fails(&mut source_with(Some(&path), Some("app=gate"))).await;
    assert!(failure.cause.contains("certificate"), "{failure:?}");
}
