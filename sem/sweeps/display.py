"""What a running sweep shows: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sem.terminal import fitting

_MOST_ROWS = 20
_PADDING = 2


class SweepDisplay:
    """Shows where each run stands; a context manager.

    Args:
        seeds: the table's columns.
        jobs: runs at once.
        console: where to write; a new one on standard output by default.

    Example:
        >>> with SweepDisplay([0], 1, Console(force_terminal=False, width=80)) as display:
        ...     display.tell("plain", 0, "finished", "0.5 in 12 s", seconds=12.0)
        ...     display.remaining(2, {})
        ...     display.left
        plain seed 0: finished, 0.5 in 12 s
        '0:00:24'
    """

    def __init__(self, seeds: Sequence[int], jobs: int, console: Console | None = None) -> None:
        self._seeds = tuple(seeds)
        self._jobs = jobs
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, refresh_per_second=2) if self._console.is_terminal else None
        self._cells: dict[str, dict[int, str]] = {}
        self._seconds: list[float] = []
        self._waiting = 0
        self._active: Mapping[tuple[str, int], tuple[float, float]] = {}

    def __enter__(self) -> SweepDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, arm: str, seed: int, state: str, text: str = "", seconds: float | None = None) -> None:
        """Say that a run has come to ``state``; ``seconds`` are those that a run which is done has taken."""
        self._cells.setdefault(arm, {})[seed] = text if state == "finished" and text else state
        if seconds is not None:
            self._seconds.append(seconds)
        if self._live is None:
            self.message(f"{arm} seed {seed}: {state}{f', {text}' if text else ''}")

    def message(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def remaining(self, waiting: int, active: Mapping[tuple[str, int], tuple[float, float]]) -> None:
        """Show how far it is.

        Args:
            waiting: runs that are still to be started.
            active: of the others, by arm and seed, the share in [0, 1] that is done, and the seconds that this took.
        """
        self._waiting, self._active = waiting, active
        for (arm, seed), (share, _) in active.items():
            self._cells.setdefault(arm, {})[seed] = f"{100 * share:.0f} %"
        if self._live is not None:
            self._live.update(self._table())

    @property
    def left(self) -> str:
        """Estimate of the time left, from the mean of the runs that are done or else of those that run."""
        guesses = self._seconds or [seconds / share for share, seconds in self._active.values() if share > 0]
        if not guesses:
            return "-:--:--"
        runs = self._waiting + sum(1 - share for share, _ in self._active.values())
        return str(timedelta(seconds=round(sum(guesses) / len(guesses) * runs / self._jobs)))

    def _table(self) -> Group:
        shown = dict(list(self._cells.items())[-_MOST_ROWS:])
        columns = [["arm", *shown]]
        columns += [[f"seed {seed}", *(cells.get(seed, "") for cells in shown.values())] for seed in self._seeds]
        widths = (max(map(len, column)) + 2 * _PADDING for column in columns)
        columns = columns[: fitting(widths, 0, self._console.width)]
        table = Table(*(column[0] for column in columns), box=None, padding=(0, _PADDING))
        for row in zip(*(column[1:] for column in columns), strict=True):
            table.add_row(*row)
        counts = f"{len(self._active)} running, {self._waiting} waiting, left {self.left}"
        return Group(table, Text(counts, style="dim"))
