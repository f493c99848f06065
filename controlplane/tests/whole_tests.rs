//! The whole control thread beside cores that only take what comes: configuration, readiness,
//! metrics, drain, and a start without the configuration file.

use controlplane::{ConfigSource, ControlPlane, Finished, Settings, StartError};
use shared::clock::Clock;
use shared::phase::{Phase, SharedPhase};
use shared::published::{Live, Published, Readiness};
use shared::report::Report;
use shared::ring::{CoreReceiver, ReportSender, core_channel, report_channel};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const CONFIG: &str = r#"{
  "server": {"drain_timeout": "20s"},
  "providers": {"sim": {
    "keys": [{"name": "main", "value": "sk-planted-canary", "models": ["*"], "weight": 1}],
    "network_config": {"base_url": "http://localhost:9", "allow_private_network": true},
    "custom_provider_config": {"base_provider_type": "openai"}}},
  "governance": {
    "rate_limits": [{"id": "team", "request_max_limit": 5, "request_reset_duration": "1m"}],
    "virtual_keys": [{"id": "v", "name": "v", "value": "sk-bf-v", "rate_limit_id": "team",
                      "provider_configs": [{"provider": "sim", "allowed_models": ["*"]}]}]}
}"#;

/// A folder of one test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("deepintshield-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("config.json"), CONFIG).unwrap();
        Self(path)
    }

    fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    fn settings(&self) -> Settings {
        Settings {
            config: ConfigSource::File(self.config()),
            state_dir: Some(self.0.join("state")),
            admin_listen: Some(([127, 0, 0, 1], 0).into()),
            encryption_key: None,
            version: "9.9.9",
            clock: Clock::start(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What a core has got so far.
struct Core {
    receiver: CoreReceiver,
    reports: ReportSender,
    published: Option<Arc<Published>>,
    live: Option<Arc<Live>>,
}

impl Core {
    /// Looks at its rings until `is_so` holds; what a core's tick does.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            self.published = self.receiver.newest().or(self.published.take());
            self.live = self.receiver.newest_live().or(self.live.take());
            if is_so(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not within 10 s: {what}");
    }

    fn is_ready(&self) -> bool {
        self.published.is_some() && self.live.as_ref().is_some_and(|live| live.readiness == Readiness::Ready)
    }

    fn report(&self, requests_in_flight: u64) {
        let mut report = Report::default();
        report.gauges.requests_in_flight = requests_in_flight;
        self.reports.send(report).unwrap();
    }
}

/// Runs a control thread with one core, and `scenario` as that core.
fn with_node(settings: Settings, scenario: impl FnOnce(&mut Core, SocketAddr, &SharedPhase)) -> Finished {
    let plane = ControlPlane::open(settings).unwrap_or_else(|error| panic!("{error}"));
    let admin = plane.admin_address().unwrap();
    let (sender, receiver) = core_channel();
    let (reports, report_receiver) = report_channel();
    let phase = SharedPhase::new();
    let mut core = Core { receiver, reports, published: None, live: None };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| plane.run(vec![sender], report_receiver, &phase).unwrap());
        scenario(&mut core, admin, &phase);
        phase.advance_to(Phase::Stopped);
        running.join().unwrap()
    })
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_node_serves_drains_and_starts_again_without_its_file() {
    let scratch = Scratch::new("drain");
    let mut first_epoch = 0;
    let finished = with_node(scratch.settings(), |core, admin, phase| {
        core.until("ready", Core::is_ready);
        let published = core.published.clone().unwrap();
        let view = published.snapshot.view();
        first_epoch = view.epoch.to_native();
        assert_eq!(view.providers[0].endpoints.len(), 1);
        assert_eq!(published.limits.len(), 1);
        assert_eq!(published.secrets[view.keys[0].secret.to_native() as usize].expose(), "sk-planted-canary");

        assert!(get(admin, "/ready").starts_with("HTTP/1.1 200"));
        let status = get(admin, "/cluster/status");
        assert!(status.contains("\"cluster_health\":\"HEALTHY\"") && status.contains("\"members\":1"), "{status}");
        let metrics = get(admin, "/metrics");
        assert!(
            metrics.contains("deepintshield_limit_entitlement{limit=\"team/requests\",unit=\"requests\"} 5"),
            "{metrics}"
        );
        assert!(!metrics.contains("canary"));

        phase.advance_to(Phase::Draining);
        core.until("draining", |core| core.live.as_ref().unwrap().readiness == Readiness::Draining);
        core.report(1);
        core.report(1);
        assert!(get(admin, "/ready").starts_with("HTTP/1.1 503"));
        assert_eq!(phase.get(), Phase::Draining, "a request is being served");
        core.report(0);
        core.until("stopped", |_| phase.get() == Phase::Stopped);
    });
    assert_eq!(finished, Finished::Idle);

    std::fs::remove_file(scratch.config()).unwrap();
    with_node(scratch.settings(), |core, _, _| {
        core.until("ready without its file", Core::is_ready);
        let published = core.published.clone().unwrap();
        let view = published.snapshot.view();
        assert!(view.epoch.to_native() > first_epoch);
        assert_eq!(view.providers[0].endpoints.len(), 1);
        assert_eq!(view.virtual_keys.len(), 1);
        let secret = view.keys[0].secret.to_native() as usize;
        assert!(published.secrets[secret].is_empty(), "a literal is not kept without an encryption key");
    });
}

#[test]
fn a_wrong_file_stops_the_start_although_there_is_a_snapshot() {
    let scratch = Scratch::new("wrong");
    with_node(scratch.settings(), |core, _, _| core.until("ready", Core::is_ready));
    std::fs::write(scratch.config(), "{\"providers\": 7}").unwrap();
    let error = ControlPlane::open(scratch.settings()).err().unwrap();
    assert!(matches!(error, StartError::Faults { .. }), "{error}");
}

#[test]
fn a_hang_up_signal_reads_the_file_again_and_limits_keep_what_was_spent() {
    let scratch = Scratch::new("reload");
    with_node(scratch.settings(), |core, admin, _| {
        core.until("ready", Core::is_ready);
        // An answer proves that the loop runs and so listens to signals; without a listener
        // this one would end the process.
        assert!(get(admin, "/ready").starts_with("HTTP/1.1 200"));
        let before = Arc::clone(&core.published.as_ref().unwrap().limits);

        std::fs::write(scratch.config(), CONFIG.replace("\"request_max_limit\": 5", "\"request_max_limit\": 6"))
            .unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).unwrap();
        core.until("the new amount", |core| core.published.as_ref().unwrap().limits[0].entitlement() == 6);
        assert!(Arc::ptr_eq(&before, &core.published.as_ref().unwrap().limits));
    });
}
