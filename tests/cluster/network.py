"""The network under the nodes: a namespace for each host, all on one bridge, and what goes wrong on it.

Host `i` is 10.77.0.i in the namespace `ni`. This process stands on the bridge itself, as 10.77.0.254,
and is never cut off. Runs only inside the namespace that `run` makes.
"""

import pathlib
import subprocess
from collections.abc import Iterable

HERE = "10.77.0.254"
GOSSIP_PORT = 10101

TABLE = """
add table inet lab
delete table inet lab
table inet lab {
  chain input {
    type filter hook input priority 0;
    @RULES@
  }
}
"""


def address(host: int) -> str:
    """Where a host is."""
    return f"10.77.0.{host}"


def inside(host: int) -> list[str]:
    """What makes a command run on a host. It becomes the command: the process id stays."""
    return ["nsenter", f"--net=/run/netns/n{host}", "--"]


def tell(*command: str, text: str | None = None) -> None:
    """Runs a command that has to work."""
    ran = subprocess.run(command, input=text, capture_output=True, text=True, timeout=20, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}: {ran.stdout}{ran.stderr}{text or ''}"


class Network:
    """The hosts, and what of their traffic does not arrive."""

    def __init__(self) -> None:
        self.rules: dict[int, list[str]] = {}

    def add(self, host: int) -> None:
        """A host, unless it is there."""
        if host in self.rules:
            return
        name = f"n{host}"
        tell("ip", "netns", "add", name)
        tell("ip", "link", "add", f"v{host}", "type", "veth", "peer", "name", "eth0", "netns", name)
        tell("ip", "link", "set", f"v{host}", "master", "bridge0", "up")
        tell("ip", "-n", name, "address", "add", f"{address(host)}/24", "brd", "10.77.0.255", "dev", "eth0")
        tell("ip", "-n", name, "link", "set", "eth0", "up")
        tell("ip", "-n", name, "link", "set", "lo", "up")
        self.rules[host] = []

    def cut(self, source: int, target: int, what: str = "") -> None:
        """Nothing of what `source` sends reaches `target`; with `what`, nothing that it matches."""
        self.drop(target, f"ip saddr {address(source)} {what}")

    def drop(self, host: int, what: str) -> None:
        """Everything that arrives at `host` and matches is lost, from now on."""
        self.rules[host].append(f"{what} counter drop")
        self.apply([host])

    def refuse(self, host: int, what: str) -> None:
        """The same, and the sender is told at once."""
        self.rules[host].append(f"{what} counter reject")
        self.apply([host])

    def split(self, *sides: Iterable[int]) -> None:
        """Hosts hear only those of their own side."""
        groups = [list(side) for side in sides]
        for group in groups:
            others = [address(host) for other in groups if other is not group for host in other]
            for host in group:
                self.rules[host].append(f"ip saddr {{ {', '.join(others)} }} counter drop")
        self.apply([host for group in groups for host in group])

    def lose(self, percent: int) -> None:
        """So many of a hundred packets between any two hosts are lost, gossip or not."""
        for rules in self.rules.values():
            rules.append(f"ip saddr != {HERE} numgen random mod 100 < {percent} counter drop")
        self.apply(list(self.rules))

    def heal(self) -> None:
        """Everything arrives again."""
        dirty = [host for host, rules in self.rules.items() if rules]
        for host in dirty:
            self.rules[host] = []
        self.apply(dirty)

    def apply(self, hosts: list[int]) -> None:
        """Puts the rules of these hosts in force, all at about the same time."""
        started = []
        for host in hosts:
            text = TABLE.replace("@RULES@", "\n    ".join(self.rules[host]))
            line = [*inside(host), "nft", "-f", "-"]
            process = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            process.stdin.write(text)
            process.stdin.close()
            process.stdin = None
            started.append((process, text))
        for process, text in started:
            _, errors = process.communicate(timeout=20)
            assert process.returncode == 0, f"nft: {errors}{text}"


def received(host: int) -> tuple[int, int]:
    """Packets and bytes that reached a host since it is there."""
    counters = pathlib.Path("/sys/class/net") / f"v{host}" / "statistics"
    return tuple(int((counters / name).read_text()) for name in ("tx_packets", "tx_bytes"))
