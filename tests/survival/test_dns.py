"""A provider's name while the node runs: it moves, it lies, it is gone, it comes back."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from living import HOST, MOVE_SECONDS_MAX, ONE, TWO, Home, NameServer, Provider
from rig import get, wait_until

Providers = dict[str, Provider]

# So many requests, each on a connection of its own, meet every core and take longer than its tick.
IN_A_ROW = 16


def wait_until_served_by(home: Home, address: str) -> None:
    """Requests are answered all the time, and by this address in the end. Each core takes a change
    at its own tick: the first answer from the address is not the last from another."""
    try:
        wait_until(
            lambda: {home.served_by() for _ in range(IN_A_ROW)} == {address}, MOVE_SECONDS_MAX, f"{address} serves"
        )
    except AssertionError as error:
        raise AssertionError(f"{error}\n{home.node.log_tail()}") from None


def test_a_changed_record_moves_the_traffic(home: Home, names: NameServer, providers: Providers) -> None:
    names.start(f"1 A {ONE}")
    home.configure("sk-literal")
    home.start()
    assert home.served_by() == ONE
    names.serve(f"1 A {TWO}")
    wait_until_served_by(home, TWO)
    assert {home.served_by() for _ in range(20)} == {TWO}, "no connection to the old address is used any more"
    names.serve(f"1 A {ONE}", f"1 A {TWO}")
    # An idle connection is used before another one is made, so it takes requests side by side.
    with ThreadPoolExecutor(16) as clients:
        served_by = lambda: set(clients.map(lambda _: home.served_by(), range(64)))  # noqa: E731
        wait_until(lambda: served_by() == {ONE, TWO}, MOVE_SECONDS_MAX, "both serve")


BAD_ANSWERS = {
    "empty": lambda names: names.serve('1 TXT "no address"'),
    "nxdomain": lambda names: names.serve(),
    "servfail": lambda names: names.fail(),
    "stopped": lambda names: names.stop(),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_a_bad_answer_keeps_the_last_good_addresses(
    home: Home, names: NameServer, providers: Providers, kind: str
) -> None:
    names.start(f"1 A {ONE}")
    home.configure("sk-literal")
    home.start()
    assert home.served_by() == ONE
    BAD_ANSWERS[kind](names)
    said = home.wait_for_line("keeping the last good addresses")
    assert HOST in said and "/etc/resolv.conf" in said, said
    assert len(home.lines("could not resolve")) == 1, home.log()
    assert {home.served_by() for _ in range(5)} == {ONE}
    assert get(home.port, "/ready")[0] == 200

    if kind in ("servfail", "stopped"):
        names.stop()
        names.start(f"1 A {TWO}")
    else:
        names.serve(f"1 A {TWO}")
    wait_until_served_by(home, TWO)
    home.wait_for_line("resolved again")


def test_the_same_answer_after_failures_is_said_once(home: Home, names: NameServer, providers: Providers) -> None:
    names.start(f"1 A {ONE}")
    home.configure("sk-literal")
    home.start()
    names.serve()
    home.wait_for_line("keeping the last good addresses")
    names.serve(f"1 A {ONE}")
    said = home.wait_for_line("resolved again")
    assert HOST in said, said


@pytest.mark.parametrize("inside", ["127.0.0.1", "169.254.169.254", "10.77.0.1"])
def test_a_name_that_leads_inside_is_refused(
    home: Home, names: NameServer, providers: Providers, inside: str
) -> None:
    names.start(f"1 A {inside}")
    home.configure("sk-literal")
    home.start()
    assert home.refused() == (502, "provider_address_not_allowed")
    assert providers[inside].heads == []

    # Rebinding: public first, with a connection that is kept, and then inside.
    names.serve(f"1 A {ONE}")
    wait_until(lambda: home.chat()[0] == 200, MOVE_SECONDS_MAX, "the public address serves")
    names.serve(f"1 A {inside}")
    wait_until(
        lambda: {home.chat()[0] for _ in range(IN_A_ROW)} == {502}, MOVE_SECONDS_MAX, "the name leads inside"
    )
    assert home.refused() == (502, "provider_address_not_allowed")
    assert providers[inside].heads == []


def test_a_name_that_leads_inside_is_used_where_the_provider_allows_it(
    home: Home, names: NameServer, providers: Providers
) -> None:
    names.start("1 A 127.0.0.1")
    home.configure("sk-literal", network={"allow_private_network": True})
    home.start()
    assert home.served_by() == "127.0.0.1"


def test_a_ttl_of_zero_is_no_busy_loop(home: Home, names: NameServer, providers: Providers) -> None:
    names.start(f"0 A {ONE}")
    home.configure("sk-literal")
    home.start()
    assert home.served_by() == ONE
    seconds = 4
    before = names.questions()
    time.sleep(seconds)
    asked = names.questions() - before
    # For A and AAAA once a second each; one second more for where the interval happens to begin.
    assert 2 <= asked <= 2 * (seconds + 1), asked
    names.serve(f"0 A {TWO}")
    wait_until_served_by(home, TWO)


def test_a_node_that_waits_for_its_first_answer_is_not_ready_and_says_why(
    home: Home, names: NameServer, providers: Providers
) -> None:
    home.configure("sk-literal")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 53))
        home.launch()
        status, why = wait_until(
            lambda: next(iter([page for page in [get(home.port, "/ready")] if page[0]]), None),
            MOVE_SECONDS_MAX,
            "the node answers",
        )
        assert (status, why) == (503, f"starting: the address of {HOST} is being looked up\n")
        assert get(home.port, "/health")[0] == 200
        assert get(home.admin_port, "/ready")[0] == 503
        # Given up on: the other providers of a node should not wait for this one.
        wait_until(lambda: get(home.port, "/ready")[0] == 200, MOVE_SECONDS_MAX, "the node is ready")
        assert home.refused() == (503, "provider_unresolved")
        said = home.wait_for_line("could not resolve the provider's name")
        assert "answered with 503" in said and "base_url" in said, said
    names.start(f"1 A {ONE}")
    wait_until(lambda: home.chat()[0] == 200, MOVE_SECONDS_MAX, "the provider is found")
