"""The language model's training step as a Lightning module; the step itself is the plain loop's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from sem.config import SEMConfig
from sem.diagnostics import Diagnostics
from sem.model import SEMModel
from sem.precision import PrecisionPolicy, use_precision
from sem.training.devices import prepare_for_device
from sem.training.distillation import build_objective
from sem.training.evaluation import evaluate
from sem.training.health import wave_criteria
from sem.training.lightning.data import SEMDataModule
from sem.training.lightning.processes import processes_of
from sem.training.loop import TrainingLoop
from sem.training.optim import build_optimizer
from sem.training.run import adaptive_threads, build_settings
from sem.training.schedules import build_schedule
from sem.training.step import Objective

OWN_STATE = "sem"
"""The module's own entry in a Lightning checkpoint."""


class SEMLightningModule(LightningModule):
    """Trains an :class:`~sem.model.SEMModel` under a Lightning ``Trainer``, exactly as the plain loop does.

    A batch is the list of micro-batches of one optimizer step, as :class:`~sem.training.lightning.data.SEMDataModule`
    makes them; accumulation, clipping and the learning rate are ``config.training``'s. The figures of each step are
    logged under the names of the plain loop, and kept in ``figures``.

    The precision is the configuration's. A Trainer that was told otherwise is refused: hand it
    ``plugins=[SEMPrecisionPlugin(config.training.precision_mode, device=...)]``.

    Args:
        config: the run's configuration; with a loop, anything with a section ``training``.
        model: what to train in place of a new ``SEMModel(config)``; it needs the same ``loss`` method.
        diagnostics: makes the recorder of a health measurement.
        loop: a loop that is composed already, in place of one made for the Trainer's data.

    Raises:
        ValueError: (when training starts) the Trainer's precision is not the configuration's, or the device cannot
            carry it out; (when a checkpoint is loaded) it is another model's or another data's.
        TrainingDiverged: too many steps in a row had a loss or gradient that was not finite.
    """

    def __init__(
        self,
        config: SEMConfig,
        *,
        model: nn.Module | None = None,
        diagnostics: Callable[[], Any] = Diagnostics,
        loop: TrainingLoop | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        if model is None:
            torch.manual_seed(config.training.seed)
            model = SEMModel(config)
        self.model = model.train()
        self.diagnostics = diagnostics
        self.figures: dict[str, float] = {}
        self._given_loop = loop
        self._resumed: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        """Hold the Trainer against the configuration, before anything is on the device.

        Raises:
            ValueError: the Trainer has another precision, or the device cannot carry it out.
        """
        mode = self.config.training.precision_mode
        if self.trainer.precision != mode:
            raise ValueError(
                f"training.precision_mode = {mode!r}: expected a Trainer of that precision, got "
                f"{self.trainer.precision!r}; give it plugins=[SEMPrecisionPlugin({mode!r}, device=...)]"
            )
        self.policy = PrecisionPolicy.for_device(mode, self.device)
        use_precision(self.model, self.policy)
        loop = self._given_loop
        self.objective: Objective
        if loop is None:
            self.objective = build_objective(self.config, self.policy, self.device)
        else:
            self.objective = loop.objective
        self.ranks = processes_of(self.trainer, self.config.training.distributed_timeout)
        if not self.ranks.is_first:
            torch.manual_seed(self.config.training.seed + self.ranks.rank)  # random draws of each process's own

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The loop's optimizer; the loop is composed here, where model and Trainer are there.

        Raises:
            ValueError: the Trainer has no :class:`~sem.training.lightning.data.SEMDataModule`.
        """
        self.loop = self._given_loop or self._compose_loop()
        return self.loop.optimizer

    def on_fit_start(self) -> None:
        """Load what a checkpoint held, now that optimizer and data are there, and let the loop step through the
        Trainer."""
        if self._resumed is not None:
            self.loop.load_state_dict(self._resumed)
            self._resumed = None
        optimizer = self.optimizers()  # Lightning's wrapper, which steps but does not load states
        assert isinstance(optimizer, torch.optim.Optimizer)
        self.loop.optimizer = optimizer
        self.loop.backward = self.manual_backward

    def on_train_start(self) -> None:
        """Start the loop's clock.

        Raises:
            ValueError: the schedule follows validations and there are none.
        """
        self.loop.schedule.require_validation(self.loop.validate is not None or self.trainer.enable_validation)
        self.loop.begin()

    def teardown(self, stage: str) -> None:
        """Give the process back the number of threads that it had; also where the training was cut short."""
        loop = getattr(self, "loop", None)
        if loop is not None and loop.threads is not None:
            loop.threads.restore()

    def training_step(self, micro_batches: list[Any], batch_idx: int) -> None:
        """One step of the loop on ``micro_batches``; its figures are logged. There is nothing to return: the loop
        differentiates."""
        # The Trainer opens autocast around the whole step; the loop opens it around each forward pass alone.
        with torch.autocast(self.device.type, enabled=False):
            self.figures = self.loop.advance(micro_batches)
        self.log_dict(self.figures, on_step=True, on_epoch=False)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Raise :class:`~sem.training.loop.TrainingDiverged` where too many steps in a row were not finite."""
        self.loop.check_divergence()

    def validation_step(self, batches: Iterable[Any], batch_idx: int) -> None:
        """Score all ``batches`` of a validation; their figures are logged as ``val_...``."""
        batches = list(batches)  # which the averages are scored on too

        def score() -> dict[str, float]:
            context = self.policy.forward_context
            figures = evaluate(self.model, self.objective, batches, autocast=context, ranks=self.ranks)
            return {f"val_{name}": value for name, value in figures.items()}

        named = score()
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.loop.observe(named)
            named |= self.loop.of_averages(score)
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the loop's state under ``sem``, but for model and optimizer, which Lightning keeps."""
        kept_by_lightning = ("model", "optimizer")
        state = self.loop.state_dict()
        checkpoint[OWN_STATE] = {name: value for name, value in state.items() if name not in kept_by_lightning}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the loop's state until :meth:`on_fit_start`.

        Raises:
            ValueError: the checkpoint was not written by a run of such a module.
        """
        if OWN_STATE not in checkpoint:
            raise ValueError(f"checkpoint: expected an entry {OWN_STATE!r}, got {sorted(checkpoint)}")
        prefix = "model."
        model = {name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()}
        self._resumed = {**checkpoint[OWN_STATE], "model": model, "optimizer": checkpoint["optimizer_states"][0]}

    def _compose_loop(self) -> TrainingLoop:
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # the Trainer gets it at run time
        if not isinstance(data, SEMDataModule):
            raise ValueError("datamodule: expected trainer.fit(module, datamodule=SEMDataModule(config)), got none")
        optimizer = build_optimizer(self.model, self.config.training)
        prepare_for_device(self.model, optimizer, self.device)
        return TrainingLoop(
            model=self.model,
            objective=self.objective,
            optimizer=optimizer,
            schedule=build_schedule(self.config.training),
            batches=data.train_batches,
            settings=build_settings(self.config, self.ranks.world_size),
            diagnostics=self.diagnostics,
            criteria=wave_criteria(self.config),
            extra={"config": self.config.to_dict()},
            autocast=self.policy.forward_context,
            threads=adaptive_threads(self.config.training, self.device),
            ranks=self.ranks,
        )
