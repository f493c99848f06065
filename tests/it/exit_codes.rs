//! How the program ends when it cannot do what it was asked: the codes of `sysexits.h`, which
//! supervisors read, and a sentence for whoever reads the log.

use crate::node_rig::{Home, Scratch, lines_with, outcome, text};
use std::net::TcpListener;

const NOBODY: std::net::SocketAddr = std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// A configuration with four faults, each on a line of its own.
const FOUR_FAULTS: &str = r#"{
  "server": { "port": 70000 },
  "providers": {
    "openai": { "keys": [{ "name": "a", "value": "sk-a", "wieght": 1 }] },
    "anthropic": { "keys": 7 }
  },
  "governence": {}
}
"#;

#[test]
fn a_wrong_command_line_is_64_and_help_is_0() {
    for wrong in [&["--bogus"][..], &["nonsense"], &["--config"], &["check", "--cores", "2"]] {
        let (code, _, said) = outcome(wrong, &[]);
        assert!(code == 64 && said.contains("--help"), "{wrong:?}: {code} {said}");
    }
    for right in ["--help", "--version"] {
        let (code, said, _) = outcome(&[right], &[]);
        assert!(code == 0 && said.contains("deepintshield"), "{right}: {code} {said}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_66() {
    let scratch = Scratch::new();
    let (config, state) = (scratch.path("none.json"), scratch.path("state"));
    let (code, _, said) = outcome(&["check", "--config", text(&config)], &[]);
    assert!(code == 66 && said.contains("none.json"), "{code} {said}");
    let (code, _, said) = outcome(&["--config", text(&config), "--state-dir", text(&state)], &[]);
    assert!(code == 66 && said.contains("none.json") && said.contains("no last good snapshot"), "{code} {said}");
    assert!(said.contains("--state-dir"), "the remedy: {said}");
}

#[test]
fn a_faulty_configuration_is_78_and_every_fault_has_its_place() {
    let scratch = Scratch::new();
    let config = scratch.write("config.json", FOUR_FAULTS);
    let state = scratch.path("state");
    let (code, checked, _) = outcome(&["check", "--config", text(&config)], &[]);
    assert_eq!(code, 78, "{checked}");
    let (code, _, started) = outcome(&["--config", text(&config), "--state-dir", text(&state)], &[]);
    assert_eq!(code, 78, "{started}");
    for said in [&checked, &started] {
        for (place, path) in [
            ("config.json:2:", "server.port"),
            ("config.json:4:", "wieght"),
            ("config.json:5:", "providers.anthropic.keys"),
            ("config.json:7:", "governence"),
        ] {
            assert!(lines_with(said, place).iter().any(|line| line.contains(path)), "{place} {path} in:\n{said}");
        }
        assert!(said.contains(r#"did you mean "weight"?"#) && said.contains(r#"did you mean "governance"?"#), "{said}");
        assert!(!said.contains("sk-a"), "{said}");
    }
    assert!(checked.contains("4 faults"), "{checked}");
}

#[test]
fn a_configuration_that_is_no_text_is_faulty_and_not_missing() {
    let home = Home::new(NOBODY);
    std::fs::write(home.config(), b"{\"providers\": {\"\xff\xfe\": {}}}").unwrap();
    for arguments in [vec!["check"], vec![]] {
        let state = home.scratch.path("state");
        let mut all = vec!["--config", text(&home.config()).to_owned().leak()];
        all.extend(arguments);
        let (code, out, said) = outcome(&all, &[("DEEPINTSHIELD_STATE_DIR", text(&state))]);
        assert!(
            code == 78 && format!("{out}{said}").contains("config.json:1:17 this byte is no UTF-8"),
            "{all:?}: {code} {out}{said}"
        );
    }
}

#[test]
fn a_taken_client_port_is_69_and_says_which() {
    let home = Home::new(NOBODY);
    let _taken = TcpListener::bind(("127.0.0.1", home.port)).unwrap();
    let (code, _, said) = outcome(&["--config", text(&home.config())], &[]);
    let address = format!("127.0.0.1:{}", home.port);
    assert!(code == 69 && said.contains(&address) && said.contains("server.port"), "{code} {said}");
}

#[test]
fn a_taken_admin_port_is_69_and_says_which() {
    let home = Home::new(NOBODY);
    let _taken = TcpListener::bind(("127.0.0.1", home.admin_port)).unwrap();
    let (code, _, said) = outcome(&["--config", text(&home.config())], &[]);
    let address = format!("127.0.0.1:{}", home.admin_port);
    assert!(code == 69 && said.contains(&address) && said.contains("server.admin_port"), "{code} {said}");
}

#[test]
fn a_taken_port_of_the_simulated_provider_is_69() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, said) = outcome(&["provider-sim", "--listen", &address], &[]);
    assert_eq!(code, 69, "{said}");
}

#[test]
fn an_encryption_key_that_cannot_be_one_is_78_and_is_not_shown() {
    let home = Home::new(NOBODY);
    for (key, why) in [("hunter2-short", "openssl rand"), ("file:/nowhere/key", "/nowhere/key")] {
        let (code, _, said) = outcome(&["--config", text(&home.config())], &[("DEEPINTSHIELD_ENCRYPTION_KEY", key)]);
        assert!(code == 78 && said.contains("DEEPINTSHIELD_ENCRYPTION_KEY") && said.contains(why), "{code} {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// Before, a listener whose certificate could not be used spoke plain HTTP.
#[test]
fn a_listener_without_a_usable_certificate_is_78_and_never_plain_text() {
    let home = Home::new(NOBODY);
    let (cert, key) = (home.scratch.path("cert.pem"), home.scratch.path("key.pem"));
    home.configure("sk-one", &format!(r#", "tls": {{ "cert_file": {cert:?}, "key_file": {key:?} }}"#));
    let (code, _, said) = outcome(&["--config", text(&home.config())], &[]);
    assert!(code == 78 && said.contains("cert.pem") && said.contains("server.tls"), "missing: {code} {said}");

    home.scratch.write("cert.pem", "not a certificate");
    home.scratch.write("key.pem", "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n");
    let (code, _, said) = outcome(&["--config", text(&home.config())], &[]);
    assert!(code == 78 && said.contains("server.tls"), "unusable: {code} {said}");
}

#[test]
fn a_second_process_is_refused_with_the_reason() {
    let home = Home::new(NOBODY);
    let _first = home.start();

    // The same state directory on other ports: the lock.
    let state = home.scratch.path("state");
    let other = Home::new(NOBODY);
    let (code, _, said) = outcome(&["--config", text(&other.config()), "--state-dir", text(&state)], &[]);
    assert!(code == 75 && said.contains("in use by another process") && said.contains("state"), "{code} {said}");

    // The same address with its own state directory and admin port: SO_REUSEPORT must not let it in.
    let mut third = Home::new(NOBODY);
    third.port = home.port;
    third.configure("sk-one", "");
    let (code, _, said) = outcome(&["--config", text(&third.config())], &[]);
    assert!(code == 69 && said.contains("cannot listen on"), "{code} {said}");
}
