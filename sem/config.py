"""Everything a run can be told, as frozen dataclasses that check themselves.

The sections are in :mod:`sem.config_sections`; the checks, the command line's options and the messages are all
derived from them. Every error is a ``ValueError`` with one line per problem: the dotted key, the value received,
what was expected.

    >>> from sem.config import SEMConfig
    >>> config = SEMConfig.from_dict({"model": {"hidden_dim": 128}}, overrides=["training.max_steps=100"])
    >>> config.training.max_steps, config.propagator.num_layers is None
    (100, True)
    >>> config.with_overrides("generation.top_p=1.5")
    Traceback (most recent call last):
    ValueError: generation.top_p = 1.5: expected a number > 0 and <= 1
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sem.config_sections import (
    TOKENIZER_SIZES,
    DataConfig,
    EncoderConfig,
    GenerationConfig,
    LaunchConfig,
    ModelConfig,
    PropagatorConfig,
    SamplerConfig,
    SpinorConfig,
    TrainingConfig,
)
from sem.settings import Section, read_yaml, setting_infos, shorten, unknown_key, write_yaml

_log = logging.getLogger(__name__)


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
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)

    def __post_init__(self) -> None:
        for name, kind in SECTIONS.items():
            if not isinstance(getattr(self, name), kind):
                received = shorten(getattr(self, name))
                raise ValueError(f"{name} = {received}: expected a {kind.__name__}")
        if problems := list(self._cross_checks()):
            raise ValueError("\n".join(problems))

    def _cross_checks(self) -> Iterator[str]:
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
        sections, problems = _by_section(_as_of_now(values))
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
    def from_yaml(cls, path: str | Path | Sequence[str | Path], overrides: Iterable[str] = ()) -> SEMConfig:
        """Read a YAML file of sections, or several of which the later win, then apply ``"section.key=value"``
        overrides.

        Raises:
            ValueError: a file is missing, is no YAML mapping or repeats a key; or as :meth:`from_dict`, with the
                files' names in front.
        """
        paths = [path] if isinstance(path, str | Path) else path
        try:
            return cls.from_dict(functools.reduce(_merged, map(read_yaml, paths)), overrides)
        except ValueError as error:
            text, names = str(error), ", ".join(map(str, paths))
            raise ValueError(f"{names}:\n{text}" if "\n" in text else f"{names}: {text}") from None

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
        SamplerConfig,
        DataConfig,
        TrainingConfig,
        GenerationConfig,
        LaunchConfig,
    )
}
"""The section classes by name, in order."""

_SETTINGS = {info.key: info for kind in SECTIONS.values() for info in setting_infos(kind)}
_RENAMED = {info.former_key: info.key for info in _SETTINGS.values() if info.former_key is not None}


def config_from_cli(path: str | Path | Sequence[str | Path] | None, overrides: Iterable[str] = ()) -> SEMConfig:
    """The config of a YAML file, or of several of which the later win, or, without one, the defaults, with
    ``"section.key=value"`` strings applied.

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
    files = "files of settings; of several, the later win, and the options below win over them"
    parser.add_argument("--config", metavar="YAML", nargs="+", help=files)
    for info in _SETTINGS.values():
        several = {"nargs": "+"} if info.kind is tuple else {}
        default = "null" if info.default is None else info.default
        text = f"{info.help} ({info.expected}; default: {default})".replace("%", "%%")
        parser.add_argument(f"--{info.key}", metavar=info.name.upper(), help=text, **several)
    for key in _RENAMED:
        parser.add_argument(f"--{key}", help=argparse.SUPPRESS)


def check_option_names(arguments: Iterable[str]) -> None:
    """Refuse an unknown ``--section.key`` before a parser does, which could not say what was meant.

    Raises:
        ValueError: one line per unknown option, with the nearest known one.
    """
    problems = []
    for argument in arguments:
        key, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and "." in key and key not in _SETTINGS and key not in _RENAMED:
            problems.append(unknown_key(key, value or None, _SETTINGS))
    if problems:
        raise ValueError("\n".join(problems))


def config_from_arguments(arguments: Any) -> SEMConfig:
    """The config of a namespace parsed by a parser that :func:`add_config_arguments` prepared.

    Raises:
        ValueError: as :func:`config_from_cli`.
    """
    overrides = []
    for key in (*_SETTINGS, *_RENAMED):
        value = _look_up(arguments, key)
        if isinstance(value, list):
            value = json.dumps(value, ensure_ascii=False)
        if value is not None:
            overrides.append(f"{key}={value}")
    return config_from_cli(_look_up(arguments, "config"), overrides)


FORMER_KINDS: dict[str, dict[str, Any]] = {
    "model": {"layout": "stacked"},
    "encoder": {"kind": "transport", "direct": False, "carrier": "absolute"},
    "spinor": {"rotation": True, "output_gate": False, "projection": "complex"},
    "propagator": {"potential": "none", "echo": False},
    "sampler": {"kind": "born"},
    "training": {"optimizer": "adamw"},
}
"""What there was before there was a choice: a run saved then is of these kinds."""


def _as_of_now(values: Any) -> Any:
    """``values``, with :data:`FORMER_KINDS` in it where an earlier version wrote it: :meth:`SEMConfig.save` and
    checkpoints hold all sections with all of their settings, and there was no ``sampler``, later no
    ``spinor.projection``."""
    if not isinstance(values, Mapping):
        return values
    if set(values) == set(SECTIONS) and isinstance(values["spinor"], Mapping):
        known = {info.name for info in setting_infos(SpinorConfig)}
        if set(values["spinor"]) == known - {"projection"}:
            return {**values, "spinor": {**values["spinor"], "projection": FORMER_KINDS["spinor"]["projection"]}}
    if set(values) != set(SECTIONS) - {"sampler"}:
        return values
    told = ", ".join(f"{name}.{key} = {value}" for name, kinds in FORMER_KINDS.items() for key, value in kinds.items())
    _log.warning("a configuration that an earlier version saved: what it could not choose is %s", told)
    return {**values, **{name: {**kinds, **(values.get(name) or {})} for name, kinds in FORMER_KINDS.items()}}


def _merged(values: Any, others: Any) -> Any:
    """Two mappings of sections as one; what is no mapping is left to the checks that name it."""
    if isinstance(values, Mapping) and others is None:
        return values
    if not (isinstance(values, Mapping) and isinstance(others, Mapping)):
        return others
    both = {name: _merged(values[name], own) for name, own in others.items() if name in values}
    return {**values, **others, **both}


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
            known, unknown = _by_setting((f"{name}.{entry}", value) for entry, value in entries.items())
            sections[name] = {key.removeprefix(f"{name}."): value for key, value in known.items()}
            problems += unknown
        elif entries is not None:
            problems.append(f"{name} = {shorten(entries)}: expected a mapping of settings")
    return sections, problems


def _apply_overrides(sections: dict[str, dict[str, Any]], overrides: Iterable[str]) -> list[str]:
    """Put ``section.key=value`` texts into ``sections``; returns messages about those that do not fit."""
    problems, given = [], []
    for override in [overrides] if isinstance(overrides, str) else overrides:
        key, equals, text = override.partition("=")
        if equals:
            given.append((key.strip().removeprefix("--"), text))
        else:
            problems.append(f"{override!r}: expected section.key=value, such as training.max_steps=100")
    known, unknown = _by_setting(given)
    for key, text in known.items():
        section, name = key.split(".")
        sections[section][name] = _SETTINGS[key].parse(text)
    return problems + unknown


def _by_setting(given: Iterable[tuple[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Values by their setting's key, whether that or the old one was ``given``, and messages about other keys."""
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    problems = []
    for name, value in given:
        key = _RENAMED.get(name, name)
        if key not in _SETTINGS:
            problems.append(unknown_key(name, value, _SETTINGS))
        elif names.setdefault(key, name) != name:
            first = f"{names[key]} = {shorten(values[key])}"
            problems.append(f"{name} = {shorten(value)}: expected none beside {first}, they are the same setting")
        else:
            values[key] = value
    return values, problems


def _look_up(arguments: Any, key: str) -> Any:
    """``key`` of a namespace that is flat (argparse) or nested by its dots (jsonargparse)."""
    if hasattr(arguments, key):
        return getattr(arguments, key)
    for part in key.split("."):
        arguments = getattr(arguments, part, None)
    return arguments
