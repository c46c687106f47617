"""A language model's training run: model, data and objective composed from the configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from torch import nn

from sem.config import SEMConfig
from sem.data import Corpus, build_loaders, keep_tokenizer, tokenizer_of
from sem.diagnostics import Diagnostics
from sem.extras import how_to_install
from sem.files import write_text
from sem.generation import generate_text
from sem.model import SEMModel
from sem.run_names import FINAL
from sem.training.distillation import build_objective
from sem.training.evaluation import evaluate
from sem.training.health import wave_criteria
from sem.training.plot import plot_curves
from sem.training.progress import ProgressDisplay, Shown
from sem.training.run import RunTrainer, TrainingResult
from sem.training.step import Objective

__all__ = ["SHOWN", "SEMTrainer", "TrainingResult"]

SHOWN = (
    Shown("tokens_per_second", "tokens/s", ".0f"),
    Shown("loss", "loss", ".3f"),
    Shown("bits_per_byte", "bits/byte", ".3f"),
    Shown("val_bits_per_byte", "held-out bits/byte", ".3f"),
    Shown("unitarity_deviation", "unitarity", ".1e"),
    Shown("cg_residual", "CG residual", ".1e"),
)


class SEMTrainer(RunTrainer):
    """Trains an :class:`~sem.model.SEMModel` as ``config`` says.

    The run's folder ``training.output_dir`` gets ``config.yaml``, ``precision.json``, ``metrics.csv``,
    ``tensorboard/``, ``checkpoints/``, a copy of the tokenizer's file and at the end ``final.json``, ``curves.png`` and
    ``sample.txt``.

    Args:
        config: the run's configuration.
        model: what to train in place of a new ``SEMModel(config)``; it needs the same ``forward``, and ``prefill`` and
            ``step`` to write a sample.
        corpus: text that is loaded already, in place of ``config.data``'s.
        diagnostics: makes the recorder of a health measurement.

    Raises:
        ValueError: text is missing or too short.

    Example:
        >>> import tempfile
        >>> sizes = ("model.hidden_dim=16", "model.num_layers=1", "model.max_seq_length=32")
        >>> run = ("training.max_steps=2", "training.eval_batches=1", "training.final_eval_batches=1")
        >>> end = ("generation.max_new_tokens=8", f"training.output_dir={tempfile.mkdtemp()}")
        >>> config = SEMConfig().with_overrides(*sizes, *run, *end)
        >>> result = SEMTrainer(config).fit()  # doctest: +ELLIPSIS
        precision 32-true on ...
        >>> result.step, "val_bits_per_byte" in result.figures
        (2, True)
    """

    shown = SHOWN

    def __init__(
        self,
        config: SEMConfig,
        *,
        model: SEMModel | None = None,
        corpus: Corpus | None = None,
        diagnostics: Callable[[], Any] = Diagnostics,
    ) -> None:
        self.tokenizer = tokenizer_of(config)
        self._given = model, corpus
        self.diagnostics = diagnostics
        super().__init__(config)

    def build_model(self) -> nn.Module:
        """The model that was given, else a new one."""
        model, _ = self._given
        return SEMModel(self.config) if model is None else model

    def build_data(self) -> tuple[Any, Any, Objective]:
        """This process's two loaders, of the corpus if one was given, and the language model's loss."""
        _, corpus = self._given
        del self._given
        objective = build_objective(self.config, self.precision, self.device, self.tokenizer)
        loaders = build_loaders(
            self.config,
            corpus,
            batch_size=self.config.training.micro_batch_size,
            tokenizer=self.tokenizer,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
        )
        return *loaders, objective

    def keep(self, display: ProgressDisplay) -> None:
        """Copy the tokenizer's file, if there is one, into the run's folder, so that the run does not depend on it."""
        keep_tokenizer(self.tokenizer, self.folder)

    def check_processes(self, world_size: int) -> None:
        """As :meth:`RunTrainer.check_processes`; also refuses several with ``encoder.frequency_weighting``.

        Raises:
            ValueError: so many processes cannot share a batch, or the tokens are counted.
        """
        super().check_processes(world_size)
        if self.config.encoder.frequency_weighting and world_size > 1:
            raise ValueError(
                "encoder.frequency_weighting = true: expected one process, since each counts its own tokens only, "
                f"got {world_size}"
            )

    def loop_parts(self) -> dict[str, Any]:
        """The recorder of health measurements, and the ranges that they are held against."""
        return {"diagnostics": self.diagnostics, "criteria": wave_criteria(self.config)}

    def validate(self, *, final: bool = False) -> dict[str, float]:
        """Figures on held-out text, named ``val_...``: on its first ``training.eval_batches`` batches, or at the end of
        a run (``final``) on ``training.final_eval_batches``, by default all of it."""
        training = self.config.training
        limit = training.final_eval_batches if final else training.eval_batches
        count = None if limit is None else limit * (training.batch_size // training.micro_batch_size)
        batches = islice(self.validation_loader, count)
        context = self.precision.forward_context
        figures = evaluate(self.model, self.objective, batches, autocast=context, ranks=self.ranks)
        return {f"val_{name}": value for name, value in figures.items()}

    def sample(self) -> str:
        """Text generated as ``config.generation`` says, prompt included."""
        settings = self.config.generation
        pieces = generate_text(self.model, self.tokenizer, settings)
        with self.precision.forward_context():
            return settings.prompt + "".join(pieces)

    def finish(self, display: ProgressDisplay, step: int) -> dict[str, float]:
        """Score the held-out text, write ``final.json``, ``curves.png`` and ``sample.txt``, and return the scores.
        Without matplotlib, or where the table of metrics is damaged, the curves are left out with a line that says
        so."""
        display.message("scoring the held-out text")
        score = partial(self.validate, final=True)
        figures = score() | self.loop.of_averages(score)
        if not self.ranks.is_first:
            return figures
        write_text(self.folder / FINAL, json.dumps({"step": step} | figures, indent=2) + "\n")
        display.message(f"writing curves and a sample to {self.folder}")
        try:
            if (table := self.folder / "metrics.csv").exists():  # training.loggers may name others alone
                plot_curves(table, self.folder / "curves.png", title=self.folder.name)
        except ImportError:
            display.message(f"no curves.png: {how_to_install('train')} for it")
        except ValueError as error:  # a table that somebody has been at; the run is done all the same
            display.message(f"no curves.png: {error}")
        write_text(self.folder / "sample.txt", self.sample())
        return figures
