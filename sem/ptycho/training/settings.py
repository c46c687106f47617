"""What a network's training can be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from sem.config_sections import RunSettings
from sem.configuration import Configuration
from sem.optimization_settings import OptimizerName, ScheduleName
from sem.ptycho.generator_settings import GeneratorSettings
from sem.settings import Section, setting, with_default


@dataclass(frozen=True, kw_only=True)
class ScanSettings(Section):
    """The scans: files as :func:`sem.ptycho.read_scan` reads them, with the probe in them."""

    section: ClassVar[str] = "data"
    train: str = setting("", "file of the scan to train on")
    test: str | None = setting(None, "file of a scan of another object, scored at the end; null: none")
    validation_share: float = setting(0.05, "share of the training scan's patterns that are held out", ge=0, lt=1)
    split_seed: int = setting(0, "seed of which patterns are held out", ge=0)
    crop: int | None = setting(
        None, "pixels along the edges of a reconstruction that are not scored; null: half a pattern's side", ge=0
    )


@dataclass(frozen=True, kw_only=True)
class NetworkTraining(RunSettings):
    """Loss, overlap, optimisation and the run."""

    section: ClassVar[str] = "training"
    loss: Literal["amplitude_mae", "amplitude", "poisson", "supervised"] = setting(
        "amplitude_mae", "what the forward model's amplitudes are held against the measured ones by"
    )
    overlap: Literal["group", "none"] = setting(
        "group", "group: patches of neighbouring positions are merged before the forward model; none: each alone"
    )
    group_side: int = setting(4, "a group is the nearest group_side x group_side positions", ge=2)
    last_batch: Literal["full", "mean", "sum"] = setting(
        "full",
        "full: epochs follow each other without a gap; mean, sum: an epoch ends with what is left, whose losses count "
        "by their mean, or, which is a gain of its own, by their sum over a full batch's number",
    )
    batch_size: int = with_default(RunSettings, "batch_size", 16)
    micro_batch_size: int = with_default(RunSettings, "micro_batch_size", 16)
    optimizer: OptimizerName = with_default(RunSettings, "optimizer", "adam")
    learning_rate: float = with_default(RunSettings, "learning_rate", 2e-3)
    scheduler: ScheduleName = with_default(RunSettings, "scheduler", "warmup_cosine")
    warmup_steps: int = with_default(RunSettings, "warmup_steps", 50)
    max_steps: int = with_default(RunSettings, "max_steps", 2000)
    lr_min_ratio: float = with_default(RunSettings, "lr_min_ratio", 0.05)
    log_every: int = with_default(RunSettings, "log_every", 10)
    eval_every: int = with_default(RunSettings, "eval_every", 250)
    output_dir: str = with_default(RunSettings, "output_dir", "runs/ptycho")

    def cross_checks(self) -> Iterator[str]:
        yield from super().cross_checks()
        group = self.group_side**2
        if self.overlap == "group" and self.micro_batch_size % group:
            yield (
                f"training.micro_batch_size = {self.micro_batch_size}: expected a multiple of {group}, the square of "
                f"training.group_side = {self.group_side}"
            )


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Configuration):
    """A network's training run.

    Example:
        >>> NetworkConfig().with_overrides("generator.architecture=stable_hybrid").generator.architecture
        'stable_hybrid'
    """

    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    data: ScanSettings = field(default_factory=ScanSettings)
    training: NetworkTraining = field(default_factory=NetworkTraining)
