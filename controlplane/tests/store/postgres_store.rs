//! The store that nodes share: the contract, what one node hears of another, and operators' troubles.

use crate::contract;
use crate::postgres_server::{PASSWORD, PostgresServer};
use crate::revisions::{append_all, chain, consistent, next, removed, run, set};
use controlplane::live::{Digest, Head, Store, StoreError};
use controlplane::store::PostgresStore;
use nix::sys::signal::Signal;
use serde_json::json;
use shared::config::model::{Postgres, SslMode};
use shared::secret::Secret;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Less than the pause between two looks, so that only a ring can be this early.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn postgres_keeps_the_contract() {
    let server = PostgresServer::start();
    run(contract::keep(|| {
        let database = blocking(server.database());
        let server = &server;
        Box::new(move || Arc::new(server.store(&database)))
    }));
}

#[test]
fn postgres_keeps_the_contract_with_its_certificate_verified() {
    let server = PostgresServer::start();
    run(contract::keep(|| {
        let database = blocking(server.database());
        let server = &server;
        Box::new(move || Arc::new(PostgresStore::new(&server.verified(&database))))
    }));
}

/// From within a runtime, on a thread of its own.
fn blocking<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| run(work)).join().unwrap())
}

#[test]
fn others_hear_of_a_revision_at_once() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        let (writer, listener) = (server.store(&database), server.store(&database));
        // It listens when it rings for what came before.
        until_it_rings(&listener).await;
        for revision in chain(&Head::default(), "n1", 5) {
            writer.append(&revision).await.unwrap();
            timeout(SOON, listener.changed()).await.expect("it was told");
            assert!(listener.after(revision.number - 1, 5).await.unwrap() == [revision]);
        }
    });
}

async fn until_it_rings(store: &PostgresStore) {
    while timeout(SOON, store.changed()).await.is_err() {}
}

#[test]
fn a_node_with_one_connection_looks_once_in_a_while() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        let store = PostgresStore::new(&Postgres { max_open_conns: 1, ..server.config(&database) });
        store.state().await.unwrap();
        timeout(Duration::from_secs(5), store.changed()).await.expect("it is time to look");
        let connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'deepintshield'";
        assert_eq!(server.number(&database, connections).await, 1);
    });
}

#[test]
fn a_server_that_was_away_is_found_again_and_listened_to() {
    let mut server = PostgresServer::start();
    let database = run(server.database());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let chain = chain(&Head::default(), "n1", 3);
    let store = runtime.block_on(async {
        let store = server.store(&database);
        append_all(&store, &chain[..1]).await;
        store
    });
    server.kill();
    runtime.block_on(async {
        let Err(StoreError::Unavailable(words)) = store.append(&chain[1]).await else { panic!("it is down") };
        assert!(words.contains("Connection refused") && words.contains("check config_store.config.host"), "{words}");
        assert!(store.describe().contains("the last attempt to reach it failed"), "{}", store.describe());
    });
    server.run();
    runtime.block_on(async {
        append_all(&store, &chain[1..2]).await;
        assert!(!store.describe().contains("failed"), "{}", store.describe());
        until_it_rings(&store).await;
        append_all(&server.store(&database), &chain[2..]).await;
        timeout(SOON, store.changed()).await.expect("it was told");
        assert_eq!(consistent(&store).await.unwrap(), chain[2].head());
    });
}

#[test]
fn a_server_that_hangs_is_given_up() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        let store = server.store(&database);
        server.signal(Signal::SIGSTOP);
        let asked = store.state().await;
        server.signal(Signal::SIGCONT);
        let Err(StoreError::Unavailable(words)) = asked else { panic!("it hangs") };
        assert!(words.contains("no answer within 5s"), "{words}");
        store.state().await.unwrap();
    });
}

#[test]
fn a_shared_store_is_not_switched_to_another_chain() {
    let server = PostgresServer::start();
    run(async {
        let store = server.store(&server.database().await);
        let refused = store.switch(Digest::default(), &chain(&Head::default(), "n1", 1)).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))));
        assert_eq!(consistent(&store).await.unwrap(), Head::default());
    });
}

#[test]
fn newer_tables_are_used_as_long_as_they_allow_it() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        let store = server.store(&database);
        let chain = chain(&Head::default(), "n1", 3);
        append_all(&store, &chain[..1]).await;
        server.execute(&database, "UPDATE deepintshield_schema SET version = 99").await;
        append_all(&store, &chain[1..2]).await;
        append_all(&server.store(&database), &chain[..2]).await;
        server.execute(&database, "UPDATE deepintshield_schema SET compatible_from = 99").await;
        for store in [store, server.store(&database)] {
            let Err(StoreError::Unusable(words)) = store.append(&chain[2]).await else { panic!("refused") };
            assert!(words.contains("update this node"), "{words}");
        }
        let kept = server.number(&database, "SELECT count(*) FROM deepintshield_revisions").await;
        assert_eq!(kept, 2);
    });
}

#[test]
fn what_is_confirmed_is_on_disk_whatever_the_server_does_by_default() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        server.execute(&database, &format!("ALTER DATABASE {database} SET synchronous_commit = off")).await;
        // Whoever puts the head down would see the setting that its writer has.
        server.store(&database).state().await.unwrap();
        let watch = "CREATE TABLE seen (setting text);
            CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;
            CREATE TRIGGER see BEFORE UPDATE ON deepintshield_head FOR EACH ROW EXECUTE FUNCTION see()";
        server.execute(&database, watch).await;
        append_all(&server.store(&database), &chain(&Head::default(), "n1", 1)).await;
        assert_eq!(server.number(&database, "SELECT count(*) FROM seen WHERE setting = 'on'").await, 1);
    });
}

#[test]
fn each_trouble_names_what_is_wrong_and_what_to_do() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        let grants = "CREATE ROLE reader LOGIN PASSWORD 'planted-password';
            REVOKE CREATE ON SCHEMA public FROM PUBLIC";
        server.execute(&database, grants).await;
        let config = || server.config(&database);
        let wrong = Some(Secret::new("another-planted-one"));
        let troubles = [
            (Postgres { password: wrong, ..config() }, "password authentication failed", "user and password"),
            (Postgres { password: None, ..config() }, "asks for a password", "config_store.config.password"),
            (Postgres { user: "nobody".into(), ..config() }, "nobody", "user and password"),
            (Postgres { host: "no-such-host.invalid".into(), ..config() }, "cannot be resolved", "config.host and DNS"),
            (Postgres { port: 1, ..config() }, "Connection refused", "config_store.config.host and port"),
            (Postgres { db_name: "missing".into(), ..config() }, "\"missing\" does not exist", "create the database"),
            (Postgres { user: "reader".into(), ..config() }, "permission denied", "GRANT CREATE"),
        ];
        for (config, what, remedy) in troubles {
            let store = PostgresStore::new(&config);
            let Err(StoreError::Unavailable(words)) = store.state().await else { panic!("{what}") };
            for words in [words, store.describe()] {
                assert!(words.contains(what) && words.contains(remedy) && !words.contains("planted"), "{words}");
            }
        }
        assert!(!server.store(&database).describe().contains(PASSWORD));
    });
}

#[test]
fn a_standby_is_named_as_one() {
    let mut server = PostgresServer::start();
    let database = run(server.database());
    let chain = chain(&Head::default(), "n1", 2);
    run(async { append_all(&server.store(&database), &chain[..1]).await });
    server.become_standby();
    run(async {
        let store = server.store(&database);
        assert_eq!(consistent(&store).await.unwrap(), chain[0].head());
        let Err(StoreError::Unavailable(words)) = store.append(&chain[1]).await else { panic!("no writes") };
        assert!(words.contains("name the primary"), "{words}");
    });
}

#[test]
fn a_hundred_thousand_entities_are_one_import() {
    let server = PostgresServer::start();
    run(async {
        let database = server.database().await;
        import_a_hundred_thousand(&server.store(&database)).await;
        // Connections that end say what they have read.
        let mut scans = Vec::new();
        for changes in [vec![], vec![set("vk-9", json!({"id": "vk-9"})), removed("vk-8"), set("new", json!(1))]] {
            let connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'deepintshield'";
            if !changes.is_empty() {
                let newest = "SELECT number FROM deepintshield_head";
                let newest = server.number(&database, newest).await.unsigned_abs();
                let store = server.store(&database);
                let head = store.after(newest - 1, 1).await.unwrap()[0].head();
                append_all(&store, &[next(&head, changes)]).await;
            }
            while server.number(&database, connected).await > 0 {}
            let scanned = "SELECT sum(seq_scan)::bigint FROM pg_stat_user_tables WHERE relname IN \
                 ('deepintshield_entities', 'deepintshield_changes')";
            scans.push(server.number(&database, scanned).await);
        }
        assert_eq!(scans[0], scans[1], "a change of three entities reads no whole table");
    });
}

/// As one revision, and a change of one of them afterwards.
pub(crate) async fn import_a_hundred_thousand(store: &dyn Store) {
    let key = |number: u32| {
        let value = json!({"id": format!("vk-{number}"), "name": format!("customer {number}"), "value": "sealed:AAAA",
            "provider_configs": [{"provider": "openai", "allowed_models": ["*"], "weight": 0.5}], "is_active": true});
        set(&format!("vk-{number}"), value)
    };
    let import = next(&Head::default(), (0..100_000).map(key).collect());
    store.append(&import).await.unwrap();
    let change = next(&import.head(), vec![removed("vk-7")]);
    store.append(&change).await.unwrap();
    let (head, entities) = store.state().await.unwrap();
    assert_eq!((head, entities.len()), (change.head(), 99_999));
    assert!(store.after(1, 10).await.unwrap() == std::slice::from_ref(&change));
    // The next page has the import, which is large.
    assert_eq!(store.history(Some(2), 10).await.unwrap()[0].digest, import.digest());
}

/// Modes without a certificate that is checked.
#[test]
fn tls_is_spoken_where_it_is_wanted_and_there() {
    for speaks_tls in [true, false] {
        let server = PostgresServer::start_with(speaks_tls);
        run(async {
            let database = server.database().await;
            let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                             WHERE application_name = 'deepintshield' AND ssl";
            for (ssl_mode, expected) in
                [(SslMode::Disable, false), (SslMode::Prefer, speaks_tls), (SslMode::Require, true)]
            {
                let store = PostgresStore::new(&Postgres { ssl_mode, max_open_conns: 1, ..server.config(&database) });
                match store.state().await {
                    Ok(_) => assert_eq!(server.number(&database, encrypted).await, i64::from(expected), "{ssl_mode:?}"),
                    Err(StoreError::Unavailable(words)) => {
                        assert!(!speaks_tls && expected, "{words}");
                        assert!(words.contains("does not speak TLS") && words.contains("ssl_mode disable"), "{words}");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
}
