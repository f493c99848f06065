"""The provider on its addresses, the DNS server and a place for a node, made anew for each test."""

import pathlib
from collections.abc import Iterator

import pytest
from living import ONE, TWO, Home, NameServer, Provider

ADDRESSES = [ONE, TWO, "127.0.0.1", "10.77.0.1", "169.254.169.254"]


@pytest.fixture
def providers() -> Iterator[dict[str, Provider]]:
    """A provider on each address, also on those that must never be reached."""
    providers = {address: Provider(address) for address in ADDRESSES}
    yield providers
    for provider in providers.values():
        provider.stop()


@pytest.fixture
def names(tmp_path: pathlib.Path) -> Iterator[NameServer]:
    """The DNS server; the test starts it."""
    folder = tmp_path / "knot"
    folder.mkdir()
    names = NameServer(folder)
    yield names
    names.stop()


@pytest.fixture
def home(tmp_path: pathlib.Path) -> Iterator[Home]:
    """Where nodes live; the last one is stopped, and has to stop well where it still runs."""
    home = Home(tmp_path)
    yield home
    if home.node is not None and home.node.process.poll() is None:
        assert home.node.stop() == 0, home.node.log_tail()
        assert "panicked" not in home.log(), home.node.log_tail()
