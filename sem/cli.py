"""The command ``sem``: train, generate, check, bench, info, report.

Exit status: 0 done (a run that Ctrl-C ended included), 1 failed, 2 wrong arguments or configuration. An error
is one line; the environment variable ``SEM_TRACEBACK=1`` shows where it came from.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem.config import (
    SEMConfig,
    add_config_arguments,
    check_option_names,
    config_from_arguments,
)

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from sem.training.health import HealthRow

FAILED, WRONG_USE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``sem`` with ``arguments`` (those of the process by default) and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["bench"]:
        return _bench(arguments[1:])
    try:
        parser = _parser()
        check_option_names(arguments)
        parsed = parser.parse_args(arguments)
        if parsed.command is None:
            parser.print_help()
            return WRONG_USE
        return COMMANDS[parsed.command](parsed[parsed.command])
    except ValueError as error:
        return _fail(error, WRONG_USE)
    except (RuntimeError, ArithmeticError, OSError, ImportError) as error:
        return _fail(error, FAILED)


def _train(options: Namespace) -> int:
    from sem.training.run_folder import AUTO_RESUME
    from sem.training.trainer import SEMTrainer

    resume = options.resume
    config = _resumed_config(options) if resume not in (None, AUTO_RESUME) else config_from_arguments(options)
    result = SEMTrainer(config).fit(resume=resume, overwrite=options.overwrite)
    folder = config.training.output_dir
    if result.interrupted_by is not None:
        advice = f"continue with: sem train --resume {folder}"
        print(f"{result.interrupted_by}: stopped after step {result.step}; {advice}")
        return 0
    held_out = result.figures.get("val_bits_per_byte")
    score = "" if held_out is None else f", {held_out:.4f} bits per byte on held-out text"
    print(f"done after step {result.step}{score}; see {folder}")
    return 0


def _resumed_config(options: Namespace) -> SEMConfig:
    """The given configuration, or without ``--config`` the run's own; options of the command line win."""
    from sem.training.run_folder import run_folder_of

    if options.config is not None:
        return config_from_arguments(options)
    if not Path(options.resume).exists():
        raise ValueError(f"--resume {options.resume}: expected a checkpoint, a run's folder or 'auto'")
    folder = run_folder_of(Path(options.resume))
    options.config = str(folder / "config.yaml")
    config = config_from_arguments(options)
    moved = options.training.output_dir is None
    return config.with_overrides(f"training.output_dir={folder}") if moved else config


def _generate(options: Namespace) -> int:
    import torch

    from sem.data import ByteTokenizer
    from sem.generation import generate_text
    from sem.model import SEMModel
    from sem.training.run_folder import open_checkpoint, saved_config
    from sem.training.trainer import resolve_device

    names = {"length": "max_new_tokens"}
    overrides = [f"training.device={options.device}"]
    for name in ("prompt", "length", "temperature", "top_k", "top_p", "seed"):
        if options[name] is not None:
            overrides.append(f"generation.{names.get(name, name)}={options[name]}")
    _, content = open_checkpoint(options.checkpoint)
    config = saved_config(content, overrides)
    device = resolve_device(config.training.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = SEMModel(config)
    model.load_state_dict(content["model"])
    settings = config.generation
    print(settings.prompt, end="", flush=True)
    limit = config.model.max_seq_length
    for piece in generate_text(model.to(device), ByteTokenizer(), settings, max_seq_length=limit):
        print(piece, end="", flush=True)
    print()
    return 0


def _check(options: Namespace) -> int:
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


def _info(options: Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from sem.system_info import system_info

    table = Table(show_header=False)
    for name, value in system_info():
        table.add_row(name, value)
    Console().print(table)
    return 0


def _report(options: Namespace) -> int:
    from sem.training.logging import read_csv
    from sem.training.plot import plot_curves

    folder = Path(options.run)
    rows = read_csv(folder / "metrics.csv")
    scores = _baseline_scores(folder) if options.baselines else {}
    picture = plot_curves(folder / "metrics.csv", folder / "curves.png", scores, title=folder.name)
    final = folder / "final.json"
    if final.is_file():
        score = json.loads(final.read_text(encoding="utf-8"))["val_bits_per_byte"]
        print(f"bits per byte on held-out text at the end: {score:.4f}")
    held_out = [row["val_bits_per_byte"] for row in rows if "val_bits_per_byte" in row]
    if held_out:
        print(f"bits per byte on its first part, during training: {held_out[-1]:.4f} (best {min(held_out):.4f})")
    for name, score in scores.items():
        print(f"  {name}: {score:.4f}")
    print(f"curves: {picture}")
    return 0


def _baseline_scores(folder: Path) -> dict[str, float]:
    from sem.data import baselines, load_corpus

    data = SEMConfig.from_yaml(folder / "config.yaml").data
    return baselines(load_corpus(data.paths, corpus=data.corpus, validation_share=data.validation_share))


def _bench(arguments: list[str]) -> int:
    from sem import bench

    return bench.main(arguments) or 0


COMMANDS: dict[str, Callable[[Any], int]] = {
    "train": _train,
    "generate": _generate,
    "check": _check,
    "info": _info,
    "report": _report,
}


def _parser() -> ArgumentParser:
    try:
        from jsonargparse import ArgumentParser
    except ImportError:
        raise ImportError("the command line needs jsonargparse: pip install 'sem[train]'") from None

    def command(name: str, help: str) -> ArgumentParser:
        parser = ArgumentParser(description=help)
        commands.add_subcommand(name, parser, help=help)
        return parser

    root = ArgumentParser(prog="sem", description="Train and use signal-entropic models.")
    commands = root.add_subcommands(dest="command", required=False)

    train = command("train", "train a model and keep the run in training.output_dir")
    where = (
        "continue a checkpoint or a run's folder, with its settings unless --config is given; "
        "'auto' or nothing: continue what training.output_dir holds, or start there"
    )
    train.add_argument("--resume", nargs="?", const="auto", metavar="WHERE", help=where)
    train.add_argument("--overwrite", action="store_true", help="delete the run in training.output_dir first")
    add_config_arguments(train)

    generate = command("generate", "continue a prompt with a trained model")
    generate.add_argument("checkpoint", help="a checkpoint, or a run's folder for its newest")
    for name, help in (
        ("prompt", "text to continue"),
        ("length", "most tokens to generate"),
        ("temperature", "sharpness of the draw; 0: always the likeliest token"),
        ("top_k", "draw from the k likeliest tokens; 0: off"),
        ("top_p", "draw from the smallest set of this probability"),
        ("seed", "seed of the draw"),
    ):
        generate.add_argument(f"--{name}", type=str, help=f"{help}; default: as in the run's configuration")
    generate.add_argument("--device", default="auto", help="where to compute")
    generate.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")

    check = command("check", "train a few steps and judge the health of every quantity that is watched")
    check.add_argument("--steps", type=int, default=20, help="training steps")
    add_config_arguments(check)

    command("info", "versions, back ends, instruction set, threads")
    command("bench", "time the operators against their peers; see sem bench --help")

    report = command("report", "draw the curves of a run")
    report.add_argument("run", help="the run's folder")
    report.add_argument("--baselines", action="store_true", help="score simple models on the same text")
    return root


def _fail(error: Exception, status: int) -> int:
    if os.environ.get("SEM_TRACEBACK", "0") != "0":
        raise error
    print(f"sem: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
