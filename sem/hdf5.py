"""HDF5 read and written so that whatever is wrong with a file is said in a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sem.extras import how_to_install
from sem.files import replacing

FAILURES = (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError)
"""What h5py raises where the bytes of a file make no sense."""


def library() -> Any:
    """h5py, which only files in HDF5 need.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        import h5py
    except ImportError:
        either = f"{how_to_install('ptycho')} or {how_to_install('crystallography')}"
        raise ImportError(f"files in HDF5 (.cxi, .ptyd, .h5, .nxs) need h5py: {either}") from None
    return h5py


class Source:
    """An HDF5 file that is being read."""

    def __init__(self, path: Path, root: Any) -> None:
        self.path = path
        self.root = root

    def find(self, name: str) -> Any:
        """The group or dataset ``name``; None where there is none.

        Raises:
            ValueError: a link on the way leads nowhere, or the file is damaged there.
        """
        found, walked = self.root, ""
        for part in filter(None, name.split("/")):
            walked = f"{walked}/{part}".lstrip("/")
            try:
                link = found.get(part, getlink=True) if hasattr(found, "keys") else None
            except FAILURES as error:
                raise ValueError(f"{self.path}: {walked}: damaged ({one_line(error)})") from None
            if link is None:
                return None
            try:
                found = found[part]
            except FAILURES as error:
                target = ":".join(filter(None, (getattr(link, "filename", ""), getattr(link, "path", ""))))
                why = f"links to {target}, which cannot be opened" if target else "damaged"
                raise ValueError(f"{self.path}: {walked}: {why} ({one_line(error)})") from None
        return found

    def children(self, name: str) -> list[str]:
        """Names in the group ``name``; none where there is no such group."""
        group = self.find(name)
        try:
            return [str(name) for name in group] if hasattr(group, "keys") else []
        except FAILURES as error:
            raise ValueError(f"{self.path}: {name or '/'}: damaged ({one_line(error)})") from None

    def dataset(self, *names: str) -> Any:
        """The first dataset of these names; None where there is none."""
        for name in names:
            found = self.find(name)
            if found is not None:
                try:  # h5py reads both only now
                    described = hasattr(found, "shape") and found.dtype is not None
                except FAILURES as error:
                    raise ValueError(f"{self.path}: {name}: damaged ({one_line(error)})") from None
                if not described:
                    raise ValueError(f"{self.path}: {name}: expected a dataset, got a group")
                if self.attribute(found, "type") in ("None", b"None"):  # how PtyPy writes that there is nothing
                    continue
                return found
        return None

    def needed(self, *names: str) -> Any:
        """As :meth:`dataset`; none is an error that tells all their names."""
        found = self.dataset(*names)
        if found is None:
            raise ValueError(f"{self.path}: expected a dataset {' or '.join(names)}, found none")
        return found

    def array(self, dataset: Any, part: Any = ()) -> np.ndarray:
        """The numbers of a dataset, or a part of them.

        Raises:
            ValueError: they cannot be read, or are neither numbers nor text; HDF5 itself reads damaged descriptions of
                other types beyond their memory.
        """
        kind, size = dataset.dtype.kind, dataset.dtype.itemsize
        text = kind == "S" or library().check_string_dtype(dataset.dtype) is not None
        if not (text or (kind in "biuf" and size <= 8) or (kind == "c" and size in (8, 16))):
            raise ValueError(f"{self.path}: {name_of(dataset)}: expected numbers or text, got {dataset.dtype}")
        try:
            return np.asarray(dataset[part])
        except FAILURES as error:
            raise ValueError(f"{self.path}: {name_of(dataset)}: cannot be read ({one_line(error)})") from None

    def tensor(self, dataset: Any) -> Tensor:
        """The numbers of a dataset as they are.

        Raises:
            ValueError: they cannot be read, or are none that torch knows: text, say, or another byte order.
        """
        values = self.array(dataset)
        try:
            return torch.from_numpy(values)
        except (TypeError, ValueError):
            got = f"{dataset.dtype} {list(dataset.shape or ())}"
            raise ValueError(f"{self.path}: {name_of(dataset)}: expected numbers, got {got}") from None

    def number(self, *names: str, units: tuple[str, ...] = ()) -> float | None:
        """The one number of the first dataset of these names, or the one that an array of it repeats.

        Args:
            units: what an attribute ``units`` of it may say.

        Raises:
            ValueError: there are none or several numbers, text, or other units.
        """
        dataset = self.dataset(*names)
        if dataset is None:
            return None
        name = name_of(dataset)
        self.check_units(dataset, units)
        values = self.array(dataset)
        if values.dtype.kind not in "iuf" or np.unique(values).size != 1:
            got = f"{values.dtype} {values.ravel()[:4].tolist()}" if values.size else "nothing"
            raise ValueError(f"{self.path}: {name}: expected one number, got {got}")
        return float(values.flat[0])

    def text(self, *names: str) -> str:
        """The text of the first dataset of these names, or ``""``."""
        dataset = self.dataset(*names)
        if dataset is None:
            return ""
        value = self.array(dataset)
        raw = value.item() if value.size == 1 else None
        said = raw.decode("utf-8", errors="replace") if isinstance(raw, bytes) else raw
        if not isinstance(said, str) or "\0" in said:
            raise ValueError(f"{self.path}: {name_of(dataset)}: expected text without NUL, got {value.dtype}")
        return said

    def check_units(self, dataset: Any, units: tuple[str, ...]) -> None:
        """An attribute ``units`` of the dataset that says anything else than these is an error."""
        said = self.attribute(dataset, "units")
        said = said.decode("utf-8", errors="replace") if isinstance(said, bytes) else said
        if units and said is not None and str(said).strip().lower() not in units:
            raise ValueError(f"{self.path}: {name_of(dataset)}: expected units {units[0]}, got {said}")

    def attribute(self, holder: Any, name: str) -> Any:
        """An attribute; None where there is none."""
        try:
            return holder.attrs.get(name)
        except FAILURES as error:
            raise ValueError(f"{self.path}: attribute {name}: damaged ({one_line(error)})") from None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Source]:
    """The HDF5 file at ``path``.

    Raises:
        ImportError: h5py is not installed.
        ValueError: the file is damaged.
    """
    h5py = library()
    try:
        file = h5py.File(path, "r")
    except FAILURES as error:
        raise ValueError(f"{path}: expected a complete HDF5 file ({one_line(error)})") from None
    with file:
        yield Source(path, file)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Any]:
    """An ``h5py.File`` to write to; it becomes ``path`` when the block ends without an error, as
    :func:`sem.files.replacing` does it."""
    h5py = library()
    # h5py opens the temporary file by its name: one file, which replacing then brings to the disk and renames.
    with replacing(path) as temporary, h5py.File(temporary.name, "w") as file:
        yield file


def put(file: Any, name: str, values: np.ndarray) -> None:
    """Write an array into an ``h5py.File``, compressed, with checksums; of three dimensions, slice by slice."""
    chunk = (1, *values.shape[1:]) if values.ndim == 3 else True
    file.create_dataset(
        name, data=values, chunks=chunk, compression="gzip", compression_opts=1, shuffle=True, fletcher32=True
    )


def array_of(path: Path, name: str, tensor: Tensor) -> np.ndarray:
    """A tensor as files take it.

    Raises:
        ValueError: of a dtype that they do not; the message names the file and the tensor.
    """
    try:
        return np.ascontiguousarray(tensor.detach().resolve_conj().resolve_neg().cpu().numpy())
    except TypeError:
        raise ValueError(f"{path}: {name}: expected a dtype that files hold, got {tensor.dtype}") from None


def name_of(dataset: Any) -> str:
    """The name of a dataset as messages say it."""
    return str(dataset.name).lstrip("/")


def one_line(error: BaseException) -> str:
    """What another library said, as part of a sentence."""
    return " ".join(str(error).split()).strip("'\"") or type(error).__name__
