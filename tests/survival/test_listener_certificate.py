"""The client listener's certificate, replaced while the node runs."""

import pathlib
import signal
import socket
import ssl
import subprocess

from living import ONE, Home, NameServer, Provider
from rig import wait_until


def make_certificate(folder: pathlib.Path, name: str) -> None:
    """A self-signed certificate for `name`, put where the node reads it."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        + ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
        + ["-keyout", str(folder / "key.new"), "-out", str(folder / "cert.new")],
        check=True,
        capture_output=True,
    )
    (folder / "key.new").replace(folder / "key.pem")
    (folder / "cert.new").replace(folder / "cert.pem")


def connect(port: int) -> ssl.SSLSocket:
    """A TLS connection that trusts anybody; what it was shown is what the tests look at."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10), server_hostname="any")


def shows(port: int, name: str) -> bool:
    """Whether the listener shows the certificate for `name`."""
    with connect(port) as connection:
        return name.encode() in connection.getpeercert(binary_form=True)


def ask(connection: ssl.SSLSocket) -> bytes:
    """The status line of one page."""
    connection.sendall(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
    return connection.recv(4096).split(b"\r\n")[0]


def test_a_new_certificate_is_used_and_a_bad_one_is_not(
    home: Home, names: NameServer, providers: dict[str, Provider]
) -> None:
    names.start(f"60 A {ONE}")
    make_certificate(home.folder, "first.ai.test")
    files = {"cert_file": str(home.folder / "cert.pem"), "key_file": str(home.folder / "key.pem")}
    home.configure("sk-literal", server={"tls": files})
    node = home.launch()

    def is_up() -> bool:
        try:
            return shows(home.port, "first.ai.test")
        except OSError:
            return False

    node.wait_ready(is_up, "the listener speaks TLS")
    with connect(home.port) as before:
        assert ask(before) == b"HTTP/1.1 200 OK"
        make_certificate(home.folder, "second.ai.test")
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: shows(home.port, "second.ai.test"), 15, "the new certificate is shown")
        assert ask(before) == b"HTTP/1.1 200 OK", "a connection from before goes on"

    # Neither half a pair nor none takes the listener down, or its encryption away.
    (home.folder / "cert.pem").write_text("not a certificate")
    node.process.send_signal(signal.SIGHUP)
    home.wait_for_line("the one before stays")
    assert shows(home.port, "second.ai.test")
    (home.folder / "key.pem").unlink()
    node.process.send_signal(signal.SIGHUP)
    said = home.wait_for_line("keeps the certificate it has")
    assert "key.pem" in said, said
    assert shows(home.port, "second.ai.test")

    # Without a signal the files are looked at every few seconds.
    make_certificate(home.folder, "third.ai.test")
    wait_until(lambda: shows(home.port, "third.ai.test"), 30, "the third certificate is shown")
