"""Other kinds of limits that several nodes share: small ones, tokens, and the approximate mode."""

import json
import random

import pytest
from cluster import Asked, Cluster, Node
from limited import UNITS_A_NODE, Form, Run, limit_of, loaded, start
from offered import Ask

PROMPT = "so many letters of a prompt make ten tokens"
ANSWER_TOKENS_MAX = 100
TOKENS_A_NODE = 14_000
SMALL_LIMIT = 60


def test_a_limit_too_small_for_shares_is_kept_and_used_as_well(cluster: Cluster, provider: Asked, form: Form) -> None:
    """One node holds it, and the others ask that one."""
    start(cluster, 3, limit_of(SMALL_LIMIT, form.window, enforcement="strict"))
    with loaded(cluster, provider, SMALL_LIMIT, form.window, 1.5, seed=1) as run:
        run.wait(form.windows * form.window)
    used = run.report("strict, 3 nodes, 1.5x, small limit")
    run.assert_within(SMALL_LIMIT)
    run.assert_no_failures()
    assert used >= form.utilisation - 0.1, (used, run.explain())


def streamed(node: Node, dice: random.Random) -> Ask:
    """A chat whose answer is streamed, half a second or so, and shorter than it may be."""
    tokens = dice.randrange(ANSWER_TOKENS_MAX // 2, ANSWER_TOKENS_MAX + 1)
    text = {
        "model": f"lab/{node.name}",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": ANSWER_TOKENS_MAX,
        "stream": True,
        "metadata": {"sim": {"completion_tokens": tokens, "tokens_per_event": 25, "token_ms": 8}},
    }
    return Ask(json.dumps(text).encode(), -(-len(PROMPT) // 4) + tokens)


@pytest.mark.parametrize("times", [1.5, pytest.param(5.0, marks=pytest.mark.long)])
def test_tokens_of_streams_never_exceed_their_limit(
    cluster: Cluster, provider: Asked, form: Form, times: float
) -> None:
    """Charged where they cannot be known yet; the provider counts all of them when a request arrives."""
    limit = 3 * TOKENS_A_NODE
    window = f"{form.window}s"
    rule = {"id": "l", "token_max_limit": limit, "token_reset_duration": window, "enforcement": "strict"}
    start(cluster, 3, rule)
    usual = -(-len(PROMPT) // 4) + 0.75 * ANSWER_TOKENS_MAX
    with loaded(cluster, provider, limit, form.window, times, seed=3, units=usual, ask=streamed) as run:
        run.wait(form.windows * form.window)
    used = run.report(f"strict, 3 nodes, {times}x, tokens of streams")
    run.assert_units_agree()
    run.assert_within(limit)
    run.assert_no_failures()
    # A stream holds all that it may produce until it has ended.
    assert used >= 0.7, (used, run.explain())


def printed_bound(run: Run) -> int | None:
    """Units by which the nodes say that this limit may be exceeded; `None` where they say nothing."""
    bounds = [
        limit["overshoot_bound"]
        for node in run.cluster.living()
        for limit in node.status().get("limits", [])
        if limit["id"].split("/")[0] == "l" and limit.get("overshoot_bound") is not None
    ]
    return max(bounds, default=None)


@pytest.mark.parametrize("count", [3, pytest.param(7, marks=pytest.mark.long)])
def test_a_limit_by_gossip_stays_under_the_bound_that_is_printed(
    cluster: Cluster, provider: Asked, form: Form, count: int
) -> None:
    """The approximate mode says by how much it may be wrong, and is not wrong by more."""
    limit = count * UNITS_A_NODE
    start(cluster, count, limit_of(limit, form.window, enforcement="gossip"))
    with loaded(cluster, provider, limit, form.window, 5.0, seed=count) as run:
        run.wait(form.windows * form.window)
        bound = printed_bound(run)
    run.report(f"gossip, {count} nodes, 5.0x", f"bound {bound}")
    run.assert_no_failures()
    assert bound is not None, "no node prints a bound"
    run.assert_within(limit + bound)
