//! The project's rules that no lint knows, each as a test whose name says the rule.
//!
//! The rules are explained in ARCHITECTURE.md and CONTRIBUTING.md. A rule with exceptions lists
//! them here, with the reason; a rule that has none has no list.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId, TargetKind};

use crate::source::{Source, lines_with, product_files, root, rust_files, text_files};

/// Who may ask the operating system for the time. Everybody else is given it.
const CLOCK_FILES: &[&str] = &["shared/src/clock.rs", "perf/src/clock.rs"];

/// Who may ask a runtime for its own instants, which its timers take and which stand still in
/// tests. Nothing of a request is decided from them.
const TIMER_FILES: &[&str] = &[
    "controlplane/src/admin/listener.rs", // when a slow head ends
    "controlplane/src/gossip/life.rs",    // silence, counted in the time that a simulator keeps
    "controlplane/src/resolver.rs",       // when the system's resolver settings are read again
    "src/provider_sim/client.rs",         // when a silent client is given up
    "tests/sim/src/local.rs",             // when what is on its way arrives, in virtual time
];

/// Who may start threads in the product: a node, and the simulated provider, which is a program of
/// its own. Tests, benches and measuring tools start theirs.
const THREAD_FILES: &[&str] = &["src/node.rs", "src/provider_sim/mod.rs"];
const THREAD_FOLDERS: &[&str] = &["tests/", "benches/", "perf/", "controlplane/tests/"];

/// Where `unsafe` may stand. A snapshot is checked once, when it arrives, and then read in place,
/// because checking it again on every request would cost O(snapshot). An allocator is an unsafe
/// trait; the counting one is in builds that measure, and in no other.
const UNSAFE_FILES: &[&str] = &["shared/src/snapshot.rs", "shared/src/allocations.rs"];

/// Beyond this many lines a file holds a second idea.
const FILE_LINES_MAX: usize = 500;

/// Words that say nothing about what a thing is, or that have a better one in ARCHITECTURE.md.
const WORDS_NOT_USED: &[&str] = &[
    "backend", "worker", "workers", "manager", "handler", "handlers", "service", "services", "context", "util",
    "utils", "common", "helper", "helpers", "misc",
];

/// Top folders in which people keep their checkouts.
const PERSONAL_FOLDERS: &[&str] = &["home", "root", "Users", "work", "workspace", "farm"];

#[test]
fn dataplane_knows_neither_tokio_nor_the_control_plane() {
    assert_absent("dataplane", &["tokio", "controlplane", "axum", "hyper", "hickory-resolver"]);
}

#[test]
fn controlplane_knows_neither_monoio_nor_the_data_plane() {
    assert_absent("controlplane", &["monoio", "dataplane", "io-uring"]);
}

#[test]
fn shared_knows_no_runtime_and_no_socket() {
    let runtimes = ["tokio", "monoio", "io-uring", "mio", "async-std", "smol", "glommio"];
    assert_absent("shared", &runtimes);
    assert_absent("shared", &["socket2", "dataplane", "controlplane"]);
}

#[test]
fn only_node_rs_knows_both_planes() {
    let knows_both = |file: &Source| {
        let uses = |plane: &str| !file.lines_with(plane).is_empty();
        uses("dataplane") && uses("controlplane")
    };
    let found: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| file.path != "src/node.rs" && !file.path.starts_with("benches/") && knows_both(file))
        .map(|file| file.path)
        .collect();
    assert_none("these files know both planes, only src/node.rs may", &found);
}

#[test]
fn only_the_clock_files_read_the_clock() {
    let names = ["Instant::now", "SystemTime::now", "clock_gettime"];
    let found = product_uses_outside(&names, |path| CLOCK_FILES.contains(&path) || TIMER_FILES.contains(&path));
    assert_none("time is an argument, only a clock file reads the clock", &found);
}

#[test]
fn a_timer_file_takes_its_instants_from_a_runtime() {
    let names = ["std::time::Instant", "SystemTime", "disallowed_methods"];
    let found = product_uses_outside(&names, |path| !TIMER_FILES.contains(&path));
    assert_none("only tokio's or monoio's own instants may be read here", &found);
}

#[test]
fn only_node_rs_starts_threads() {
    let names = ["thread::spawn", "thread::Builder", "thread::scope"];
    let found = product_uses_outside(&names, |path| {
        THREAD_FILES.contains(&path) || THREAD_FOLDERS.iter().any(|folder| path.starts_with(folder))
    });
    assert_none("only src/node.rs starts threads", &found);
}

#[test]
fn the_list_of_disallowed_methods_is_silenced_only_where_it_has_to_be() {
    let found = product_uses_outside(&["disallowed_methods"], |path| {
        CLOCK_FILES.contains(&path) || THREAD_FILES.contains(&path)
    });
    assert_none("clippy.toml has the reason why not", &found);
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    let found = uses_outside(UNSAFE_FILES, &["unsafe", "allow(unsafe_code", "expect(unsafe_code"]);
    assert_none("`unsafe` outside its list of files", &found);
}

#[test]
fn every_crate_but_shared_forbids_unsafe_code() {
    let files = rust_files();
    let mut found = Vec::new();
    for package in workspace().workspace_packages() {
        for target in &package.targets {
            let is_product = |kind: &TargetKind| matches!(kind, TargetKind::Lib | TargetKind::Bin);
            if package.name.as_str() == "shared" || !target.kind.iter().any(is_product) {
                continue;
            }
            let path = target.src_path.as_std_path();
            let path = path.strip_prefix(root()).expect("members lie inside the project");
            let file = files.iter().find(|file| path == std::path::Path::new(&file.path));
            let file = file.expect("the walk sees every crate root");
            if file.lines_with("#![forbid(unsafe_code)]").is_empty() {
                found.push(file.path.clone());
            }
        }
    }
    assert_none("these crate roots lack #![forbid(unsafe_code)]", &found);
}

#[test]
fn nothing_unfinished_is_left_in_the_code() {
    let mut found = uses_outside(&[], &["todo!", "unimplemented!", "#[ignore]"]);
    // Spelled in two halves, since this file is searched as well.
    for mark in [concat!("FIX", "ME"), concat!("XX", "X")] {
        for file in rust_files() {
            let lines = (1..).zip(file.text.lines()).filter(|(_, line)| line.contains(mark));
            found.extend(lines.map(|(number, _)| format!("{}:{number} {mark}", file.path)));
        }
    }
    assert_none("finish it, or take it out and name it as missing", &found);
}

#[test]
fn no_file_holds_more_than_five_hundred_lines() {
    let found: Vec<String> = rust_files()
        .into_iter()
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_none("look for the second idea in these files", &found);
}

#[test]
fn no_file_or_folder_is_named_with_an_empty_word() {
    let found: Vec<String> = rust_files()
        .into_iter()
        .map(|file| file.path)
        .filter(|path| path.split(['/', '.', '_', '-']).any(|word| WORDS_NOT_USED.contains(&word)))
        .collect();
    assert_none("name what the thing is, with the words of ARCHITECTURE.md", &found);
}

/// A test module beside its code has its job in its name.
#[test]
fn every_source_file_opens_with_its_job() {
    let found: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| !file.path.ends_with("/tests.rs") && !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    assert_none("the first line of a file says its job, as `//! …`", &found);
}

#[test]
fn no_path_of_somebodys_machine_is_written_down() {
    let mut found = Vec::new();
    for file in text_files() {
        for (number, line) in (1..).zip(file.text.lines()) {
            if names_personal_folder(line) {
                found.push(format!("{}:{number} {}", file.path, line.trim()));
            }
        }
    }
    assert_none("these lines hold only on one machine", &found);
}

#[test]
fn only_the_root_has_a_clippy_toml() {
    let found: Vec<String> = text_files()
        .into_iter()
        .map(|file| file.path)
        .filter(|path| path.ends_with("/clippy.toml") || path.ends_with("/.clippy.toml"))
        .collect();
    assert_none("a second clippy.toml silently replaces the root's", &found);
}

/// Fails when `member` reaches one of `banned` through normal dependencies, and prints the way.
#[track_caller]
fn assert_absent(member: &str, banned: &[&str]) {
    let metadata = workspace();
    let resolve = metadata.resolve.as_ref().expect("the dependency graph was asked for");
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = node
                .deps
                .iter()
                .filter(|dependency| dependency.dep_kinds.iter().any(|info| info.kind == DependencyKind::Normal));
            (&node.id, normal.map(|dependency| &dependency.pkg).collect())
        })
        .collect();

    let start = metadata.workspace_packages().into_iter().find(|p| p.name.as_str() == member);
    let start = &start.expect("the member is in the workspace").id;
    let mut seen = BTreeSet::from([start]);
    let mut ways = vec![vec![start]];
    while let Some(way) = ways.pop() {
        let last = way.last().expect("a way has a start");
        let name = metadata[*last].name.as_str();
        assert!(
            !banned.contains(&name),
            "{member} must not depend on {name}, but does: {}",
            way.iter().map(|id| metadata[*id].name.as_str()).collect::<Vec<_>>().join(" → "),
        );
        for next in edges.get(last).into_iter().flatten() {
            if seen.insert(next) {
                ways.push(way.iter().copied().chain([*next]).collect());
            }
        }
    }
    assert!(seen.len() > 1, "{member} has no dependency at all: the graph was not read");
}

/// The workspace as cargo sees it, for Linux: what the product runs on.
fn workspace() -> Metadata {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--locked".into(), "--filter-platform".into(), platform])
        .exec()
        .expect("cargo metadata describes the workspace")
}

/// `path:line name` for every use of one of `names` in code, `allowed` files left out.
fn uses_outside(allowed: &[&str], names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in rust_files() {
        if allowed.contains(&file.path.as_str()) {
            continue;
        }
        for name in names {
            for line in file.lines_with(name) {
                found.push(format!("{}:{line} {name}", file.path));
            }
        }
    }
    found
}

/// `path:line name` for every use of one of `names` in product code, unless `may` allows its file.
fn product_uses_outside(names: &[&str], may: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in product_files().into_iter().filter(|(path, _)| !may(path)) {
        for name in names {
            let lines = lines_with(&code, name);
            found.extend(lines.iter().map(|line| format!("{path}:{line} {name}")));
        }
    }
    found
}

/// Whether `line` has an absolute path below one of [`PERSONAL_FOLDERS`].
fn names_personal_folder(line: &str) -> bool {
    PERSONAL_FOLDERS.iter().any(|folder| {
        line.match_indices(&format!("/{folder}/")).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "_.-/*~$}".contains(c))
        })
    })
}

#[test]
fn a_path_below_a_personal_folder_is_noticed() {
    let path = ["", "home", "ada", "x"].join("/");
    assert!(names_personal_folder(&path));
    assert!(names_personal_folder(&format!("see \"{path}\"")));
    assert!(!names_personal_folder(&format!("tests{path}")));
    assert!(!names_personal_folder(&format!("https://example.com{path}")));
}

/// Fails with `rule` and one line for each thing found.
#[track_caller]
fn assert_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}
