"""A language model's training run: model, data and objective composed from the configuration."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sem.config import SEMConfig
from sem.data import ByteTokenizer, Corpus, build_loaders
from sem.diagnostics import Diagnostics
from sem.files import write_text
from sem.generation import generate_text
from sem.model import SEMModel
from sem.precision import PrecisionPolicy, effective_precision, use_precision
from sem.training.checkpoint import CheckpointStore
from sem.training.evaluation import evaluate
from sem.training.health import wave_criteria
from sem.training.language import LanguageModelObjective
from sem.training.logging import CsvLog, MetricLog, TensorBoardLog, tensorboard_available
from sem.training.loop import LoopSettings, TrainingLoop
from sem.training.optim import build_adamw
from sem.training.plot import plot_curves
from sem.training.progress import ProgressDisplay, Shown
from sem.training.run_folder import AUTO_RESUME, find_checkpoint, holds_run, remove_run, save_precision
from sem.training.schedules import Schedule

SHOWN = (
    Shown("tokens_per_second", "tokens/s", ".0f"),
    Shown("loss", "loss", ".3f"),
    Shown("bits_per_byte", "bits/byte", ".3f"),
    Shown("val_bits_per_byte", "held-out bits/byte", ".3f"),
    Shown("unitarity_deviation", "unitarity", ".1e"),
    Shown("cg_residual", "CG residual", ".1e"),
)


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        step: steps done.
        figures: the last value of everything that was measured.
        interrupted_by: name of the signal that ended it early, or None.
    """

    step: int
    figures: dict[str, float]
    interrupted_by: str | None


class SEMTrainer:
    """Trains an :class:`~sem.model.SEMModel` as ``config`` says.

    The run's folder ``training.output_dir`` gets ``config.yaml``, ``precision.json``, ``metrics.csv``,
    ``tensorboard/``, ``checkpoints/`` and at the end ``curves.png`` and ``sample.txt``.

    Args:
        config: the run's configuration.
        model: what to train in place of a new ``SEMModel(config)``; it needs the same ``loss`` method.
        corpus: text that is loaded already, in place of ``config.data``'s.
        diagnostics: makes the recorder of a health measurement.

    Raises:
        ValueError: text is missing or too short.

    Example:
        >>> import tempfile
        >>> sizes = ("model.hidden_dim=16", "model.num_layers=1", "model.max_seq_length=32")
        >>> run = ("training.max_steps=2", "training.eval_batches=1")
        >>> folder = f"training.output_dir={tempfile.mkdtemp()}"
        >>> config = SEMConfig().with_overrides(*sizes, *run, folder)
        >>> SEMTrainer(config).fit().step  # doctest: +ELLIPSIS
        step 1...
        2
    """

    def __init__(
        self,
        config: SEMConfig,
        *,
        model: nn.Module | None = None,
        corpus: Corpus | None = None,
        diagnostics: Callable[[], Any] = Diagnostics,
    ) -> None:
        training = config.training
        self.config = config
        self.folder = Path(training.output_dir)
        self.device = resolve_device(training.device)
        self.precision = PrecisionPolicy.for_device(training.precision_mode, self.device)
        if training.num_threads is not None:
            torch.set_num_threads(training.num_threads)
        torch.manual_seed(training.seed)
        self.model = (SEMModel(config) if model is None else model).to(self.device).train()
        use_precision(self.model, self.precision)
        self.tokenizer = ByteTokenizer()
        self.train_loader, self.validation_loader = build_loaders(config, corpus, batch_size=training.micro_batch_size)
        self.objective = LanguageModelObjective(self.device, compile=training.compile)
        self.diagnostics = diagnostics

    @functools.cached_property
    def store(self) -> CheckpointStore:
        """The run's checkpoints."""
        return CheckpointStore(self.folder / "checkpoints", self.config.training.keep_checkpoints)

    def fit(
        self,
        *,
        resume: str | Path | None = None,
        overwrite: bool = False,
        display: ProgressDisplay | None = None,
    ) -> TrainingResult:
        """Train to the end, or until SIGINT or SIGTERM.

        Args:
            resume: a checkpoint, a run's folder (its newest undamaged checkpoint), or ``"auto"``: this run's
                folder if there is something to continue, else a new run.
            overwrite: delete an earlier run in the folder instead of refusing to mix with it.
            display: what the user sees; a :class:`ProgressDisplay` on standard output by default.

        Raises:
            ValueError: the folder holds another run, or the checkpoint does not fit.
            CheckpointError: a checkpoint cannot be read or written.
            TrainingDiverged: too many non-finite steps in a row.
        """
        display = display or ProgressDisplay(SHOWN)
        loop = self.build_loop(store=self.store, display=display)
        self._prepare_folder(loop, resume, overwrite)
        if loop.state.step:
            display.message(f"continuing after step {loop.state.step}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.save(self.folder / "config.yaml")
        self._tell_precision(display)
        loop.logs = self._open_logs(loop.state.step, display)
        try:
            interrupted_by = loop.run()
        finally:
            save_precision(self.folder, self.model, self.precision)
            for log in loop.logs:
                log.close()
        if interrupted_by is None:
            self._finish(display, loop.state.step)
        return TrainingResult(loop.state.step, loop.figures, interrupted_by)

    def build_loop(self, **options: Any) -> TrainingLoop:
        """The loop of this run, at its start; ``options`` replace or complete what is handed to it."""
        training = self.config.training
        optimizer = build_adamw(
            self.model,
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            betas=(training.beta1, training.beta2),
        )
        parts: dict[str, Any] = {
            "model": self.model,
            "objective": self.objective,
            "optimizer": optimizer,
            "schedule": build_schedule(self.config),
            "batches": self.train_loader,
            "settings": build_settings(self.config),
            "validate": self.validate,
            "diagnostics": self.diagnostics,
            "criteria": wave_criteria(pit_enabled=self.config.propagator.pit_enabled),
            "extra": {"config": self.config.to_dict()},
            "autocast": self.precision.forward_context,
        }
        return TrainingLoop(**(parts | options))

    def validate(self, *, final: bool = False) -> dict[str, float]:
        """Figures on held-out text, named ``val_...``: on its first ``training.eval_batches`` batches, or at the end of
        a run (``final``) on ``training.final_eval_batches``, by default all of it."""
        training = self.config.training
        limit = training.final_eval_batches if final else training.eval_batches
        count = None if limit is None else limit * (training.batch_size // training.micro_batch_size)
        batches = islice(self.validation_loader, count)
        figures = evaluate(self.model, self.objective, batches, autocast=self.precision.forward_context)
        return {f"val_{name}": value for name, value in figures.items()}

    def sample(self) -> str:
        """Text generated as ``config.generation`` says, prompt included."""
        settings = self.config.generation
        limit = self.config.model.max_seq_length
        pieces = generate_text(self.model, self.tokenizer, settings, max_seq_length=limit)
        with self.precision.forward_context():
            return settings.prompt + "".join(pieces)

    def _prepare_folder(self, loop: TrainingLoop, resume: str | Path | None, overwrite: bool) -> None:
        """Bring ``loop`` and the folder to the point from which the run goes on."""
        if overwrite and resume is not None:
            raise ValueError(f"overwrite: expected no resume beside it, got resume = {str(resume)!r}")
        if overwrite:
            remove_run(self.folder)
        found = find_checkpoint(resume, self.folder)
        elsewhere = found is None or found[0].resolve().parent != self.store.folder.resolve()
        if elsewhere and holds_run(self.folder):
            if str(resume) != AUTO_RESUME:
                raise ValueError(
                    f"training.output_dir = {str(self.folder)!r}: expected a folder without a run, this one "
                    "holds one; continue it with --resume, delete it with --overwrite or name another folder"
                )
            remove_run(self.folder)
        if found is not None:
            loop.load_state_dict(found[1])
            self.store.set_aside_after(loop.state.step)

    def _tell_precision(self, display: ProgressDisplay) -> None:
        stages = effective_precision(self.model, self.precision)
        told = ", ".join(f"{name} {precision}" for name, precision in stages.items())
        display.message(f"precision {self.precision.mode} on {self.device}: {told}")
        save_precision(self.folder, self.model, self.precision)

    def _open_logs(self, resume_step: int, display: ProgressDisplay) -> list[MetricLog]:
        logs: list[MetricLog] = [CsvLog(self.folder / "metrics.csv", resume_step)]
        if tensorboard_available():
            logs.append(TensorBoardLog(self.folder / "tensorboard", resume_step))
        else:
            display.message("no TensorBoard events: pip install 'sem[train]' for them")
        return logs

    def _finish(self, display: ProgressDisplay, step: int) -> None:
        display.message("scoring the held-out text")
        figures = {"step": step} | self.validate(final=True)
        write_text(self.folder / "final.json", json.dumps(figures, indent=2) + "\n")
        display.message(f"writing curves and a sample to {self.folder}")
        try:
            plot_curves(self.folder / "metrics.csv", self.folder / "curves.png", title=self.folder.name)
        except ImportError:
            display.message("no curves.png: pip install 'sem[train]' for it")
        write_text(self.folder / "sample.txt", self.sample())


def build_schedule(config: SEMConfig) -> Schedule:
    """The learning-rate schedule of ``config.training``."""
    training = config.training
    return Schedule(
        peak=training.learning_rate,
        kind=training.scheduler,
        warmup_steps=training.warmup_steps,
        max_steps=training.max_steps,
        decay_steps=training.decay_steps,
        min_ratio=training.lr_min_ratio,
        max_minutes=training.max_minutes,
    )


def build_settings(config: SEMConfig) -> LoopSettings:
    """The loop's intervals and limits from ``config.training``."""
    training = config.training
    return LoopSettings(
        accumulation=training.batch_size // training.micro_batch_size,
        gradient_clip=training.gradient_clip,
        log_every=training.log_every,
        eval_every=training.eval_every,
        checkpoint_every=training.checkpoint_every,
        health_every=training.health_every,
        max_skipped_steps=training.max_skipped_steps,
    )


def resolve_device(name: str) -> torch.device:
    """``training.device`` as a device; ``auto`` is CUDA, then XPU, then the CPU.

    Raises:
        ValueError: the device is not on this machine.
    """
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "xpu": torch.xpu.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "xpu", "cpu") if usable[kind]))
    device = torch.device(name)
    if not usable.get(device.type, False):
        there = ", ".join(kind for kind, works in usable.items() if works)
        raise ValueError(f"training.device = {name!r}: expected a device of this machine and torch ({there})")
    return device
