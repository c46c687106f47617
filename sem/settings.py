"""Dataclass fields that know their range and their help text, and the sections made of them.

The base of :mod:`sem.config`, free of anything a particular configuration has. Supported types: ``int``,
``float``, ``bool``, ``str``, ``Literal`` of strings, ``tuple[str, ...]``, and each of them ``| None``.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from sem.files import write_text

SEED_LIMIT = 2**63 - 1
"""Largest seed of torch's generators that fits everywhere."""
_NULL_WORDS = {"null", "none", "~"}
_BOOL_WORDS = {"true": True, "false": False}
_KIND_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
_KIND_NAMES = {int: "INTEGER", float: "NUMBER", bool: "true|false", str: "TEXT"}


def setting(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    pattern: str | None = None,
    formerly: str | None = None,
) -> Any:
    """A dataclass field with one line of help and a range (numbers) or a pattern to match in full (text).

    ``formerly`` is an old name, which files and command lines may still use.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "lt": lt, "pattern": pattern}
    return dataclasses.field(default=default, metadata={"help": help, "formerly": formerly, **limits})


@dataclass(frozen=True)
class SettingInfo:
    """One setting of a section: where it lives, what it takes, what it is for.

    Attributes:
        key: dotted key, such as ``training.max_steps``.
        kind: ``int``, ``float``, ``bool``, ``str``, ``tuple`` or a tuple of the allowed strings.
        optional: whether None (``null``) is allowed.
        default: the value where none is given.
        help: one line.
    """

    key: str
    kind: type | tuple[str, ...]
    optional: bool
    default: Any
    help: str
    metadata: Mapping[str, Any] = dataclasses.field(repr=False)

    @property
    def name(self) -> str:
        """The key's last part: the dataclass field's name."""
        return self.key.rpartition(".")[2]

    @property
    def former_key(self) -> str | None:
        """The dotted key under its old name, if it had one."""
        former = self.metadata["formerly"]
        return None if former is None else f"{self.key.rpartition('.')[0]}.{former}"

    @property
    def expected(self) -> str:
        """What is allowed, in words: ``an integer >= 1 or null``."""
        if isinstance(self.kind, tuple):
            words = "one of " + ", ".join(self.kind)
        elif self.kind is tuple:
            words = "a list of texts"
        else:
            words = _KIND_WORDS[self.kind]
        return f"{words} {self.limits}".rstrip()

    @property
    def limits(self) -> str:
        """What is allowed beside the type, in words: ``>= 1 or null``."""
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        limits = {sign: self.metadata[name] for name, sign in signs.items()}
        words = " and ".join(f"{sign} {limit}" for sign, limit in limits.items() if limit is not None)
        if self.metadata["pattern"] is not None:
            words += f" matching {self.metadata['pattern']}"
        return (words + (" or null" if self.optional else "")).strip()

    @property
    def default_text(self) -> str:
        """The default as a command line takes it; ``none`` for an empty list."""
        if isinstance(self.default, tuple):
            return " ".join(self.default) or "none"
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return "null" if self.default is None else str(self.default)

    @property
    def word(self) -> str:
        """What stands for a value in a list of options: ``INTEGER``."""
        if isinstance(self.kind, tuple):
            return "|".join(self.kind)
        return "TEXT" if self.kind is tuple else _KIND_NAMES[self.kind]

    @property
    def choices(self) -> tuple[str, ...]:
        """The texts to choose from, where that is all there is."""
        if isinstance(self.kind, tuple):
            return self.kind
        return tuple(_BOOL_WORDS) if self.kind is bool else ()

    def convert(self, value: Any) -> Any:
        """``value`` as this setting's type, within its range.

        Raises:
            ValueError: naming the key, the value and what was expected.
        """
        if value is None and self.optional:
            return None
        converted = self._typed(value)
        if converted is None or not self._allowed(converted):
            raise ValueError(f"{self.key} = {shorten(value)}: expected {self.expected}")
        return converted

    def parse(self, text: str) -> Any:
        """The value that ``text`` from a command line stands for; ``convert`` judges it."""
        if self.optional and text.lower() in _NULL_WORDS:
            return None
        if self.kind is bool:
            return _BOOL_WORDS.get(text.lower(), text)
        if self.kind is int and re.fullmatch(r"[+-]?\d+(_\d+)*", text):
            return int(text)
        if self.kind is float:
            return text if (number := _finite_float(text)) is None else number
        if self.kind is tuple and text.startswith("["):
            return _yaml_list(text)
        return text

    def _typed(self, value: Any) -> Any:
        if isinstance(self.kind, tuple):
            return value if isinstance(value, str) and value in self.kind else None
        if self.kind is tuple:
            items = (value,) if isinstance(value, str) else value
            fits = isinstance(items, (list, tuple)) and all(isinstance(item, str) and item for item in items)
            return tuple(items) if fits else None
        if self.kind is float:
            return _finite_float(value)
        fits = isinstance(value, self.kind) and (self.kind is bool or not isinstance(value, bool))
        return value if fits else None

    def _allowed(self, value: Any) -> bool:
        limits = self.metadata
        return (
            (limits["ge"] is None or value >= limits["ge"])
            and (limits["gt"] is None or value > limits["gt"])
            and (limits["le"] is None or value <= limits["le"])
            and (limits["lt"] is None or value < limits["lt"])
            and (limits["pattern"] is None or re.fullmatch(limits["pattern"], value) is not None)
        )


@dataclass(frozen=True, kw_only=True)
class Section:
    """Base of a configuration's sections: converts and checks every field when it is built.

    A subclass names its dotted prefix in ``section`` and may yield messages from :meth:`cross_checks`.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        problems = []
        for info in setting_infos(type(self)):
            try:
                object.__setattr__(self, info.name, info.convert(getattr(self, info.name)))
            except ValueError as error:
                problems.append(str(error))
        if problems := problems or list(self.cross_checks()):
            raise ValueError("\n".join(problems))

    def cross_checks(self) -> Iterator[str]:
        """Messages about fields that do not fit each other; called once each of them is valid alone."""
        yield from ()

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by name, tuples as lists."""
        values = {info.name: getattr(self, info.name) for info in setting_infos(type(self))}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def with_default(section: type[Section], name: str, default: Any) -> Any:
    """The field ``name`` of ``section`` for a subclass: its help and range, its place, another default.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Base(Section):
        ...     rate: float = setting(1.0, "how fast", gt=0)
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Slow(Base):
        ...     rate: float = with_default(Base, "rate", 0.1)
        >>> Slow().rate, setting_infos(Slow)[0].help
        (0.1, 'how fast')
    """
    (inherited,) = (item for item in dataclasses.fields(section) if item.name == name)
    return dataclasses.field(default=default, metadata=inherited.metadata)


def setting_infos(section: type[Section]) -> tuple[SettingInfo, ...]:
    """The settings of a section class, in the order they are written."""
    hints = typing.get_type_hints(section)
    infos = []
    for item in dataclasses.fields(section):
        kind, optional = _kind_of(hints[item.name])
        key = f"{section.section}.{item.name}"
        infos.append(SettingInfo(key, kind, optional, item.default, item.metadata["help"], item.metadata))
    return tuple(infos)


def unknown_key(key: str, value: Any, known: Iterable[str]) -> str:
    """The message for a key that is not there, with the nearest one that is.

    A right name in a wrong place (``training.hidden_dim``) is sent to its place; otherwise spelling decides,
    among the section's own keys first. Where nothing is near, the keys to choose from are listed.
    """
    known = list(known)
    section, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    near = [other for other in known if other.rpartition(".")[2] == name]
    near = near or [siblings[match] for match in difflib.get_close_matches(name, siblings, n=1)]
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.8)
    choices = siblings or dict.fromkeys(other.rpartition(".")[0] for other in known)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(choices)}"
    received = "" if value is None else f" = {shorten(value)}"
    return f"{key}{received}: unknown key; {hint}"


def shorten(value: Any) -> str:
    """``repr`` cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configurations, one text for each setting.

    Example:
        >>> changed_settings({"training": {"seed": 0, "beta2": 0.9}}, {"training": {"seed": 0, "beta2": 0.5}})
        ['training.beta2 = 0.5, was 0.9']
    """
    found = []
    for key in dict.fromkeys((*before, *now)):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changed_settings(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} = {new!r}, was {old!r}")
    return found


_LONGEST_YAML = 1 << 20


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        ValueError: the file cannot be read, is not YAML, repeats a key, or holds no mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that refuses a repeated key, where YAML would silently keep the last, and what repeats by alias:
        a few lines of that are a billion entries to whoever walks through them."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                line = self.peek_event().start_mark.line + 1
                raise ValueError(f"line {line}: expected every value written out, got an alias")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key_node, _ in node.value:
                key, line = str(key_node.value), key_node.start_mark.line + 1
                if key in seen:
                    raise ValueError(f"line {line}: key {key!r} is given twice")
                seen.add(key)
            return super().construct_mapping(node, deep)

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LONGEST_YAML + 1)
        if len(text) > _LONGEST_YAML:
            raise ValueError(f"expected settings, got more than {_LONGEST_YAML} characters")
        values = yaml.load(text, Loader)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except (IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:  # of values with tags
        raise ValueError(f"not valid YAML: {' '.join(str(error).split()) or type(error).__name__}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"expected a mapping of sections, got {shorten(values)}")
    return values


def write_yaml(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values as YAML, in their order."""
    import yaml

    write_text(path, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def _kind_of(hint: Any) -> tuple[type | tuple[str, ...], bool]:
    """``(kind, optional)`` of a type annotation."""
    if isinstance(hint, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
        return _kind_of(inner[0])[0], True
    origin = typing.get_origin(hint)
    if origin is Literal:
        return typing.get_args(hint), False
    return (origin or hint), False


def _finite_float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _yaml_list(text: str) -> Any:
    """``[a, b]`` as a list; text that only begins like one (the glob ``[ab]*.txt``) stays as it is."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
