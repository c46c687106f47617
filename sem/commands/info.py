"""``sem info``: versions, back ends, instruction set, threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from sem.command_line import Parser

HELP = "versions, back ends, instruction set, threads"


def add_arguments(parser: Parser) -> None:
    """There are none."""


def run(options: Namespace) -> int:
    """Print the table; status 0 whatever is missing."""
    from rich.console import Console
    from rich.table import Table

    from sem.system_info import system_info

    table = Table(show_header=False)
    for name, value in system_info():
        table.add_row(name, value)
    Console().print(table)
    return 0
