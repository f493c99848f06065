"""The network, once; provider and nodes, anew for each test; the table at the end."""

import pathlib
from collections.abc import Callable, Iterator

import pytest
from cluster import PROVIDER_PORT, Asked, Cluster
from figures import ROWS
from limited import LONG, SHORT, Form, write_table
from live import LiveCluster
from network import HERE, Network
from postgres import Postgres
from rig import Program, binary


def pytest_addoption(parser: pytest.Parser) -> None:
    """The long form."""
    parser.addoption("--loss-seconds", type=int, default=20, help="how long packets are lost (long form: 600)")
    parser.addoption("--live-changes", type=int, default=120, help="changes under load (long form: 1000)")
    parser.addoption("--live-keys", type=int, default=2_000, help="virtual keys of a large configuration (long: 100000)")
    parser.addoption("--limits-long", action="store_true", help="limits a minute, and long enough for figures")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is only in the long form is not there in the short one."""
    if config.getoption("--limits-long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def whole_network() -> Network:
    """Hosts stay once they are there."""
    return Network()


@pytest.fixture
def network(whole_network: Network) -> Iterator[Network]:
    """A network on which everything arrives."""
    yield whole_network
    whole_network.heal()


@pytest.fixture
def provider(tmp_path: pathlib.Path) -> Iterator[Asked]:
    """The simulated provider, which every host reaches; its counts can be asked for."""
    command = [binary(), "provider-sim", "--listen", f"{HERE}:{PROVIDER_PORT}"]
    program = Program(command, tmp_path / "provider-sim.log")
    asked = Asked(HERE, PROVIDER_PORT)
    program.wait_ready(lambda: asked.ask("GET", "/__sim/stats")[0] == 200, "the simulated provider answers")
    yield asked
    asked.close()
    program.stop()


@pytest.fixture
def cluster(network: Network, tmp_path: pathlib.Path, provider: Asked) -> Iterator[Cluster]:
    """A cluster without nodes yet."""
    cluster = Cluster(network, tmp_path)
    yield cluster
    try:
        network.heal()
        cluster.end()
    finally:
        for node in cluster.nodes:
            if node.runs:
                node.kill()


@pytest.fixture
def formed(cluster: Cluster) -> Callable[[int], Cluster]:
    """Makes a cluster of so many nodes that all see each other."""

    def form(count: int) -> Cluster:
        cluster.add(count)
        cluster.start()
        return cluster

    return form


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.end()


@pytest.fixture
def live(
    request: pytest.FixtureRequest, network: Network, tmp_path: pathlib.Path, provider: Asked
) -> Iterator[LiveCluster]:
    """A cluster on the store that the test names, without nodes yet."""
    database = None
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        database = f"d{abs(hash(request.node.name)):x}"
        # The test before may have ended while it was down.
        server.start()
        server.sql(f"CREATE DATABASE {database}")
    cluster = LiveCluster(network, tmp_path, database=database)
    yield cluster
    try:
        network.heal()
        cluster.end()
    finally:
        for node in cluster.nodes:
            if node.runs:
                node.kill()


@pytest.fixture
def form(pytestconfig: pytest.Config) -> Form:
    """Windows and times of the tests of limits."""
    return LONG if pytestconfig.getoption("--limits-long") else SHORT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tables."""
    write_table()
    if not ROWS:
        return
    terminalreporter.section("measured")
    width = max(len(what) for what, _, _ in ROWS)
    for what, figure, promise in ROWS:
        terminalreporter.write_line(f"  {what:<{width}}  {figure}{f'  ({promise})' if promise else ''}")
