"""One simulated provider, one recorder and one node for the whole suite."""

import os
import pathlib
from collections.abc import Callable, Iterator

import anthropic
import openai
import pytest
from rig import Node, Recorder, Simulator, free_ports, running

CONFIG = pathlib.Path(__file__).parent.parent / "config.json"
OPEN_KEY = "sk-bf-open"

# The SDKs read these by themselves; a developer's own account or proxy is none of the test's business.
for name in list(os.environ):
    if name.startswith(("OPENAI_", "ANTHROPIC_")) or name.lower().endswith("_proxy"):
        del os.environ[name]


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """The simulated provider."""
    (port,) = free_ports(1)
    with running(Simulator(tmp_path_factory.mktemp("provider"), port)) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def recorder() -> Iterator[Recorder]:
    """The provider that keeps what it is sent."""
    recorder = Recorder()
    yield recorder
    recorder.stop()


@pytest.fixture(scope="session")
def node(
    tmp_path_factory: pytest.TempPathFactory, provider: Simulator, recorder: Recorder
) -> Iterator[Node]:
    """The node under test."""
    values = {
        "PROVIDER_PORT": str(provider.port),
        "RECORDER_PORT": str(recorder.port),
        "CLOSED_PORT": str(free_ports(1)[0]),
    }
    # At trace level, so that the search below sees the most that can be written down.
    with running(Node(tmp_path_factory.mktemp("node"), CONFIG, values, {"RUST_LOG": "trace"})) as node:
        yield node
    written = [node.log, *(path for path in node.state.rglob("*") if path.is_file())]
    for path in written:
        text = path.read_bytes()
        keys = [key for key in (b"provider-key-", b"sk-bf-", b"what-the-client-sent") if key in text]
        assert not keys, f"{path.name} holds keys: {keys}"


@pytest.fixture
def open_ai(node: Node) -> Callable[..., openai.OpenAI]:
    """Makes an OpenAI client; retries are off, so that each test sees the first answer."""

    def make(path: str = "/v1", api_key: str = OPEN_KEY, **options: object) -> openai.OpenAI:
        return openai.OpenAI(base_url=node.url + path, api_key=api_key, max_retries=0, timeout=20, **options)

    return make


@pytest.fixture
def claude(node: Node) -> Callable[..., anthropic.Anthropic]:
    """Makes an Anthropic client, retries off."""

    def make(path: str = "", api_key: str = OPEN_KEY, **options: object) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=node.url + path, api_key=api_key, max_retries=0, timeout=20, **options)

    return make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """A failure shows what the node had to say."""
    outcome = yield
    report = outcome.get_result()
    node = getattr(item, "funcargs", {}).get("node")
    if report.failed and node is not None:
        report.sections.append(("node", node.log_tail()))
