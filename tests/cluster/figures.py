"""What was measured, for the table at the end."""

ROWS: list[tuple[str, str, str]] = []


def note(what: str, figure: str, promise: str = "") -> None:
    """A row: what, how much, and what was asserted of it."""
    ROWS.append((what, figure, promise))


def percentile(values: list[float], part: float) -> float:
    """The smallest value that so large a part of all is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * part // 1).__int__() - 1))]


def spread(values: list[float]) -> str:
    """Median and largest, in milliseconds."""
    return f"p50 {percentile(values, 0.5) * 1e3:.0f} ms, max {max(values) * 1e3:.0f} ms"
