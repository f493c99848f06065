//! Stand-ins of Consul and of the Kubernetes API, as programs beside the tests: each says at its top
//! what it does and what it does not. They are told what to do by lines, and end with this value.

#![allow(dead_code, reason = "what one stand-in needs, another does not")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A program that answers one line with one line.
pub(crate) struct StandIn {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// On 127.0.0.1, unless it was started elsewhere.
    pub(crate) port: u16,
}

/// A certificate for 127.0.0.1 and localhost, its key, and the authority that made it.
pub(crate) struct Certificate {
    pub(crate) authority: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

impl StandIn {
    /// `name` is `consul` or `kubernetes`; it speaks TLS where it is given a certificate.
    pub(crate) fn start(name: &str, certificate: Option<&Certificate>) -> Self {
        Self::start_at("127.0.0.1", name, certificate, |command| command.spawn().expect("python3 runs"))
    }

    /// The same, on an address that it has where `start` starts it.
    pub(crate) fn start_at(
        host: &str,
        name: &str,
        certificate: Option<&Certificate>,
        start: impl FnOnce(&mut Command) -> Child,
    ) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|path| path.join("tests/it").is_dir());
        let folder = folder.expect("the project's tests").join("tests/it/stand_ins");
        let mut command = Command::new("python3");
        // -B: no compiled files beside the sources.
        command.arg("-B").arg(folder.join(format!("{name}.py"))).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("STAND_IN_HOST", host);
        if let Some(Certificate { chain, key, .. }) = certificate {
            command.arg(chain).arg(key);
        }
        let mut child = start(&mut command);
        let commands = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let port = line(&mut answers)["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        Self { child, commands, answers, port: port.expect("a port") }
    }

    /// Does `what`, with `arguments` (an object) beside it.
    #[track_caller]
    pub(crate) fn tell(&mut self, what: &str, arguments: Value) -> Value {
        let mut command = json!({ "do": what });
        if let (Value::Object(command), Value::Object(arguments)) = (&mut command, arguments) {
            command.extend(arguments);
        }
        writeln!(self.commands, "{command}").expect("the stand-in runs");
        line(&mut self.answers)
    }

    /// As [`StandIn::tell`], without arguments.
    #[track_caller]
    pub(crate) fn just(&mut self, what: &str) -> Value {
        self.tell(what, json!({}))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Its own child, by its own handle; it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Certificate {
    /// Made with openssl, in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name);
        std::fs::write(path("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("a file");
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let steps: [&[&str]; 3] = [
            &["req", "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"],
            &["req", "-subj", "/CN=stand-in", "-keyout", "key.pem", "-out", "request.pem"],
            &[
                "x509",
                "-req",
                "-in",
                "request.pem",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "names",
                "-out",
                "certificate.pem",
            ],
        ];
        for step in steps {
            let mut command = Command::new("openssl");
            command.args(step).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped());
            if step[0] == "req" {
                command.args(key);
            }
            let done = command.output().expect("openssl runs");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        Self { authority: path("ca.pem"), chain: path("certificate.pem"), key: path("key.pem") }
    }
}

fn line(answers: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    answers.read_line(&mut line).expect("the stand-in answers");
    serde_json::from_str(&line).unwrap_or_else(|fault| panic!("{fault}: {line:?}"))
}
