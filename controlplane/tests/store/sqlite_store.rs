//! The store of one node: the contract, other chains, and the file.

use crate::contract;
use crate::revisions::{Scratch, append_all, chain, consistent, holds, next, run, set};
use controlplane::live::{Digest, Head, Revision, Store, StoreError};
use controlplane::store::SqliteStore;
use rusqlite::Connection;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

#[test]
fn sqlite_keeps_the_contract() {
    let scratch = Scratch::new();
    let mut number = 0;
    run(contract::keep(|| {
        number += 1;
        let path = scratch.path(&format!("{number}.db"));
        Box::new(move || Arc::new(SqliteStore::new(&path)))
    }));
}

fn store() -> (Scratch, SqliteStore) {
    let scratch = Scratch::new();
    let store = SqliteStore::new(scratch.path("store.db"));
    (scratch, store)
}

#[test]
fn the_greater_chain_takes_over_and_the_other_one_stays_in_the_history() {
    run(async {
        let (_scratch, store) = store();
        let shared = chain(&Head::default(), "n1", 2);
        let fork = shared[1].head();
        let ours = chain(&fork, "n1", 2);
        let theirs = chain(&fork, "n2", 3);
        append_all(&store, &shared).await;
        append_all(&store, &ours).await;
        store.switch(fork.digest, &theirs).await.unwrap();
        assert_eq!(consistent(&store).await.unwrap(), theirs[2].head());
        let history = store.history(None, 10).await.unwrap();
        let told: Vec<_> = history.iter().map(|r| (r.revision.number, &*r.revision.node, r.is_superseded)).collect();
        let expected =
            [(5, "n2", false), (4, "n2", false), (4, "n1", true), (3, "n2", false), (3, "n1", true), (2, "n1", false)];
        assert_eq!(told[..6], expected);
        let superseded = store.revision(ours[0].digest()).await.unwrap().unwrap();
        assert!(superseded.is_superseded && superseded.revision == ours[0]);

        // A chain that was superseded can take over again, with more on it.
        let longer = chain(&ours[1].head(), "n1", 2);
        store.switch(fork.digest, &[ours.clone(), longer.clone()].concat()).await.unwrap();
        assert_eq!(consistent(&store).await.unwrap(), longer[1].head());
        assert!(holds(&store, ours[0].digest()).await && !holds(&store, theirs[2].digest()).await);
        append_all(&store, &chain(&longer[1].head(), "n1", 1)).await;
        consistent(&store).await.unwrap();
    });
}

#[test]
fn a_chain_can_take_over_from_the_very_beginning() {
    run(async {
        let (_scratch, store) = store();
        append_all(&store, &chain(&Head::default(), "n1", 2)).await;
        let theirs = chain(&Head::default(), "n2", 2);
        store.switch(Digest::default(), &theirs).await.unwrap();
        store.switch(Digest::default(), &theirs).await.unwrap();
        assert_eq!(consistent(&store).await.unwrap(), theirs[1].head());
    });
}

#[test]
fn a_chain_that_is_not_greater_or_does_not_fit_changes_nothing() {
    run(async {
        let (_scratch, store) = store();
        let ours = chain(&Head::default(), "n2", 3);
        append_all(&store, &ours).await;
        let lesser = chain(&ours[0].head(), "n1", 2);
        let Err(StoreError::Conflict(head)) = store.switch(ours[0].digest(), &lesser).await else { panic!() };
        assert_eq!(head, ours[2].head());
        let gap = [chain(&ours[0].head(), "n3", 4), chain(&Head::default(), "n3", 9)].concat();
        let elsewhere = chain(&Head { number: 9, ..Head::default() }, "n3", 2);
        let skips = [Revision { number: 9, ..next(&ours[0].head(), vec![]) }];
        for (fork, wrong) in [
            (ours[0].digest(), &gap[..]),
            (Digest([9; 32]), &elsewhere),
            (ours[1].digest(), &chain(&ours[0].head(), "n3", 4)),
            (ours[0].digest(), &skips),
            (ours[0].digest(), &[]),
        ] {
            assert!(matches!(store.switch(fork, wrong).await, Err(StoreError::Invalid(_))));
            assert_eq!(consistent(&store).await.unwrap(), ours[2].head());
        }
    });
}

#[test]
fn superseded_revisions_of_one_number_are_on_one_page() {
    run(async {
        let (_scratch, store) = store();
        append_all(&store, &chain(&Head::default(), "a", 1)).await;
        for node in ["b", "c", "d"] {
            store.switch(Digest::default(), &chain(&Head::default(), node, 1)).await.unwrap();
        }
        append_all(&store, &chain(&chain(&Head::default(), "d", 1)[0].head(), "d", 1)).await;
        let sizes = [store.history(None, 1).await.unwrap().len(), store.history(Some(2), 1).await.unwrap().len()];
        assert_eq!(sizes, [1, 4]);
    });
}

#[test]
fn the_files_are_for_their_owner_only() {
    run(async {
        let (scratch, store) = store();
        append_all(&store, &chain(&Head::default(), "n1", 1)).await;
        let names: Vec<_> = std::fs::read_dir(scratch.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(names.len() >= 2, "the database and what WAL needs: {names:?}");
        let modes: Vec<_> = names.iter().map(|path| path.metadata().unwrap().permissions().mode() & 0o777).collect();
        assert!(modes.iter().all(|mode| *mode == 0o600), "{names:?} {modes:?}");
        drop(store);

        let path = scratch.path("store.db");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        SqliteStore::new(&path).state().await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn pages_are_found_by_index() {
    run(async {
        let (scratch, store) = store();
        store.state().await.unwrap();
        let other = Connection::open(scratch.path("store.db")).unwrap();
        let plan = |sql: &str| {
            let mut statement = other.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let lines = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
            lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
        };
        let columns = "SELECT digest, comment FROM deepintshield_revisions";
        for sql in [
            format!("{columns} WHERE NOT superseded AND number > 5 ORDER BY number LIMIT 5"),
            format!("{columns} WHERE number < 9 ORDER BY number DESC LIMIT 5"),
            "SELECT 1 FROM deepintshield_changes WHERE digest = x'00' ORDER BY position".to_owned(),
            "DELETE FROM deepintshield_entities WHERE (kind, name) IN \
             (SELECT kind, name FROM deepintshield_changes WHERE digest = x'00' AND value IS NULL)"
                .to_owned(),
        ] {
            let plan = plan(&sql);
            assert!(plan.contains("SEARCH") && !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    });
}

#[test]
fn newer_tables_are_used_as_long_as_they_allow_it() {
    run(async {
        let (scratch, store) = store();
        let chain = chain(&Head::default(), "n1", 3);
        append_all(&store, &chain[..1]).await;
        let newer = Connection::open(scratch.path("store.db")).unwrap();
        newer.execute("UPDATE deepintshield_schema SET version = 99", []).unwrap();
        append_all(&store, &chain[1..2]).await;
        append_all(&SqliteStore::new(scratch.path("store.db")), &chain[..2]).await;
        newer.execute("UPDATE deepintshield_schema SET compatible_from = 99", []).unwrap();
        for store in [&store, &SqliteStore::new(scratch.path("store.db"))] {
            let Err(StoreError::Unusable(words)) = store.append(&chain[2]).await else { panic!("refused") };
            assert!(words.contains("update this node"), "{words}");
        }
    });
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    run(async {
        let (scratch, store) = store();
        let path = scratch.path("store.db");
        Connection::open(&path).unwrap().execute("CREATE TABLE theirs (x)", []).unwrap();
        let Err(StoreError::Unusable(words)) = store.state().await else { panic!("refused") };
        assert!(words.contains("another program") && words.contains("store.db"), "{words}");

        std::fs::write(&path, "no database at all, but long enough to be looked at".repeat(99)).unwrap();
        let Err(StoreError::Unusable(words)) = store.state().await else { panic!("refused") };
        assert!(words.contains("not a database") && words.contains("restore"), "{words}");
    });
}

#[test]
fn a_folder_that_is_missing_is_named_and_may_come_later() {
    run(async {
        let scratch = Scratch::new();
        let store = SqliteStore::new(scratch.path("later/store.db"));
        let Err(StoreError::Unavailable(words)) = store.state().await else { panic!("not there") };
        assert!(words.contains("later/store.db") && words.contains("config_store.config.path"), "{words}");
        std::fs::create_dir(scratch.path("later")).unwrap();
        store.state().await.unwrap();
    });
}

#[test]
fn what_somebody_changed_behind_our_back_is_noticed() {
    run(async {
        let (scratch, store) = store();
        let revision = next(&Head::default(), vec![set("a", json!(1))]);
        store.append(&revision).await.unwrap();
        let other = Connection::open(scratch.path("store.db")).unwrap();
        other.execute("UPDATE deepintshield_changes SET value = '2'", []).unwrap();
        assert!(matches!(store.after(0, 9).await, Err(StoreError::Unusable(_))));
        assert!(matches!(store.revision(revision.digest()).await, Err(StoreError::Unusable(_))));
    });
}

#[test]
fn a_hundred_thousand_entities_are_one_import() {
    run(async {
        let (_scratch, store) = store();
        crate::postgres_store::import_a_hundred_thousand(&store).await;
    });
}
