//! What does reading a request head and an answer head cost, and one like the head before, writing
//! the new head, and taking a body out of its chunks?

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::http1::{
    AnswerForm, ChunkDecoder, HeadWriter, Known, Method, Parsed, RequestHead, ResponseHead, parse_request,
    parse_response,
};

/// What the Python SDK of `OpenAI` sends.
const REQUEST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\n\
    Host: gateway.internal:8080\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Accept: application/json\r\n\
    Content-Type: application/json\r\n\
    User-Agent: OpenAI/Python 1.99.1\r\n\
    X-Stainless-Lang: python\r\n\
    X-Stainless-Package-Version: 1.99.1\r\n\
    X-Stainless-OS: Linux\r\n\
    X-Stainless-Arch: x64\r\n\
    X-Stainless-Runtime: CPython\r\n\
    X-Stainless-Runtime-Version: 3.12.3\r\n\
    Authorization: Bearer sk-bf-0123456789abcdef0123456789abcdef\r\n\
    X-Stainless-Async: false\r\n\
    x-stainless-retry-count: 0\r\n\
    x-stainless-read-timeout: 600\r\n\
    Content-Length: 1024\r\n\r\n";

/// What a provider behind a CDN answers a stream with.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    Content-Type: text/event-stream; charset=utf-8\r\n\
    Transfer-Encoding: chunked\r\n\
    Connection: keep-alive\r\n\
    access-control-expose-headers: X-Request-ID\r\n\
    openai-organization: org-0123456789\r\n\
    openai-processing-ms: 312\r\n\
    openai-version: 2020-10-01\r\n\
    x-ratelimit-limit-requests: 10000\r\n\
    x-ratelimit-limit-tokens: 30000000\r\n\
    x-ratelimit-remaining-requests: 9999\r\n\
    x-ratelimit-remaining-tokens: 29999000\r\n\
    x-ratelimit-reset-requests: 6ms\r\n\
    x-ratelimit-reset-tokens: 2ms\r\n\
    x-request-id: req_0123456789abcdef\r\n\
    strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n\
    CF-Cache-Status: DYNAMIC\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Server: cloudflare\r\n\
    CF-RAY: 0123456789abcdef-FRA\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    let mut head = RequestHead::new();
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("request", |bench| {
        bench.iter(|| {
            let parsed = parse_request(black_box(REQUEST), &mut head);
            assert_eq!(parsed, Ok(Parsed::Complete { head_len: REQUEST.len() }));
        });
    });
    let mut out = Vec::with_capacity(2048);
    group.bench_function("request, written anew", |bench| {
        bench.iter(|| {
            out.clear();
            let path = head.path(REQUEST);
            let mut writer = HeadWriter::request(&mut out, b"POST", path, None).expect("a path");
            writer.known(Known::Host, b"api.example").expect("a host");
            for field in head.fields().iter().filter(|field| field.relays_to_provider()) {
                writer.field(field.name.of(REQUEST), field.value.of(REQUEST)).expect("a field");
            }
            writer.content_length(1024);
            writer.finish();
            black_box(&out);
        });
    });
    let mut answer = ResponseHead::new();
    group.throughput(Throughput::Bytes(ANSWER.len() as u64));
    group.bench_function("answer", |bench| {
        bench.iter(|| {
            let parsed = parse_response(black_box(ANSWER), Method::Post, &mut answer);
            assert_eq!(parsed, Ok(Parsed::Complete { head_len: ANSWER.len() }));
        });
    });
    let mut form = AnswerForm::default();
    let other =
        String::from_utf8_lossy(ANSWER).replace("00:00", "23:59").replace("312", "99").replace("req_01", "req_98");
    group.bench_function("answer, like the one before", |bench| {
        form.parse_response(ANSWER, Method::Post, &mut answer).expect("a head");
        bench.iter(|| {
            let parsed = form.parse_response(black_box(other.as_bytes()), Method::Post, &mut answer);
            assert_eq!(parsed, Ok(Parsed::Complete { head_len: other.len() }));
        });
    });
    group.finish();
}

/// A request that drips in must not cost more for every byte that came before.
fn dripped_head(criterion: &mut Criterion) {
    let mut head = RequestHead::new();
    criterion.bench_function("head/request, byte by byte", |bench| {
        bench.iter(|| {
            let mut parsed = Ok(Parsed::Partial);
            for end in 1..=REQUEST.len() {
                parsed = parse_request(&REQUEST[..end], &mut head);
            }
            assert_eq!(parsed, Ok(Parsed::Complete { head_len: REQUEST.len() }));
        });
    });
}

fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunked");
    let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(120));
    let one = format!("{:x}\r\n{event}\r\n", event.len());
    for (name, count) in [("one event", 1), ("20 events", 20)] {
        let wire = one.repeat(count).into_bytes();
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter_batched_ref(
                || wire.clone(),
                |buf| {
                    let progress = ChunkDecoder::new().decode_in_place(buf).expect("well-formed");
                    assert_eq!(progress.payload_len, event.len() * count);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, heads, dripped_head, chunks);
criterion_main!(benches);
