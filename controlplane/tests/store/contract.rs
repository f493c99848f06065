//! What every store does. Each case begins with a new one.

use crate::revisions::{append_all, chain, consistent, holds, id, next, removed, set, values};
use controlplane::live::{Digest, Head, Revision, Store, StoreError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes another handle to one database.
pub(crate) type Opener<'a> = &'a dyn Fn() -> Arc<dyn Store>;

/// Runs every case; `new` makes a store that nobody used yet, and returns how to open it.
pub(crate) async fn keep<'a>(mut new: impl FnMut() -> Box<dyn Fn() -> Arc<dyn Store> + 'a>) {
    an_empty_store_has_no_head(&*new()()).await;
    what_was_appended_is_there(&new()).await;
    a_revision_that_is_not_on_top_changes_nothing(&*new()()).await;
    what_is_wrong_in_itself_changes_nothing(&*new()()).await;
    the_same_revision_again_is_confirmed_again(&*new()()).await;
    of_many_writers_each_gets_through_once(&new()).await;
    values_come_back_to_the_digit(&*new()()).await;
    pages_follow_each_other(&*new()()).await;
    what_is_removed_is_gone_and_can_come_back(&*new()()).await;
    a_large_revision_is_one_revision(&*new()()).await;
    ten_that_come_at_once_make_the_tables_once(&new()).await;
}

async fn an_empty_store_has_no_head(store: &dyn Store) {
    let (head, entities) = store.state().await.unwrap();
    assert!(head == Head::default() && entities.is_empty());
    assert!(store.after(0, 10).await.unwrap().is_empty());
    assert!(store.history(None, 10).await.unwrap().is_empty());
    assert!(store.revision(Digest([7; 32])).await.unwrap().is_none());
}

async fn what_was_appended_is_there(open: Opener<'_>) {
    let store = open();
    let first = next(&Head::default(), vec![set("a", json!(1)), set("b", json!(1))]);
    let second = next(&first.head(), vec![set("b", json!(2)), set("c", json!(2))]);
    append_all(&*store, &[first.clone(), second.clone()]).await;
    drop(store);
    let store = open();
    let (head, entities) = store.state().await.unwrap();
    assert_eq!(head, second.head());
    let expected = BTreeMap::from([(id("a"), json!(1)), (id("b"), json!(2)), (id("c"), json!(2))]);
    assert!(values(entities) == expected);
    assert!(store.after(0, 10).await.unwrap() == [first.clone(), second.clone()]);
    assert!(store.after(1, 10).await.unwrap() == std::slice::from_ref(&second));
    let recorded = store.revision(second.digest()).await.unwrap().unwrap();
    assert!(recorded.revision == second && recorded.before == [Some(json!(1)), None] && !recorded.is_superseded);
    let history = store.history(None, 10).await.unwrap();
    assert!(history.iter().map(|recorded| &recorded.revision).eq([&second, &first]));
    assert!(store.history(Some(2), 10).await.unwrap()[0].revision == first);
}

async fn a_revision_that_is_not_on_top_changes_nothing(store: &dyn Store) {
    let chain = chain(&Head::default(), "n1", 2);
    append_all(store, &chain).await;
    let late = Revision { author: "bob".into(), ..next(&chain[0].head(), vec![removed("a")]) };
    let first = Revision { author: "bob".into(), ..next(&Head::default(), vec![removed("a")]) };
    for late in [late, first] {
        let Err(StoreError::Conflict(head)) = store.append(&late).await else { panic!("a conflict") };
        assert_eq!(head, chain[1].head());
        assert!(store.revision(late.digest()).await.unwrap().is_none());
    }
    assert_eq!(consistent(store).await.unwrap(), chain[1].head());
}

async fn what_is_wrong_in_itself_changes_nothing(store: &dyn Store) {
    let head = chain(&Head::default(), "n1", 1)[0].head();
    append_all(store, &chain(&Head::default(), "n1", 1)).await;
    let wrong = [
        Revision { number: 3, ..next(&head, vec![]) },
        Revision { number: 1, ..next(&head, vec![]) },
        Revision { comment: "a\0b".into(), ..next(&head, vec![]) },
        next(&head, vec![set("a", json!(1)), removed("a")]),
    ];
    for wrong in wrong {
        assert!(matches!(store.append(&wrong).await, Err(StoreError::Invalid(_))));
    }
    assert_eq!(consistent(store).await.unwrap(), head);
}

async fn the_same_revision_again_is_confirmed_again(store: &dyn Store) {
    let chain = chain(&Head::default(), "n1", 3);
    append_all(store, &chain).await;
    append_all(store, &chain).await;
    assert_eq!(consistent(store).await.unwrap(), chain[2].head());
    assert_eq!(store.history(None, 10).await.unwrap().len(), 3);
}

async fn of_many_writers_each_gets_through_once(open: Opener<'_>) {
    const WRITERS: u64 = 5;
    const EACH: u64 = 6;
    let count = |store: Arc<dyn Store>, writer: u64| async move {
        let mut done = 0;
        while done < EACH {
            let (head, _) = store.state().await.unwrap();
            let revision = next(&head, vec![set(&format!("{writer}"), json!(done))]);
            match store.append(&revision).await {
                Ok(()) => done += 1,
                Err(StoreError::Conflict(newer)) => assert!(newer.number > head.number),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(count(open(), writer))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(consistent(&*open()).await.unwrap().number, WRITERS * EACH);
}

async fn values_come_back_to_the_digit(store: &dyn Store) {
    let value: Value = serde_json::from_str(
        r#"{"z": 0.1, "a": [1e23, 5e-324, 1.7976931348623157e308, 0.30000000000000004, 2.2250738585072014e-308],
            "large": 18446744073709551615, "small": -9223372036854775808, "none": null,
            "text": "\u0000 \" \\ é 漢 🦀 \u2028", "": {"deep": [[[[[]]]]]}, "quote'; DROP TABLE x; --": true}"#,
    )
    .unwrap();
    let names = ["ü/ö 'x' \"y\"", "%_\\", "漢字🦀", "$1 ?1 :a"];
    let revision = next(&Head::default(), names.map(|name| set(name, value.clone())).to_vec());
    store.append(&revision).await.unwrap();
    assert!(store.after(0, 1).await.unwrap() == [revision]);
    let (_, entities) = store.state().await.unwrap();
    assert_eq!(entities.len(), names.len());
    // As texts, which differ by the order of fields too.
    let text = value.to_string();
    let texts: Vec<String> = entities.iter().map(|entity| entity.value.to_string()).collect();
    assert!(texts.iter().all(|found| *found == text), "{texts:?}");
    consistent(store).await.unwrap();
}

async fn pages_follow_each_other(store: &dyn Store) {
    let chain = chain(&Head::default(), "n1", 25);
    append_all(store, &chain).await;
    let mut upwards = Vec::new();
    while let page @ [_, ..] = &store.after(upwards.len() as u64, 10).await.unwrap()[..] {
        assert!(page.len() <= 10);
        upwards.extend(page.to_vec());
    }
    assert!(upwards == chain);
    let mut downwards = Vec::new();
    let mut before = None;
    while let page @ [.., last] = &store.history(before, 10).await.unwrap()[..] {
        assert!(page.len() <= 10);
        before = Some(last.revision.number);
        downwards.extend(page.iter().map(|recorded| recorded.revision.clone()));
    }
    downwards.reverse();
    assert!(downwards == chain);
    assert!(store.after(u64::MAX, 10).await.unwrap().is_empty());
    assert!(store.after(0, 0).await.unwrap().is_empty() && store.history(None, 0).await.unwrap().is_empty());
}

async fn what_is_removed_is_gone_and_can_come_back(store: &dyn Store) {
    let first = next(&Head::default(), vec![set("a", json!(1)), removed("never there")]);
    let second = next(&first.head(), vec![removed("a")]);
    let third = next(&second.head(), vec![set("a", json!(3))]);
    store.append(&first).await.unwrap();
    store.append(&second).await.unwrap();
    assert!(store.state().await.unwrap().1.is_empty());
    store.append(&third).await.unwrap();
    assert!(values(store.state().await.unwrap().1) == BTreeMap::from([(id("a"), json!(3))]));
    assert!(store.revision(second.digest()).await.unwrap().unwrap().before == [Some(json!(1))]);
    consistent(store).await.unwrap();
}

async fn a_large_revision_is_one_revision(store: &dyn Store) {
    let limit = |number: u32| set(&format!("limit-{number}"), json!({"id": number, "request_max_limit": 5}));
    let import = next(&Head::default(), (0..12_001).map(limit).collect());
    store.append(&import).await.unwrap();
    let change = next(&import.head(), vec![removed("limit-5"), set("limit-12000", json!(null))]);
    store.append(&change).await.unwrap();
    assert_eq!(store.state().await.unwrap().1.len(), 12_000);
    assert!(store.after(0, 10).await.unwrap() == [import.clone(), change]);
    assert!(holds(store, import.digest()).await);
    consistent(store).await.unwrap();
}

async fn ten_that_come_at_once_make_the_tables_once(open: Opener<'_>) {
    let first = next(&Head::default(), vec![set("a", json!(1))]);
    let come = |store: Arc<dyn Store>, first: Revision| async move { store.append(&first).await };
    let all: Vec<_> = (0..10).map(|_| tokio::spawn(come(open(), first.clone()))).collect();
    for one in all {
        one.await.unwrap().unwrap();
    }
    // A second run of the steps would have failed on tables that are there, or emptied them.
    assert_eq!(consistent(&*open()).await.unwrap(), first.head());
}
