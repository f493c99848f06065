use super::*;

fn parse(text: &str) -> Result<RequestHead, HeadFault> {
    let mut head = RequestHead::new();
    match parse_request(text.as_bytes(), &mut head)? {
        Parsed::Complete { head_len } => assert_eq!(head_len, text.len(), "{text:?}"),
        Parsed::Partial => panic!("partial: {text:?}"),
    }
    Ok(head)
}

fn fields(lines: &str) -> Result<RequestHead, HeadFault> {
    parse(&format!("POST /v1/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
}

#[track_caller]
fn refused(text: &str, fault: HeadFault) {
    assert_eq!(parse(text).map(|_| ()), Err(fault), "{text:?}");
}

#[track_caller]
fn field_refused(line: &str, fault: HeadFault) {
    assert_eq!(fields(line).map(|_| ()), Err(fault), "{line:?}");
}

#[test]
fn a_plain_request_is_read() {
    let text = "POST /v1/chat/completions?a=1&b HTTP/1.1\r\nHost: gw:8080\r\n\
                Content-Type:\tapplication/json \r\nX-Empty:\r\nContent-Length: 003\r\n\r\n";
    let buf = text.as_bytes();
    let head = parse(text).unwrap();
    assert_eq!((head.method(), head.method_bytes(buf)), (Method::Post, b"POST".as_slice()));
    assert_eq!(head.path(buf), b"/v1/chat/completions");
    assert_eq!(head.query(buf), Some(b"a=1&b".as_slice()));
    assert_eq!(head.host(buf), Some(b"gw:8080".as_slice()));
    assert_eq!(head.value(buf, Known::ContentType), Some(b"application/json".as_slice()));
    assert_eq!(head.value(buf, Known::Authorization), None);
    assert_eq!((head.framing(), head.version()), (Framing::Length(3), Version::Http11));
    assert!(head.keep_alive() && !head.expect_continue() && !head.upgrade());
    assert_eq!(head.fields().len(), 4);
    assert_eq!(head.fields()[2].value.of(buf), b"");
    assert_eq!(head.fields()[2].name.of(buf), b"X-Empty");
}

#[test]
fn request_lines_that_are_none() {
    for line in ["GET /", "GET  HTTP/1.1", "GET / HTTP/1.1 ", "GET / HTTP/11", "GET / http/1.1"] {
        refused(&format!("{line}\r\nHost: a\r\n\r\n"), HeadFault::RequestLine);
    }
    refused(" GET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::RequestLine);
    refused("GET\r\nHost: a\r\n\r\n", HeadFault::Method);
    refused("GET\t/ HTTP/1.1\r\n\r\n", HeadFault::Method);
    refused("G(T / HTTP/1.1\r\n\r\n", HeadFault::Method);
    refused("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::MethodRefused);
    refused(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(33)), HeadFault::MethodRefused);
    refused("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Target);
    refused("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Target);
    refused("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Target);
    refused("GET * HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Target);
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.7"] {
        refused(&format!("GET / {version}\r\nHost: a\r\n\r\n"), HeadFault::Version);
    }
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HeadFault::Version);
}

#[test]
fn two_empty_lines_may_come_first_and_no_more() {
    assert!(parse("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    refused("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::RequestLine);
    refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadFault::Method);
}

#[test]
fn an_invalid_beginning_is_not_waited_on() {
    for (part, fault) in [
        ("GET / HTTP/1.1\nHost", HeadFault::BareLf),
        ("GET / HTTP/1.1\r\n ", HeadFault::FoldedLine),
        ("GET / HTTP/1.1\r\nA: b\r\n\t", HeadFault::FoldedLine),
        ("GET / HTTP/1.1\r\nA: b\rC", HeadFault::BareCr),
        ("GET / HTTP/1.1\r\nA: \0", HeadFault::ControlByte),
        ("GET / HTTP/1.1\r\nA: \x7f", HeadFault::ControlByte),
        ("\x16\x03\x01", HeadFault::Method),
        ("GET / HTTP/9.9\r\n", HeadFault::Version),
        ("GET foo HTTP/1.1\r\n", HeadFault::Target),
        (&"A".repeat(33), HeadFault::MethodRefused),
    ] {
        let result = parse_request(part.as_bytes(), &mut RequestHead::new());
        assert_eq!(result, Err(fault), "{part:?}");
    }
}

#[test]
fn bounds_are_exact() {
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len - 1));
    assert!(parse(&target(REQUEST_TARGET_BYTES_MAX)).is_ok());
    refused(&target(REQUEST_TARGET_BYTES_MAX + 1), HeadFault::TargetTooLong);
    refused(&target(REQUEST_HEAD_BYTES_MAX * 2), HeadFault::TargetTooLong);

    let many = |count: usize| fields(&"A: b\r\n".repeat(count - 1));
    assert_eq!(many(REQUEST_FIELDS_MAX).unwrap().fields().len(), REQUEST_FIELDS_MAX);
    assert_eq!(many(REQUEST_FIELDS_MAX + 1), Err(HeadFault::TooManyFields));

    let around = "GET / HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n".len();
    let long = |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(len - around));
    assert!(parse(&long(REQUEST_HEAD_BYTES_MAX)).is_ok());
    refused(&long(REQUEST_HEAD_BYTES_MAX + 1), HeadFault::HeadTooLarge);
    refused(&long(REQUEST_HEAD_BYTES_MAX * 3), HeadFault::HeadTooLarge);
}

#[test]
fn field_lines_that_are_none() {
    for line in ["A : b\r\n", "A\t: b\r\n", ": b\r\n", "A\r\n", "A b: c\r\n", "A(: b\r\n", "\u{e9}: b\r\n"] {
        field_refused(line, HeadFault::FieldLine);
    }
}

#[test]
fn lengths_that_are_none() {
    for value in [
        "",
        "+1",
        "-1",
        "1 2",
        "1,1",
        "1, 1",
        "0x1",
        "1_0",
        "1.0",
        "a",
        "\u{661}",
        "9223372036854775808",
        "18446744073709551616",
        "00000000000000000001",
    ] {
        field_refused(&format!("Content-Length: {value}\r\n"), HeadFault::ContentLength);
    }
    let longest = fields("Content-Length: 9223372036854775807\r\n").unwrap();
    assert_eq!(longest.framing(), Framing::Length(i64::MAX as u64));
    field_refused("Content-Length: 1\r\ncontent-length: 1\r\n", HeadFault::DuplicateField);
}

#[test]
fn only_chunked_alone_is_a_coding() {
    assert_eq!(fields("transfer-encoding:  CHUNKED \r\n").unwrap().framing(), Framing::Chunked);
    for value in ["gzip, chunked", "identity,chunked", "gzip , deflate, chunked"] {
        field_refused(&format!("Transfer-Encoding: {value}\r\n"), HeadFault::TransferCoding);
    }
    for value in [
        "",
        "identity",
        "xchunked",
        "chunked, chunked",
        "chunked, gzip",
        "chunked,",
        ",chunked",
        "chunked;q=1",
        "\"chunked\"",
        "\tchunked",
        "chunked\t",
        "chunk",
        "gzip x, chunked",
    ] {
        field_refused(&format!("Transfer-Encoding: {value}\r\n"), HeadFault::TransferEncoding);
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    field_refused(twice, HeadFault::DuplicateField);
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n";
    field_refused(both, HeadFault::LengthAndCoding);
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(old, HeadFault::CodingInHttp10);
}

#[test]
fn host_is_there_once_and_is_a_host() {
    refused("GET / HTTP/1.1\r\n\r\n", HeadFault::HostMissing);
    refused("GET / HTTP/1.1\r\nHost:\r\n\r\n", HeadFault::Host);
    refused("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", HeadFault::Host);
    refused("GET http://a/ HTTP/1.1\r\n\r\n", HeadFault::HostMissing);
    refused("GET http://a/ HTTP/1.1\r\nHost: x/y\r\n\r\n", HeadFault::Host);
    field_refused("host: a\r\n", HeadFault::DuplicateField);
    assert_eq!(parse("GET / HTTP/1.0\r\n\r\n").unwrap().host(b""), None);
}

#[test]
fn the_host_of_an_absolute_target_counts() {
    let text = "GET http://u:p@real.example:81?q HTTP/1.1\r\nHost: other\r\n\r\n";
    let head = parse(text).unwrap();
    assert_eq!(head.form(), TargetForm::Absolute);
    assert_eq!(head.host(text.as_bytes()), Some(b"real.example:81".as_slice()));
    assert_eq!(head.path(text.as_bytes()), b"/");
    assert_eq!(head.query(text.as_bytes()), Some(b"q".as_slice()));
}

#[test]
fn options_may_ask_about_the_whole_server() {
    for text in ["OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let head = parse(text).unwrap();
        assert_eq!((head.form(), head.path(text.as_bytes())), (TargetForm::Asterisk, b"*".as_slice()));
    }
}

#[test]
fn what_keeps_a_connection_open() {
    let keeps = |version: &str, lines: &str| {
        parse(&format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n")).unwrap().keep_alive()
    };
    assert!(keeps("1.1", ""));
    assert!(!keeps("1.1", "Connection: Close\r\n"));
    assert!(!keeps("1.1", "Connection: keep-alive\r\nConnection: x,close\r\n"));
    assert!(!keeps("1.0", ""));
    assert!(keeps("1.0", "Connection: Keep-Alive\r\n"));
    assert!(!keeps("1.0", "Connection: keep-alive, close\r\n"));
}

#[test]
fn fields_that_connection_names_stay_here() {
    let head = fields("X-A: 1\r\nConnection: , x-a,Upgrade\r\nX-B: 2\r\nUpgrade: h2c\r\n").unwrap();
    let relayed: Vec<bool> = head.fields().iter().map(Field::relays_to_provider).collect();
    assert_eq!(relayed, [false, false, false, true, false], "host, x-a, connection, x-b, upgrade");
    assert!(head.upgrade());
    field_refused("Connection: a b\r\n", HeadFault::ConnectionOptions);
    field_refused("Connection: close;x\r\n", HeadFault::ConnectionOptions);
    field_refused(&format!("Connection: {}\r\n", ",".repeat(100)), HeadFault::ConnectionOptions);
}

#[test]
fn expectations() {
    let waits = fields("Expect: 100-Continue\r\nContent-Length: 1\r\n").unwrap();
    assert!(waits.expect_continue());
    assert!(!fields("Expect: 100-continue\r\n").unwrap().expect_continue(), "no body to wait with");
    let old = parse("PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").unwrap();
    assert!(!old.expect_continue());
    field_refused("Expect: 200-ok\r\n", HeadFault::Expectation);
    field_refused("Expect: 100-continue\r\nExpect: 100-continue\r\n", HeadFault::DuplicateField);
}

#[test]
fn a_field_that_decides_something_stands_once() {
    for name in ["Content-Type", "Authorization", "x-api-key", "x-bf-vk", "Range", "x-goog-api-key"] {
        field_refused(&format!("{name}: a\r\n{name}: a\r\n"), HeadFault::DuplicateField);
    }
    assert!(fields("Accept: a\r\nAccept: b\r\nIf-Match: a\r\nIf-Match: b\r\n").is_ok());
}

#[test]
fn a_body_goes_with_any_method_but_trace() {
    for method in ["GET", "DELETE", "OPTIONS", "HEAD", "get"] {
        let head = parse(&format!("{method} /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"));
        assert_eq!(head.unwrap().framing(), Framing::Length(5));
    }
    refused("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", HeadFault::TraceBody);
    assert!(parse("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").is_ok());
}

#[test]
fn a_head_is_reused_for_the_next_request_and_after_a_fault() {
    let mut head = RequestHead::new();
    let first = b"POST /a?b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    assert!(matches!(parse_request(first, &mut head), Ok(Parsed::Complete { .. })));
    assert_eq!(parse_request(b"\x01", &mut head), Err(HeadFault::Method));
    assert_eq!(parse_request(b"GE", &mut head), Ok(Parsed::Partial));
    assert!(head.is_partial());
    head.clear();
    assert!(!head.is_partial());
    let second = b"GET / HTTP/1.0\r\n\r\nrest";
    assert_eq!(parse_request(second, &mut head), Ok(Parsed::Complete { head_len: 18 }));
    let mut fresh = RequestHead::new();
    parse_request(second, &mut fresh).unwrap();
    assert_eq!(head, fresh);
}

#[test]
fn a_span_of_another_buffer_is_empty_and_no_panic() {
    let head = parse("GET /aaaa HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!((head.path(b"GET"), head.host(b"")), (b"".as_slice(), Some(b"".as_slice())));
}
