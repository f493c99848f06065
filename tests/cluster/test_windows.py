"""Counting is what the tests of limits stand on."""

import random

from windows import Row, central, explain, fullest


def rows(*pairs: tuple[int, int]) -> list[Row]:
    """Rows of one node."""
    return [Row(at, units, "n1") for at, units in pairs]


def units_by_hand(log: list[Row], length: int) -> int:
    """The most units of any window that starts at a row."""
    return max(sum(row.units for row in log if start.at <= row.at < start.at + length) for start in log)


def test_a_window_is_open_at_its_end() -> None:
    """As the provider counts."""
    assert fullest(rows((0, 5), (10, 7)), 10).units == 7
    assert fullest(rows((0, 5), (9, 7)), 10).units == 12
    assert fullest([], 10).units == 0


def test_the_fullest_window_is_the_one_that_a_count_by_hand_finds() -> None:
    """Over every start, many random logs."""
    dice = random.Random(7)
    for _ in range(100):
        log = rows(*sorted((dice.randrange(500), dice.randrange(1, 9)) for _ in range(60)))
        length = dice.randrange(1, 200)
        found = fullest(log, length)
        assert found.units == units_by_hand(log, length)
        assert sum(row.units for row in log[found.first : found.last + 1]) == found.units


def test_one_limiter_for_everybody_fills_its_windows_and_none_over() -> None:
    """One that does not fit is left out, and a smaller one after it may fit."""
    assert central([(0, 1), (1, 1), (2, 1), (10, 1), (11, 1)], lambda _: 2, 10) == 4
    assert central([(0, 3), (1, 2), (2, 1)], lambda _: 4, 10) == 4


def test_a_lower_limit_counts_what_came_under_the_higher_one() -> None:
    """Lowered at 5: nothing before 10, and one a window then."""
    arrivals = [(0, 1), (1, 1), (6, 1), (10, 1), (11, 1), (12, 1)]
    assert central(arrivals, lambda at: 2 if at < 5 else 1, 10) == 3


def test_a_message_names_the_window_and_who_filled_it() -> None:
    """Second by second."""
    second = 1_000_000_000
    log = [Row(5 * second, 2, "n1"), Row(6 * second, 3, "n2"), Row(6 * second, 1, "n1")]
    said = explain(log, fullest(log, 10 * second), 4 * second)
    assert "6 units from 1.000 s to 2.000 s" in said
    assert said.splitlines()[-1].split() == ["together", "3", "3"], said
