"""``sem bench step``: how long one training step takes, and how much memory.

Exit status: 0 measured, 1 a step was not finite, 2 wrong arguments or configuration.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from sem.bench import report
from sem.bench.arguments import at_least, writable
from sem.bench.timing import Spread
from sem.config import SEMConfig, add_config_arguments, check_option_names, config_from_arguments
from sem.files import write_text
from sem.training.devices import threads
from sem.training.memory import keep_freed_memory, peak_memory_mib
from sem.training.trainer import SEMTrainer

SCHEMA = 1
FAILED = 1
LEAST_REPEATS = 7


@dataclass(frozen=True)
class StepTime:
    """Seconds of one training step.

    Attributes:
        tokens: trained on in a step.
        seconds: of a step, forward to optimizer, over all of its micro-batches.
        memory_mib: peak of the accelerator, or of the whole process without one.
        finite: every measured step had a finite loss and gradient.
    """

    device: str
    parameters: int
    tokens: int
    seconds: Spread
    memory_mib: float
    finite: bool

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds.median


def measure_step(config: SEMConfig, repeats: int, warmup: int = 3) -> StepTime:
    """Time the step that training with ``config`` takes, on its first batches; reading them is not counted."""
    torch.manual_seed(config.training.seed)
    trainer = SEMTrainer(config)
    loop = trainer.build_loop(diagnostics=None)
    source = iter(trainer.train_loader)
    seconds: list[float] = []
    skipped = tokens = 0
    for turn in range(warmup + repeats):
        micro_batches = list(islice(source, loop.settings.accumulation))
        tokens = sum(int((batch["targets"] >= 0).sum()) for batch in micro_batches)
        loop.begin()
        start = time.perf_counter()
        loop.advance(micro_batches)  # ends with the step's figures on the host, so the device is done too
        if turn >= warmup:
            seconds.append(time.perf_counter() - start)
            skipped += loop.state.skipped_in_row > 0
    return StepTime(
        device=_name_of(trainer.device),
        parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        tokens=tokens,
        seconds=Spread.of(seconds),
        memory_mib=peak_memory_mib(),
        finite=not skipped,
    )


def main(arguments: Sequence[str]) -> int:
    """Run ``sem bench step`` with ``arguments`` and return its exit status."""
    parser = _parser()
    try:
        check_option_names(arguments)
        options = parser.parse_args(arguments)
        config = config_from_arguments(options).with_overrides(f"training.num_threads={options.threads}")
        keep_freed_memory()
        with threads(options.threads):
            where = {**report.machine(), "load_before": report.load_average()}
            result = measure_step(config, options.repeats)
            where["load_after"] = report.load_average()
    except ValueError as error:
        parser.error(str(error))
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


def _name_of(device: torch.device) -> str:
    if device.type == "cpu":
        return str(report.machine()["processor"])
    return str(torch.get_device_module(device).get_device_name(device))


def _parser() -> argparse.ArgumentParser:
    text = "Time the training step of a configuration: forward, backward, clipping and optimizer."
    parser = argparse.ArgumentParser(prog="sem bench step", description=text, allow_abbrev=False)
    parser.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="CPU threads (default: 1)")
    repeats = f"timed steps, at least {LEAST_REPEATS} (default: 9)"
    parser.add_argument("--repeats", type=at_least(LEAST_REPEATS), default=9, metavar="N", help=repeats)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write every figure to FILE")
    add_config_arguments(parser.add_argument_group("settings", "of the run whose step is timed"))
    return parser
