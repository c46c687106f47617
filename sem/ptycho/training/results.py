"""What a network found, kept as engines' results are, and its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sem.ptycho.files import ResultFile, write_result
from sem.ptycho.metrics import Comparison, compare
from sem.ptycho.training.data import NetworkScan
from sem.ptycho.training.inference import Predicted


def keep_result(target: Path, name: str, data: NetworkScan, predicted: Predicted, **more: Any) -> ResultFile:
    """Write the stitched object to ``target`` and return what was written; ``sem ptycho compare`` reads it."""
    positions = data.scan.positions.float()
    found = ResultFile(
        name=name,
        object=predicted.stitched.object,
        probe=data.probe,
        positions=positions,
        start=positions,
        geometry=data.geometry,
        source=data.name,
        settings={"network": True, "patterns_per_second": predicted.patterns_per_second, **more},
    )
    write_result(target, found)
    return found


def inner(data: NetworkScan, crop: int | None) -> int:
    """Pixels along the edges that are not scored: ``crop``, by default half a pattern's side, or as many as leave the
    7 x 7 pixels that scores need."""
    return max(0, min(data.scan.side // 2 if crop is None else crop, (min(data.object_shape) - 7) // 2))


def score(found: ResultFile, data: NetworkScan, crop: int | None = None) -> Comparison:
    """Scores and floors against the known object, :func:`inner`.

    A network's object is in its probe's frame; it is not shifted.
    """
    assert data.truth is not None
    return compare(found.object, data.truth, inner(data, crop))
