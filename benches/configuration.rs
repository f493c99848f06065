//! What does it cost to find a route among a thousand models, to read the snapshot in place, and
//! to publish a configuration of that size?

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

fn compiled() -> (SnapshotRecord, Arc<[TableSecret]>) {
    let sources = Sources { env: &|_| Some("sk-bench".to_owned()), ..Sources::none() };
    let loaded = config::load(&text(), &sources).unwrap_or_else(|faults| panic!("{faults:?}"));
    let facts = NodeFacts { lookup_key: [7; 32], node_id: "bench".to_owned(), cores: 1 };
    let compiled = compile(&loaded.config, &facts).expect("the configuration has no limits");
    (compiled.record, compiled.secrets.into())
}

fn publisher() -> (Publisher, CoreReceiver) {
    let (sender, receiver) = core_channel();
    (Publisher::new(vec![sender], [7; 32]), receiver)
}

fn benches(criterion: &mut Criterion) {
    let (record, secrets) = compiled();
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
