"""How long one training step takes, and how much memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice

import torch

from sem.bench import report
from sem.bench.timing import Spread
from sem.config import SEMConfig
from sem.training.memory import peak_memory_mib
from sem.training.trainer import SEMTrainer


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
        """At the median step."""
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


def _name_of(device: torch.device) -> str:
    if device.type == "cpu":
        return str(report.machine()["processor"])
    return str(torch.get_device_module(device).get_device_name(device))
