use super::*;

/// Payload of the whole body, and the bytes left behind it.
fn decode(body: &[u8]) -> Result<(Vec<u8>, usize), ChunkFault> {
    let mut decoder = ChunkDecoder::new();
    let mut buf = body.to_vec();
    let progress = decoder.decode_in_place(&mut buf)?;
    assert!(progress.done, "unfinished: {:?}", String::from_utf8_lossy(body));
    assert_eq!(decoder.payload_total(), progress.payload_len as u64);
    Ok((progress.payload(&buf).to_vec(), body.len() - progress.consumed))
}

#[track_caller]
fn reads(body: &str, payload: &str) {
    assert_eq!(decode(body.as_bytes()), Ok((payload.into(), 0)), "{body:?}");
}

#[track_caller]
fn refused(body: &str, fault: ChunkFault) {
    let mut buf = body.as_bytes().to_vec();
    assert_eq!(ChunkDecoder::new().decode_in_place(&mut buf), Err(fault), "{body:?}");
}

#[test]
fn chunks_are_put_together() {
    reads("5\r\nhello\r\n0\r\n\r\n", "hello");
    reads("0005\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", "hello world");
    reads("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789");
    reads("0\r\n\r\n", "");
    reads("1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", "\r\n");
}

#[test]
fn one_chunk_is_not_moved() {
    let mut buf = b"5\r\nhello\r\n".to_vec();
    let before = buf.clone();
    let progress = ChunkDecoder::new().decode_in_place(&mut buf).unwrap();
    let expected = Progress { payload_start: 3, payload_len: 5, consumed: 10, done: false };
    assert_eq!((progress, buf), (expected, before));
}

#[test]
fn bytes_behind_the_body_are_left_alone() {
    assert_eq!(decode(b"1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n"), Ok((b"x".to_vec(), 16)));
}

#[test]
fn nothing_is_taken_once_the_body_is_over() {
    let mut decoder = ChunkDecoder::new();
    assert!(decoder.decode_in_place(&mut b"0\r\n\r\n".to_vec()).unwrap().done);
    let progress = decoder.decode_in_place(&mut b"5\r\n".to_vec()).unwrap();
    assert_eq!((progress.consumed, progress.payload_len, progress.done), (0, 0, true));
}

#[test]
fn sizes_that_are_none() {
    for size in ["", " 5", "5 ", "\t5", "0x5", "-5", "+5", "5_0", "g", "5 x", "5\t", "00000000000000005"] {
        refused(&format!("{size}\r\nhello\r\n0\r\n\r\n"), ChunkFault::Size);
    }
    let mut longest = b"ffffffffffffffff\r\nx".to_vec();
    assert_eq!(ChunkDecoder::new().decode_in_place(&mut longest).unwrap().payload_len, 1);
}

#[test]
fn line_ends_that_are_none() {
    for body in ["5\nhello\n0\n\n", "5;a\nhello\r\n"] {
        assert!(decode_fault(body).is_some(), "{body:?}");
    }
    for body in [
        "5\r\r\nhello",
        "5\rxhello",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5\r\nhello\r0\r\n",
        "5\r\nhelloo\r\n",
        "5;a\rb\r\nhello\r\n",
        "0\r\n\rx",
    ] {
        refused(body, ChunkFault::LineEnd);
    }
}

fn decode_fault(body: &str) -> Option<ChunkFault> {
    ChunkDecoder::new().decode_in_place(&mut body.as_bytes().to_vec()).err()
}

#[test]
fn extensions_by_the_grammar() {
    for extension in [
        ";a",
        ";a=b",
        ";a=\"b c\"",
        ";a=\"\\\"\\\\\"",
        ";a=\"\";b;c=d",
        ";a;a",
        " ; a",
        "\t;\ta\t=\tb ;c",
        ";a = \"x\" ;b",
        ";a=\"\u{e9}\"",
    ] {
        reads(&format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n"), "hello");
    }
    for extension in [
        ";",
        ";;",
        ";a;",
        ";a=",
        ";a=;b",
        ";=b",
        ";a b",
        ";a=b c",
        ";a=\"",
        ";a=\"b",
        ";a=\"b\"c",
        ";a==b",
        ";a\0",
        ";a=\"\x01\"",
        ";a=\"\\\x01\"",
        ";a ",
        ";a= ",
        ";a=b ",
        "; ",
        ";a=\"b\r\n\"",
        ";{}",
    ] {
        refused(&format!("5{extension}\r\nhello\r\n0\r\n\r\n"), ChunkFault::Extension);
    }
}

#[test]
fn extensions_are_bounded() {
    let body = |len: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(len - 1));
    reads(&body(CHUNK_EXTENSION_BYTES_MAX), "x");
    refused(&body(CHUNK_EXTENSION_BYTES_MAX + 1), ChunkFault::ExtensionTooLong);
}

#[test]
fn framing_without_payload_is_bounded_and_small_chunks_are_not_refused() {
    let long = format!("1;{}\r\nx\r\n", "a".repeat(CHUNK_EXTENSION_BYTES_MAX - 1));
    refused(&long.repeat(400), ChunkFault::Overhead);
    reads(&format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(100_000)), &"x".repeat(100_000));
    let signed = format!("2000;chunk-signature={}\r\n{}\r\n", "a".repeat(64), "x".repeat(8192));
    reads(&format!("{}0\r\n\r\n", signed.repeat(50)), &"x".repeat(50 * 8192));
}

#[test]
fn trailers_are_checked_and_dropped() {
    reads("1\r\nx\r\n0\r\nVary: *\r\nContent-Type: text/plain\r\nX-Sum:\r\n\r\n", "x");
    for name in [
        "Content-Length",
        "host",
        "Transfer-Encoding",
        "Connection",
        "Trailer",
        "TE",
        "Upgrade",
        "Expect",
        "Authorization",
        "x-api-key",
        "Cookie",
        "Set-Cookie",
        "Cache-Control",
        "Content-Encoding",
        "Content_Length",
        "X-Forwarded-For",
        "x-bf-vk",
        "Proxy-Authorization",
    ] {
        refused(&format!("0\r\n{name}: 1\r\n\r\n"), ChunkFault::TrailerField);
    }
    for line in ["A", "A : b", ": b", " A: b", "A: b\r\n c", "A: b\n", "A: \0", "A: b\rc", "\n"] {
        refused(&format!("0\r\n{line}\r\n\r\n"), ChunkFault::Trailer);
    }
}

#[test]
fn trailers_are_bounded() {
    let lines = |count: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(count));
    reads(&lines(TRAILER_FIELDS_MAX), "");
    refused(&lines(TRAILER_FIELDS_MAX + 1), ChunkFault::TrailerTooLarge);
    let long = |len: usize| format!("0\r\nA: {}\r\n\r\n", "b".repeat(len - 7));
    reads(&long(TRAILER_BYTES_MAX), "");
    refused(&long(TRAILER_BYTES_MAX + 1), ChunkFault::TrailerTooLarge);
    refused(&format!("0\r\n{}", "b".repeat(TRAILER_BYTES_MAX * 2)), ChunkFault::TrailerTooLarge);
}
