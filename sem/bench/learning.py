"""Learning at equal wall time: the same text, the same minutes, the same scoring, one model after the other.

The clock of a run is that of :class:`~sem.training.loop.TrainingLoop`, stopped while held-out text is scored; it alone
ends the run and drives the schedule's decay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from rich.console import Console

from sem.bench.language_models import Entrant
from sem.config import SEMConfig
from sem.data import Corpus, EvalLoader
from sem.signals import StopRequest
from sem.training.evaluation import evaluate
from sem.training.loop import TrainingDiverged
from sem.training.progress import ProgressDisplay, Shown
from sem.training.schedules import SECONDS_PER_MINUTE
from sem.training.trainer import SEMTrainer

POINTS = 20
POINT_TOKENS = 16_384
"""Points of a curve, and the held-out tokens each is measured on: the same ones every time."""
SCORED_ROWS = 8
_OUT_OF_REACH = 1000

SHOWN = (
    Shown("tokens_per_second", "tokens/s", ".0f"),
    Shown("bits_per_byte", "bits/byte", ".3f"),
    Shown("val_bits_per_byte", "held-out bits/byte", ".3f"),
)
OnStep = Callable[[int, float, Mapping[str, float], bool], None]


@dataclass(frozen=True)
class Run:
    """How one model learned from one seed.

    Attributes:
        bits_per_byte: on all held-out text at the end; None where the training diverged, see ``problem``.
        seconds: of training, scoring left out.
        tokens: that were trained on.
        curve: seconds of training and bits per byte of a part of the held-out text.
    """

    model: str
    seed: int
    parameters: int
    steps: int
    tokens: int
    seconds: float
    bits_per_byte: float | None
    curve: Sequence[tuple[float, float]]
    problem: str | None = None

    @property
    def tokens_per_second(self) -> float:
        """Over the seconds of training alone."""
        return self.tokens / self.seconds


def order(models: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Seed by seed, model by model: whatever slows the machine down for a while slows all models.

    Example:
        >>> order(["sem", "gru"], [0, 1])
        [('sem', 0), ('gru', 0), ('sem', 1), ('gru', 1)]
    """
    return [(model, seed) for seed in seeds for model in models]


def run_config(base: SEMConfig, entrant: Entrant, minutes: float, seed: int, threads: int) -> SEMConfig:
    """What ``entrant`` trains with for ``minutes``: ``base`` and its own settings, without an end by steps.

    The share of the run that the schedule decays over stays as it is.
    """
    settings = entrant.settings_beside(base)
    if settings and base.training.precision_mode == "selective-bf16":  # a peer has no stages to select from
        settings.append("training.precision_mode=bf16-mixed")
    own = base.with_overrides(*settings)
    return own.with_overrides(
        f"training.max_minutes={minutes!r}",
        f"training.max_steps={own.training.max_steps * _OUT_OF_REACH}",
        f"training.decay_steps={own.training.decay_steps * _OUT_OF_REACH}",
        f"training.seed={seed}",
        f"data.shuffle_seed={seed}",
        f"training.num_threads={threads}",
        "training.adapt_threads=false",
    )


def learn(
    configs: Mapping[tuple[str, int], SEMConfig],
    entrants: Mapping[str, Entrant],
    corpus: Corpus,
    stop: StopRequest,
    console: Console,
) -> Iterator[Run]:
    """Train the ``entrants`` of ``configs``, keyed by name and seed, in that order; gives each run once it is finished.

    A run that ``stop`` cuts short is not given.
    """
    started = time.monotonic()
    for index, ((name, seed), config) in enumerate(configs.items()):

        def show(step: int, share: float, figures: Mapping[str, float], logged: bool, index: int = index) -> None:
            share = (index + share) / len(configs)
            left = (time.monotonic() - started) * (1 - share) / share
            display.update(step, share, left, figures, logged)

        with ProgressDisplay(SHOWN, console) as display:
            display.message(f"run {index + 1} of {len(configs)}: {name}, seed {seed}")
            run = train(entrants[name], config, corpus, stop, show)
            if run is None:
                return
            display.message(run.problem or f"all held-out text: {run.bits_per_byte:.4f} bits/byte")
        yield run


def train(entrant: Entrant, config: SEMConfig, corpus: Corpus, stop: StopRequest, on_step: OnStep) -> Run | None:
    """Train one model until its time is over and score it; None where ``stop`` cut that short."""
    torch.manual_seed(config.training.seed)
    model: Any = entrant.build(config)
    trainer = SEMTrainer(config, model=model, corpus=corpus)
    loop = trainer.build_loop(diagnostics=None)
    held_out = EvalLoader(corpus.encoded(trainer.tokenizer).validation, SCORED_ROWS, config.seq_length)
    part = -(-POINT_TOKENS // (SCORED_ROWS * config.seq_length))

    def score(batches: Iterable[Any]) -> dict[str, float]:
        figures = evaluate(model, trainer.objective, _until(stop, batches), autocast=trainer.precision.forward_context)
        return {f"val_{name}": value for name, value in figures.items()}

    between_points = float(config.training.max_minutes or 0) * SECONDS_PER_MINUTE / POINTS
    source = iter(trainer.train_loader)
    tokens = 0
    curve: list[tuple[float, float]] = []
    problem = None
    loop.begin()
    while not (loop.finished or stop):
        micro_batches = list(islice(source, loop.settings.accumulation))
        figures = loop.advance(micro_batches)
        tokens += sum(int((batch["targets"] >= 0).sum()) for batch in micro_batches)
        try:
            loop.check_divergence()
        except TrainingDiverged as error:
            problem = str(error)
            break
        seconds = loop.state.elapsed_seconds
        measured = loop.finished or seconds >= (len(curve) + 1) * between_points
        if measured:
            scores = score(islice(held_out, part))
            figures |= scores
            loop.observe(scores)
            curve.append((seconds, figures["val_bits_per_byte"]))
            loop.begin()  # the clock goes on from where the step left it
        on_step(loop.state.step, loop.schedule.progress(loop.state.step, seconds), figures, measured)
    bits_per_byte = None if stop or problem else score(held_out)["val_bits_per_byte"]
    if stop:
        return None
    return Run(
        model=entrant.name,
        seed=config.training.seed,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=loop.state.step,
        tokens=tokens,
        seconds=loop.state.elapsed_seconds,
        bits_per_byte=bits_per_byte,
        curve=curve,
        problem=problem,
    )


def _until(stop: StopRequest, batches: Iterable[Any]) -> Iterator[Any]:
    """``batches``, the first one in any case, up to the wish to stop."""
    for batch in batches:
        yield batch
        if stop:
            return
