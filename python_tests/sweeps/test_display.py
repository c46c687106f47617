import io
import re

from rich.console import Console

from sem.sweeps.display import SweepDisplay


def shown(terminal):
    stream = io.StringIO()
    with SweepDisplay([0, 1], 2, Console(file=stream, force_terminal=terminal, width=100)) as display:
        display.tell("plain", 0, "running")
        display.remaining(3, {("plain", 0): (0.25, 10.0)})
        display.tell("plain", 0, "finished", "2.25 in 40 s", seconds=40.0)
        display.message("a [message]")
        display.tell("wide", 1, "failed", "it ended with status 1")
        display.remaining(2, {("wide", 0): (0.5, 20.0)})
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_plain_lines_where_there_is_no_terminal():
    assert shown(terminal=False).splitlines() == [
        "plain seed 0: running",
        "plain seed 0: finished, 2.25 in 40 s",
        "a [message]",
        "wide seed 1: failed, it ended with status 1",
    ]


def test_a_table_of_arms_and_seeds_on_a_terminal():
    text = shown(terminal=True)
    for expected in ("a [message]", "seed 0", "seed 1", "plain", "2.25 in 40 s", "failed", "50 %"):
        assert expected in text
    assert "1 running, 2 waiting, left 0:00:50" in text  # two and a half runs of 40 s, two at once


def test_time_left_from_what_runs_while_nothing_is_done():
    display = SweepDisplay([0], 1, Console(file=io.StringIO(), force_terminal=False))
    assert display.left == "-:--:--"
    display.remaining(1, {("plain", 0): (0.25, 10.0)})
    assert display.left == "0:01:10"  # three quarters of 40 s, and 40 s
    display.remaining(1, {("plain", 0): (0.0, 10.0)})
    assert display.left == "-:--:--"


def test_a_narrow_terminal_loses_whole_columns():
    stream = io.StringIO()
    with SweepDisplay(range(6), 1, Console(file=stream, force_terminal=True, width=60)) as display:
        for seed in range(6):
            display.tell("an arm", seed, "finished", "1.2345 in 8 s")
        display.remaining(0, {})
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "…" not in text and text.count("1.2345 in 8 s") == 2
    assert "seed 1" in text and "seed 2" not in text
