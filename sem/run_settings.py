"""What any training run is told beside how its model is optimised: batches, device, processes, logs, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from sem.optimization_settings import OptimizationSettings
from sem.settings import SEED_LIMIT, setting

LOGGERS = ("csv", "tensorboard", "wandb")
"""Where figures can go."""


@dataclass(frozen=True, kw_only=True)
class RunSettings(OptimizationSettings):
    """Everything that :class:`sem.training.run.RunTrainer` reads; a wing's section ``training`` inherits it.

    Example:
        >>> RunSettings(batch_size=3).micro_batch_size
        Traceback (most recent call last):
        ValueError: training.batch_size = 3: expected a multiple of training.micro_batch_size = 2
    """

    section: ClassVar[str] = "training"
    batch_size: int = setting(16, "rows per optimizer step", ge=1)
    micro_batch_size: int = setting(2, "rows per forward pass; divides batch_size", ge=1)
    precision_mode: Literal["32-true", "bf16-mixed", "selective-bf16"] = setting("32-true", "autocast policy")
    ema_decay: float = setting(0.0, "share of the averaged parameters kept at every step; 0: no averages", ge=0, lt=1)
    seed: int = setting(0, "seed of initialisation and of every random draw", ge=0, le=SEED_LIMIT)
    device: str = setting("auto", "where to compute", pattern=r"auto|cpu|(cuda|xpu)(:\d+)?")
    num_threads: int | None = setting(None, "CPU threads; null: torch's own choice", ge=1)
    adapt_threads: bool = setting(False, "on fewer CPU threads while other programs take cores")
    engine: Literal["loop", "lightning"] = setting("loop", "what drives the training")
    devices: int = setting(1, "processes per machine, one device each (lightning; torchrun counts its own)", ge=1)
    num_nodes: int = setting(1, "machines (lightning; torchrun counts its own)", ge=1)
    strategy: Literal["auto", "ddp"] = setting("auto", "how several devices work together")
    distributed_timeout: float = setting(600.0, "seconds after which a silent process counts as lost", gt=0)
    loggers: tuple[str, ...] = setting(("csv", "tensorboard"), "where figures go: csv, tensorboard, wandb")
    log_every: int = setting(10, "steps between log lines", ge=1)
    eval_every: int = setting(500, "steps between validations", ge=1)
    checkpoint_every: int = setting(1000, "steps between checkpoints", ge=1)
    keep_checkpoints: int = setting(2, "newest checkpoints to keep", ge=1)
    health_every: int = setting(50, "steps between health measurements", ge=1)
    gradients_every: int | None = setting(
        None, "steps between statistics of every layer's gradient in the logs; null: none", ge=1
    )
    max_skipped_steps: int = setting(5, "non-finite steps in a row that stop the run", ge=1)
    output_dir: str = setting("runs/default", "folder for config, logs and checkpoints", pattern=".+")

    def cross_checks(self) -> Iterator[str]:
        yield from super().cross_checks()
        if self.batch_size % self.micro_batch_size:
            yield (
                f"training.batch_size = {self.batch_size}: "
                f"expected a multiple of training.micro_batch_size = {self.micro_batch_size}"
            )
        if unknown := [name for name in self.loggers if name not in LOGGERS]:
            yield f"training.loggers = {list(self.loggers)}: expected some of {', '.join(LOGGERS)}, got {unknown[0]!r}"
