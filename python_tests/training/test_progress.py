import io
import re

import pytest
from rich.console import Console

from sem.training.progress import CountDisplay, ProgressDisplay, Shown, clock

FIGURES = (Shown("loss", "loss", ".2f"), Shown("cg_residual", "CG residual", ".1e"))


def shown(terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100)
    with ProgressDisplay(FIGURES, console) as display:
        display.update(1, 0.25, None, {"loss": 3.0}, logged=True)
        display.update(2, 0.5, 90.0, {"loss": 2.5, "cg_residual": 2e-6}, logged=False)
        display.message("a [message]")
        display.update(3, 0.75, 30.0, {"loss": 2.0}, logged=True)
    return stream.getvalue()


def test_plain_lines_for_logged_steps_where_there_is_no_terminal():
    assert shown(terminal=False).splitlines() == [
        "step 1 (25 %) | loss 3.00 | CG residual - | left -:--:--",
        "a [message]",
        "step 3 (75 %) | loss 2.00 | CG residual 2.0e-06 | left 0:00:30",
    ]


def test_live_display_on_a_terminal():
    output = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(terminal=True))
    for text in ("a [message]", "step 3", "75 %", "left 0:00:30", "loss", "2.00", "CG residual", "2.0e-06"):
        assert text in output


def frame(width: int) -> list[str]:
    stream = io.StringIO()
    figures = [Shown(name, f"figure {name}", ".2f") for name in "abcdefgh"]
    with ProgressDisplay(figures, Console(file=stream, force_terminal=True, width=width)) as display:
        display.update(12_000, 0.5, 90.0, dict.fromkeys("abcdefgh", 2.0), logged=True)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).splitlines()
    return [line.strip() for line in lines[-3:]]


@pytest.mark.parametrize(("width", "columns"), [(120, 8), (60, 5), (30, 3), (29, 2), (12, 1)])
def test_a_narrow_terminal_loses_whole_columns(width, columns):
    head, labels, values = frame(width)
    assert labels.split("   ") == [f"figure {name}" for name in "abcdefgh"[:columns]]
    assert values.split() == ["2.00"] * columns
    assert head.startswith("step 12000") and len(head) <= width
    assert ("left 0:01:30" in head, "━" in head) == (width >= 30, width >= 60)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (86400, "24:00:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def counted(terminal: bool, every: float = 0.0) -> str:
    stream, times = io.StringIO(), iter([0.0, 1.0, 2.0, 4.0])
    console = Console(file=stream, force_terminal=terminal, width=100)
    with CountDisplay("rows:", 40, console, every, lambda: next(times)) as display:
        for count in (0, 8, 32):
            display.advance(count)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_a_count_has_its_rate_and_the_time_left():
    assert counted(terminal=False).splitlines() == [
        "rows: 0 of 40 (0 %) | 0/s | left -:--:--",
        "rows: 8 of 40 (20 %) | 4/s | left 0:00:08",
        "rows: 40 of 40 (100 %) | 10/s | left 0:00:00",
    ]
    assert len(counted(terminal=False, every=3.5).splitlines()) == 1
    assert "rows: 40 of 40 (100 %) | 10/s | left 0:00:00" in counted(terminal=True)
