"""The admin interface, from outside: what it documents is what it does, and who may not gets 401."""

import base64
import http.client
import json
import os
import pathlib
import secrets
import subprocess
import sys
from collections.abc import Iterator

import jsonschema_rs
import pytest
from rig import Node, binary

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
PUBLIC = {"/health", "/ready", "/metrics", "/cluster/status", "/api/version", "/api/openapi.json"}
LIMIT = {"request_max_limit": 5, "request_reset_duration": "1m"}


class Admin:
    """A node and its credentials, which stand nowhere but here and in its environment."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        names = ["ADMIN_WRITER", "ADMIN_READER", "ADMIN_PASSWORD", "ADMIN_PROVIDER_KEY"]
        self.env = {name: secrets.token_hex(16) for name in names}
        self.node = Node(folder, HERE / "config.json", {}, self.env)

    def ask(
        self, method: str, path: str, body: object = None, who: str | None = "ADMIN_WRITER", **fields: str
    ) -> tuple[int, dict, str]:
        """Status, head and body of one answer."""
        head = {name.replace("_", "-"): value for name, value in fields.items()}
        if who:
            head["authorization"] = f"Bearer {self.env[who]}"
        if body is not None:
            head.setdefault("content-type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.node.admin_port, timeout=20)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, head)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read().decode()
        finally:
            connection.close()

    def config(self, *arguments: str, who: str = "ADMIN_WRITER") -> subprocess.CompletedProcess:
        """`deepintshield config` as an operator runs it."""
        admin = ["--admin", f"127.0.0.1:{self.node.admin_port}"]
        env = {**os.environ, "DEEPINTSHIELD_TOKEN": self.env[who]}
        return subprocess.run(
            [binary(), "config", *admin, *arguments], env=env, capture_output=True, text=True, timeout=30, check=False
        )


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    running = Admin(tmp_path_factory.mktemp("admin"))
    yield running
    assert running.node.stop() == 0, running.node.log_tail()


@pytest.fixture(scope="module")
def document(admin: Admin) -> dict:
    status, _, text = admin.ask("GET", "/api/openapi.json", who=None)
    assert status == 200
    return json.loads(text)


def test_without_credentials_there_is_nothing_but_401(admin: Admin, document: dict) -> None:
    paths = [path for path in document["paths"] if path not in PUBLIC]
    assert len(paths) > 20
    for path in [*paths, "/api", "/api/nothing", "/api/config/nothing"]:
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]:
            status, head, _ = admin.ask(method, path.replace("{", "").replace("}", ""), who=None)
            assert (status, "www-authenticate" in head) == (401, True), f"{method} {path}: {status}"
    for path in PUBLIC:
        assert admin.ask("GET", path, who=None)[0] == 200, path


def test_the_reader_reads_and_the_writer_writes(admin: Admin) -> None:
    path = "/api/governance/rate-limits/roles"
    assert admin.ask("PUT", path, LIMIT, who="ADMIN_READER")[0] == 403
    assert admin.ask("PUT", path, LIMIT)[0] == 201
    status, head, _ = admin.ask("GET", path, who="ADMIN_READER")
    assert status == 200
    assert admin.ask("PUT", path, LIMIT, if_match='"0"')[0] == 412
    assert admin.ask("PUT", path, {**LIMIT, "request_max_limit": 6}, if_match=head["etag"])[0] == 200
    pair = base64.b64encode(f"ann:{admin.env['ADMIN_PASSWORD']}".encode()).decode()
    assert admin.ask("DELETE", path, who=None, authorization=f"Basic {pair}")[0] == 200


def test_secrets_go_in_and_are_nowhere_in_clear(admin: Admin) -> None:
    planted = f"sk-proj-{secrets.token_hex(20)}"
    key = {"name": "planted", "value": planted, "models": ["*"]}
    status, _, text = admin.ask("POST", "/api/providers/openai/keys", key)
    assert status == 201, text
    status, _, text = admin.ask("PATCH", "/api/keys/openai/planted", {"weight": 2})
    assert status == 200, text
    token = {"network_config": {"extra_headers": {"x-planted": planted}}}
    status, _, text = admin.ask("PATCH", "/api/providers/openai", token)
    assert status == 200, text
    wrong = {"name": "wrong", "value": planted, "weigth": 1}
    refused = [
        admin.ask("POST", "/api/providers/openai/keys", wrong),
        admin.ask("PUT", "/api/governance/rate-limits/planted", {"id": planted}),
        admin.ask("POST", "/api/keys", {"value": planted}),
    ]
    # A body that is no JSON at all.
    connection = http.client.HTTPConnection("127.0.0.1", admin.node.admin_port, timeout=20)
    head = {"authorization": f"Bearer {admin.env['ADMIN_WRITER']}", "content-type": "application/json"}
    connection.request("POST", "/api/keys", f'{{"value": "{planted}', head)
    answer = connection.getresponse()
    refused.append((answer.status, {}, answer.read().decode()))
    assert [status for status, _, _ in refused] == [422, 422, 422, 400]
    pages = [
        admin.ask("GET", path)[2]
        for path in ["/api/config", "/api/keys", "/api/providers", "/api/config/history", "/api/audit", "/metrics",
                     "/cluster/status", "/api/config/diff"]
    ]
    needles = [planted, base64.b64encode(planted.encode()).decode().rstrip("="), *admin.env.values()]
    texts = [text for _, _, text in refused] + pages + [admin.node.log.read_text(errors="replace")]
    files = [path for path in admin.node.state.rglob("*") if path.is_file()]
    assert any(path.name.startswith("config.db") for path in files)
    for needle in needles:
        assert not any(needle in text for text in texts), f"{needle} is shown"
        for path in files:
            assert needle.encode() not in path.read_bytes(), f"{needle} is in {path.name}"


def test_the_command_line_applies_a_file_once(admin: Admin) -> None:
    file = admin.folder / "wanted.json"
    shown = json.loads(admin.ask("GET", "/api/config")[2])
    shown["governance"]["rate_limits"].append({"id": "applied", **LIMIT})
    file.write_text(json.dumps(shown))
    dry = admin.config("apply", "--file", str(file), "--dry-run")
    assert (dry.returncode, "would change" in dry.stdout) == (0, True), dry
    first = admin.config("apply", "--file", str(file), "-m", "one more limit")
    assert (first.returncode, "1 entities changed" in first.stdout) == (0, True), first
    again = admin.config("apply", "--file", str(file))
    assert (again.returncode, "nothing to change" in again.stdout) == (0, True), again
    assert "one more limit" in admin.config("history").stdout
    assert "rate_limit/applied" in admin.config("diff").stdout
    assert admin.config("set", "rate_limit/applied", "request_max_limit=7").returncode == 0
    assert json.loads(admin.config("get", "rate_limit/applied").stdout)["request_max_limit"] == 7
    wrong = admin.config("set", "rate_limit/applied", "request_max_limit=-7")
    assert (wrong.returncode, "/request_max_limit" in wrong.stderr) == (65, True), wrong
    assert admin.config("set", "rate_limit/applied", "--at", "1", "request_max_limit=8").returncode == 75
    assert admin.config("get", "rate_limit/nothing").returncode == 1
    assert admin.config("get", "nothing").returncode == 64
    assert admin.config("set", "rate_limit/applied", "x=1", who="ADMIN_READER").returncode == 77
    revision = json.loads(admin.config("--json", "history", "-n", "1").stdout)["items"][0]["number"]
    back = admin.config("rollback", str(revision - 1))
    assert back.returncode == 0, back
    assert json.loads(admin.config("get", "rate_limit/applied").stdout)["request_max_limit"] == 5


def test_the_shipped_schema_takes_the_examples_and_no_unknown_field() -> None:
    schema = json.loads((ROOT / "deploy/config.schema.json").read_text())
    printed = subprocess.run([binary(), "schema"], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(printed.stdout) == schema
    validator = jsonschema_rs.validator_for(schema)
    examples = sorted((ROOT / "examples").glob("*.json"))
    assert examples
    for path in examples:
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("//")]
        try:
            example = json.loads("\n".join(lines))
        except json.JSONDecodeError:
            continue  # comments in other places; the tests beside the code read those
        validator.validate(example)
        assert not validator.is_valid({**example, "provider": {}})


def test_schemathesis_finds_no_crash_and_no_undocumented_answer(admin: Admin) -> None:
    """After the others: it makes and removes whatever it likes. That a wrong password gets 401 is theirs too:
    here so many would come that 429 is right."""
    examples = os.environ.get("ADMIN_EXAMPLES", "20")
    url = f"http://127.0.0.1:{admin.node.admin_port}"
    checks = ("not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
              "response_headers_conformance")
    ran = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/api/openapi.json", "--checks", checks,
         "--header", f"Authorization: Bearer {admin.env['ADMIN_WRITER']}", "--max-examples", examples,
         "--phases", "examples,coverage,fuzzing", "--seed", "1", "--continue-on-failure",
         "--suppress-health-check", "all", "--generation-database", "none"],
        capture_output=True, text=True, timeout=900, check=False, cwd=admin.folder,
    )
    print(ran.stdout[-3000:])
    assert ran.returncode == 0, ran.stdout[-12000:] + ran.stderr[-2000:]
    assert admin.node.process.poll() is None, admin.node.log_tail()
    assert "panicked" not in admin.node.log.read_text(errors="replace")
