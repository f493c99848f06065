//! What does it cost to learn the model and the price of a request from its body, and to put
//! another model name in, for a short chat, a long one, and one full of escapes?

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::provider::edit::{Edits, Wanted};
use dataplane::provider::late_scan::LateScan;
use dataplane::provider::request_scan::{scan, scan_prefix};

/// A chat of about `bytes` bytes, the model behind the messages as SDKs send it.
fn chat(bytes: usize, text: &str) -> Vec<u8> {
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, text.repeat(8));
    let messages = vec![message.as_str(); bytes / message.len() + 1].join(",");
    format!(r#"{{"messages":[{messages}],"model":"openai/gpt-4o","max_tokens":256,"stream":true}}"#).into_bytes()
}

const PROSE: &str = "The quick brown fox jumps over the lazy dog, and again. ";
const ESCAPED: &str = r#"fn main() {\n\tprintln!(\"hi\");\n}\n"#;

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("model_scan");
    for (name, body) in [
        ("1 KiB", chat(800, PROSE)),
        ("16 KiB", chat(16_000, PROSE)),
        ("16 KiB of code", chat(16_000, ESCAPED)),
        ("1 MiB", chat(1_000_000, PROSE)),
    ] {
        assert!(scan(&body).is_ok_and(|fields| fields.model.is_some()));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("scan/{name}"), |b| b.iter(|| scan(black_box(&body))));
    }
    let short = chat(800, PROSE);
    let fields = scan(&short).expect("a good body");
    let wanted = Wanted { model: Some("gpt-4o"), without_fallbacks: true, with_usage: true };
    let mut out = Vec::with_capacity(4096);
    group.throughput(Throughput::Bytes(short.len() as u64));
    group.bench_function("edit/1 KiB", |b| {
        b.iter(|| {
            out.clear();
            Edits::new(black_box(&fields), &short, &wanted).apply(&short, &mut out);
            out.len()
        });
    });
    let long = chat(1_000_000, PROSE);
    group.throughput(Throughput::Bytes(long.len() as u64));
    group.bench_function("prefix/1 MiB", |b| b.iter(|| scan_prefix(black_box(&long))));
    group.bench_function("late_scan/1 MiB", |b| {
        b.iter(|| {
            let mut scan = LateScan::new();
            long.chunks(16 * 1024).try_for_each(|read| scan.push(black_box(read)))
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
