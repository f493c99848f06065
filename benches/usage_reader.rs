//! What does listening for tokens cost per streamed event and per JSON answer, and how much
//! does hiding the usage event add, or events that are cut by the reads?

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::provider::Dialect;
use dataplane::provider::usage::{Forward, UsageForm, UsageReader};

const EVENTS: usize = 100;

/// `EVENTS` events of some 200 bytes, as `OpenAI` sends them when usage was asked for or not.
fn events(usage: &str) -> Vec<Vec<u8>> {
    (0..EVENTS)
        .map(|place| {
            format!(
                "data: {{\"id\":\"chatcmpl-123\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"gpt-4o\",\
                 \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{place}\"}},\"logprobs\":null,\"finish_reason\":null}}]{usage}}}\n\n"
            )
            .into_bytes()
        })
        .collect()
}

fn read(mut reader: UsageReader, reads: &[Vec<u8>]) -> u64 {
    let mut shown = 0;
    for read in reads {
        shown += match reader.filter(black_box(read)) {
            Forward::All => read.len(),
            Forward::Parts { held, ranges } => held.len() + ranges.iter().map(ExactSizeIterator::len).sum::<usize>(),
        };
    }
    shown as u64 + reader.usage().output
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("usage_reader");
    group.throughput(Throughput::Elements(EVENTS as u64));
    let plain = events("");
    let with_null = events(",\"usage\":null");
    let halves: Vec<Vec<u8>> =
        plain.iter().flat_map(|event| event.chunks(event.len() / 2 + 1)).map(<[u8]>::to_vec).collect();
    let observing = UsageReader::sse(Dialect::OpenAi);
    let hiding = UsageReader::sse_hiding_usage();
    group.bench_function("100 events", |b| b.iter(|| read(observing.clone(), &plain)));
    group.bench_function("100 events with usage null", |b| b.iter(|| read(observing.clone(), &with_null)));
    group.bench_function("100 events, hiding", |b| b.iter(|| read(hiding.clone(), &with_null)));
    group.bench_function("100 events cut in half", |b| b.iter(|| read(observing.clone(), &halves)));
    group.bench_function("100 events cut in half, hiding", |b| b.iter(|| read(hiding.clone(), &halves)));

    let numbers = "0.0123456789,".repeat(1536);
    let usage = r#""usage":{"prompt_tokens":12,"completion_tokens":30,"total_tokens":42}"#;
    for (name, answer) in [
        ("1 KiB chat", format!(r#"{{"choices":[{{"message":{{"content":"{}"}}}}],{usage}}}"#, "word ".repeat(200))),
        ("an embedding", format!(r#"{{"data":[{{"embedding":[{numbers}0]}}],{usage}}}"#)),
    ] {
        let answer = [answer.into_bytes()];
        let reader = UsageReader::json(Dialect::OpenAi);
        assert_eq!(read(reader.clone(), &answer) as usize, answer[0].len() + 30);
        group.throughput(Throughput::Bytes(answer[0].len() as u64));
        group.bench_function(name, |b| b.iter(|| read(reader.clone(), &answer)));
        let mut form = UsageForm::default();
        group.bench_function(format!("{name}, written like the one before"), |b| {
            b.iter(|| {
                let mut reader = reader.clone();
                reader.observe_whole(black_box(&answer[0]), &mut form);
                reader.usage().output
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
