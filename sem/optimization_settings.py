"""How a model is optimised: the settings of optimizer, clipping and learning rate, whatever is trained.

A wing's own section of a configuration inherits them, and gives those another default that need one with
:func:`sem.settings.with_default`. What they say is built by :func:`sem.training.optim.build_optimizer`,
:func:`sem.training.clipping.build_clipping` and :func:`sem.training.schedules.build_schedule`, nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from sem.settings import Section, setting, shorten

OptimizerName = Literal["adam", "adamw", "sgd", "muon"]
ClipKind = Literal["none", "norm", "value", "agc"]
ScheduleName = Literal["constant", "cosine", "warmup_cosine", "wsd", "exponential", "plateau"]


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings(Section):
    """Optimizer, clipping of the gradient, learning rate and length of a run.

    Example:
        >>> OptimizationSettings(optimizer="sgd", momentum=0.5).momentum
        0.5
        >>> OptimizationSettings(scheduler="linear")
        Traceback (most recent call last):
        ValueError: optimization.scheduler = 'linear': expected one of constant, cosine, warmup_cosine, wsd, \
exponential, plateau
    """

    section: ClassVar[str] = "optimization"
    optimizer: OptimizerName = setting("adam", "muon: of the maps between channels; the rest has AdamW")
    learning_rate: float = setting(1e-3, "peak learning rate; with muon, of what has AdamW", gt=0)
    muon_learning_rate: float = setting(0.02, "peak learning rate of muon", gt=0)
    muon_momentum: float = setting(0.95, "decay of muon's momentum", ge=0, lt=1)
    momentum: float = setting(0.9, "sgd: decay of the momentum; 0: none", ge=0, lt=1)
    nesterov: bool = setting(True, "sgd: look one step ahead along the momentum, where there is one")
    weight_decay: float = setting(
        0.0, "decay of matrices: adamw, muon: decoupled; adam, sgd: L2, added to the gradient", ge=0
    )
    beta1: float = setting(0.9, "adam, adamw, AdamW beside muon: decay of the first moment", ge=0, lt=1)
    beta2: float = setting(0.999, "adam, adamw, AdamW beside muon: decay of the second moment", ge=0, lt=1)
    gradient_clip: float = setting(0.0, "bound of the gradient; 0: no clipping", ge=0)
    gradient_clip_kind: ClipKind = setting(
        "norm", "what is bounded: the whole norm, each value, or each unit's norm against its weights' (agc)"
    )
    scheduler: ScheduleName = setting("constant", "course of the learning rate; wsd: warmup-stable-decay")
    warmup_steps: int = setting(0, "steps of linear warmup", ge=0)
    max_steps: int = setting(10_000, "optimizer steps in all", ge=1)
    max_minutes: float | None = setting(None, "stop after this many minutes; null: no limit", gt=0)
    decay_steps: int = setting(1000, "wsd: steps of decay at the end", ge=0)
    lr_min_ratio: float = setting(0.0, "wsd, cosine, warmup_cosine: last learning rate over the peak", ge=0, le=1)
    lr_gamma: float = setting(0.95, "exponential: factor per lr_interval", gt=0, le=1)
    lr_interval: int = setting(
        1, "steps between changes of the decay (not the warmup's, nor plateau's); an epoch's steps: per epoch", ge=1
    )
    plateau_factor: float = setting(0.5, "plateau: factor after validations without a lower loss", gt=0, lt=1)
    plateau_patience: int = setting(2, "plateau: validations in a row that may bring no lower loss", ge=0)
    plateau_floor: float = setting(5e-5, "plateau: learning rate below which it does not go", ge=0)

    def cross_checks(self) -> Iterator[str]:
        if self.gradient_clip_kind in ("value", "agc") and self.gradient_clip == 0:
            yield (
                f"{self.section}.gradient_clip = 0: expected a bound > 0 beside "
                f"{self.section}.gradient_clip_kind = {self.gradient_clip_kind!r}"
            )


def require_choice(name: str, value: Any, choices: Any) -> None:
    """Raise unless ``value`` is one of the words of a ``Literal``.

    Raises:
        ValueError: naming ``name``, the value and the words.

    Example:
        >>> require_choice("kind", "value", ClipKind)
    """
    if value not in (words := get_args(choices)):
        raise ValueError(f"{name} = {shorten(value)}: expected one of {', '.join(words)}")
