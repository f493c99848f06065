//! What is left after a kill in the middle of something: nothing half applied, and everything that
//! was confirmed.

use crate::postgres_server::PostgresServer;
use crate::revisions::{Dice, Scratch, chain, consistent, holds, run};
use controlplane::live::{Digest, Revision, Store, StoreError};
use controlplane::store::{PostgresStore, SqliteStore};
use shared::config::model::Postgres;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Tells the second process where to write: a file, or `ADDRESS DATABASE`.
const WRITES_TO: &str = "DEEPINTSHIELD_TEST_WRITES_TO";

const SEED: u64 = 7;
const WRITERS_KILLED: u64 = 12;
const SERVERS_KILLED: u64 = 5;
/// Revisions that a writer may confirm before it is killed, and how long after the last of them.
const CONFIRMED_MAX: u64 = 12;
const DELAY_MICROS_MAX: u64 = 6_000;

#[test]
fn a_writer_to_sqlite_that_is_killed_leaves_whole_revisions() {
    if let Some(path) = std::env::var_os(WRITES_TO) {
        return run(write_for_ever(&SqliteStore::new(path)));
    }
    let scratch = Scratch::new();
    let path = scratch.path("store.db");
    let this = "kills::a_writer_to_sqlite_that_is_killed_leaves_whole_revisions";
    kill_writers(
        this,
        path.to_str().unwrap(),
        || run(async { check(&SqliteStore::new(&path), &[]).await }),
        |kept| run(async { check(&SqliteStore::new(&path), kept).await }),
    );
}

#[test]
fn a_writer_to_postgres_that_is_killed_leaves_whole_revisions() {
    if let Ok(config) = std::env::var(WRITES_TO) {
        return run(async { write_for_ever(&PostgresStore::new(&crate::postgres_server::config_of(&config))).await });
    }
    let server = PostgresServer::start();
    let database = run(server.database());
    let check = |kept: &[String]| {
        run(async {
            // What the killed process had asked for is still done, or rolled back.
            let others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'deepintshield'";
            while server.number(&database, others).await > 0 {}
            check(&server.store(&database), kept).await
        })
    };
    let this = "kills::a_writer_to_postgres_that_is_killed_leaves_whole_revisions";
    kill_writers(this, &server.config_text(&database), || check(&[]), check);
}

/// Each writer goes on where the one before was killed.
fn kill_writers(test: &str, writes_to: &str, before: impl Fn() -> u64, after: impl Fn(&[String]) -> u64) {
    let mut dice = Dice(SEED);
    let mut number = before();
    for _ in 0..WRITERS_KILLED {
        let kept = kill_one(test, writes_to, 1 + dice.roll(CONFIRMED_MAX), dice.roll(DELAY_MICROS_MAX));
        let newest = after(&kept);
        let more = newest - number - kept.len() as u64;
        assert!(more <= 1, "one may have been confirmed to nobody, not {more}");
        number = newest;
    }
}

/// Digests of the revisions that it said were kept.
fn kill_one(test: &str, writes_to: &str, confirmed: u64, delay_micros: u64) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(WRITES_TO, writes_to);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut kept = lines.filter_map(|line| Some(line.split_once("kept ")?.1.to_owned()));
    let mut digests: Vec<String> = kept.by_ref().take(confirmed as usize).collect();
    assert_eq!(digests.len() as u64, confirmed, "the writer writes until it is killed");
    // Somewhere in the next one.
    std::thread::sleep(Duration::from_micros(delay_micros));
    child.kill().unwrap();
    digests.extend(kept);
    child.wait().unwrap();
    digests
}

/// The second process.
async fn write_for_ever(store: &dyn Store) {
    loop {
        let head = store.state().await.unwrap().0;
        let revision = chain(&head, "n1", 1).remove(0);
        store.append(&revision).await.unwrap();
        writeln!(std::io::stdout().lock(), "kept {}", revision.digest()).unwrap();
    }
}

/// The newest number, after everything was found whole and what was `kept` is there.
async fn check(store: &dyn Store, kept: &[String]) -> u64 {
    let head = consistent(store).await.unwrap();
    for digest in kept {
        assert!(holds(store, digest_of(digest)).await, "{digest} was confirmed");
    }
    head.number
}

fn digest_of(text: &str) -> Digest {
    let mut digest = Digest::default();
    assert_eq!(text.len(), 64);
    for (byte, at) in digest.0.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    }
    digest
}

#[test]
fn a_database_that_is_killed_keeps_what_it_confirmed_and_nothing_that_it_refused() {
    let mut server = PostgresServer::start();
    let database = run(server.database());
    let mut dice = Dice(SEED);
    for _ in 0..SERVERS_KILLED {
        let (confirmed, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let config = server.config(&database);
        let (kept, refused) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| run(write_until(&is_over, &config, &confirmed)));
            let enough = 1 + dice.roll(CONFIRMED_MAX);
            while confirmed.load(Ordering::Relaxed) < enough {
                assert!(!writer.is_finished(), "it writes until it is told to stop");
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_micros(dice.roll(DELAY_MICROS_MAX)));
            server.kill();
            server.run();
            is_over.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        });
        run(async {
            let store = server.store(&database);
            consistent(&store).await.unwrap();
            for digest in kept {
                assert!(holds(&store, digest).await, "{digest} was confirmed");
            }
            for (digest, error) in refused {
                let may_be_there = matches!(error, StoreError::Uncertain(_));
                assert!(may_be_there || !holds(&store, digest).await, "{digest} was refused: {error}");
            }
        });
    }
}

/// What was confirmed, and what was not and why. A server that is away does not end it.
async fn write_until(
    is_over: &AtomicBool,
    config: &Postgres,
    confirmed: &AtomicU64,
) -> (Vec<Digest>, Vec<(Digest, StoreError)>) {
    let store = PostgresStore::new(config);
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let Ok((head, _)) = store.state().await else { continue };
        // No two attempts are the same revision.
        let at_ms = (kept.len() + refused.len()) as u64;
        let revision = Revision { at_ms, ..chain(&head, "n1", 1).remove(0) };
        match store.append(&revision).await {
            Ok(()) => {
                kept.push(revision.digest());
                confirmed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => refused.push((revision.digest(), error)),
        }
    }
    (kept, refused)
}
