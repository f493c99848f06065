"""Gossip as it is on the wire: what somebody records who has tapped a node's cable."""

import contextlib
import dataclasses
import socket
import struct
import threading
from collections.abc import Iterator

from network import GOSSIP_PORT

ETH_P_ALL = 3
IP = b"\x08\x00"
TCP, UDP = 6, 17
FRAMES_MAX = 20_000


@dataclasses.dataclass(frozen=True)
class Frame:
    """One datagram of gossip."""

    source: str
    target: str
    payload: bytes


class Wiretap:
    """Everything that goes to and from one host's gossip port."""

    def __init__(self, host: int):
        self.frames: list[Frame] = []
        self.streams: list[bytes] = []
        self.tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.tap.bind((f"v{host}", ETH_P_ALL))
        self.tap.settimeout(0.1)
        self.stopping = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        """The thread's work."""
        while not self.stopping and len(self.frames) < FRAMES_MAX:
            with contextlib.suppress(TimeoutError):
                self.take(self.tap.recv(65_536))

    def take(self, packet: bytes) -> None:
        """Keeps a packet that is gossip."""
        if packet[12:14] != IP or packet[23] not in (TCP, UDP):
            return
        ip = packet[14:]
        header = (ip[0] & 15) * 4
        source_port, target_port = struct.unpack_from("!HH", ip, header)
        if GOSSIP_PORT not in (source_port, target_port):
            return
        total = struct.unpack_from("!H", ip, 2)[0]
        if ip[9] == UDP:
            payload = ip[header + 8 : total]
            self.frames.append(Frame(socket.inet_ntoa(ip[12:16]), socket.inet_ntoa(ip[16:20]), payload))
        elif data := ip[header + (ip[header + 12] >> 4) * 4 : total]:
            self.streams.append(data)

    def stop(self) -> None:
        """No more packets."""
        self.stopping = True
        self.thread.join()
        self.tap.close()


@contextlib.contextmanager
def tapped(host: int) -> Iterator[Wiretap]:
    """Records meanwhile; what was recorded stays."""
    tap = Wiretap(host)
    try:
        yield tap
    finally:
        tap.stop()
