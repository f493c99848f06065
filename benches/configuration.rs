//! What does it cost to find a route among a thousand models and a virtual key among 100,000, to read the
//! snapshot in place, and to publish a configuration of that size?

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
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

const PROVIDERS: usize = 10;
const MODELS_EACH: usize = 100;
const VIRTUAL_KEYS: usize = 100_000;
/// In the small form, which only sees that it works.
const VIRTUAL_KEYS_SMALL: usize = 1_000;

/// Ten providers whose keys list a hundred models each.
fn text() -> String {
    let mut providers = String::new();
    for provider in 0..PROVIDERS {
        let models: Vec<String> = (0..MODELS_EACH).map(|model| format!("\"model-{provider}-{model}\"")).collect();
        let comma = if provider == 0 { "" } else { "," };
        write!(
            providers,
            r#"{comma}"p{provider}":{{"custom_provider_config":{{"base_provider_type":"openai"}},
            "keys":[{{"name":"k","value":"env.KEY","models":[{}],"weight":1}}],
            "network_config":{{"base_url":"https://p{provider}.example"}}}}"#,
            models.join(",")
        )
        .expect("a String takes everything");
    }
    format!("{{\"providers\":{{{providers}}}}}")
}

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
    routes(criterion);
    virtual_keys(criterion);
}

fn virtual_keys(criterion: &mut Criterion) {
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

fn routes(criterion: &mut Criterion) {
    let (record, secrets) = compiled(&text());
    let (mut publisher, receiver) = publisher();
    publisher
        .publish(Sharing::Alone, &Learned::default(), &record, &secrets, None, Nanos(0))
        .expect("nothing in it can fail");
    let published = receiver.newest().expect("it was just published");
    let lookup = Lookup::new(Arc::clone(&published), Clock::start()).expect("it holds a configuration");
    let models: HashMap<String, usize> =
        (0..PROVIDERS * MODELS_EACH).map(|n| (format!("model-{}-{}", n / MODELS_EACH, n % MODELS_EACH), n)).collect();
    let path = b"/v1/chat/completions";
    assert!(lookup.find(path, "model-7-77", Nanos(0)).is_some_and(|found| found.provider == 7));

    let mut group = criterion.benchmark_group("route among 1,000 models");
    group.bench_function("by model alone", |b| {
        b.iter(|| lookup.find(black_box(path), black_box("model-7-77"), Nanos(0)));
    });
    group.bench_function("provider/model", |b| {
        b.iter(|| lookup.find(black_box(path), black_box("p7/model-7-77"), Nanos(0)));
    });
    group.bench_function("for scale: a HashMap", |b| b.iter(|| models.get(black_box("model-7-77"))));
    group.finish();

    let mut group = criterion.benchmark_group("snapshot");
    group.bench_function("read in place", |b| b.iter(|| black_box(&published.snapshot).view().epoch.to_native()));
    group.bench_function("publish and take", |b| {
        b.iter(|| {
            publisher
                .publish(Sharing::Alone, &Learned::default(), &record, &secrets, None, Nanos(0))
                .expect("nothing in it can fail");
            receiver.newest()
        });
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
