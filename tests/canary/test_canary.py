"""No secret leaves a node by any way but the one to its provider."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from canaries import leaks, made, made_key_of_32_bytes
from rig import Node, Simulator, binary, filled, free_ports, get, running, wait_until

CONFIG = pathlib.Path(__file__).parent / "config.json"

# Secrets by the name of their place in the template: literals, then references.
LITERALS = {
    "OPENAI_LITERAL": "sk-proj-",
    "ANTHROPIC_LITERAL": "sk-ant-",
    "GEMINI_LITERAL": "AIza",
    "FAULTY_LITERAL": "sk-",
    "ABSENT_LITERAL": "sk-",
    "NAMELESS_LITERAL": "sk-",
    "HEADER_LITERAL": "acct-",
    "VK_LITERAL": "sk-bf-",
    "VK_LIMITED": "sk-bf-",
    "VK_INACTIVE": "sk-bf-",
    "ADMIN_PASSWORD": "",
    "ADMIN_TOKEN": "",
    "CONSUL_TOKEN": "",
    "ETCD_PASSWORD": "",
}
BY_ENV = {
    "CANARY_OPENAI_ENV": "sk-proj-",
    "CANARY_ANTHROPIC_ENV": "sk-ant-",
    "CANARY_FAULTY_ENV": "sk-",
    "CANARY_HEADER_ENV": "acct-",
    "CANARY_VK_ENV": "sk-bf-",
}
BY_FILE = {
    "OPENAI_FILE": "sk-proj-",
    "ANTHROPIC_FILE": "sk-ant-",
    "VK_FILE": "sk-bf-",
}
# A file with the account that asks a Kubernetes API server.
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: it
contexts: [{{name: it, context: {{cluster: it, user: it}}}}]
clusters: [{{name: it, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: it, user: {{token: "{token}"}}}}]
"""
# What clients send that is no key of ours; a prompt is nobody else's business either.
SENT = {
    "UNKNOWN_VIRTUAL_KEY": "sk-bf-",
    "CLIENTS_OWN_KEY": "sk-proj-",
    "CLIENTS_COOKIE": "session-",
    "PROMPT": "prompt-",
}


class Planted:
    """Every canary of one run, and the files that some of them are in."""

    def __init__(self, folder: pathlib.Path):
        self.secrets = {name: made(prefix) for name, prefix in {**LITERALS, **BY_ENV, **BY_FILE, **SENT}.items()}
        self.secrets["GOSSIP_KEY"] = made_key_of_32_bytes()
        self.secrets["NEXT_GOSSIP_KEY"] = made_key_of_32_bytes()
        self.secrets["KUBERNETES_TOKEN"] = made("")
        self.gossip_port, self.registry_port = free_ports(2)
        mounted = folder / "mounted"
        mounted.mkdir()
        self.paths = {}
        for name in BY_FILE:
            path = mounted / name.lower()
            path.write_text(self.secrets[name] + "\n")
            path.chmod(0o600)
            self.paths[f"{name}_PATH"] = str(path)
        kubeconfig = mounted / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG.format(port=self.registry_port, token=self.secrets["KUBERNETES_TOKEN"]))
        self.paths["KUBECONFIG_PATH"] = str(kubeconfig)

    def __getitem__(self, name: str) -> str:
        return self.secrets[name]

    def env(self) -> dict[str, str]:
        """The variables that the configuration refers to."""
        return {name: self.secrets[name] for name in BY_ENV}

    def values(self) -> dict[str, str]:
        """What the template is filled with."""
        ports = {"GOSSIP_PORT": str(self.gossip_port), "REGISTRY_PORT": str(self.registry_port)}
        return {**{name: self.secrets[name] for name in [*LITERALS, "GOSSIP_KEY"]}, **self.paths, **ports}


@contextlib.contextmanager
def registry(port: int) -> Iterator[list[str]]:
    """Stands where Consul and a Kubernetes API server should be, and refuses; what it was sent."""
    heard: list[str] = []

    class Refusal(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            heard.append(str(self.headers))
            self.send_error(403)

        do_GET = do_PUT = do_POST = refuse

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Refusal)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# === Traffic ===


def ask(port: int, path: str, body: object, headers: dict[str, str]) -> bytes:
    """One POST; the whole answer, head and body, as the client got it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, content, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        head = f"{answer.status} {answer.reason}\n{answer.headers}".encode()
        try:
            return head + answer.read()
        except http.client.IncompleteRead as cut:
            return head + cut.partial
        except OSError:
            return head
    finally:
        connection.close()


def send_raw(port: int, request: bytes) -> bytes:
    """Bytes as they are; whatever comes back until the other side closes or is silent."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(request)
        try:
            while piece := connection.recv(65536):
                answer += piece
        except OSError:
            pass
    return answer


def ordinary(node: Node, planted: Planted) -> dict[str, bytes]:
    """What SDKs send, with good and bad keys, to good and bad providers."""
    question = [{"role": "user", "content": planted["PROMPT"]}]
    chat = {"model": "openai/gpt-4o-mini", "messages": question}
    message = {"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": question}
    gemini = {"contents": [{"parts": [{"text": planted["PROMPT"]}]}]}
    bearer = {"authorization": f"Bearer {planted['VK_LITERAL']}", "cookie": planted["CLIENTS_COOKIE"]}
    by_env = {"x-api-key": planted["CANARY_VK_ENV"]}
    by_file = {"x-bf-vk": planted["VK_FILE"], "authorization": f"Bearer {planted['CLIENTS_OWN_KEY']}"}
    limited = {"x-bf-vk": planted["VK_LIMITED"]}

    answers = {}
    for key in ["literal", "by-env", "by-file"]:
        chosen = {"x-bf-api-key": key}
        streamed = {**chat, "stream": True}
        answers[f"chat {key}"] = ask(node.port, "/v1/chat/completions", chat, {**bearer, **chosen})
        answers[f"stream {key}"] = ask(node.port, "/v1/chat/completions", streamed, {**by_env, **chosen})
        answers[f"messages {key}"] = ask(node.port, "/anthropic/v1/messages", message, {**by_env, **chosen})
    answers["gemini"] = ask(
        node.port,
        "/genai/v1beta/models/gemini-2.5-flash:generateContent",
        gemini,
        {"x-goog-api-key": planted["VK_LITERAL"]},
    )
    answers["own key besides"] = ask(node.port, "/v1/chat/completions", chat, by_file)

    for fault in ["500", "401", "403", "429=1", "reset-before-head", "reset-mid-body=9", "malformed-json",
                  "wrong-content-length", "garbage-sse", "stall=5"]:
        body = {"model": "faulty/m", "messages": question, "stream": fault == "garbage-sse"}
        answers[f"fault {fault}"] = ask(node.port, "/v1/chat/completions", body, {**bearer, "x-sim-fault": fault})
    for provider in ["absent", "nameless"]:
        body = {"model": f"{provider}/m", "messages": question}
        answers[provider] = ask(node.port, "/v1/chat/completions", body, bearer)

    path = "/v1/chat/completions"
    answers["no key"] = ask(node.port, path, chat, {})
    answers["own key only"] = ask(node.port, path, chat, {"authorization": f"Bearer {planted['CLIENTS_OWN_KEY']}"})
    answers["basic"] = ask(node.port, path, chat, {"authorization": f"Basic {planted['CLIENTS_OWN_KEY']}"})
    answers["unknown key"] = ask(node.port, path, chat, {"x-bf-vk": planted["UNKNOWN_VIRTUAL_KEY"]})
    answers["inactive key"] = ask(node.port, path, chat, {"x-bf-vk": planted["VK_INACTIVE"]})
    answers["within limit"] = ask(node.port, path, chat, limited)
    answers["over limit"] = ask(node.port, path, chat, limited)
    answers["key as model"] = ask(node.port, path, {**chat, "model": planted["VK_LITERAL"]}, bearer)
    answers["key in path"] = ask(node.port, f"/v1/none/{planted['VK_LIMITED']}?key={planted['VK_FILE']}", chat, bearer)
    answers["not json"] = ask(node.port, path, b'{"key": "' + planted["VK_LITERAL"].encode(), bearer)
    answers["key by name"] = ask(node.port, path, chat, {**bearer, "x-bf-api-key": planted["CLIENTS_OWN_KEY"]})
    # Sent back to who sent them, these are no leak; in a log they would be.
    for own in ["key as model", "key in path", "not json", "key by name"]:
        answers.pop(own)
    return answers


def hostile(node: Node, planted: Planted) -> dict[str, bytes]:
    """Requests that are refused while a key stands in them."""
    key = planted["VK_LITERAL"].encode()
    good = b"Host: h\r\nAuthorization: Bearer " + key + b"\r\n"
    start = b"POST /v1/chat/completions HTTP/1.1\r\n"
    requests = {
        "space before colon": start + b"Host: h\r\nAuthorization : Bearer " + key + b"\r\n\r\n",
        "folded": start + b"Host: h\r\nAuthorization: Bearer\r\n " + key + b"\r\n\r\n",
        "two lengths": start + good + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "length and chunked": start + good + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "bad chunk": start + good + b"Transfer-Encoding: chunked\r\n\r\n" + key + b"\r\n",
        "no host": start + b"Authorization: Bearer " + key + b"\r\n\r\n",
        "control character": start + good + b"X-A: " + key + b"\x00\r\n\r\n",
        "no version": b"GET /" + key + b"\r\n\r\n",
        "key as method": key + b" / HTTP/1.1\r\n" + good + b"\r\n",
        "huge head": start + good + b"X-A: " + key * 4000 + b"\r\n\r\n",
        "upgrade": start + good + b"Connection: upgrade\r\nUpgrade: " + key + b"\r\n\r\n",
        "connect": b"CONNECT h:1 HTTP/1.1\r\n" + good + b"\r\n",
        "cut short": start + good + b"Content-Length: 100\r\n\r\n" + key,
    }
    return {name: send_raw(node.port, request) for name, request in requests.items()}


def own_pages(node: Node, planted: Planted) -> dict[str, bytes]:
    """What the node says about itself, with and without the administrator's password."""
    login = administrator(planted)
    token = {"authorization": f"Bearer {planted['ADMIN_TOKEN']}"}
    wrong = {"authorization": login["authorization"][:-4]}
    pages = {}
    for number, headers in enumerate([{}, login, token, wrong]):
        for path in ["/metrics", "/cluster/status", "/api/config", "/api/providers", "/api/keys", "/api/models",
                     "/api/governance/virtual-keys", "/api/config/history", "/api/config/diff", "/api/audit",
                     "/api/openapi.json", f"/api/keys/openai/{planted['OPENAI_LITERAL'][:8]}"]:
            status, body = get(node.admin_port, path, headers)
            pages[f"admin {path} {number}"] = f"{status}\n{body}".encode()
        for path in ["/health", "/ready", "/cluster/status", "/v1/models"]:
            status, body = get(node.port, path, headers)
            pages[f"{path} {number}"] = f"{status}\n{body}".encode()
    pages["a key more"] = add_gossip_key(node, planted)
    status, body = get(node.admin_port, "/api/cluster/gossip-keys", login)
    pages["keys"] = f"{status}\n{body}".encode()
    return pages


def administrator(planted: Planted) -> dict[str, str]:
    """Name and password, as they are sent."""
    pair = f"admin:{planted['ADMIN_PASSWORD']}".encode()
    return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}


def add_gossip_key(node: Node, planted: Planted) -> bytes:
    """The first step of a rotation, as an administrator on the machine does it."""
    connection = http.client.HTTPConnection("127.0.0.1", node.admin_port, timeout=5)
    try:
        body = json.dumps({"key": planted["NEXT_GOSSIP_KEY"]})
        head = {"content-type": "application/json", **administrator(planted)}
        connection.request("POST", "/api/cluster/gossip-keys", body, head)
        answer = connection.getresponse()
        return f"{answer.status}\n".encode() + answer.read()
    finally:
        connection.close()


def files_below(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file, read whole."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# === The tests ===


@pytest.mark.parametrize("sealed", [False, True], ids=["references", "sealed"])
def test_no_canary_is_in_logs_metrics_state_or_answers(tmp_path, sealed):
    planted = Planted(tmp_path)
    env = {"RUST_LOG": "trace", **planted.env()}
    if sealed:
        planted.secrets["ENCRYPTION_KEY"] = env["DEEPINTSHIELD_ENCRYPTION_KEY"] = made_key_of_32_bytes()
    provider_port, closed_port = free_ports(2)
    values = {"PROVIDER_PORT": str(provider_port), "CLOSED_PORT": str(closed_port), **planted.values()}
    with (
        registry(planted.registry_port) as heard,
        running(Simulator(tmp_path, provider_port)) as provider,
        running(Node(tmp_path, CONFIG, values, env)) as node,
    ):
        places = {**ordinary(node, planted), **hostile(node, planted), **own_pages(node, planted)}
        upstream = json.dumps(provider.stats()["keys"])
        wait_until(lambda: failing_sources(node) == ["consul", "etcd", "kubernetes"], 20, "all discovery fails")
        places["failures of discovery"] = get(node.admin_port, "/cluster/status")[1].encode()
    assert places["chat literal"].startswith(b"200"), places["chat literal"]
    # The canaries were alive: the provider got them, or a search for them would prove nothing.
    used = ["OPENAI_LITERAL", "CANARY_OPENAI_ENV", "OPENAI_FILE", "GEMINI_LITERAL"]
    used += ["ANTHROPIC_LITERAL", "CANARY_ANTHROPIC_ENV", "ANTHROPIC_FILE"]
    assert [name for name in used if planted[name] not in upstream] == []
    assert [name for name in ["CONSUL_TOKEN", "KUBERNETES_TOKEN"] if planted[name] not in "".join(heard)] == []
    assert places["a key more"].startswith(b"200"), places["a key more"]
    assert not [name for name in planted.secrets if name.startswith("VK_") and planted[name] in upstream]

    log = node.log.read_bytes()
    assert log, "the node logged nothing at all"
    state = files_below(node.state)
    assert state, "the node kept no state: nothing was searched there"
    places.update({f"state file {name}": content for name, content in state.items()})
    places["the log"] = log
    found = leaks(planted.secrets, places)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "broken",
    [
        ('"weight": 1.0 }', '"weight": 1.0, "wieght": 2 }'),  # an unknown field beside a key
        ('"value": "@VK_LITERAL@"', '"value": ["@VK_LITERAL@"]'),  # the wrong type
        ('"@GEMINI_LITERAL@", "models"', '"@GEMINI_LITERAL@" "models"'),  # no JSON any more
        ('"value": "@VK_LIMITED@"', '"value": "@VK_LITERAL@"'),  # the same key twice
        ('"@ADMIN_PASSWORD@"', '"@ADMIN_PASSWORD@'),  # a string without its end
        ('"env.CANARY_VK_ENV"', '"@UNKNOWN_VIRTUAL_KEY@\\u0007"'),  # a key with a bell in it
    ],
    ids=["unknown-field", "wrong-type", "no-comma", "twice", "unterminated", "control-character"],
)
def test_check_names_a_fault_without_the_key_beside_it(tmp_path, broken):
    planted = Planted(tmp_path)
    template = CONFIG.read_text()
    assert broken[0] in template, "the template has changed"
    own = {"PORT": "8080", "ADMIN_PORT": "8081", "STATE": str(tmp_path), "PROVIDER_PORT": "9", "CLOSED_PORT": "9"}
    everything = {**own, **planted.values(), "UNKNOWN_VIRTUAL_KEY": planted["UNKNOWN_VIRTUAL_KEY"]}
    config = tmp_path / "broken.json"
    config.write_text(filled(template.replace(broken[0], broken[1], 1), everything))
    checked = subprocess.run(
        [binary(), "--config", str(config), "check"],
        capture_output=True,
        env={**os.environ, **planted.env(), "RUST_LOG": "trace"},
        timeout=20,
    )
    assert checked.returncode == 78, f"EX_CONFIG was expected: {checked}"  # sysexits
    found = leaks(planted.secrets, {"stdout": checked.stdout, "stderr": checked.stderr})
    assert not found, "\n".join(found)


def failing_sources(node: Node) -> list[str]:
    """Methods of discovery whose last look failed."""
    sources = json.loads(get(node.admin_port, "/cluster/status")[1] or "{}").get("discovery", [])
    return sorted(source["source"] for source in sources if source["last_failure"])


def aborted(
    command: list[str], folder: pathlib.Path, env: dict[str, str], is_up: Callable[[subprocess.Popen], bool]
) -> tuple[bool, int]:
    """Starts a program that may dump core, waits until `is_up`, kills it with SIGABRT.

    Whether the kernel dumped its core (as `waitid` says, so that a core_pattern with a pipe counts
    too), and the owner of its /proc files: root's, when the process made itself undumpable.
    """

    def may_dump() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    # An ordinary user: root's own /proc files are root's either way.
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
    log = (folder / "aborted.log").open("wb")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        preexec_fn=may_dump,
        **user,
    )
    try:
        wait_until(lambda: process.poll() is not None or is_up(process), 30, f"{command} is up")
        assert process.poll() is None, (folder / "aborted.log").read_text()
        owner = pathlib.Path(f"/proc/{process.pid}/environ").stat().st_uid
        process.send_signal(signal.SIGABRT)
        end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return end.si_code == os.CLD_DUMPED, owner
    finally:
        process.kill()
        process.wait()
        log.close()


def test_a_killed_node_leaves_no_core(capsys):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        program = folder / "deepintshield"
        shutil.copy(binary(), program)  # where nobody can reach it
        (folder / "state").mkdir()
        provider_port, closed_port, port, admin_port = free_ports(4)
        planted = Planted(folder)
        own = {"PORT": str(port), "ADMIN_PORT": str(admin_port), "STATE": str(folder / "state")}
        ports = {"PROVIDER_PORT": str(provider_port), "CLOSED_PORT": str(closed_port)}
        config = folder / "config.json"
        config.write_text(filled(CONFIG.read_text(), {**own, **ports, **planted.values()}))
        if os.getuid() == 0:
            for path in [folder, *folder.rglob("*")]:
                shutil.chown(path, "nobody", "nogroup")

        # The control: on this machine, does an ordinary program leave a core at all?
        control_dumped, _ = aborted(["sleep", "60"], folder, {}, lambda process: b"sleep" in comm(process.pid))
        for core in folder.glob("core*"):
            core.unlink()

        command = [str(program), "--config", str(config)]
        dumped, owner = aborted(command, folder, planted.env(), lambda _: get(port, "/ready")[0] == 200)
        assert not dumped
        assert not list(folder.glob("core*"))
        assert owner == 0, "the process is dumpable: its memory can be read by its own user"
        if not control_dumped:
            with capsys.disabled():
                print("note: no program leaves a core on this machine; only the process's own flag was checked")


def comm(pid: int) -> bytes:
    """The program that runs in a process."""
    return pathlib.Path(f"/proc/{pid}/comm").read_bytes()
