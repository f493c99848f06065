//! The least that a proxy of HTTP/1.1 does: the other floor that a gateway's cost is compared
//! with. Same runtime, same ring flags, `TCP_NODELAY` on both sides, as the raw relay beside it.
//!
//! It reads a head with httparse, writes it again without the fields that are for one connection
//! only, sends the body behind it (both leave in one write where they came in one read), does the
//! same with the answer, and keeps both connections. Absent is everything else: chunked bodies,
//! deadlines, retries, a watch for clients that leave. What it cannot pass on ends the connection.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use monoio::{
    buf::{IoBufMut, SliceMut},
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::{ListenerOpts, TcpListener, TcpStream},
};

use crate::clock;

/// Most client connections at a time; two descriptors each.
const CONNECTIONS_MAX: usize = 9_900;
/// Bytes that one read may take, so also the longest head.
const READ_BYTES: usize = 8 * 1024;
/// Most fields of a head.
const FIELDS_MAX: usize = 64;
/// Pause after an accept that failed (descriptors used up), so that it is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves `listen` from the provider at `to` until `end`. An accept may be pending then; the
/// program ends with it.
pub(crate) async fn serve(listen: SocketAddr, to: SocketAddr, end: Instant) -> io::Result<()> {
    let options = ListenerOpts::new().reuse_port(false).backlog(4_096);
    let listener = TcpListener::bind_with_config(listen, &options)?;
    let provider = Rc::new(Provider { address: to, idle: RefCell::default() });
    let open = Rc::new(Cell::new(0_usize));
    while clock::now() < end {
        let Ok((stream, _)) = listener.accept().await else {
            monoio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if open.get() >= CONNECTIONS_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let (open, provider) = (Rc::clone(&open), Rc::clone(&provider));
        monoio::spawn(async move {
            // Whatever it was, the client sees a closed connection.
            let _ = serve_client(stream, &provider).await;
            open.set(open.get() - 1);
        });
    }
    Ok(())
}

/// Where requests go, and the connections there that wait for one.
struct Provider {
    address: SocketAddr,
    /// As many as there were requests at once: no more than clients.
    idle: RefCell<Vec<Side>>,
}

/// One connection, and what was read from it and not passed on yet.
struct Side {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// Whose head it is.
#[derive(Clone, Copy)]
enum Message {
    Request,
    Answer,
}

async fn serve_client(stream: TcpStream, provider: &Provider) -> io::Result<()> {
    let mut client = Side::new(stream)?;
    let mut out = Vec::with_capacity(READ_BYTES);
    loop {
        client.read_head_bytes().await?;
        let idle = provider.idle.borrow_mut().pop();
        let mut upstream = match idle {
            Some(upstream) => upstream,
            None => Side::new(TcpStream::connect_addr(provider.address).await?)?,
        };
        out = pass(Message::Request, &mut client, &mut upstream.stream, out).await?;
        upstream.read_head_bytes().await?;
        out = pass(Message::Answer, &mut upstream, &mut client.stream, out).await?;
        if upstream.bytes.is_empty() {
            provider.idle.borrow_mut().push(upstream);
        }
    }
}

impl Side {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, bytes: Vec::with_capacity(READ_BYTES) })
    }

    /// Waits for the first bytes of a message, if none are here.
    async fn read_head_bytes(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() { self.read_more().await } else { Ok(()) }
    }

    /// Reads behind what is here.
    async fn read_more(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        let (from, to) = (bytes.len(), bytes.capacity());
        if from == to {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (read, slice): (_, SliceMut<Vec<u8>>) = self.stream.read(bytes.slice_mut(from..to)).await;
        self.bytes = slice.into_inner();
        if read? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Passes one message on, and gives `out` back.
async fn pass(what: Message, from: &mut Side, to: &mut TcpStream, mut out: Vec<u8>) -> io::Result<Vec<u8>> {
    let (head_len, body_len) = loop {
        out.clear();
        if let Some(lengths) = rewrite(what, &from.bytes, &mut out)? {
            break lengths;
        }
        from.read_more().await?;
    };
    let there = body_len.min(from.bytes.len() - head_len);
    out.extend_from_slice(&from.bytes[head_len..head_len + there]);
    from.bytes.drain(..head_len + there);
    let (written, given_back) = to.write_all(out).await;
    written?;
    let mut left = body_len - there;
    while left > 0 {
        from.read_more().await?;
        if from.bytes.len() > left {
            return Err(io::ErrorKind::InvalidData.into());
        }
        left -= from.bytes.len();
        let (written, mut bytes) = to.write_all(std::mem::take(&mut from.bytes)).await;
        written?;
        bytes.clear();
        from.bytes = bytes;
    }
    Ok(given_back)
}

/// Writes the head at the start of `bytes` again: its length, and that of the body behind it.
/// `None`: it is not all here.
fn rewrite(what: Message, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<Option<(usize, usize)>> {
    let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let (status, fields): (_, &[httparse::Header<'_>]) = match what {
        Message::Request => {
            let mut request = httparse::Request::new(&mut fields);
            let status = request.parse(bytes).map_err(malformed)?;
            out.extend_from_slice(request.method.unwrap_or_default().as_bytes());
            out.push(b' ');
            out.extend_from_slice(request.path.unwrap_or_default().as_bytes());
            out.extend_from_slice(b" HTTP/1.1\r\n");
            (status, request.headers)
        }
        Message::Answer => {
            let mut answer = httparse::Response::new(&mut fields);
            let status = answer.parse(bytes).map_err(malformed)?;
            out.extend_from_slice(b"HTTP/1.1 ");
            let code = answer.code.unwrap_or_default();
            out.extend([code / 100, code / 10 % 10, code % 10].map(|digit| b'0' + digit as u8));
            out.push(b' ');
            out.extend_from_slice(answer.reason.unwrap_or_default().as_bytes());
            out.extend_from_slice(b"\r\n");
            (status, answer.headers)
        }
    };
    let httparse::Status::Complete(head_len) = status else { return Ok(None) };
    let mut body_len = 0;
    for field in fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("connection") || is("keep-alive") {
            continue;
        }
        if is("transfer-encoding") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if is("content-length") {
            let digits = std::str::from_utf8(field.value).ok().and_then(|digits| digits.parse().ok());
            body_len = digits.ok_or(io::ErrorKind::InvalidData)?;
        }
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some((head_len, body_len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(what: Message, head: &[u8]) -> Option<(String, usize, usize)> {
        let mut out = Vec::new();
        let (head_len, body_len) = rewrite(what, head, &mut out).ok()??;
        Some((String::from_utf8(out).ok()?, head_len, body_len))
    }

    #[test]
    fn a_head_is_written_again_without_what_was_for_one_connection() {
        let request = b"POST /v1/x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\ncontent-length: 12\r\n\r\nbody";
        let expected = "POST /v1/x?y HTTP/1.1\r\nHost: a\r\ncontent-length: 12\r\n\r\n";
        assert_eq!(rewritten(Message::Request, request), Some((expected.to_owned(), request.len() - 4, 12)));
        let answer = b"HTTP/1.1 429 Too Many Requests\r\nkeep-alive: 5\r\ncontent-length: 0\r\n\r\n";
        let expected = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(rewritten(Message::Answer, answer), Some((expected.to_owned(), answer.len(), 0)));
    }

    #[test]
    fn a_part_of_a_head_is_waited_for_and_what_cannot_be_passed_on_is_not() {
        let mut out = Vec::new();
        assert!(matches!(rewrite(Message::Request, b"POST / HTTP/1.1\r\nhost:", &mut out), Ok(None)));
        for head in ["GET\r\n\r\n", "GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n"] {
            assert!(rewrite(Message::Request, head.as_bytes(), &mut out).is_err(), "{head}");
        }
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(rewrite(Message::Answer, chunked, &mut out).is_err());
    }
}
