"""A large configuration: how long it takes until it is used, how large it gets, and what one change costs.

The short form sees that it works; the figures are those of the long one: `--live-keys 100000`.
"""

import json
import os
import pathlib
import time

import pytest
from cluster import CLIENT, Node, soon
from figures import note, percentile
from live import Admin, LiveCluster, head

PROVIDERS = 500
CHANGES = 20
START_SECONDS_MAX = 180
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(node: Node) -> float:
    """What it has used so far, all threads."""
    fields = pathlib.Path(f"/proc/{node.program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def serves(node: Node) -> bool:
    """Whether the clients' virtual key is let in."""
    return node.runs and node.chat()[0] == 200


@pytest.mark.parametrize("live", ["sqlite"], indirect=True)
def test_a_large_configuration_and_a_change_of_one_key(live: LiveCluster, pytestconfig: pytest.Config) -> None:
    count = pytestconfig.getoption("--live-keys")
    (node,) = live.add(1)
    text = live.configuration(node, enabled=False)
    del text["governance"]["virtual_keys"][0]["rate_limit_id"]
    lab = text["providers"]["lab"]
    for number in range(PROVIDERS - 1):
        text["providers"][f"p{number}"] = {**lab, "keys": [{**lab["keys"][0], "models": [f"m{number}"]}]}
    text["governance"]["virtual_keys"] += [
        {"id": f"v{number}", "name": f"v{number}", "value": f"sk-bf-{number:032}", "is_active": True}
        for number in range(count - 1)  # and the one of the clients
    ]
    node.configure(text)
    name = f"{count} virtual keys and {PROVIDERS} providers"
    size = node.config.stat().st_size / 2**20

    begun = time.monotonic()
    node.start()
    soon(lambda: serves(node), START_SECONDS_MAX, "it serves after the import", node.log_tail)
    note(f"{name}: first start, with the import of the file", f"{time.monotonic() - begun:.1f} s, a file of {size:.0f} MiB")
    note(f"{name}: resident memory", f"{node.resident_kib() / 1024:.0f} MiB")

    admin = Admin(node)
    took, adopted, before = [], [], cpu_seconds(node)
    for number in range(CHANGES):
        began = time.monotonic()
        status, answer = admin.ask("PATCH", f"/api/governance/virtual-keys/v{number * 7}", {"is_active": False})
        assert status == 200, answer
        took.append(time.monotonic() - began)
        soon(lambda: node.metric("deepintshield_config_adopted_revision") == answer["revision"], 20, "all cores run it")
        adopted.append(node.metric("deepintshield_config_adoption_seconds"))
    spent = (cpu_seconds(node) - before) / CHANGES
    note(
        f"{name}: a change of one virtual key",
        f"accepted after p50 {percentile(took, 0.5) * 1e3:.0f} ms, from the control thread to the last core "
        f"{percentile(adopted, 0.5) * 1e3:.0f} ms, {spent * 1e3:.0f} ms of CPU",
        "less than a second of a core",
    )
    assert spent < 1
    status, _ = node.clients.ask(
        "POST", "/v1/chat/completions", {"model": "lab/m", "messages": []},
        {"content-type": "application/json", "authorization": f"Bearer sk-bf-{0:032}"},
    )
    assert status == 403

    revision = head(node)
    soon(lambda: kept_number(node) == revision[0], 30, "the document is kept for the next start")
    node.stop()
    begun = time.monotonic()
    node.start()
    soon(lambda: serves(node), START_SECONDS_MAX, "it serves again", node.log_tail)
    note(f"{name}: start, from the store", f"{time.monotonic() - begun:.1f} s")
    assert live.agree() == revision
    assert CLIENT not in node.log()
    files = {path.name: path.stat().st_size / 2**20 for path in (node.folder / "state").iterdir() if path.is_file()}
    note(f"{name}: the last good snapshot", ", ".join(f"{file} {size:.1f} MiB" for file, size in sorted(files.items()) if size > 0.1))


def kept_number(node: Node) -> int:
    """Of the revision in its state directory."""
    path = node.folder / "state" / "document.json"
    return json.loads(path.read_text())["number"] if path.exists() else 0
