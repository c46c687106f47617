"""``sem bench step``: how long one training step takes, and how much memory.

Exit status: 0 measured, 1 a step was not finite, 2 wrong arguments or configuration.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sem.bench.arguments import at_least, writable
from sem.command_line import Parser
from sem.config import SEMConfig, add_config_arguments, config_from_arguments
from sem.files import write_text

if TYPE_CHECKING:
    from sem.bench.step import StepTime

HELP = "time the training step of a configuration: forward, backward, clipping and optimizer"
SCHEMA = 1
FAILED = 1
LEAST_REPEATS = 7


def run(options: argparse.Namespace) -> int:
    """Measure what ``options`` ask for and return the exit status."""
    from sem.bench import report
    from sem.bench.step import measure_step
    from sem.training.devices import threads
    from sem.training.memory import keep_freed_memory

    config = config_from_arguments(options).with_overrides(
        f"training.num_threads={options.threads}", "training.adapt_threads=false"
    )
    keep_freed_memory()
    with threads(options.threads):
        where = {**report.machine(), "load_before": report.load_average()}
        result = measure_step(config, options.repeats)
        where["load_after"] = report.load_average()
    training, model = config.training, config.model
    propagators = model.num_layers if config.propagator.num_layers is None else config.propagator.num_layers
    console = report.console_for()
    console.print(
        f"sem {where['sem']}, torch {where['torch']}, {result.device}, {options.threads} CPU thread(s), "
        f"{training.precision_mode}; {result.parameters:,} parameters, width {model.hidden_dim}, "
        f"{model.num_layers} + {propagators} layers, {result.tokens:,} tokens a step in rows of "
        f"{config.seq_length}, micro-batches of {training.micro_batch_size or training.batch_size}"
    )
    low, high = result.seconds.min * 1e3, result.seconds.max * 1e3
    console.print(
        f"{result.seconds.median * 1e3:.1f} ms a step ({low:.1f} to {high:.1f}, {options.repeats} steps), "
        f"{result.tokens_per_second:,.0f} tokens/s, peak memory {result.memory_mib:,.0f} MiB"
    )
    if not result.finite:
        console.print("[red]a step had a loss or a gradient that was not finite[/red]")
    if options.json is not None:
        settings = {name: getattr(options, name) for name in ("threads", "repeats", "config")}
        write_text(options.json, json.dumps(_document(result, config, where, settings), indent=2) + "\n")
    return 0 if result.finite else FAILED


def _document(result: StepTime, config: SEMConfig, where: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    figures = {**vars(result), "seconds": vars(result.seconds), "tokens_per_second": result.tokens_per_second}
    return {"schema": SCHEMA, "machine": where, "settings": settings, "config": config.to_dict(), "step": figures}


def add_arguments(parser: Parser) -> None:
    """The options of ``sem bench step``, and every setting of a configuration."""
    parser.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="CPU threads (default: 1)")
    repeats = f"timed steps, at least {LEAST_REPEATS} (default: 9)"
    parser.add_argument("--repeats", type=at_least(LEAST_REPEATS), default=9, metavar="N", help=repeats)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write every figure to FILE")
    add_config_arguments(parser)
