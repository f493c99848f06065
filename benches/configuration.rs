//! What does it cost to find a route among a thousand models, and among a thousand rules, to read the
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

/// A thousand rules, none of which holds for the models here.
const RULES: usize = 1_000;

/// Rules that are found by their models.
fn rules_of_models() -> String {
    rules(|at| format!(r#"{{"models":["other-{at}"]}}"#))
}

/// Rules that have to be looked at one by one.
fn rules_of_headers() -> String {
    rules(|at| format!(r#"{{"models":["model-7*"],"headers":{{"x-tenant":"tenant-{at}"}}}}"#))
}

fn rules(condition: impl Fn(usize) -> String) -> String {
    let rule =
        |at: usize| format!(r#"{{"name":"rule-{at}","match":{},"targets":[{{"provider":"p1"}}]}}"#, condition(at));
    format!(r#","governance":{{"routing_rules":[{}]}}"#, (0..RULES).map(rule).collect::<Vec<_>>().join(","))
}

/// Ten providers whose keys list a hundred models each, and these rules.
fn text(rules: &str) -> String {
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
    format!("{{\"providers\":{{{providers}}}{rules}}}")
}

fn compiled(rules: &str) -> (SnapshotRecord, Arc<[TableSecret]>) {
    let sources = Sources { env: &|_| Some("sk-bench".to_owned()), ..Sources::none() };
    let loaded = config::load(&text(rules), &sources).unwrap_or_else(|faults| panic!("{faults:?}"));
    let facts = NodeFacts { lookup_key: [7; 32], node_id: "bench".to_owned(), cores: 1 };
    let compiled = compile(&loaded.config, &facts).expect("the configuration has no limits");
    (compiled.record, compiled.secrets.into())
}

fn publisher() -> (Publisher, CoreReceiver) {
    let (sender, receiver) = core_channel();
    (Publisher::new(vec![sender], [7; 32]), receiver)
}

/// A core with these rules.
fn lookup(rules: &str) -> Lookup {
    let (record, secrets) = compiled(rules);
    let (mut publisher, receiver) = publisher();
    publisher
        .publish(Sharing::Alone, &Learned::default(), &record, &secrets, None, Nanos(0))
        .expect("nothing in it can fail");
    let published = receiver.newest().expect("it was just published");
    Lookup::new(published, Clock::start()).expect("it holds a configuration")
}

fn benches(criterion: &mut Criterion) {
    let (record, secrets) = compiled("");
    let (mut publisher, receiver) = publisher();
    publisher
        .publish(Sharing::Alone, &Learned::default(), &record, &secrets, None, Nanos(0))
        .expect("nothing in it can fail");
    let published = receiver.newest().expect("it was just published");
    let (with_models, with_headers) = (lookup(&rules_of_models()), lookup(&rules_of_headers()));
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

    let mut group = criterion.benchmark_group("route beside 1,000 rules");
    for (name, rules) in [("none", &lookup), ("found by model", &with_models), ("looked at one by one", &with_headers)]
    {
        assert!(rules.find(path, "model-7-77", Nanos(0)).is_some_and(|found| found.provider == 7));
        group.bench_function(name, |b| b.iter(|| rules.find(black_box(path), black_box("model-7-77"), Nanos(0))));
    }
    group.finish();

    let mut group = criterion.benchmark_group("snapshot");
    group.bench_function("read in place", |b| b.iter(|| black_box(&published.snapshot).view().epoch.to_native()));
    group.bench_function("taken as a request does, and read", |b| b.iter(|| black_box(&lookup).epoch()));
    group.bench_function("for scale: a HashMap", |b| b.iter(|| models.get(black_box("model-7-77"))));
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
