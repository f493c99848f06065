"""What both stand-ins share: an HTTP server on loopback that can be stopped, started again at its
port and cut off from its clients, and commands as lines of JSON on stdin, each answered by one
line on stdout. The program ends with its stdin.
"""

import json
import os
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Refused(Exception):
    """An answer that is no 200: its status, and its text or JSON."""

    def __init__(self, status, body):
        self.status, self.body = status, body


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    block_on_close = False

    def __init__(self, port, answering, tls):
        self.connections, self.lock, self.tls = set(), threading.Lock(), tls
        super().__init__((os.environ.get("STAND_IN_HOST", "127.0.0.1"), port), answering)

    def get_request(self):
        connection, address = super().get_request()
        if self.tls:
            # The handshake belongs to the connection's own thread: a silent client must not stop the rest.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.lock:
            self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request):
        with self.lock:
            self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """A client that left is no news."""

    def cut(self):
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300
    stand_in = None

    def log_message(self, *arguments):
        pass

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def respond(self):
        url = urlsplit(self.path)
        query = {name: values for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        if any(len(values) > 1 for values in query.values()):
            raise Refused(400, "a query value was given twice")
        query = {name: values[0] for name, values in query.items()}
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if body and self.headers.get_content_type() != "application/json":
            raise Refused(415, "the body is not application/json")
        self.stand_in.seen.append(f"{self.command} {self.path}")
        # Escaped slashes belong to a name, not to the path.
        path = [unquote(piece) for piece in url.path.split("/")[1:]]
        self.stand_in.answer(self, path, query, body)

    def do_GET(self):
        try:
            self.respond()
        except Refused as refused:
            self.send(refused.status, refused.body)

    do_PUT = do_POST = do_DELETE = do_GET

    def send(self, status, body, headers=()):
        is_json = not isinstance(body, str)
        text = (json.dumps(body) if is_json else body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json" if is_json else "text/plain")
        self.send_header("content-length", str(len(text)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)


class StandIn:
    """The state; `changed` guards it and wakes those who wait for it."""

    def __init__(self):
        self.changed = threading.Condition()
        self.seen = []
        self.server = None
        self.port = 0
        self.tls = None

    def start(self):
        answering = type("Answering", (Answering,), {"stand_in": self})
        self.server = Server(self.port, answering, self.tls)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        server, self.server = self.server, None
        if server:
            server.shutdown()
            server.server_close()
            server.cut()
        with self.changed:
            self.changed.notify_all()

    def do_stop(self):
        self.stop()

    def do_start(self):
        self.start()

    def do_seen(self, text=""):
        return [line for line in self.seen if text in line]

    def run(self):
        if len(sys.argv) > 1:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(sys.argv[1], sys.argv[2])
        self.start()
        print(json.dumps({"port": self.port}), flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            answer = getattr(self, "do_" + command.pop("do"))(**command)
            print(json.dumps(answer), flush=True)
        self.stop()
