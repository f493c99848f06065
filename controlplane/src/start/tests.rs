//! What a node starts from, and what keeps it from starting.

use super::*;
use crate::state_dir::tests::Scratch;

const VALID: &str = r#"{"providers": {}}"#;

/// A folder with this configuration file in it, and its settings.
fn settings(scratch: &Scratch, text: Option<&str>) -> Settings {
    std::fs::create_dir_all(&scratch.0).unwrap();
    let file = scratch.0.join("config.json");
    match text {
        Some(text) => std::fs::write(&file, text).unwrap(),
        None => drop(std::fs::remove_file(&file)),
    }
    Settings {
        config: ConfigSource::File(file),
        state_dir: Some(scratch.0.join("state")),
        admin_listen: Some(([127, 0, 0, 1], 0).into()),
        encryption_key: None,
        version: "test",
        clock: Clock::start(),
    }
}

fn open(settings: Settings) -> Result<Start, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    super::open(settings, &runtime)
}

#[test]
fn every_fault_of_a_file_is_told_with_its_name() {
    let scratch = Scratch::new();
    let error = open(settings(&scratch, Some(r#"{"provider": {}, "server": {"port": "x"}}"#))).err().unwrap();
    assert_eq!(error.exit_code(), 78);
    let text = error.to_string();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("config.json:1:") && text.contains("providers"), "{text}");
}

#[test]
fn without_file_and_snapshot_nothing_starts_and_both_are_named() {
    let scratch = Scratch::new();
    let error = open(settings(&scratch, None)).err().unwrap();
    assert_eq!(error.exit_code(), 66);
    let text = error.to_string();
    assert!(text.contains("config.json") && text.contains("no last good snapshot"), "{text}");
}

#[test]
fn a_second_node_on_the_same_state_is_refused() {
    let scratch = Scratch::new();
    let _first = open(settings(&scratch, Some(VALID))).unwrap();
    let error = open(settings(&scratch, Some(VALID))).err().unwrap();
    assert!(matches!(error, StartError::InUse(_)), "{error}");
}

#[test]
fn a_state_directory_that_cannot_be_used_costs_persistence_and_nothing_else() {
    let scratch = Scratch::new();
    let settings = Settings { state_dir: Some("/proc/deepintshield".into()), ..settings(&scratch, Some(VALID)) };
    let start = open(settings).unwrap();
    assert!(start.state_dir.is_none());
    assert!(start.remarks.iter().any(|remark| remark.contains("/proc/deepintshield")), "{:?}", start.remarks);
}

#[test]
fn an_admin_port_that_is_taken_is_named() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let settings = Settings { admin_listen: Some(([127, 0, 0, 1], port).into()), ..settings(&scratch, Some(VALID)) };
    let error = open(settings).err().unwrap();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[test]
fn days_since_1970_become_dates() {
    for (seconds, date) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (951_782_400, "2000-02-29 00:00:00 UTC"),
        (951_868_799, "2000-02-29 23:59:59 UTC"),
        (1_709_251_200, "2024-03-01 00:00:00 UTC"),
        (1_767_225_599, "2025-12-31 23:59:59 UTC"),
        (4_107_542_400, "2100-03-01 00:00:00 UTC"),
    ] {
        assert_eq!(utc(seconds), date);
    }
}

#[test]
fn nodes_of_one_configuration_have_one_hash_and_keep_the_clusters_part() {
    let bare = r#"{"client": {"x": 1}, "cluster_config": {"enabled": true}}"#;
    let other = "{ // this node\n \"server\": {\"port\": 7},\n \"cluster_config\": {\"enabled\": true,}, /* , */ \"client\": {\"x\": 1}, }";
    let (hash, cluster) = hash_and_cluster(bare);
    assert_eq!(cluster.unwrap().expose(), r#"{"enabled":true}"#);
    let (with_comments, cluster) = hash_and_cluster(other);
    assert_eq!(cluster.unwrap().expose(), r#"{"enabled":true}"#);
    assert_eq!(with_comments, hash);
    assert_ne!(hash_and_cluster(&bare.replace('1', "2")).0, hash);
}
