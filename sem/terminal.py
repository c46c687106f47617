"""What fits on a line of a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate


def fitting(widths: Iterable[int], gap: int, width: int) -> int:
    """How many columns of ``widths``, with a ``gap`` between two, a line of ``width`` has room for.

    At least one: what does not fit is left out whole, and a terminal so narrow cuts the first.

    Example:
        >>> fitting([10, 10, 10], 3, 25)
        2
    """
    ends = accumulate(widths, lambda end, column: end + gap + column)
    return max(1, sum(end <= width for end in ends))
