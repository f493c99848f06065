use super::*;

fn parse_for(asked: Method, text: &str) -> Result<ResponseHead, ResponseFault> {
    let mut head = ResponseHead::new();
    match parse_response(text.as_bytes(), asked, &mut head)? {
        Parsed::Complete { head_len } => assert_eq!(head_len, text.len(), "{text:?}"),
        Parsed::Partial => panic!("partial: {text:?}"),
    }
    Ok(head)
}

fn answer(status: u16, lines: &str) -> Result<ResponseHead, ResponseFault> {
    parse_for(Method::Get, &format!("HTTP/1.1 {status} X\r\n{lines}\r\n"))
}

#[track_caller]
fn refused(status: u16, lines: &str, fault: ResponseFault) {
    assert_eq!(answer(status, lines).map(|_| ()), Err(fault), "{status} {lines:?}");
}

#[test]
fn a_plain_answer_is_read() {
    let text = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let head = parse_for(Method::Post, text).unwrap();
    assert_eq!((head.status(), head.framing()), (200, BodyFraming::Chunked));
    assert_eq!(head.value(text.as_bytes(), Known::ContentType), Some(b"text/event-stream".as_slice()));
    assert!(head.keep_alive() && !head.is_interim());
}

#[test]
fn status_lines() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 599 a\tb", "HTTP/1.1 299  two"] {
        assert!(parse_for(Method::Get, &format!("{line}\r\n\r\n")).is_ok(), "{line}");
    }
    for line in [
        "",
        "HTTP/1.2 200 OK",
        "HTTP/2 200",
        "http/1.1 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 99 X",
        "HTTP/1.1 099 X",
        "HTTP/1.1 600 X",
        "HTTP/1.1 2000 X",
        "HTTP/1.1 -20 X",
        "HTTP/1.1 20x X",
        "HTTP/1.1 200OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "SSH-2.0",
        "\r\nHTTP/1.1 200 OK",
    ] {
        let text = format!("{line}\r\n\r\n");
        let result = parse_response(text.as_bytes(), Method::Get, &mut ResponseHead::new());
        assert_eq!(result, Err(ResponseFault::StatusLine), "{line}");
    }
    assert_eq!(answer(101, "Upgrade: x\r\n").map(|_| ()), Err(ResponseFault::SwitchedProtocols));
}

#[test]
fn another_protocol_is_not_waited_on() {
    for part in [b"\0\0".as_slice(), b"S", b"HTTP/2"] {
        let result = parse_response(part, Method::Get, &mut ResponseHead::new());
        assert_eq!(result, Err(ResponseFault::StatusLine), "{part:?}");
    }
}

#[test]
fn how_a_body_is_delimited() {
    let framing = |asked: Method, status: u16, lines: &str| {
        parse_for(asked, &format!("HTTP/1.1 {status} X\r\n{lines}\r\n")).unwrap().framing()
    };
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    assert_eq!(framing(Method::Get, 200, length), BodyFraming::Length(5));
    assert_eq!(framing(Method::Get, 500, chunked), BodyFraming::Chunked);
    assert_eq!(framing(Method::Get, 200, ""), BodyFraming::UntilClose);
    assert_eq!(framing(Method::Head, 200, length), BodyFraming::None);
    assert_eq!(framing(Method::Head, 200, chunked), BodyFraming::None);
    assert_eq!(framing(Method::Get, 304, length), BodyFraming::None);
    assert_eq!(framing(Method::Get, 304, chunked), BodyFraming::None);
    assert_eq!(framing(Method::Get, 204, ""), BodyFraming::None);
    assert_eq!(framing(Method::Get, 204, "Content-Length: 0\r\n"), BodyFraming::None);
    assert_eq!(framing(Method::Get, 103, "Link: <a>\r\n"), BodyFraming::None);
    assert_eq!(
        parse_for(Method::Head, "HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\n").unwrap().declared_length(),
        Some(5)
    );
}

#[test]
fn framing_that_two_readers_would_see_differently() {
    use ResponseFault as Fault;
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    refused(200, &format!("{length}{chunked}"), Fault::LengthAndCoding);
    refused(200, &format!("{length}{length}"), Fault::DuplicateField);
    refused(200, &format!("{chunked}{chunked}"), Fault::DuplicateField);
    refused(204, chunked, Fault::FramingNotAllowed);
    refused(204, length, Fault::FramingNotAllowed);
    refused(100, length, Fault::FramingNotAllowed);
    refused(199, chunked, Fault::FramingNotAllowed);
    let old = parse_for(Method::Get, &format!("HTTP/1.0 200 X\r\n{chunked}\r\n"));
    assert_eq!(old.map(|_| ()), Err(Fault::FramingNotAllowed));
    for value in ["gzip, chunked", "identity", "", "\tchunked", "\x0bchunked", "chunked;q=1"] {
        let result = answer(200, &format!("Transfer-Encoding: {value}\r\n"));
        assert!(result.is_err(), "{value:?}");
    }
    for value in ["", "+5", "5, 5", "1_0", "18446744073709551621"] {
        refused(200, &format!("Content-Length: {value}\r\n"), Fault::ContentLength);
    }
}

#[test]
fn lines_that_are_none() {
    use ResponseFault as Fault;
    refused(200, "A: b\n", Fault::BareLf);
    refused(200, "A: b\rc\r\n", Fault::BareCr);
    refused(200, "A: \0\r\n", Fault::ControlByte);
    refused(200, " A: b\r\n", Fault::FoldedLine);
    refused(200, "A: b\r\n c\r\n", Fault::FoldedLine);
    refused(200, "A\r\n", Fault::FieldLine);
    refused(200, "A : b\r\n", Fault::FieldLine);
    refused(200, "A(: b\r\n", Fault::FieldLine);
    refused(200, "Content-Type: a\r\nContent-Type: a\r\n", Fault::DuplicateField);
    refused(200, "Connection: a b\r\n", Fault::ConnectionOptions);
}

#[test]
fn bounds_are_exact() {
    let many = |count: usize| answer(200, &"A: b\r\n".repeat(count));
    assert_eq!(many(RESPONSE_FIELDS_MAX).unwrap().fields().len(), RESPONSE_FIELDS_MAX);
    assert_eq!(many(RESPONSE_FIELDS_MAX + 1).map(|_| ()), Err(ResponseFault::TooManyFields));
    let around = "HTTP/1.1 200 X\r\nA: \r\nZ: z\r\n\r\n".len();
    let long = |len: usize| answer(200, &format!("A: {}\r\nZ: z\r\n", "b".repeat(len - around)));
    let longest = long(RESPONSE_HEAD_BYTES_MAX).unwrap();
    assert_eq!(longest.fields()[1].value.range().end, RESPONSE_HEAD_BYTES_MAX - 4);
    assert_eq!(long(RESPONSE_HEAD_BYTES_MAX + 1).map(|_| ()), Err(ResponseFault::HeadTooLarge));
}

#[test]
fn when_the_connection_serves_again() {
    let length = "Content-Length: 5\r\n";
    assert!(answer(200, length).unwrap().keep_alive());
    assert!(!answer(200, &format!("{length}Connection: close\r\n")).unwrap().keep_alive());
    assert!(!answer(200, "").unwrap().keep_alive(), "ends with the connection");
    let old =
        |lines: &str| parse_for(Method::Get, &format!("HTTP/1.0 200 X\r\n{length}{lines}\r\n")).unwrap().keep_alive();
    assert!(!old(""));
    assert!(old("Connection: keep-alive\r\n"));
}

#[test]
fn what_a_client_never_sees() {
    let head = answer(
        200,
        "Set-Cookie: a\r\nConnection: close, X-Hop\r\nX-Hop: secret\r\nKeep-Alive: 5\r\nAlt-Svc: h3\r\n\
         openai-organization: o\r\nx-ratelimit-limit-tokens: 1\r\nContent-Type: text/plain\r\n\
         openai-processing-ms: 5\r\n",
    )
    .unwrap();
    let relayed = head.fields().iter().filter(|field| field.relays_to_client()).count();
    assert_eq!(relayed, 2, "content-type and openai-processing-ms");
}
