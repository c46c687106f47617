"""What a running training, or any long count, shows: a live display on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sem.terminal import fitting

_HEAD_GAP, _BODY_GAP = 2, 3
_SHORTEST_BAR, _LONGEST_BAR = 8, 40


@dataclass(frozen=True)
class Shown:
    """One figure of the display: its name in the metrics, a label, and a format specification."""

    metric: str
    label: str
    format: str = ".4g"

    def text(self, figures: Mapping[str, float]) -> str:
        """The figure in its format; ``-`` where it was not measured."""
        value = figures.get(self.metric)
        return "-" if value is None else format(value, self.format)


class ProgressDisplay:
    """Shows the progress of a run; a context manager.

    Figures that are measured seldom keep their last value. On a terminal the display is redrawn in place at
    every step; otherwise each logged step is one line.

    Args:
        shown: the figures, in order.
        console: where to write; a new one on standard output by default.
        unit: what a step is called.

    Example:
        >>> with ProgressDisplay([Shown("loss", "loss")], Console(force_terminal=False, width=80)) as display:
        ...     display.update(10, 0.5, 60.0, {"loss": 2.0}, logged=True)
        step 10 (50 %) | loss 2 | left 0:01:00
    """

    def __init__(self, shown: Sequence[Shown], console: Console | None = None, unit: str = "step") -> None:
        self._shown = tuple(shown)
        self._unit = unit
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._latest: dict[str, float] = {}
        self._live = Live(console=self._console, refresh_per_second=4) if self._console.is_terminal else None

    def __enter__(self) -> ProgressDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(
        self, step: int, share: float, seconds_left: float | None, figures: Mapping[str, float], logged: bool
    ) -> None:
        """Show the state after ``step``.

        Args:
            share: how much of the run is done, in [0, 1].
            seconds_left: estimate, or None while there is none.
            figures: what was measured at this step.
            logged: whether the step deserves a line where there is no terminal.
        """
        self._latest.update(figures)
        if self._live is not None:
            self._live.update(self._panel(step, share, seconds_left))
        elif logged:
            texts = [f"{figure.label} {figure.text(self._latest)}" for figure in self._shown]
            left = f"left {clock(seconds_left)}"
            self.message(" | ".join([f"{self._unit} {step} ({100 * share:.0f} %)", *texts, left]))

    def message(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _panel(self, step: int, share: float, seconds_left: float | None) -> Group:
        width = self._console.width
        name, done, left = f"{self._unit} {step}", f"{100 * share:.0f} %", f"left {clock(seconds_left)}"
        cells: list[RenderableType] = [Text(name, style="bold"), Text(done), Text(left)]
        bar = min(_LONGEST_BAR, width - sum(len(text) + _HEAD_GAP for text in (name, done, left)))
        if bar >= _SHORTEST_BAR:
            cells.insert(1, ProgressBar(total=1.0, completed=share, width=bar))
        else:
            cells = cells[: fitting(map(len, (name, done, left)), _HEAD_GAP, width)]
        head = Table.grid(padding=(0, _HEAD_GAP))
        head.add_row(*cells)
        columns = [(figure.label, figure.text(self._latest)) for figure in self._shown]
        columns = columns[: fitting((max(map(len, column)) for column in columns), _BODY_GAP, width)]
        body = Table.grid(padding=(0, _BODY_GAP))
        body.add_row(*(Text(label, style="dim") for label, _ in columns))
        body.add_row(*(Text(value) for _, value in columns))
        return Group(head, body)


class CountDisplay:
    """Shows how far a count is, how fast it goes and how long it will take; a context manager.

    On a terminal one line is redrawn in place and leaves nothing behind; otherwise there is a line every ``every``
    seconds.

    Args:
        what: is counted.
        total: where the count ends.
        console: where to write; standard error by default.
        every: seconds between lines where there is no terminal.
        now: the clock.

    Example:
        >>> times = iter([0.0, 2.0])
        >>> console = Console(force_terminal=False, width=80)
        >>> with CountDisplay("rows:", 100, console, every=1.0, now=lambda: next(times)) as display:
        ...     display.advance(20)
        rows: 20 of 100 (20 %) | 10/s | left 0:00:08
    """

    def __init__(
        self,
        what: str,
        total: int,
        console: Console | None = None,
        every: float = 10.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._every, self._now = what, total, every, now
        self._console = console or Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True) if self._console.is_terminal else None
        self._done = 0

    def __enter__(self) -> CountDisplay:
        self._begun = self._told = self._now()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = self._now()
        if self._live is not None:
            parts = self._line(now).split(" | ")
            fit = fitting(map(len, parts), len(" | "), self._console.width)
            self._live.update(Text(" | ".join(parts[:fit])))
        elif now - self._told >= self._every:
            self._told = now
            self._console.print(self._line(now), markup=False, highlight=False, soft_wrap=True)

    def _line(self, now: float) -> str:
        rate = self._done / max(now - self._begun, 1e-9)
        left = clock((self._total - self._done) / rate if rate else None)
        share = 100 * self._done / max(self._total, 1)
        return f"{self._what} {self._done} of {self._total} ({share:.0f} %) | {rate:.3g}/s | left {left}"


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds; ``-:--:--`` for None.

    Example:
        >>> clock(3725.2)
        '1:02:05'
    """
    if seconds is None:
        return "-:--:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
