//! Against a real etcd, one of its own for each test.

use super::*;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Nothing takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A server with its data folder, which goes with it.
struct Server {
    child: Option<Child>,
    folder: PathBuf,
    address: IpAddr,
    more: Vec<String>,
    scheme: &'static str,
}

impl Server {
    async fn start() -> Self {
        let mut server = Self::prepared();
        server.run();
        server.until_up().await;
        server
    }

    fn prepared() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("deepintshield-etcd-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // An address of its own, whose ports nobody takes while the server is stopped.
        let [.., high, low] = std::process::id().wrapping_mul(64).wrapping_add(number).to_be_bytes();
        let address = Ipv4Addr::new(127, high.max(1), low, 1).into();
        Self { child: None, folder, address, more: Vec::new(), scheme: "http" }
    }

    fn run(&mut self) {
        let client = self.endpoint().to_string();
        let peer = format!("http://{}:2380", self.address);
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(self.folder.join("data")).args(["--name", "n1", "--log-level", "error"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("n1={peer}")]).args(&self.more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("etcd is installed (Debian: etcd-server)"));
    }

    async fn until_up(&self) {
        let up = async {
            while self.client().await.lease_grant(60, None).await.is_err() {
                tokio::time::sleep(POLL).await;
            }
        };
        timeout(PATIENCE, up).await.expect("etcd comes up");
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn wipe(&self) {
        std::fs::remove_dir_all(self.folder.join("data")).unwrap();
    }

    fn endpoint(&self) -> BaseUrl {
        BaseUrl::parse(&format!("{}://{}:2379", self.scheme, self.address)).unwrap()
    }

    /// A client of the tests' own.
    async fn client(&self) -> Client {
        Client::connect([self.endpoint().to_string()], None).await.unwrap()
    }

    fn settings(&self) -> Settings {
        Settings {
            endpoints: vec![self.endpoint()],
            username: None,
            password: None,
            ca_cert_pem: None,
            lease_ttl: Duration::from_secs(30),
        }
    }

    fn node(&self, number: u8) -> Etcd {
        Etcd::new(self.settings(), surroundings(number))
    }

    fn node_of(&self, number: u8, user: &str, password: &str) -> Etcd {
        let (username, password) = (Some(user.to_owned()), Some(Secret::new(password)));
        Etcd::new(Settings { username, password, ..self.settings() }, surroundings(number))
    }

    async fn keys(&self) -> Vec<String> {
        let listing = list(&mut self.client().await, "/s/").await.unwrap();
        listing.entries.iter().map(|entry| entry.key_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn at(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 10_101))
}

fn surroundings(number: u8) -> Surroundings {
    Surroundings {
        node_id: format!("n{number}"),
        advertise: at(number),
        listen: SocketAddr::from(([0, 0, 0, 0], 10_101)),
        service_name: "s".to_owned(),
        bind_port: 10_101,
        dial_timeout: Duration::from_secs(5),
        interval: Duration::from_secs(10),
        allowed: Vec::new(),
    }
}

/// Looks until exactly these are seen.
async fn until_sees(source: &mut Etcd, numbers: &[u8]) {
    let expected: Vec<SocketAddr> = numbers.iter().copied().map(at).collect();
    let mut seen = Ok(Vec::new());
    let looked = timeout(PATIENCE, async {
        loop {
            seen = source.look().await;
            match &seen {
                Ok(seen) if *seen == expected => return,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    });
    assert!(looked.await.is_ok(), "{expected:?} expected, {seen:?} seen");
}

async fn failure_of(source: &mut Etcd) -> Failure {
    timeout(PATIENCE, source.look()).await.expect("a look is bounded").expect_err("it fails")
}

#[tokio::test]
async fn nodes_see_who_comes_and_who_leaves() {
    let server = Server::start().await;
    let (mut one, mut two, mut three) = (server.node(1), server.node(2), server.node(3));
    until_sees(&mut one, &[]).await;
    until_sees(&mut two, &[1]).await;
    until_sees(&mut one, &[1, 2]).await;
    until_sees(&mut three, &[1, 2]).await;
    until_sees(&mut two, &[1, 2, 3]).await;
    one.leave().await;
    until_sees(&mut two, &[2, 3]).await;
    assert_eq!(server.keys().await, ["/s/n2", "/s/n3"]);
}

#[tokio::test]
async fn services_whose_names_begin_alike_are_apart() {
    let server = Server::start().await;
    let mut one = server.node(1);
    let mut other = Etcd::new(server.settings(), Surroundings { service_name: "s2".to_owned(), ..surroundings(2) });
    until_sees(&mut other, &[]).await;
    until_sees(&mut one, &[]).await;
    until_sees(&mut one, &[1]).await;
    until_sees(&mut other, &[2]).await;
}

#[tokio::test]
async fn a_killed_nodes_key_goes_with_its_lease() {
    let server = Server::start().await;
    let mut one = server.node(1);
    let lease_ttl = Duration::from_secs(2);
    let mut killed = Etcd::new(Settings { lease_ttl, ..server.settings() }, surroundings(2));
    until_sees(&mut killed, &[]).await;
    until_sees(&mut one, &[2]).await;
    drop(killed);
    until_sees(&mut one, &[1]).await;
}

#[tokio::test]
async fn a_lease_is_kept_alive_while_nothing_happens() {
    let server = Server::start().await;
    let lease_ttl = Duration::from_secs(2);
    let mut kept = Etcd::new(Settings { lease_ttl, ..server.settings() }, surroundings(1));
    until_sees(&mut kept, &[]).await;
    until_sees(&mut kept, &[1]).await;
    // Three lives of the lease; without renewal the key would go, and be written again.
    assert!(timeout(lease_ttl * 3, kept.look()).await.is_err(), "nothing changes");
}

#[tokio::test]
async fn a_lost_lease_and_a_deleted_key_are_registered_again() {
    let server = Server::start().await;
    let mut one = server.node(1);
    until_sees(&mut one, &[]).await;
    let lease = one.lease.expect("it registered");
    server.client().await.lease_revoke(lease).await.unwrap();
    until_sees(&mut one, &[1]).await;
    assert_ne!(one.lease, Some(lease));
    server.client().await.delete("/s/n1", None).await.unwrap();
    until_sees(&mut one, &[]).await;
    until_sees(&mut one, &[1]).await;
}

#[tokio::test]
async fn a_restarted_server_is_found_again_with_and_without_its_data() {
    let mut server = Server::start().await;
    let (mut one, mut two) = (server.node(1), server.node(2));
    until_sees(&mut one, &[]).await;
    until_sees(&mut two, &[1]).await;
    for is_wiped in [false, true] {
        server.stop();
        let failure = failure_of(&mut one).await;
        assert_eq!(failure.line, "etcd client error");
        assert!(failure.cause.to_lowercase().contains("connection refused"), "{failure:?}");
        assert!(failure.remedy.contains("2379"), "{failure:?}");
        if is_wiped {
            server.wipe();
        }
        server.run();
        server.until_up().await;
        if !is_wiped {
            assert_eq!(server.keys().await, ["/s/n1", "/s/n2"]);
        }
        until_sees(&mut two, if is_wiped { &[] } else { &[1, 2] }).await;
        until_sees(&mut one, if is_wiped { &[2] } else { &[1, 2] }).await;
        until_sees(&mut two, &[1, 2]).await;
    }
}

#[tokio::test]
async fn compaction_is_survived() {
    let server = Server::start().await;
    let mut one = server.node(1);
    until_sees(&mut one, &[]).await;
    until_sees(&mut one, &[1]).await;
    let mut client = server.client().await;
    for _ in 0..50 {
        client.put("/elsewhere", "x", None).await.unwrap();
    }
    let revision = client.put("/elsewhere", "x", None).await.unwrap().header().unwrap().revision();
    client.compact(revision, None).await.unwrap();
    // As after a long pause: a watch from before the compaction.
    let mut watcher = client.watch_client();
    let watched = WatchOptions::new().with_prefix().with_start_revision(1);
    one.session.as_mut().unwrap().watch = watcher.watch("/s/", Some(watched)).await.unwrap();
    let mut two = server.node(2);
    until_sees(&mut two, &[1]).await;
    until_sees(&mut one, &[1, 2]).await;
}

#[tokio::test]
async fn the_next_endpoint_is_used_when_one_is_dead_or_silent() {
    let server = Server::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = |port: u16| BaseUrl::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let endpoints = vec![url(free_port()), url(silent.local_addr().unwrap().port()), server.endpoint()];
    let mut one = Etcd::new(Settings { endpoints, ..server.settings() }, surroundings(1));
    until_sees(&mut one, &[]).await;
    until_sees(&mut one, &[1]).await;
}

#[tokio::test]
async fn all_endpoints_together_take_no_longer_than_the_dial_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = BaseUrl::parse(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let server = Server::prepared();
    let settings = Settings { endpoints: vec![endpoint; 5], ..server.settings() };
    let dial_timeout = Duration::from_millis(1_200);
    let mut one = Etcd::new(settings, Surroundings { dial_timeout, ..surroundings(1) });
    let failure = timeout(dial_timeout * 2, one.look()).await.expect("it is bounded").unwrap_err();
    assert!(failure.cause.contains("no answer within 1s"), "{failure:?}");
    assert!(failure.remedy.contains("dial_timeout"), "{failure:?}");
}

/// Users `root` and `one` (who may use `/s/`) and `stranger` (who may read it), then enables them.
async fn guard(server: &Server) {
    let mut client = server.client().await;
    for user in ["root", "one", "stranger"] {
        client.user_add(user, "right", None).await.unwrap();
        client.role_add(user).await.unwrap();
        client.user_grant_role(user, user).await.unwrap();
    }
    let mine = etcd_client::Permission::read_write("/s/").with_prefix();
    client.role_grant_permission("one", mine).await.unwrap();
    let theirs = etcd_client::Permission::read("/s/").with_prefix();
    client.role_grant_permission("stranger", theirs).await.unwrap();
    client.auth_enable().await.unwrap();
}

#[tokio::test]
async fn users_and_their_rights_are_told_apart() {
    let server = Server::start().await;
    guard(&server).await;
    for mut wrong in [server.node_of(1, "one", "wr0ng-passw0rd"), server.node(1)] {
        let failure = failure_of(&mut wrong).await;
        assert_eq!(failure.line, "etcd client error");
        assert!(failure.remedy.contains("etcd_password"), "{failure:?}");
        assert!(!format!("{failure:?}").contains("wr0ng"), "{failure:?}");
    }
    // Who may not write is not found, but finds.
    let mut right = server.node_of(1, "one", "right");
    until_sees(&mut right, &[]).await;
    until_sees(&mut right, &[1]).await;
    let mut stranger = server.node_of(2, "stranger", "right");
    until_sees(&mut stranger, &[1]).await;
    let refused = stranger.peek().await.unwrap_err();
    assert_eq!(refused.line, "failed to register with etcd");
    assert!(refused.remedy.contains("readwrite /s/"), "{refused:?}");
}

#[tokio::test]
async fn a_token_that_the_server_forgot_is_made_anew() {
    let mut server = Server::start().await;
    guard(&server).await;
    let mut one = server.node_of(1, "one", "right");
    until_sees(&mut one, &[]).await;
    until_sees(&mut one, &[1]).await;
    // Tokens are not kept over a restart.
    server.stop();
    server.run();
    let mut two = server.node_of(2, "one", "right");
    until_sees(&mut two, &[1]).await;
    until_sees(&mut one, &[1, 2]).await;
}

#[tokio::test]
async fn users_are_left_out_where_etcd_knows_none() {
    let server = Server::start().await;
    until_sees(&mut server.node_of(1, "one", "right"), &[]).await;
    assert_eq!(server.keys().await, ["/s/n1"]);
}

#[tokio::test]
async fn what_is_no_entry_is_left_out() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for (key, value) in [("/s/n7", "10.0.0.7:1"), ("/s/", "{}"), ("/s/n8", "\0")] {
        client.put(key, value, None).await.unwrap();
    }
    client.put("/s/n9", entry::value("n9", at(9)), None).await.unwrap();
    let mut one = server.node(1);
    until_sees(&mut one, &[9]).await;
    assert_eq!(one.bad_entries.len(), 3);
    client.delete("/s/n7", None).await.unwrap();
    until_sees(&mut one, &[1, 9]).await;
}

#[tokio::test]
async fn the_newer_of_two_nodes_with_one_id_has_the_key() {
    let server = Server::start().await;
    let mut older = server.node(1);
    until_sees(&mut older, &[]).await;
    let mut newer = Etcd::new(server.settings(), Surroundings { advertise: at(2), ..surroundings(1) });
    until_sees(&mut newer, &[1]).await;
    until_sees(&mut older, &[2]).await;
    assert!(older.is_contested);
    older.leave().await;
    assert_eq!(server.keys().await, ["/s/n1"]);
}

#[tokio::test]
async fn a_peek_leaves_nothing_behind() {
    let server = Server::start().await;
    let mut one = server.node(1);
    until_sees(&mut one, &[]).await;
    assert_eq!(server.node(2).peek().await, Ok(vec![at(1)]));
    assert_eq!(server.keys().await, ["/s/n1"]);
    let leases = server.client().await.leases().await.unwrap();
    // One of ours, one of the test's own question whether the server is up.
    assert_eq!(leases.leases().len(), 2);
}

#[tokio::test]
async fn tls_is_spoken_with_the_authority_that_is_configured() {
    let mut server = Server::prepared();
    let pem = certificate(&server.folder, server.address);
    let file = |name: &str| server.folder.join(name).to_str().unwrap().to_owned();
    server.more = vec!["--cert-file".to_owned(), file("cert.pem"), "--key-file".to_owned(), file("key.pem")];
    server.scheme = "https";
    server.run();
    let with_authority = || Settings { ca_cert_pem: Some(pem.clone()), ..server.settings() };
    let mut one = Etcd::new(with_authority(), surroundings(1));
    until_sees(&mut one, &[]).await;
    until_sees(&mut one, &[1]).await;

    let failure = failure_of(&mut server.node(2)).await;
    assert!(failure.remedy.contains("etcd_ca_cert_pem"), "{failure:?}");
    let no_pem = Settings { ca_cert_pem: Some("no certificate".to_owned()), ..server.settings() };
    failure_of(&mut Etcd::new(no_pem, surroundings(2))).await;
    let plain = vec![BaseUrl::parse(&format!("http://{}:2379", server.address)).unwrap()];
    failure_of(&mut Etcd::new(Settings { endpoints: plain, ..with_authority() }, surroundings(2))).await;
}

/// A certificate that signed itself, for this address; returns it.
fn certificate(folder: &Path, address: IpAddr) -> String {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=etcd", "-addext", &format!("subjectAltName=IP:{address}"), "-addext"])
        .args(["basicConstraints=critical,CA:FALSE", "-config", "/dev/null", "-keyout"])
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"))
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl is installed").success());
    std::fs::read_to_string(folder.join("cert.pem")).unwrap()
}
