"""A bad network of our own: it passes datagrams on late, in another order, twice, or not at all.

The kernel here has no netem. So nodes tell each other a port of the relay as their address, and the
relay sends on to the node that the port stands for. Streams are passed on as they come.
"""

import dataclasses
import heapq
import random
import selectors
import socket
import threading
import time

from network import HERE

DATAGRAM_BYTES_MAX = 65_535
# Late datagrams that are kept; more are lost, and a test that needs more is wrong.
LATE_MAX = 100_000


@dataclasses.dataclass
class Weather:
    """What happens to a datagram."""

    delay: float = 0.0
    jitter: float = 0.0
    twice: float = 0.0
    lost: float = 0.0


class Relay:
    """One port, UDP and TCP, for each node behind it."""

    def __init__(self, targets: dict[int, tuple[str, int]], weather: Weather, seed: int = 1):
        self.weather = weather
        self.random = random.Random(seed)
        self.counts = {"passed": 0, "twice": 0, "lost": 0, "overtaken": 0}
        self.late: list[tuple[float, int, int, bytes]] = []
        self.number = 0
        self.newest: dict[int, int] = {}
        self.stopping = False
        self.selector = selectors.DefaultSelector()
        self.sockets: dict[int, socket.socket] = {}
        self.targets = targets
        self.threads = []
        for port in targets:
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            datagrams.bind((HERE, port))
            datagrams.setblocking(False)
            self.sockets[port] = datagrams
            self.selector.register(datagrams, selectors.EVENT_READ, port)
            streams = socket.create_server((HERE, port))
            streams.settimeout(0.2)
            self.threads.append(threading.Thread(target=self.accept, args=(streams, port), daemon=True))
        self.threads.append(threading.Thread(target=self.run, daemon=True))
        for thread in self.threads:
            thread.start()

    def run(self) -> None:
        """Takes datagrams in and lets those out whose time has come."""
        while not self.stopping:
            wait = min(0.05, self.late[0][0] - time.monotonic()) if self.late else 0.05
            for key, _ in self.selector.select(max(0.0, wait)):
                self.take(key.data)
            while self.late and self.late[0][0] <= time.monotonic():
                _, number, port, datagram = heapq.heappop(self.late)
                if number < self.newest.get(port, 0):
                    self.counts["overtaken"] += 1
                self.newest[port] = max(number, self.newest.get(port, 0))
                self.counts["passed"] += 1
                self.sockets[port].sendto(datagram, self.targets[port])

    def take(self, port: int) -> None:
        """Decides what happens to everything that waits at one port."""
        while True:
            try:
                datagram, _ = self.sockets[port].recvfrom(DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                return
            if self.random.random() < self.weather.lost or len(self.late) >= LATE_MAX:
                self.counts["lost"] += 1
                continue
            copies = 2 if self.random.random() < self.weather.twice else 1
            self.counts["twice"] += copies - 1
            for _ in range(copies):
                self.number += 1
                due = time.monotonic() + self.weather.delay + self.random.random() * self.weather.jitter
                heapq.heappush(self.late, (due, self.number, port, datagram))

    def accept(self, streams: socket.socket, port: int) -> None:
        """Passes connections on."""
        while not self.stopping:
            try:
                client, _ = streams.accept()
            except TimeoutError:
                continue
            try:
                node = socket.create_connection(self.targets[port], timeout=2)
            except OSError:
                client.close()
                continue
            for source, sink in [(client, node), (node, client)]:
                threading.Thread(target=pass_on, args=(source, sink), daemon=True).start()
        streams.close()

    def stop(self) -> None:
        """Closes its ports."""
        self.stopping = True
        for thread in self.threads:
            thread.join()
        for each in self.sockets.values():
            each.close()


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    """One direction of a stream."""
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        sink.close()
