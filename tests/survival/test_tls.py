"""TLS to the client and TLS to the provider at once: whole bodies, cut answers, clients that leave."""

import contextlib
import hashlib
import http.client
import json
import pathlib
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
from living import Home
from tls_provider import TlsProvider, make_pair

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
# Above the memory that a node gives to one body, so that it has to be passed on while it arrives.
BODY_BYTES = 3 * 1024 * 1024


class Between:
    """A node with TLS on both sides, and the provider behind it."""

    def __init__(self, home: Home, answer: Callable[[ssl.SSLSocket, bytes], bool | None]):
        self.home = home
        self.provider = TlsProvider(home.folder, answer)
        self.certificate, key = make_pair(home.folder, "listener")
        self.configure(self.provider.certificate, key)
        self.key = key
        home.launch().wait_ready(self.is_up, "the listener speaks TLS and the node is ready")

    def configure(self, trusted: pathlib.Path, key: pathlib.Path) -> None:
        """The node's configuration: whom it trusts, and with what it proves itself."""
        network = {
            "base_url": f"https://127.0.0.1:{self.provider.port}",
            "ca_cert_pem": trusted.read_text(),
            "allow_private_network": True,
            "max_retries": 0,
        }
        self.home.configure("sk-tls", network, {"tls": {"cert_file": str(self.certificate), "key_file": str(key)}})

    def is_up(self) -> bool:
        """Whether it is ready for requests."""
        try:
            with contextlib.closing(self.connect()) as connection:
                connection.request("GET", "/ready")
                return connection.getresponse().status == 200
        except OSError:
            return False

    def connect(self) -> http.client.HTTPSConnection:
        """A client's connection that trusts the node's certificate and no other."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        return http.client.HTTPSConnection("127.0.0.1", self.home.port, timeout=20, context=context)

    def ask(self, connection: http.client.HTTPSConnection, text: str, chunked: bool = False) -> http.client.HTTPResponse:
        """Sends a chat and reads the answer's head."""
        body = json.dumps({"model": "named/m", "messages": [{"role": "user", "content": text}]}).encode()
        fields = {"content-type": "application/json", "authorization": "Bearer sk-bf-survivor"}
        if chunked:
            pieces = (body[at : at + 70_001] for at in range(0, len(body), 70_001))
            connection.request("POST", "/v1/chat/completions", pieces, fields, encode_chunked=True)
        else:
            connection.request("POST", "/v1/chat/completions", body, fields)
        return connection.getresponse()

    def answer_whole(self) -> bytes:
        """The body of one answer; raises what http.client raises when it is cut."""
        with contextlib.closing(self.connect()) as connection:
            answer = self.ask(connection, "hello")
            assert answer.status == 200, answer.read()
            return answer.read()


@pytest.fixture
def between(home: Home) -> Iterator[Callable[[Callable[[ssl.SSLSocket, bytes], None]], Between]]:
    """Makes a node between TLS and TLS."""
    made: list[Between] = []

    def make(answer: Callable[[ssl.SSLSocket, bytes], None]) -> Between:
        made.append(Between(home, answer))
        return made[-1]

    yield make
    for each in made:
        each.provider.stop()


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_larger_than_memory_arrive_whole_both_ways(between, chunked: bool) -> None:
    sent_back = random.Random(7).randbytes(BODY_BYTES // 2).hex().encode()

    def answer(connection: ssl.SSLSocket, body: bytes) -> None:
        digest = hashlib.sha256(json.loads(body)["messages"][0]["content"].encode()).hexdigest().encode()
        payload = b'{"id": "' + digest + b'", "filler": "' + sent_back + b'"}'
        connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(payload) + payload)

    node = between(answer)
    text = random.Random(8).randbytes(BODY_BYTES // 2).hex()
    with contextlib.closing(node.connect()) as connection:
        got = json.loads(node.ask(connection, text, chunked).read())
    assert got["id"] == hashlib.sha256(text.encode()).hexdigest()
    assert got["filler"].encode() == sent_back


def test_requests_in_a_row_arrive_whole_whatever_records_they_come_in(between) -> None:
    chance = random.Random(9)

    def records(connection: ssl.SSLSocket, text: bytes) -> None:
        """Each piece is a record of its own."""
        at = 0
        while at < len(text):
            piece = chance.choice([1, 3, 100, 128, 129, 1000, 5000, 17_000])
            connection.sendall(text[at : at + piece])
            at += piece

    def answer(connection: ssl.SSLSocket, body: bytes) -> bool:
        payload = json.dumps({"id": json.loads(body)["messages"][0]["content"][::-1]}).encode()
        records(connection, HEAD + b"content-length: %d\r\n\r\n" % len(payload) + payload)
        return True

    node = between(answer)
    fields = "authorization: Bearer sk-bf-survivor\r\ncontent-type: application/json\r\n"
    with contextlib.closing(node.connect()) as connection:
        connection.connect()
        for size in [2, 90, 1000, 3900, 4096, 4200, 16_000, 20_000, 60_000] * 4:
            text = chance.randbytes(size // 2).hex()
            body = json.dumps({"model": "named/m", "messages": [{"role": "user", "content": text}]})
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n{fields}content-length: {len(body)}\r\n\r\n"
            records(connection.sock, (head + body).encode())
            response = http.client.HTTPResponse(connection.sock)
            response.begin()
            assert response.status == 200, response.read()
            assert json.loads(response.read())["id"] == text[::-1]


def cut(head: bytes, body: bytes, is_told: bool) -> Callable[[ssl.SSLSocket, bytes], None]:
    """An answer whose connection ends after `body`: with a word (close_notify), or without."""

    def answer(connection: ssl.SSLSocket, _: bytes) -> None:
        connection.sendall(head + b"\r\n" + body)
        if is_told:
            with contextlib.suppress(OSError):
                connection.unwrap()
        else:
            # Closes the TCP connection under the TLS one, as an attacker on the way could.
            socket.socket(fileno=connection.detach()).close()

    return answer


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"content-length: 1000\r\n", b"x" * 500), (b"transfer-encoding: chunked\r\n", b"5\r\nhello\r\n")],
)
def test_a_cut_answer_never_looks_whole(between, framing: bytes, body: bytes, is_told: bool) -> None:
    node = between(cut(HEAD + framing, body, is_told))
    with pytest.raises((http.client.IncompleteRead, OSError)):
        node.answer_whole()


def test_the_end_of_the_connection_ends_an_answer_only_when_tls_says_so(between) -> None:
    endings = iter([True, False])

    def answer(connection: ssl.SSLSocket, body: bytes) -> None:
        cut(HEAD + b"connection: close\r\n", b'{"id": "whole"}', next(endings))(connection, body)

    node = between(answer)
    assert json.loads(node.answer_whole()) == {"id": "whole"}
    with pytest.raises((http.client.IncompleteRead, OSError)):
        node.answer_whole()


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_a_client_that_leaves_ends_the_providers_work(between, says_goodbye: bool) -> None:
    ended = threading.Event()

    def answer(connection: ssl.SSLSocket, _: bytes) -> None:
        connection.sendall(STREAM + b'f\r\ndata: {"a": 1}\n\r\n')
        # The node says nothing more on this connection; it can only end.
        with contextlib.suppress(OSError):
            assert connection.recv(1) == b""
        ended.set()

    node = between(answer)
    connection = node.connect()
    response = node.ask(connection, "stream")
    assert response.read(1) == b"d"
    if says_goodbye:
        with contextlib.suppress(OSError):
            connection.sock.settimeout(1)
            connection.sock.unwrap()
    response.close()
    connection.close()
    assert ended.wait(10), node.home.node.log_tail()


def test_a_provider_that_cannot_prove_itself_gets_no_key(between) -> None:
    asked: list[bytes] = []

    def answer(connection: ssl.SSLSocket, body: bytes) -> None:
        asked.append(body)
        connection.sendall(HEAD + b"content-length: 2\r\n\r\n{}")

    node = between(answer)
    assert node.answer_whole() == b"{}"
    # Trusts somebody else from now on.
    node.home.node.stop()
    stranger, _ = make_pair(node.home.folder, "stranger")
    node.configure(stranger, node.key)
    node.home.launch().wait_ready(node.is_up, "the node is ready")
    with contextlib.closing(node.connect()) as connection:
        refused = node.ask(connection, "hello")
        assert refused.status == 502, refused.read()
        assert "certificate" in refused.read().decode().lower()
    assert len(asked) == 1


def test_plain_http_on_the_tls_port_disturbs_nobody(between) -> None:
    node = between(lambda connection, _: connection.sendall(HEAD + b"content-length: 2\r\n\r\n{}"))
    with socket.create_connection(("127.0.0.1", node.home.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"HTTP/1.1 200" not in plain.recv(4096)
    assert node.answer_whole() == b"{}"
