"""``sem check``: train a few steps for real, judge every watched quantity, keep the evidence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem.config import SEMConfig, add_config_arguments, config_from_arguments, config_from_cli

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from sem.command_line import Parser
    from sem.training.check import CheckResult

HELP = "train a few steps and judge the health of every quantity that is watched"
FAILED = 1
WIDTH = 110


def add_arguments(parser: Parser) -> None:
    """Steps, folder and short forms, and every setting of a configuration."""
    parser.add_argument("--steps", type=int, default=50, help="training steps")
    parser.add_argument("--every", type=int, default=1, help="steps between health measurements")
    parser.add_argument("--precision", metavar="MODE", help="short for --training.precision_mode")
    parser.add_argument("--device", help="short for --training.device")
    parser.add_argument("--synthetic", action="store_true", help="train on generated text: no corpus, no network")
    where = "folder for check.json, check.md and check.png; by default runs/check-<config>-<precision mode>"
    parser.add_argument("--output", metavar="FOLDER", help=where)
    add_config_arguments(parser)


def run(options: Namespace) -> int:
    """Train and judge; prints the table and leaves the evidence in the folder. Status 1 where a quantity failed, or
    where Ctrl-C left nothing to judge.

    Raises:
        ValueError: wrong options, or a process that torchrun started.
    """
    from sem.training.check import CheckDisplay, check_health, check_trainer, require_steps
    from sem.training.check.report import evidence, prepare_folder, write_report
    from sem.training.distributed import launched

    if launched():
        raise ValueError("sem check: expected one process on one device, torchrun started this one")
    config = _config(options)
    steps, every = options.steps, options.every
    require_steps(config, steps, every)
    folder = Path(options.output or _default_folder(options.config, config))
    prepare_folder(folder, config)
    try:
        trainer = check_trainer(config, synthetic=options.synthetic)
        result = check_health(trainer, steps, every, CheckDisplay(steps))
    except KeyboardInterrupt:
        print("sem: interrupted, nothing was judged", file=sys.stderr)
        return FAILED
    changed = {"synthetic": True} if options.synthetic else {}
    content = evidence(result, trainer, changed | _differences(config, options.config))
    _print_table(content)
    written = write_report(folder, content, result.criteria)
    print(f"evidence: {', '.join(map(str, written))}")
    return _verdict(result)


def _config(options: Namespace) -> SEMConfig:
    config = config_from_arguments(options)
    short = {"training.precision_mode": options.precision, "training.device": options.device}
    alone = ("training.engine=loop", "training.devices=1", "training.num_nodes=1")
    return config.with_overrides(*alone, *(f"{key}={value}" for key, value in short.items() if value is not None))


def _default_folder(paths: Sequence[str] | None, config: SEMConfig) -> str:
    name = "defaults" if paths is None else "-".join(Path(path).stem for path in paths)
    return f"runs/check-{name}-{config.training.precision_mode}"


def _differences(config: SEMConfig, paths: Sequence[str] | None) -> dict[str, Any]:
    """The settings that the command line changed, by dotted key."""
    base = config_from_cli(paths).to_dict()
    return {
        f"{section}.{name}": value
        for section, values in config.to_dict().items()
        for name, value in values.items()
        if value != base[section][name]
    }


def _print_table(content: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from sem.training.check.report import COLUMNS, table_lines

    title = f"{content['steps_done']} training steps, {content['precision_mode']}, {content['device']}"
    table = Table(*COLUMNS, title=title)
    for line in table_lines(content["rows"]):
        table.add_row(*line, style="bold red" if line[-1] == "FAIL" else None)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    for stage, words in content["effective_precision"].items():
        print(f"{stage}: {words}")
    for name, count in content["autocast_reached"].items():
        print(f"autocast reached {name} {count} times, which computed in float32 all the same")
    environment = content["environment"]
    versions = f"torch {environment['torch']}, sem {environment['sem']}"
    print(f"{content['threads']} threads, {versions}, {environment['platform']}")


def _verdict(result: CheckResult) -> int:
    done = len(result.steps)
    if result.interrupted_by is not None:
        print(f"{result.interrupted_by}: stopped after step {done} of {result.asked}; judged on those", file=sys.stderr)
    if result.diverged is not None:
        print(result.diverged, file=sys.stderr)
    for row in result.failed:
        print(f"FAILED {row.name}: {row.text}, expected: {row.expected}", file=sys.stderr)
    return FAILED if result.failed else 0
