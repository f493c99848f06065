"""A limit that several nodes share is never exceeded, and used: nothing is broken here.

`--limits-long` counts minutes, for figures.
"""

import pytest
from cluster import Asked, Cluster
from limited import UNITS_A_NODE, Form, limit_of, loaded, possible, start


@pytest.mark.parametrize("times", [0.9, 1.5, 5.0])
@pytest.mark.parametrize("count", [3, 7])
def test_no_window_has_more_than_the_limit(
    cluster: Cluster, provider: Asked, form: Form, count: int, times: float
) -> None:
    """Whatever is offered, and wherever: and what one limiter for all would give out is given out."""
    limit = count * UNITS_A_NODE
    start(cluster, count, limit_of(limit, form.window, enforcement="strict"))
    with loaded(cluster, provider, limit, form.window, times, seed=count) as run:
        run.wait(form.windows * form.window)
    used = run.report(f"strict, {count} nodes, {times}x", f"at most {possible(form.window):.3f} are possible")
    run.assert_within(limit)
    run.assert_no_failures()
    assert used >= form.utilisation, (used, run.explain())
