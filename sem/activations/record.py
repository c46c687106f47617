"""The file of a measurement: JSON with a summary, statistics by layer and statistics by block."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from sem.activations.moments import Number
from sem.files import write_text

SECTIONS = ("summary", "layers", "blocks")


@dataclass(frozen=True)
class Summary:
    """What was measured; None where it is not known.

    Attributes:
        architecture: the model's kind.
        parameters: how many numbers it has learned.
        checkpoint: where its parameters come from.
        data: what it was run on.
        samples: how many samples of that.
        step: the training step of the checkpoint.
    """

    architecture: str | None = None
    parameters: int | None = None
    checkpoint: str | None = None
    data: str | None = None
    samples: int | None = None
    step: int | None = None


@dataclass(frozen=True)
class Activations:
    """Statistics of a model's layers and blocks, by name and name of the statistic, see
    :func:`sem.activations.measure`."""

    summary: Summary = field(default_factory=Summary)
    layers: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)
    blocks: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)


def write(path: str | Path, activations: Activations) -> None:
    """Write the file, all of it or nothing; numbers that are not finite become ``null``, as None does.

    Raises:
        OSError: it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "activations.json"
        >>> write(path, Activations(Summary(samples=3), {"head": {"mean": 0.5, "std": math.inf}}))
        >>> read(path).layers
        {'head': {'mean': 0.5, 'std': None}}
    """
    content = {
        "summary": asdict(activations.summary),
        "layers": _plain(activations.layers),
        "blocks": _plain(activations.blocks),
    }
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read(path: str | Path) -> Activations:
    """Read what :func:`write` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged or another kind of file.
    """
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{path}: expected a file of activation statistics, got no JSON ({reason})") from None
    if not isinstance(content, dict) or content.keys() != set(SECTIONS):
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: expected a file of activation statistics with {', '.join(SECTIONS)}, got {got}")
    try:
        summary = Summary(**_checked_summary(content["summary"]))
        layers, blocks = (_checked_statistics(name, content[name]) for name in ("layers", "blocks"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Activations(summary, layers, blocks)


def _plain(groups: Mapping[str, Mapping[str, Number]]) -> dict[str, dict[str, Number]]:
    def plain(value: Number) -> Number:
        return value if value is not None and math.isfinite(value) else None

    return {name: {stat: plain(value) for stat, value in values.items()} for name, values in groups.items()}


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _checked_summary(values: Any) -> dict[str, Any]:
    expected = {name: get_args(hint)[0] for name, hint in get_type_hints(Summary).items()}
    if not isinstance(values, dict) or values.keys() != expected.keys():
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"summary: expected {', '.join(expected)}, got {got}")
    for name, kind in expected.items():
        value = values[name]
        if value is not None and type(value) is not kind:
            raise ValueError(f"summary: expected {name} to be a {kind.__name__} or null, got {value!r:.40}")
    return values


def _checked_statistics(section: str, groups: Any) -> dict[str, dict[str, Number]]:
    if not isinstance(groups, dict):
        raise ValueError(f"{section}: expected statistics by name, got a {type(groups).__name__}")
    for name, values in groups.items():
        if not isinstance(values, dict):
            raise ValueError(f"{section}: expected numbers by name for {name!r}, got a {type(values).__name__}")
        for stat, value in values.items():
            # by comparison, since an integer may be beyond all floats
            if value is not None and not (type(value) in (int, float) and abs(value) <= sys.float_info.max):
                raise ValueError(f"{section}: expected {stat} of {name!r} to be a number or null, got {value!r:.40}")
    return groups
