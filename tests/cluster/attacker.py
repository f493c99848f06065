"""Somebody on the network who means harm: sends what the file of plans says, from its own host.

    attacker.py send PLANS              each plan once, in order
    attacker.py flood PLANS RATE SECS   all plans again and again, RATE a second; prints how many went out

A plan is a line of JSON: {"to": [HOST, PORT], "from": HOST or null, "hex": PAYLOAD}. With "from" the
packet claims to come from there: it is written whole, IP header and all. A program of its own, because
it runs in the namespace of its host.
"""

import ctypes
import json
import socket
import struct
import sys
import time

BATCH = 64
GOSSIP_PORT = 10101


class Iovec(ctypes.Structure):
    """struct iovec"""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    """struct msghdr"""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("iov", ctypes.POINTER(Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Mmsghdr(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = [("header", Msghdr), ("length", ctypes.c_uint)]


def read_plans(path: str) -> list[dict]:
    """Every plan of the file."""
    with open(path, encoding="ascii") as lines:
        return [json.loads(line) for line in lines]


def whole_packet(source: str, target: tuple[str, int], payload: bytes) -> bytes:
    """IPv4 and UDP headers and the payload; the kernel fills in what is 0."""
    length = 20 + 8 + len(payload)
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target[0])
    )
    udp = struct.pack("!HHHH", GOSSIP_PORT, target[1], 8 + len(payload), 0)
    return ip + udp + payload


def send(plans: list[dict]) -> None:
    """Each once, slowly enough that no buffer on the way overflows."""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for number, plan in enumerate(plans):
        target, payload = tuple(plan["to"]), bytes.fromhex(plan["hex"])
        if plan["from"] is None:
            plain.sendto(payload, target)
        else:
            raw.sendto(whole_packet(plan["from"], target, payload), (target[0], 0))
        if number % BATCH == BATCH - 1:
            time.sleep(0.002)


def flood(plans: list[dict], rate: int, seconds: float) -> int:
    """Packets that went out, all to the first plan's target."""
    libc = ctypes.CDLL(None, use_errno=True)
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.connect(tuple(plans[0]["to"]))
    kept, batches = [], []
    for begin in range(0, len(plans), BATCH):
        payloads = [bytes.fromhex(plan["hex"]) for plan in plans[begin : begin + BATCH]]
        messages = (Mmsghdr * len(payloads))()
        for message, payload in zip(messages, payloads, strict=True):
            buffer = ctypes.create_string_buffer(payload, max(1, len(payload)))
            vector = Iovec(ctypes.addressof(buffer), len(payload))
            kept.append((buffer, vector))
            message.header.iov, message.header.iov_length = ctypes.pointer(vector), 1
        batches.append(messages)
    sent, begun, number = 0, time.monotonic(), 0
    while (now := time.monotonic() - begun) < seconds:
        if sent > now * rate:
            time.sleep(0.0005)
            continue
        messages = batches[number % len(batches)]
        number += 1
        # A refusal (ECONNREFUSED after a datagram that met no socket) costs one batch.
        sent += max(0, libc.sendmmsg(out.fileno(), messages, len(messages), 0))
    return sent


def main() -> None:
    """As the command line says."""
    plans = read_plans(sys.argv[2])
    if sys.argv[1] == "send":
        send(plans)
    else:
        print(flood(plans, int(sys.argv[3]), float(sys.argv[4])))


if __name__ == "__main__":
    main()
