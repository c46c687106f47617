"""A whole configuration: sections of settings as one frozen object that YAML, a checkpoint and a command line fill.

The base of :class:`sem.config.SEMConfig` and of what other wings configure; it knows no setting itself. Every error is
a ``ValueError`` with one line per problem: the dotted key, the value received, what was expected.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

from sem.settings import Section, SettingInfo, read_yaml, setting_infos, shorten, unknown_key, write_yaml


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Base of a configuration: each field is a section, by default one with all settings at their defaults.

    Immutable: :meth:`with_overrides` returns a changed copy. A subclass may yield messages about sections that do not
    fit each other from :meth:`cross_checks`.

    Example:
        >>> from sem.settings import setting
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Walk(Section):
        ...     section = "walk"
        ...     steps: int = setting(10, "how far", ge=1)
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Tour(Configuration):
        ...     walk: Walk = dataclasses.field(default_factory=Walk)
        >>> Tour().with_overrides("walk.steps=3").walk.steps
        3
        >>> Tour.from_dict({"walk": {"step": 3}})
        Traceback (most recent call last):
        ValueError: walk.step = 3: unknown key; did you mean walk.steps?
    """

    def __post_init__(self) -> None:
        for name, kind in self.sections().items():
            if not isinstance(getattr(self, name), kind):
                received = shorten(getattr(self, name))
                raise ValueError(f"{name} = {received}: expected a {kind.__name__}")
        if problems := list(self.cross_checks()):
            raise ValueError("\n".join(problems))

    def cross_checks(self) -> Iterator[str]:
        """Messages about sections that do not fit each other; called once each of them is valid alone."""
        yield from ()

    @classmethod
    def as_of_now(cls, values: Any) -> Any:
        """``values`` with what an earlier version meant by leaving it out; a subclass says what that is."""
        return values

    @classmethod
    @functools.cache
    def sections(cls) -> dict[str, type[Section]]:
        """The section classes by name, in order."""
        return {field.name: field.default_factory for field in dataclasses.fields(cls)}  # type: ignore[misc]

    @classmethod
    @functools.cache
    def settings(cls) -> dict[str, SettingInfo]:
        """All settings by dotted key, in order."""
        return {info.key: info for kind in cls.sections().values() for info in setting_infos(kind)}

    @classmethod
    @functools.cache
    def _renamed(cls) -> dict[str, str]:
        return {info.former_key: info.key for info in cls.settings().values() if info.former_key is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], overrides: Iterable[str] = ()) -> Self:
        """Build from nested mappings ``{section: {key: value}}``; what is left out keeps its default.

        Args:
            values: as :meth:`to_dict` returns it. Whole numbers are taken where a float is expected, and so
                are strings such as ``"1e-5"`` (YAML 1.1 reads that as text); booleans are never numbers.
            overrides: ``"section.key=value"`` strings that win over ``values``, applied in order.

        Raises:
            ValueError: one line for every unknown key, wrong type and impossible value.
        """
        sections, problems = cls._by_section(cls.as_of_now(values))
        problems += cls._apply_overrides(sections, overrides)
        built: dict[str, Any] = {}
        for name, kind in cls.sections().items():
            try:
                built[name] = kind(**sections[name])
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("\n".join(problems))
        return cls(**built)

    @classmethod
    def from_yaml(cls, path: str | Path | Sequence[str | Path], overrides: Iterable[str] = ()) -> Self:
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

    @classmethod
    def from_cli(cls, path: str | Path | Sequence[str | Path] | None, overrides: Iterable[str] = ()) -> Self:
        """As :meth:`from_yaml`; without a file, the defaults with the overrides applied."""
        return cls.from_dict({}, overrides) if path is None else cls.from_yaml(path, overrides)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Declare ``--config`` and every setting as ``--section.key``, a group of options for each section.

        Values stay text and absent ones None: :meth:`from_arguments` turns them into one checked config,
        so a mistake reads the same in YAML and on the command line. A list takes several values.
        """
        files = "files of settings; of several, the later win, and the options below win over them"
        parser.add_argument("--config", metavar="YAML", nargs="+", help=files)
        for name, kind in cls.sections().items():
            group = parser.add_argument_group(f"{name}: {_first_sentence(kind)}")
            for info in setting_infos(kind):
                several: dict[str, Any] = {"nargs": "+"} if info.kind is tuple else {}
                limits = f"{info.limits}; " if info.limits else ""
                text = f"{info.help} ({limits}default: {info.default_text})".replace("%", "%%")
                action = group.add_argument(f"--{info.key}", metavar=info.word, help=text, **several)
                if info.choices:
                    action.completer = _choices(info.choices)  # type: ignore[attr-defined]  # argcomplete's
        for key in cls._renamed():
            parser.add_argument(f"--{key}", help=argparse.SUPPRESS)

    @classmethod
    def from_arguments(
        cls, arguments: argparse.Namespace, more: Iterable[str] = (), *, files: Sequence[str | Path] | None = None
    ) -> Self:
        """The config of a namespace parsed by a parser that :meth:`add_arguments` prepared.

        Args:
            more: further ``"section.key=value"`` overrides, which win.
            files: to read in place of those of ``--config``.

        Raises:
            ValueError: as :meth:`from_yaml`.
        """
        overrides = []
        for key in (*cls.settings(), *cls._renamed()):
            value = look_up(arguments, key)
            if isinstance(value, list):
                value = json.dumps(value, ensure_ascii=False)
            if value is not None:
                overrides.append(f"{key}={value}")
        return cls.from_cli(look_up(arguments, "config") if files is None else files, [*overrides, *more])

    def with_overrides(self, *overrides: str) -> Self:
        """A checked copy with ``"section.key=value"`` strings applied."""
        return type(self).from_dict(self.to_dict(), overrides)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain dicts of int, float, bool, str, None and list: what YAML and a checkpoint can hold."""
        return {name: getattr(self, name).to_mapping() for name in self.sections()}

    def save(self, path: str | Path) -> None:
        """Write every value, defaults included, as YAML; :meth:`from_yaml` reads back an equal config."""
        write_yaml(path, self.to_dict())

    @classmethod
    def _by_section(cls, values: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Known values by section, and messages about the rest."""
        sections: dict[str, dict[str, Any]] = {name: {} for name in cls.sections()}
        if not isinstance(values, Mapping):
            return sections, [f"expected a mapping of sections, got {shorten(values)}"]
        problems = []
        for name, entries in values.items():
            if name not in sections:
                problems.append(unknown_key(str(name), entries, sections))
            elif isinstance(entries, Mapping):
                known, unknown = cls._by_setting((f"{name}.{entry}", value) for entry, value in entries.items())
                sections[name] = {key.removeprefix(f"{name}."): value for key, value in known.items()}
                problems += unknown
            elif entries is not None:
                problems.append(f"{name} = {shorten(entries)}: expected a mapping of settings")
        return sections, problems

    @classmethod
    def _apply_overrides(cls, sections: dict[str, dict[str, Any]], overrides: Iterable[str]) -> list[str]:
        """Put ``section.key=value`` texts into ``sections``; returns messages about those that do not fit."""
        problems, given = [], []
        for override in [overrides] if isinstance(overrides, str) else overrides:
            key, equals, text = override.partition("=")
            if equals:
                given.append((key.strip().removeprefix("--"), text))
            else:
                problems.append(f"{override!r}: expected section.key=value, such as training.max_steps=100")
        known, unknown = cls._by_setting(given)
        for key, text in known.items():
            section, name = key.split(".")
            sections[section][name] = cls.settings()[key].parse(text)
        return problems + unknown

    @classmethod
    def _by_setting(cls, given: Iterable[tuple[str, Any]]) -> tuple[dict[str, Any], list[str]]:
        """Values by their setting's key, whether that or the old one was ``given``, and messages about other keys."""
        values: dict[str, Any] = {}
        names: dict[str, str] = {}
        problems = []
        for name, value in given:
            key = cls._renamed().get(name, name)
            if key not in cls.settings():
                problems.append(unknown_key(name, value, cls.settings()))
            elif names.setdefault(key, name) != name:
                first = f"{names[key]} = {shorten(values[key])}"
                problems.append(f"{name} = {shorten(value)}: expected none beside {first}, they are the same setting")
            else:
                values[key] = value
        return values, problems


def _merged(values: Any, others: Any) -> Any:
    """Two mappings of sections as one; what is no mapping is left to the checks that name it."""
    if isinstance(values, Mapping) and others is None:
        return values
    if not (isinstance(values, Mapping) and isinstance(others, Mapping)):
        return others
    both = {name: _merged(values[name], own) for name, own in others.items() if name in values}
    return {**values, **others, **both}


def look_up(arguments: argparse.Namespace, key: str) -> Any:
    """What was given for ``key``, a setting or an option; None for nothing."""
    return getattr(arguments, key, None)


def _first_sentence(kind: type) -> str:
    """What the class says that it is, in small letters: the title of its options."""
    text = (kind.__doc__ or "").strip().partition("\n\n")[0]
    text = re.sub(r":\w+:`~?([^`]*)`|``([^`]*)``", r"\1\2", " ".join(text.split()).rstrip("."))
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def _choices(words: tuple[str, ...]) -> Callable[..., tuple[str, ...]]:
    return lambda **_: words
