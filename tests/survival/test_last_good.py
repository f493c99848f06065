"""A node that was killed starts again without its configuration file and without DNS."""

import pathlib

import pytest
from living import ONE, Home, NameServer, Provider, nobody_listens
from rig import Program, get, wait_until

SEAL = {"DEEPINTSHIELD_ENCRYPTION_KEY": "a-key-of-more-than-thirty-two-characters"}
ENV_KEY = {"SURVIVOR_KEY": "sk-by-env"}


def killed(home: Home, names: NameServer, key: str, env: dict[str, str]) -> None:
    """A node served, was killed, and everything that it started from is gone."""
    names.start(f"60 A {ONE}")
    home.configure(key)
    home.start(env=env)
    assert home.served_by() == ONE
    wait_until(home.last_good.exists, 10, "the last good snapshot is written")
    home.node.kill()
    # Its ring keeps the listening socket for a moment after it: the kernel takes rings apart later.
    wait_until(lambda: nobody_listens(home.port), 10, "the killed node's port is free")
    names.stop()
    home.config.unlink()


def ended(node: Program, seconds: int = 20) -> int:
    """The exit code of a node that cannot start."""
    code = node.process.wait(seconds)
    node.output.close()
    return code


def assert_serves_and_says_so(home: Home) -> None:
    assert [home.served_by() for _ in range(5)] == [ONE] * 5
    assert get(home.port, "/cluster/status")[0] == 200
    said = home.lines("serving from the last good snapshot")
    assert len(said) == 1 and "config.json" in said[0] and "No such file" in said[0], home.log()
    # The names are still looked up, in case DNS comes back.
    assert "keeping the last good addresses" in home.wait_for_line("could not resolve the provider's name")
    assert home.served_by() == ONE


def test_literal_keys_sealed_with_an_encryption_key(
    home: Home, names: NameServer, providers: dict[str, Provider]
) -> None:
    killed(home, names, "sk-literal", SEAL)
    assert b"sk-literal" not in home.last_good.read_bytes()
    home.start("--state-dir", str(home.state), env=SEAL)
    assert_serves_and_says_so(home)
    assert providers[ONE].keys() == {"Bearer sk-literal"}
    assert not home.lines("not usable")


def test_a_second_restart_from_the_snapshot_works_as_well(
    home: Home, names: NameServer, providers: dict[str, Provider]
) -> None:
    killed(home, names, "sk-literal", SEAL)
    home.start("--state-dir", str(home.state), env=SEAL)
    home.served_by()
    home.node.kill()
    home.start("--state-dir", str(home.state), env=SEAL)
    assert_serves_and_says_so(home)
    assert providers[ONE].keys() == {"Bearer sk-literal"}


def test_references_need_no_encryption_key(home: Home, names: NameServer, providers: dict[str, Provider]) -> None:
    killed(home, names, "env.SURVIVOR_KEY", ENV_KEY)
    assert b"sk-by-env" not in home.last_good.read_bytes()
    home.start(env={**ENV_KEY, "DEEPINTSHIELD_STATE_DIR": str(home.state)})
    assert_serves_and_says_so(home)
    assert providers[ONE].keys() == {"Bearer sk-by-env"}


@pytest.mark.parametrize("env", [{}, {"DEEPINTSHIELD_ENCRYPTION_KEY": "another-key-of-thirty-two-characters"}])
def test_a_literal_key_that_cannot_be_had_is_named_with_the_reason(
    home: Home, names: NameServer, providers: dict[str, Provider], env: dict[str, str]
) -> None:
    killed(home, names, "sk-literal", SEAL if env else {})
    assert b"sk-literal" not in home.last_good.read_bytes()
    home.start("--state-dir", str(home.state), env=env)
    (said,) = home.lines("is not usable")
    assert "named" in said and "main" in said, said
    assert "stood in the configuration file itself" in said and "DEEPINTSHIELD_ENCRYPTION_KEY" in said, said
    before = len(providers[ONE].heads)
    assert home.refused() == (503, "no_usable_key")
    assert len(providers[ONE].heads) == before, "nothing goes out without its key"


def test_a_reference_that_is_gone_is_named(home: Home, names: NameServer, providers: dict[str, Provider]) -> None:
    killed(home, names, "env.SURVIVOR_KEY", ENV_KEY)
    home.start("--state-dir", str(home.state))
    (said,) = home.lines("is not usable")
    assert "main" in said and "SURVIVOR_KEY is not in the environment" in said, said
    assert home.refused() == (503, "no_usable_key")


def damaged(good: bytes) -> dict[str, bytes]:
    """The file, damaged in every part of it."""
    flipped = {}
    for name, at in {"magic": 0, "lengths": 55, "description": 200, "records": len(good) // 2, "sum": -1}.items():
        copy = bytearray(good)
        copy[at] ^= 0x10
        flipped[f"flipped in its {name}"] = bytes(copy)
    cut = {f"cut to {length} bytes": good[:length] for length in (0, 1, 60, len(good) // 2, len(good) - 1)}
    return {**flipped, **cut, "longer": good + b"\0"}


def test_a_damaged_file_stops_the_start_with_the_reason(
    home: Home, names: NameServer, providers: dict[str, Provider]
) -> None:
    killed(home, names, "sk-literal", SEAL)
    for what, content in damaged(home.last_good.read_bytes()).items():
        home.last_good.write_bytes(content)
        code = ended(home.launch("--state-dir", str(home.state), env=SEAL))
        assert code == 66, f"{what}: {code}\n{home.log()}"
        assert "config.json" in home.log() and "the last good snapshot cannot be used" in home.log(), what
        assert "panicked" not in home.log(), home.log()
        assert nobody_listens(home.port) and nobody_listens(home.admin_port), what
        assert home.last_good.read_bytes() == content, "what may still be of use stays as it is"


def test_a_damaged_file_beside_a_configuration_is_said_and_replaced(
    home: Home, names: NameServer, providers: dict[str, Provider]
) -> None:
    names.start(f"60 A {ONE}")
    home.configure("sk-literal")
    home.state.mkdir(mode=0o700)
    home.last_good.write_bytes(b"no snapshot")
    home.start()
    assert home.served_by() == ONE
    assert len(home.lines("it is replaced by one of the configuration")) == 1, home.log()
    wait_until(lambda: home.last_good.read_bytes() != b"no snapshot", 10, "it is replaced")


def test_a_lost_lookup_key_is_said(home: Home, names: NameServer, providers: dict[str, Provider]) -> None:
    killed(home, names, "sk-literal", SEAL)
    (home.state / "lookup.key").unlink()
    assert ended(home.launch("--state-dir", str(home.state), env=SEAL)) == 66
    assert "another lookup key" in home.log(), home.log()


def test_the_state_directory_holds_nothing_for_others(
    home: Home, names: NameServer, providers: dict[str, Provider]
) -> None:
    killed(home, names, "sk-literal", SEAL)
    modes = {path.name: path.stat().st_mode & 0o077 for path in [home.state, *pathlib.Path(home.state).iterdir()]}
    assert not any(modes.values()), modes
