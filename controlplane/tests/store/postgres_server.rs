//! A real `PostgreSQL` of one test: SCRAM passwords, TLS with a certificate for its address.

use crate::revisions::{Scratch, is_root};
use controlplane::store::PostgresStore;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::config::model::{Postgres, SslMode};
use shared::secret::Secret;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

pub(crate) const PASSWORD: &str = "planted-password";
/// Last part of the address that its certificate is for, and of another one of it.
const NAMED: u8 = 201;
const UNNAMED: u8 = 202;
/// Looks of 50 ms until it answers; a start after a crash takes longest.
const LOOKS: u32 = 1_200;

/// Ends with the value; its data too.
pub(crate) struct PostgresServer {
    child: Option<Child>,
    scratch: Scratch,
    address: Ipv4Addr,
    speaks_tls: bool,
    databases: AtomicU32,
}

impl PostgresServer {
    pub(crate) fn start() -> Self {
        Self::start_with(true)
    }

    pub(crate) fn start_with(speaks_tls: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // An address of its own, whose port nobody takes while the server is down.
        let number = std::process::id().wrapping_mul(16).wrapping_add(NUMBER.fetch_add(1, Ordering::Relaxed));
        let [.., high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, high.max(1), low, NAMED);
        let mut server =
            Self { child: None, scratch: Scratch::new(), address, speaks_tls, databases: AtomicU32::new(0) };
        server.make_certificates();
        std::fs::write(server.path("password"), PASSWORD).unwrap();
        if is_root() {
            finish(Command::new("chown").args(["-R", "postgres:"]).arg(server.scratch.folder()));
        }
        let mut initdb = server.as_postgres("initdb");
        initdb.args(["--no-sync", "--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
        finish(initdb.arg("--pwfile").arg(server.path("password")).arg(server.path("data")));
        server.run();
        server
    }

    /// Starts it with the data that is there, and waits until it answers.
    pub(crate) fn run(&mut self) {
        for _ in 0..LOOKS {
            // It gives up where what was killed still holds its memory, and is started once more.
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                self.child = Some(self.spawn());
            }
            if crate::revisions::run(self.try_connect("postgres")).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL does not answer: {}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
    }

    fn spawn(&self) -> Child {
        let mut command = self.as_postgres("postgres");
        command.arg("-D").arg(self.path("data")).arg("-k").arg(self.scratch.folder());
        let [a, b, c, _] = self.address.octets();
        let mut settings = vec![format!("listen_addresses={},{}", self.address, Ipv4Addr::new(a, b, c, UNNAMED))];
        if self.speaks_tls {
            let file = |name| self.path(name).display().to_string();
            settings.push("ssl=on".to_owned());
            settings.push(format!("ssl_cert_file={}", file("server.crt")));
            settings.push(format!("ssl_key_file={}", file("server.key")));
        }
        for setting in settings {
            command.args(["-c", &setting]);
        }
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().expect("PostgreSQL is installed (Debian: postgresql)")
    }

    /// Starts it again as a standby, which takes no writes.
    pub(crate) fn become_standby(&mut self) {
        self.kill();
        std::fs::write(self.path("data/standby.signal"), "").unwrap();
        self.run();
    }

    /// As a loss of power would: all of it at once.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let parent = child.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in std::iter::once(parent.cast_signed()).chain(children) {
            // One that has ended meanwhile is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        child.wait().unwrap();
    }

    /// Holds it up (`SIGSTOP`), or lets it go on (`SIGCONT`): no new connection is answered.
    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("PostgreSQL runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    /// The name of a new database.
    pub(crate) async fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute("postgres", &format!("CREATE DATABASE {name}")).await;
        name
    }

    /// How to reach `database` here, without TLS.
    pub(crate) fn config(&self, database: &str) -> Postgres {
        config_of(&self.config_text(database))
    }

    /// The same for another process: see [`config_of`].
    pub(crate) fn config_text(&self, database: &str) -> String {
        format!("{} {database}", self.address)
    }

    /// With its certificate checked.
    pub(crate) fn verified(&self, database: &str) -> Postgres {
        let ssl_root_cert = Some(self.path("ca.crt").display().to_string());
        Postgres { ssl_mode: SslMode::VerifyFull, ssl_root_cert, ..self.config(database) }
    }

    /// The same, by an address that the certificate is not for.
    pub(crate) fn misnamed(&self, database: &str) -> Postgres {
        let [a, b, c, _] = self.address.octets();
        Postgres { host: Ipv4Addr::new(a, b, c, UNNAMED).to_string(), ..self.verified(database) }
    }

    pub(crate) fn store(&self, database: &str) -> PostgresStore {
        PostgresStore::new(&self.config(database))
    }

    /// What an operator does with `psql`.
    pub(crate) async fn execute(&self, database: &str, sql: &str) {
        self.try_connect(database).await.unwrap().batch_execute(sql).await.unwrap();
    }

    pub(crate) async fn number(&self, database: &str, sql: &str) -> i64 {
        self.try_connect(database).await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    async fn try_connect(&self, database: &str) -> Result<Client, Box<dyn std::error::Error>> {
        let stream = tokio::net::TcpStream::connect((self.address, 5432)).await?;
        let mut config = tokio_postgres::Config::new();
        config.user("postgres").password(PASSWORD).dbname(database);
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// It refuses to run as root, whose tests run it as the user that its package makes.
    fn as_postgres(&self, program: &str) -> Command {
        let program = installed(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.scratch.folder());
        command
    }

    /// An authority, another one, and a certificate of the first for this address and no name.
    fn make_certificates(&self) {
        for name in ["ca", "other"] {
            let (key, certificate) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.crt")));
            let mut command = Command::new("openssl");
            command.args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ]);
            command.args(["-subj", &format!("/CN={name}"), "-addext", "keyUsage=critical,keyCertSign"]);
            finish(command.arg("-keyout").arg(key).arg("-out").arg(certificate));
        }
        let mut request = Command::new("openssl");
        request.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=server"]);
        finish(request.arg("-keyout").arg(self.path("server.key")).arg("-out").arg(self.path("server.csr")));
        std::fs::write(self.path("names"), format!("subjectAltName=IP:{}\n", self.address)).unwrap();
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-days", "2", "-CAcreateserial"]).arg("-in").arg(self.path("server.csr"));
        sign.arg("-CA").arg(self.path("ca.crt")).arg("-CAkey").arg(self.path("ca.key"));
        finish(sign.arg("-extfile").arg(self.path("names")).arg("-out").arg(self.path("server.crt")));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.path("server.key"), mode).unwrap();
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Of `ADDRESS DATABASE`.
pub(crate) fn config_of(text: &str) -> Postgres {
    let (address, database) = text.split_once(' ').unwrap();
    Postgres {
        host: address.to_owned(),
        port: 5432,
        user: "postgres".to_owned(),
        password: Some(Secret::new(PASSWORD)),
        password_origin: None,
        db_name: database.to_owned(),
        ssl_mode: SslMode::Disable,
        ssl_root_cert: None,
        max_open_conns: 5,
    }
}

/// Debian keeps the programs out of the search path, by version.
fn installed(program: &str) -> PathBuf {
    let named = |folder: &Path| folder.join(program).is_file().then(|| folder.join(program));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let newest = versions.map(|version| version.path().join("bin")).filter(|bin| named(bin).is_some()).max();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let newest = newest.as_deref().and_then(named);
    let found = newest.or_else(|| std::env::split_paths(&path).find_map(|folder| named(&folder)));
    found.unwrap_or_else(|| panic!("{program} is installed (Debian: postgresql)"))
}

#[track_caller]
fn finish(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
