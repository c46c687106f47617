"""Everything a run can be told, as frozen dataclasses that check themselves.

One class per section, one :func:`setting` per value: its default, its allowed range and one line of help
stand together, and the checks, the command line's options and the messages are all derived from them. Every
error is a ``ValueError`` with one line per problem: the dotted key, the value received, what was expected.

    >>> from sem.config import SEMConfig
    >>> config = SEMConfig.from_dict({"model": {"hidden_dim": 128}}, overrides=["training.max_steps=100"])
    >>> config.training.max_steps, config.propagator.num_layers is None
    (100, True)
    >>> config.with_overrides("generation.top_p=1.5")
    Traceback (most recent call last):
    ValueError: generation.top_p = 1.5: expected a number > 0 and <= 1
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from sem.settings import (
    Section,
    read_yaml,
    setting,
    setting_infos,
    shorten,
    unknown_key,
    write_yaml,
)

TOKENIZER_SIZES = {"bytes": 260}
"""Number of token ids each tokenizer can produce; ``model.vocab_size`` may be larger, never smaller."""

_SEED_LIMIT = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """Sizes shared by all stages."""

    section: ClassVar[str] = "model"
    hidden_dim: int = setting(256, "complex width D of the hidden state", ge=2)
    num_layers: int = setting(8, "number of spinor layers", ge=1)
    vocab_size: int = setting(260, "number of token ids V, at least the tokenizer's", ge=2)
    max_seq_length: int = setting(2048, "longest sequence in tokens", ge=1)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(Section):
    """Entropic-transport encoder."""

    section: ClassVar[str] = "encoder"
    sdr_sparsity: int = setting(32, "k: the k-th largest plan entry becomes the zero level", ge=2)
    sdr_candidates: int = setting(128, "number of learned prototypes M", ge=2)
    sinkhorn_epsilon: float = setting(0.05, "entropic temperature", gt=0)
    sinkhorn_max_iter: int = setting(50, "most transport iterations per token", ge=1)
    sinkhorn_tol: float = setting(1e-3, "change of the potentials at which a token's iteration stops", gt=0)
    projection_dim: int = setting(64, "width in which token and prototype are compared", ge=1)
    frequency_weighting: bool = setting(False, "divide the cost by log(token frequency + e)")

    def cross_checks(self) -> Iterator[str]:
        if self.sdr_sparsity > self.sdr_candidates:
            yield (
                f"encoder.sdr_sparsity = {self.sdr_sparsity}: "
                f"expected at most encoder.sdr_candidates = {self.sdr_candidates}"
            )


@dataclass(frozen=True, kw_only=True)
class SpinorConfig(Section):
    """Complex selective state-space layers along the sequence."""

    section: ClassVar[str] = "spinor"
    block_size: int = setting(8, "side of the blocks of the gated rotation", ge=1)
    state_dim: int = setting(128, "complex states per group", ge=1)
    mimo_groups: int = setting(16, "number of scan groups G", ge=1)
    d_conv: int = setting(4, "width in tokens of the causal convolution", ge=1)


@dataclass(frozen=True, kw_only=True)
class PropagatorConfig(Section):
    """Nonlinear phase step and unitary Cayley step within each token."""

    section: ClassVar[str] = "propagator"
    num_layers: int | None = setting(None, "number of propagator layers; null: model.num_layers", ge=1)
    cayley_dt: float = setting(0.01, "time step dt of the unitary step", gt=0)
    cg_max_iter: int = setting(50, "most conjugate-gradient iterations per token", ge=1)
    cg_tol: float = setting(1e-5, "relative residual at which a token's solve is converged", gt=0, lt=1)
    nonlinear_alpha: float = setting(0.01, "initial Kerr rotation in radians at mean intensity")
    laplacian_sparsity: int = setting(8, "mean node degree of the finest graph scale", ge=2)
    long_range_share: float = setting(0.25, "share of the edges spent on long-range edges", ge=0, le=1)
    num_scales: int = setting(3, "graph scales, of sparsity s, 2s, 4s, ...", ge=1)
    pit_enabled: bool = setting(True, "equalise the phase density before each unitary step")
    pit_num_bins: int = setting(32, "bins of the phase density on the circle", ge=4)
    pit_strength_init: float = setting(0.01, "initial bound of a phase shift, in kernel widths", ge=0, le=1)
    pit_rule: Literal["score", "density_ratio"] = setting("score", "how a phase is moved")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Where the text comes from and how it is cut into rows."""

    section: ClassVar[str] = "data"
    corpus: Literal["stdlib"] = setting("stdlib", "built-in corpus: the running Python's own library source")
    paths: tuple[str, ...] = setting((), "files, folders and globs that replace the corpus")
    validation_share: float = setting(0.05, "share of the text held out for validation", gt=0, lt=1)
    seq_length: int | None = setting(None, "tokens per row; null: model.max_seq_length", ge=1)
    tokenizer: Literal["bytes"] = setting("bytes", "how text becomes tokens")
    shuffle_seed: int = setting(0, "seed of the order of documents and rows", ge=0, le=_SEED_LIMIT)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Section):
    """Optimisation, schedule, precision, health, logging and checkpoints."""

    section: ClassVar[str] = "training"
    batch_size: int = setting(16, "rows per optimizer step", ge=1)
    micro_batch_size: int = setting(2, "rows per forward pass; divides batch_size", ge=1)
    dtype: Literal["float32"] = setting("float32", "dtype of parameters and optimizer state")
    precision_mode: Literal["32-true", "bf16-mixed", "selective-bf16"] = setting("32-true", "autocast policy")
    learning_rate: float = setting(1.2e-3, "peak learning rate", gt=0)
    weight_decay: float = setting(0.1, "decoupled weight decay of matrices", ge=0)
    beta1: float = setting(0.9, "AdamW's first moment decay", ge=0, lt=1)
    beta2: float = setting(0.95, "AdamW's second moment decay", ge=0, lt=1)
    warmup_steps: int = setting(1000, "steps of linear warmup", ge=0)
    max_steps: int = setting(100_000, "optimizer steps in all", ge=1)
    max_minutes: float | None = setting(None, "stop after this many minutes; null: no limit", gt=0)
    gradient_clip: float = setting(1.0, "largest gradient norm; 0: no clipping", ge=0)
    scheduler: Literal["wsd", "cosine"] = setting("wsd", "warmup-stable-decay or warmup-cosine")
    decay_steps: int = setting(10_000, "steps of decay at the end of wsd", ge=0)
    lr_min_ratio: float = setting(0.1, "last learning rate over the peak", ge=0, le=1)
    unitary_lambda: float = setting(0.01, "weight of the unitary divergence in the loss", ge=0)
    seed: int = setting(0, "seed of initialisation and of every random draw", ge=0, le=_SEED_LIMIT)
    device: str = setting("auto", "where to compute", pattern=r"auto|cpu|(cuda|xpu)(:\d+)?")
    num_threads: int | None = setting(None, "CPU threads; null: torch's own choice", ge=1)
    log_every: int = setting(10, "steps between log lines", ge=1)
    eval_every: int = setting(500, "steps between validations", ge=1)
    eval_batches: int = setting(20, "batches per validation", ge=1)
    final_eval_batches: int | None = setting(
        None, "batches of the validation at the end; null: all held-out text", ge=1
    )
    checkpoint_every: int = setting(1000, "steps between checkpoints", ge=1)
    keep_checkpoints: int = setting(2, "newest checkpoints to keep", ge=1)
    health_every: int = setting(50, "steps between health measurements", ge=1)
    max_skipped_steps: int = setting(5, "non-finite steps in a row that stop the run", ge=1)
    output_dir: str = setting("runs/default", "folder for config, logs and checkpoints", pattern=".+")
    compile: bool = setting(False, "run the model through torch.compile")

    def cross_checks(self) -> Iterator[str]:
        if self.batch_size % self.micro_batch_size:
            yield (
                f"training.batch_size = {self.batch_size}: "
                f"expected a multiple of training.micro_batch_size = {self.micro_batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class GenerationConfig(Section):
    """Sampling of new text."""

    section: ClassVar[str] = "generation"
    max_new_tokens: int = setting(256, "most tokens to generate", ge=1)
    temperature: float = setting(1.0, "sharpness of the draw; 0: always the likeliest token", ge=0)
    top_k: int = setting(0, "draw from the k likeliest tokens; 0: off", ge=0)
    top_p: float = setting(1.0, "draw from the smallest set of this probability", gt=0, le=1)
    seed: int = setting(0, "seed of the draw", ge=0, le=_SEED_LIMIT)
    prompt: str = setting("", "text to continue")


@dataclass(frozen=True, kw_only=True)
class SEMConfig:
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
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)

    def __post_init__(self) -> None:
        for name, kind in SECTIONS.items():
            if not isinstance(getattr(self, name), kind):
                received = shorten(getattr(self, name))
                raise ValueError(f"{name} = {received}: expected a {kind.__name__}")
        if problems := list(self._cross_checks()):
            raise ValueError("\n".join(problems))

    def _cross_checks(self) -> Iterator[str]:
        width = self.model.hidden_dim
        for name in ("block_size", "mimo_groups"):
            divisor = getattr(self.spinor, name)
            if width % divisor:
                yield f"model.hidden_dim = {width}: expected a multiple of spinor.{name} = {divisor}"
        if self.propagator.laplacian_sparsity >= width:
            yield (
                f"propagator.laplacian_sparsity = {self.propagator.laplacian_sparsity}: "
                f"expected less than model.hidden_dim = {width}"
            )
        size = TOKENIZER_SIZES[self.data.tokenizer]
        if self.model.vocab_size < size:
            yield (
                f"model.vocab_size = {self.model.vocab_size}: "
                f"expected at least {size}, the size of data.tokenizer = {self.data.tokenizer!r}"
            )
        if self.data.seq_length is not None and self.data.seq_length > self.model.max_seq_length:
            yield (
                f"data.seq_length = {self.data.seq_length}: "
                f"expected at most model.max_seq_length = {self.model.max_seq_length}"
            )

    @property
    def seq_length(self) -> int:
        """Tokens per training row: ``data.seq_length``, or ``model.max_seq_length`` where that is null."""
        return self.data.seq_length or self.model.max_seq_length

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], overrides: Iterable[str] = ()) -> SEMConfig:
        """Build from nested mappings ``{section: {key: value}}``; what is left out keeps its default.

        Args:
            values: as :meth:`to_dict` returns it. Whole numbers are taken where a float is expected, and so
                are strings such as ``"1e-5"`` (YAML 1.1 reads that as text); booleans are never numbers.
            overrides: ``"section.key=value"`` strings that win over ``values``, applied in order.

        Raises:
            ValueError: one line for every unknown key, wrong type and impossible value.
        """
        sections, problems = _by_section(values)
        problems += _apply_overrides(sections, overrides)
        built: dict[str, Any] = {}
        for name, kind in SECTIONS.items():
            try:
                built[name] = kind(**sections[name])
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("\n".join(problems))
        return cls(**built)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Iterable[str] = ()) -> SEMConfig:
        """Read a YAML file of sections, then apply ``"section.key=value"`` overrides.

        Raises:
            ValueError: the file is missing, is no YAML mapping or repeats a key; or as :meth:`from_dict`,
                with the file's name in front.
        """
        try:
            return cls.from_dict(read_yaml(path), overrides)
        except ValueError as error:
            text = str(error)
            raise ValueError(f"{path}:\n{text}" if "\n" in text else f"{path}: {text}") from None

    def with_overrides(self, *overrides: str) -> SEMConfig:
        """A checked copy with ``"section.key=value"`` strings applied."""
        return SEMConfig.from_dict(self.to_dict(), overrides)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain dicts of int, float, bool, str, None and list: what YAML and a checkpoint can hold."""
        return {name: getattr(self, name).to_mapping() for name in SECTIONS}

    def save(self, path: str | Path) -> None:
        """Write every value, defaults included, as YAML; :meth:`from_yaml` reads back an equal config."""
        write_yaml(path, self.to_dict())


SECTIONS: dict[str, type[Section]] = {
    kind.section: kind
    for kind in (
        ModelConfig,
        EncoderConfig,
        SpinorConfig,
        PropagatorConfig,
        DataConfig,
        TrainingConfig,
        GenerationConfig,
    )
}
"""The section classes by name, in order."""

_SETTINGS = {info.key: info for kind in SECTIONS.values() for info in setting_infos(kind)}


def config_from_cli(path: str | Path | None, overrides: Iterable[str] = ()) -> SEMConfig:
    """The config of a YAML file or, without one, the defaults, with ``"section.key=value"`` strings applied.

    Raises:
        ValueError: as :meth:`SEMConfig.from_yaml`.
    """
    return SEMConfig.from_dict({}, overrides) if path is None else SEMConfig.from_yaml(path, overrides)


def add_config_arguments(parser: Any) -> None:
    """Declare ``--config`` and every setting as ``--section.key`` on an argparse or jsonargparse parser.

    Values stay text and absent ones None: :func:`config_from_arguments` turns them into one checked config,
    so a mistake reads the same in YAML and on the command line. ``--data.paths`` takes several values.

    Example:
        >>> import argparse
        >>> parser = argparse.ArgumentParser()
        >>> add_config_arguments(parser)
        >>> arguments = ["--training.max_steps", "100"]
        >>> check_option_names(arguments)
        >>> config_from_arguments(parser.parse_args(arguments)).training.max_steps
        100
    """
    parser.add_argument("--config", metavar="YAML", help="file of settings; the options below win over it")
    for info in _SETTINGS.values():
        several = {"nargs": "+"} if info.kind is tuple else {}
        default = "null" if info.default is None else info.default
        text = f"{info.help} ({info.expected}; default: {default})".replace("%", "%%")
        parser.add_argument(f"--{info.key}", metavar=info.name.upper(), help=text, **several)


def check_option_names(arguments: Iterable[str]) -> None:
    """Refuse an unknown ``--section.key`` before a parser does, which could not say what was meant.

    Raises:
        ValueError: one line per unknown option, with the nearest known one.
    """
    problems = []
    for argument in arguments:
        key, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and "." in key and key not in _SETTINGS:
            problems.append(unknown_key(key, value or None, _SETTINGS))
    if problems:
        raise ValueError("\n".join(problems))


def config_from_arguments(arguments: Any) -> SEMConfig:
    """The config of a namespace parsed by a parser that :func:`add_config_arguments` prepared.

    Raises:
        ValueError: as :func:`config_from_cli`.
    """
    overrides = []
    for key in _SETTINGS:
        value = _look_up(arguments, key)
        if isinstance(value, list):
            value = json.dumps(value, ensure_ascii=False)
        if value is not None:
            overrides.append(f"{key}={value}")
    return config_from_cli(_look_up(arguments, "config"), overrides)


def _by_section(values: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Known values by section, and messages about the rest."""
    if not isinstance(values, Mapping):
        return {name: {} for name in SECTIONS}, [f"expected a mapping of sections, got {shorten(values)}"]
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    problems = []
    for name, entries in values.items():
        if name not in SECTIONS:
            problems.append(unknown_key(str(name), entries, SECTIONS))
        elif isinstance(entries, Mapping):
            for entry, value in entries.items():
                if f"{name}.{entry}" in _SETTINGS:
                    sections[name][entry] = value
                else:
                    problems.append(unknown_key(f"{name}.{entry}", value, _SETTINGS))
        elif entries is not None:
            problems.append(f"{name} = {shorten(entries)}: expected a mapping of settings")
    return sections, problems


def _apply_overrides(sections: dict[str, dict[str, Any]], overrides: Iterable[str]) -> list[str]:
    """Put ``section.key=value`` texts into ``sections``; returns messages about those that do not fit."""
    problems = []
    for override in [overrides] if isinstance(overrides, str) else overrides:
        key, equals, text = override.partition("=")
        key = key.strip().removeprefix("--")
        if not equals:
            problems.append(f"{override!r}: expected section.key=value, such as training.max_steps=100")
        elif key not in _SETTINGS:
            problems.append(unknown_key(key, text, _SETTINGS))
        else:
            section, name = key.split(".")
            sections[section][name] = _SETTINGS[key].parse(text)
    return problems


def _look_up(arguments: Any, key: str) -> Any:
    """``key`` of a namespace that is flat (argparse) or nested by its dots (jsonargparse)."""
    if hasattr(arguments, key):
        return getattr(arguments, key)
    for part in key.split("."):
        arguments = getattr(arguments, part, None)
    return arguments
