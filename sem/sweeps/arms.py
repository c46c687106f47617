"""The file of arms: read, and checked in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sem.settings import read_yaml, shorten
from sem.sweeps.experiment import Arm, Experiment

TRIAL = "trial-"
"""What the names of a search's arms begin with."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
_MOST_ARMS = 1000


def read_arms(path: str | Path, experiment: Experiment) -> list[Arm]:
    """The arms of a YAML file: a mapping ``arms`` of names to lists of ``section.key=value`` texts.

    A name without a list is the base configuration as it is.

    Args:
        path: the file.
        experiment: judges the overrides, by its ``settings`` and ``reserved``.

    Raises:
        ValueError: the file cannot be used; one line for each mistake.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "arms.yaml"
        >>> _ = file.write_text("arms: {plain: , fast: [optim.lr=0.1]}")
        >>> experiment = Experiment(
        ...     command=lambda *run: [], settings=lambda arm, seed: {"overrides": arm.overrides}, figures=()
        ... )
        >>> read_arms(file, experiment)
        [Arm(name='plain', overrides=()), Arm(name='fast', overrides=('optim.lr=0.1',))]
    """
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    problems, arms = [], []
    problems += [f"{shorten(key)}: expected no key but arms" for key in content if key != "arms"]
    entries = content.get("arms")
    if not isinstance(entries, Mapping) or not 1 <= len(entries) <= _MOST_ARMS:
        expected = f"arms: expected a mapping of 1 to {_MOST_ARMS} names to lists of section.key=value"
        problems.append(f"{expected}, got {shorten(entries)}")
        entries = {}
    for name, overrides in entries.items():
        found = list(_problems_of(name, overrides, experiment.reserved))
        if not found:
            arms.append(Arm(name, tuple(overrides or ())))
        problems += found
    problems += _alike_names([arm.name for arm in arms])
    problems += check_settings(arms, experiment)
    if problems:
        raise ValueError("\n".join(f"{path}: {problem}" for problem in problems))
    return arms


def check_settings(arms: Sequence[Arm], experiment: Experiment) -> list[str]:
    """One sentence for each arm whose overrides are impossible, or that is the same as an earlier one."""
    problems: list[str] = []
    seen: list[tuple[Arm, Any]] = []
    for arm in arms:
        try:
            settings = experiment.settings(arm, 0)
        except ValueError as error:
            problems += [f"arm {arm.name}: {line}" for line in str(error).split("\n")]
            continue
        for other, known in seen:
            if known == settings:
                problems.append(f"arm {arm.name}: expected other settings than those of arm {other.name}")
        seen.append((arm, settings))
    return problems


def _problems_of(name: Any, overrides: Any, reserved: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(name, str):
        yield f"arm {shorten(name)}: expected a text as its name, in quotes where YAML reads it as something else"
        return
    where = f"arm {shorten(name)}"
    if not _NAME.fullmatch(name) or name.endswith(".") or name.partition(".")[0].lower() in _DEVICES:
        expected = "expected as its name, which is also a folder's, at most 64 letters, digits and . _ - inside"
        yield f"{where}: {expected}"
    if name.lower().startswith(TRIAL):
        yield f"{where}: expected a name that does not begin with {TRIAL}, as those of a search do"
    if overrides is None:
        return
    if not isinstance(overrides, list):
        yield f"{where}: expected a list of section.key=value, got {shorten(overrides)}"
        return
    keys: set[str] = set()
    for override in overrides:
        key = override.partition("=")[0].strip() if isinstance(override, str) else ""
        if not re.fullmatch(r"\w[\w-]*(\.\w[\w-]*)+", key) or "=" not in override or not override.isprintable():
            yield f"{where}: expected section.key=value, got {shorten(override)}"
        elif key in reserved:
            yield f"{where}: expected no {key}: {reserved[key]}"
        elif key in keys:
            yield f"{where}: expected {key} once, got it again in {shorten(override)}"
        keys.add(key)


def _alike_names(names: Sequence[str]) -> Iterator[str]:
    """One sentence for each name that some file systems cannot tell from an earlier one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            yield f"arm {name!r}: expected a name that differs from {other!r} in more than capitals"
