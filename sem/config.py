"""Everything a run of the language model can be told, as frozen dataclasses that check themselves.

The sections are in :mod:`sem.config_sections`; the checks, the command line's options and the messages are all
derived from them by :mod:`sem.configuration`.

    >>> from sem.config import SEMConfig
    >>> config = SEMConfig.from_dict({"model": {"hidden_dim": 128}}, overrides=["training.max_steps=100"])
    >>> config.training.max_steps, config.propagator.num_layers is None
    (100, True)
    >>> config.with_overrides("generation.top_p=1.5")
    Traceback (most recent call last):
    ValueError: generation.top_p = 1.5: expected a number > 0 and <= 1
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sem.config_sections import (
    TOKENIZER_SIZES,
    DataConfig,
    DistillationConfig,
    EncoderConfig,
    GenerationConfig,
    LaunchConfig,
    ModelConfig,
    PropagatorConfig,
    SamplerConfig,
    SpinorConfig,
    TrainingConfig,
)
from sem.configuration import Configuration
from sem.settings import setting_infos

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SEMConfig(Configuration):
    """A whole run's configuration; see the sections for the values.

    Immutable: :meth:`with_overrides` returns a changed copy. Sizes that depend on each other are checked
    across sections, so a ``SEMConfig`` that exists is one that a model can be built from.

    Example:
        >>> SEMConfig().model.hidden_dim
        256
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    spinor: SpinorConfig = field(default_factory=SpinorConfig)
    propagator: PropagatorConfig = field(default_factory=PropagatorConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)

    def cross_checks(self) -> Iterator[str]:
        width = self.model.hidden_dim
        for name in ("block_size", "mimo_groups") if self.spinor.rotation else ("mimo_groups",):
            divisor = getattr(self.spinor, name)
            if width % divisor:
                yield f"model.hidden_dim = {width}: expected a multiple of spinor.{name} = {divisor}"
        if self.propagator.laplacian_sparsity >= width:
            yield (
                f"propagator.laplacian_sparsity = {self.propagator.laplacian_sparsity}: "
                f"expected less than model.hidden_dim = {width}"
            )
        size = TOKENIZER_SIZES.get(self.data.tokenizer)
        if size is not None and self.model.vocab_size < size:
            yield (
                f"model.vocab_size = {self.model.vocab_size}: "
                f"expected at least {size}, the size of data.tokenizer = {self.data.tokenizer!r}"
            )
        yield from map(f"training.curriculum = {list(self.training.curriculum)}: {{}}".format, self._stage_problems())
        if self.data.seq_length is not None and self.data.seq_length > self.model.max_seq_length:
            yield (
                f"data.seq_length = {self.data.seq_length}: "
                f"expected at most model.max_seq_length = {self.model.max_seq_length}"
            )

    def _stage_problems(self) -> Iterator[str]:
        for stage in self.training.stages:
            if stage.length is not None and self.seq_length % stage.length:
                yield f"expected lengths that divide a row's {self.seq_length} tokens, got {stage.length}"
            if not stage.judges:
                continue
            if self.data.dataset is None:
                yield f"expected data.dataset to name a dataset with scores for '{stage.scores}', text alone has none"
            elif self.data.score_field is None:
                yield f"expected data.score_field to name the field that '{stage.scores}' judges"
            least = stage.least if self.data.min_score is None else max(stage.least, self.data.min_score)
            if least > stage.most:
                yield f"expected scores that can be, got '{stage.scores}' with data.min_score = {self.data.min_score}"

    @property
    def seq_length(self) -> int:
        """Tokens per training row: ``data.seq_length``, or ``model.max_seq_length`` where that is null."""
        return self.data.seq_length or self.model.max_seq_length

    @classmethod
    def as_of_now(cls, values: Any) -> Any:
        """``values``, with :data:`FORMER_KINDS` in it where an earlier version wrote it: :meth:`save` and checkpoints
        hold all sections with all of their settings, and there was no ``sampler``, later no ``spinor.projection``."""
        if not isinstance(values, Mapping):
            return values
        written = set(values) | LATER_SECTIONS
        if written == set(SECTIONS) and isinstance(values["spinor"], Mapping):
            known = {info.name for info in setting_infos(SpinorConfig)}
            if set(values["spinor"]) == known - {"projection"}:
                return {**values, "spinor": {**values["spinor"], "projection": FORMER_KINDS["spinor"]["projection"]}}
        if written != set(SECTIONS) - {"sampler"}:
            return values
        told = ", ".join(
            f"{name}.{key} = {value}" for name, kinds in FORMER_KINDS.items() for key, value in kinds.items()
        )
        _log.warning("a configuration that an earlier version saved: what it could not choose is %s", told)
        return {**values, **{name: {**kinds, **(values.get(name) or {})} for name, kinds in FORMER_KINDS.items()}}


FORMER_KINDS: dict[str, dict[str, Any]] = {
    "model": {"layout": "stacked"},
    "encoder": {"kind": "transport", "direct": False, "carrier": "absolute"},
    "spinor": {"rotation": True, "output_gate": False, "projection": "complex"},
    "propagator": {"potential": "none", "echo": False},
    "sampler": {"kind": "born"},
    "training": {"optimizer": "adamw"},
}
"""What there was before there was a choice: a run saved then is of these kinds."""

LATER_SECTIONS = {"distillation"}
"""Sections that came after those kinds; what was saved before does nothing of what they are for."""

SECTIONS = SEMConfig.sections()
"""The section classes by name, in order."""

add_config_arguments = SEMConfig.add_arguments
config_from_arguments = SEMConfig.from_arguments
config_from_cli = SEMConfig.from_cli
