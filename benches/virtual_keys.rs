//! What does it cost to find a virtual key among 100,000, and to publish a configuration that has so many?

use controlplane::compile::{NodeFacts, TableSecret, compile};
use controlplane::learned::Learned;
use controlplane::publish::{Publisher, Sharing};
use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::lookup::Lookup;
use shared::clock::{Clock, Nanos};
use shared::config::{self, Sources};
use shared::ring::{CoreReceiver, core_channel};
use shared::snapshot::SnapshotRecord;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

const VIRTUAL_KEYS: usize = 100_000;
/// In the small form, which only sees that it works.
const VIRTUAL_KEYS_SMALL: usize = 1_000;

/// As many virtual keys.
fn text_of_keys(count: usize) -> String {
    let keys: Vec<String> = (0..count)
        .map(|number| {
            format!(r#"{{"id":"v{number}","name":"v{number}","value":"sk-bf-{number:032}","is_active":true}}"#)
        })
        .collect();
    format!("{{\"governance\":{{\"virtual_keys\":[{}]}}}}", keys.join(","))
}

fn compiled(text: &str) -> (SnapshotRecord, Arc<[TableSecret]>) {
    let sources = Sources { env: &|_| Some("sk-bench".to_owned()), ..Sources::none() };
    let loaded = config::load(text, &sources).unwrap_or_else(|faults| panic!("{faults:?}"));
    let facts = NodeFacts { lookup_key: [7; 32], node_id: "bench".to_owned(), cores: 1 };
    let compiled = compile(&loaded.config, &facts).expect("the configuration has no limits");
    (compiled.record, compiled.secrets.into())
}

fn publisher() -> (Publisher, CoreReceiver) {
    let (sender, receiver) = core_channel();
    (Publisher::new(vec![sender], [7; 32]), receiver)
}

fn benches(criterion: &mut Criterion) {
    let is_small = std::env::args().any(|argument| argument == "--test");
    let count = if is_small { VIRTUAL_KEYS_SMALL } else { VIRTUAL_KEYS };
    let (record, secrets) = compiled(&text_of_keys(count));
    let (mut publisher, receiver) = publisher();
    let mut publish = || {
        publisher
            .publish(Sharing::Alone, &Learned::default(), &record, &secrets, None, Nanos(0))
            .expect("nothing in it can fail");
        receiver.newest().expect("it was just published")
    };
    let published = publish();
    let lookup = Lookup::new(Arc::clone(&published), Clock::start()).expect("it holds a configuration");
    let texts: Vec<String> = (0..count).map(|number| format!("sk-bf-{number:032}")).collect();
    let map: HashMap<&str, usize> = texts.iter().enumerate().map(|(index, text)| (text.as_str(), index)).collect();
    // Far from the one before, so that nothing of it is in the nearest cache.
    let mut number = 0;
    let mut next = || {
        number = (number + 61_803) % count;
        texts[number].as_str()
    };
    assert!(lookup.virtual_key(next().as_bytes()).is_some());

    let mut group = criterion.benchmark_group(format!("virtual key among {count}"));
    group.bench_function("first use on a core", |b| b.iter(|| lookup.virtual_key(black_box(next()).as_bytes())));
    group.bench_function("for scale: a HashMap", |b| b.iter(|| map.get(black_box(next()))));
    group.sample_size(10);
    group.bench_function("publish and take", |b| b.iter(&mut publish));
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
