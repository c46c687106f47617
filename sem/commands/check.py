"""``sem check``: train a few steps and judge the health of every quantity that is watched."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sem.config import add_config_arguments, config_from_arguments

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from sem.training.health import HealthRow

HELP = "train a few steps and judge the health of every quantity that is watched"
FAILED = 1


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=20, help="training steps")
    add_config_arguments(parser)


def run(options: Namespace) -> int:
    from sem.training.check import check_health
    from sem.training.health import failures
    from sem.training.trainer import SEMTrainer

    config = config_from_arguments(options)
    rows = check_health(SEMTrainer(config), int(options.steps))
    _print_health(rows, f"{options.steps} training steps")
    failed = failures(rows)
    for row in failed:
        print(f"FAILED {row.name}: {row.text}, expected: {row.expected}", file=sys.stderr)
    return FAILED if failed else 0


def _print_health(rows: Sequence[HealthRow], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("quantity", "measured", "expected", "", title=title)
    for row in rows:
        verdict = ("pass" if row.passed else "FAIL") if row.expected else ""
        style = None if row.passed else "bold red"
        table.add_row(row.name, row.text, row.expected, verdict, style=style)
    Console().print(table)
