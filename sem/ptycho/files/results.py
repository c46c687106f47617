"""Files of results: object, probe, positions, losses, and what a reconstruction was told."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sem.hdf5 import array_of, library, put, reading, writing
from sem.ptycho.files.contents import Geometry
from sem.ptycho.files.lossless import geometry_of, put_geometry

FORMAT = "sem ptychographic result"
VERSION = 1


@dataclass(frozen=True, eq=False)
class ResultFile:
    """What a reconstruction found, by an engine or by a network.

    Args:
        name: who found it, in a word or two: a table's first column.
        object: complex64 ``[H, W]``. probe: complex64 ``[M, N, N]``.
        positions: as they are at the end, float32 ``[J, 2]``, of the probe's pixel ``[0, 0]`` in pixels of ``object``.
        start: the positions before the run.
        origin: row and column in ``object`` of pixel ``[0, 0]`` of the scan's own object.
        losses: numbers of every sweep, by name: all of one length.
        geometry: of the scan, with the pixel's size. None: not known.
        settings: what the reconstruction was told, plain values that JSON holds.
        source: the scan's file.

    Raises:
        ValueError: shapes that do not fit each other, numbers that are not finite; the message names them.
    """

    name: str
    object: Tensor
    probe: Tensor
    positions: Tensor
    start: Tensor
    origin: tuple[int, int] = (0, 0)
    losses: Mapping[str, list[float]] = field(default_factory=dict)
    geometry: Geometry | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        for name, dims in (("object", 2), ("probe", 3)):
            wave = getattr(self, name)
            if wave.dim() != dims or wave.dtype != torch.complex64 or not wave.numel():
                raise ValueError(
                    f"{name}: expected complex64 of {dims} dimensions, got {wave.dtype} {list(wave.shape)}"
                )
        if self.probe.shape[1] != self.probe.shape[2]:
            raise ValueError(f"probe: expected [M, N, N], got {list(self.probe.shape)}")
        count = len(self.positions)
        for name in ("positions", "start"):
            where = getattr(self, name)
            if where.shape != (count, 2) or not count or where.dtype != torch.float32:
                got = f"{where.dtype} {list(where.shape)}"
                raise ValueError(f"{name}: expected float32 [J, 2], a row and a column per pattern, got {got}")
        for name in ("object", "probe", "positions", "start"):
            if not bool(getattr(self, name).isfinite().all()):
                raise ValueError(f"{name}: expected finite numbers")
        lengths = {len(values) for values in self.losses.values()}
        if len(lengths) > 1:
            raise ValueError(f"losses: expected numbers of the same sweeps, got {sorted(lengths)} of them")
        if self.geometry is not None and self.geometry.side != self.side:
            raise ValueError(f"geometry: expected side {self.side}, as the probe has, got {self.geometry.side}")

    @property
    def side(self) -> int:
        """``N``, pixels along each side of the probe."""
        return self.probe.shape[-1]


def is_result(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of :func:`write_result`, by its content.

    Raises:
        OSError: there is no such file, or it may not be read.
    """
    with open(path, "rb"):  # h5py's own words about a missing file are many
        pass
    if not library().is_hdf5(path):
        return False
    with reading(Path(path)) as source:
        return str(source.attribute(source.root, "format")) == FORMAT


def read_result(path: str | os.PathLike[str]) -> ResultFile:
    """The result in a file.

    Raises:
        OSError: there is no such file, or it may not be read.
        ImportError: h5py is not installed.
        ValueError: it is no result, damaged, or lacks something; the message names the file and the dataset.
    """
    path = Path(path)
    if not is_result(path):
        raise ValueError(f"{path}: expected a result of sem ptycho reconstruct, got another file")
    with reading(path) as source:
        version = source.attribute(source.root, "version")
        if str(version) != str(VERSION):
            raise ValueError(f"{path}: expected version {VERSION} of '{FORMAT}', got {version}")
        tensors = {name: source.tensor(source.needed(name)) for name in ("object", "probe", "positions", "start")}
        origin = source.array(source.needed("origin"))
        if origin.shape != (2,) or origin.dtype.kind not in "iu":
            raise ValueError(f"{path}: origin: expected two whole numbers, got {origin.dtype} {list(origin.shape)}")
        losses = {}
        for name in source.children("losses"):
            values = source.array(source.needed(f"losses/{name}"))
            if values.ndim != 1 or values.dtype.kind not in "iuf":
                got = f"{values.dtype} {list(values.shape)}"
                raise ValueError(f"{path}: losses/{name}: expected real [sweeps], got {got}")
            losses[name] = values.astype(np.float64).tolist()
        try:
            settings = json.loads(source.text("settings") or "{}")
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: settings: expected JSON ({error})") from None
        if not isinstance(settings, dict):
            raise ValueError(f"{path}: settings: expected a JSON object, got {type(settings).__name__}")
        try:
            geometry = geometry_of(source, tensors["probe"].shape[-1])
            return ResultFile(
                name=source.text("name"),
                origin=(int(origin[0]), int(origin[1])),
                losses=losses,
                geometry=geometry,
                settings=settings,
                source=source.text("source"),
                **tensors,
            )
        except ValueError as error:
            said = str(error)
            raise ValueError(said if said.startswith(str(path)) else f"{path}: {said}") from None


def write_result(path: str | os.PathLike[str], result: ResultFile) -> None:
    """Write a result as ``.h5``; the file is complete or not there.

    Raises:
        OSError: the file could not be written.
        ImportError: h5py is not installed.
        ValueError: settings that JSON does not hold.
    """
    path = Path(path)
    settings = json.dumps(dict(result.settings), allow_nan=False)
    arrays = {name: array_of(path, name, getattr(result, name)) for name in ("object", "probe", "positions", "start")}
    with writing(path) as file:
        file.attrs.update({"format": FORMAT, "version": VERSION})
        for name, values in arrays.items():
            put(file, name, values)
        file["origin"] = np.array(result.origin, np.int64)
        for name, numbers in result.losses.items():
            file[f"losses/{name}"] = np.array(numbers, np.float64)
        put_geometry(file, result.geometry)
        file["name"], file["source"], file["settings"] = result.name, result.source, settings
