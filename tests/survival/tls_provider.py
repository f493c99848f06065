"""A provider that speaks TLS, byte by byte as a test wants it."""

import pathlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable


def make_pair(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    certificate, key = folder / f"{name}.cert.pem", folder / f"{name}.key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        + ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-addext", "basicConstraints=critical,CA:FALSE"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return certificate, key


def read_head(connection: ssl.SSLSocket) -> tuple[bytes, bytes]:
    """A head, and what came of the body with it."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = connection.recv(65536)
        if not piece:
            return got, b""
        got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    return head, rest


def read_body(connection: ssl.SSLSocket, head: bytes, rest: bytes) -> bytes:
    """The body of a request, by its length or its chunks."""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"content-length" in fields:
        length = int(fields[b"content-length"])
        while len(rest) < length:
            piece = connection.recv(65536)
            assert piece, "the request was cut"
            rest += piece
        return rest
    assert fields[b"transfer-encoding"] == b"chunked", fields
    while not rest.endswith(b"0\r\n\r\n"):
        piece = connection.recv(65536)
        assert piece, "the request was cut"
        rest += piece
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


class TlsProvider:
    """Accepts connections and gives each, once its request is read, to `answer(connection, body)`.

    Where that says `True`, another request may follow."""

    def __init__(self, folder: pathlib.Path, answer: Callable[[ssl.SSLSocket, bytes], bool | None]):
        self.certificate, key = make_pair(folder, "provider")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.context = context
        self.answer = answer
        self.failures: list[BaseException] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self) -> None:
        """Until the listener is closed."""
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(plain,), daemon=True).start()

    def serve(self, plain: socket.socket) -> None:
        """One connection."""
        plain.settimeout(20)
        try:
            connection = self.context.wrap_socket(plain, server_side=True)
        except OSError:
            # A node that does not trust us.
            plain.close()
            return
        try:
            is_kept = True
            while is_kept:
                head, rest = read_head(connection)
                is_kept = bool(head) and self.answer(connection, read_body(connection, head, rest))
        except AssertionError as failure:
            self.failures.append(failure)
        finally:
            connection.close()

    def stop(self) -> None:
        """Accepts no more; what a connection found wrong is the test's failure."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        assert not self.failures, self.failures
