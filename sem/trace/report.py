"""A comparison of traces for people (a table, Markdown) and for programs (JSON)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from sem.trace.comparison import Comparison, Row

COLUMNS = ("quantity", "values", "first trace", "second trace", "relative error", "")
FORMAT = 1


def verdict(result: Comparison) -> str:
    """One sentence: the first divergence with both values, or that there is none."""
    row = result.first_divergence
    if row is None:
        return f"no divergence: {result.compared} quantities agree to {result.tolerance:g}"
    left, right = (_value(side, row.worst) for side in (row.left, row.right))
    place = f"[{row.worst}]" if max(len(row.left or ()), len(row.right or ())) > 1 else ""
    return f"first divergence: {row.name}{place}: {left} against {right}, relative error {_error(row)}"


def shown(result: Comparison, around: int | None) -> Iterator[Row | None]:
    """The rows within ``around`` of one that differs, all of them for None; a None stands for rows left out."""
    rows = result.rows
    near = [at for at, row in enumerate(rows) if row.differs]
    skipped = False
    for at, row in enumerate(rows):
        if around is None or any(abs(at - centre) <= around for centre in near):
            if skipped:
                yield None
            skipped = False
            yield row
        else:
            skipped = True
    if skipped:
        yield None


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of :data:`COLUMNS`; of many values, those that differ most."""
    count = max(len(row.left or ()), len(row.right or ()))
    mark = "differs" if row.differs else "" if row.error is not None else "in one only"
    sides = (_value(side, row.worst) for side in (row.left, row.right))
    return (row.name, str(count), *sides, _error(row), mark)


def markdown(result: Comparison, names: tuple[str, str]) -> str:
    """The whole table as a section of a page."""
    lines = [f"`{names[0]}` against `{names[1]}`, tolerance {result.tolerance:g}: **{verdict(result)}**.", ""]
    lines += [_line(COLUMNS), _line(("---",) * len(COLUMNS))]
    lines += [_line(cells(row)) for row in result.rows]
    return "\n".join(lines) + "\n"


def as_json(result: Comparison, names: tuple[str, str]) -> dict[str, Any]:
    """All of it as plain values; numbers that are not finite are the strings ``nan``, ``inf``, ``-inf``."""
    first = result.first_divergence
    return {
        "format": FORMAT,
        "traces": list(names),
        "tolerance": result.tolerance,
        "compared": result.compared,
        "first_divergence": None if first is None else first.name,
        "rows": [
            {
                "name": row.name,
                "first": _plain(row.left),
                "second": _plain(row.right),
                "relative_error": None if row.error is None else _plain((row.error,))[0],
                "differs": row.differs,
            }
            for row in result.rows
        ],
    }


def _line(row: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _value(side: tuple[float, ...] | None, at: int) -> str:
    return repr(side[at]) if side is not None and at < len(side) else "-"


def _error(row: Row) -> str:
    return "-" if row.error is None else f"{row.error:.3g}"


def _plain(values: tuple[float, ...] | None) -> Any:
    return None if values is None else [value if math.isfinite(value) else str(value) for value in values]
