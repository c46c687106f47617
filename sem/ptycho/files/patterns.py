"""Patterns and weights of a file as a scan has them: amplitudes, the zero frequency at ``[0, 0]``."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sem.hdf5 import Source, name_of

BLOCK = 1 << 26
"""Bytes of patterns read at a time."""


def frames(path: Path, name: str, dataset: Any) -> tuple[int, int]:
    """``J`` and ``N`` of patterns ``[J, N, N]`` or, of a raster, ``[rows, columns, N, N]``, which memory can hold."""
    shape, kind = tuple(dataset.shape or ()), dataset.dtype.kind
    if len(shape) not in (3, 4) or shape[-1] != shape[-2] or kind not in "iuf":
        raise ValueError(f"{path}: {name}: expected real square patterns [J, N, N], got {dataset.dtype} {list(shape)}")
    if 0 in shape:
        raise ValueError(f"{path}: {name}: expected at least one pattern, got {list(shape)}")
    count, side = math.prod(shape[:-2]), int(shape[-1])
    check_memory(path, count, side)
    return count, side


def check_memory(path: Path, count: int, side: int) -> None:
    """Amplitudes ``[count, side, side]`` in float32 that this machine cannot hold are an error."""
    size, there = 4 * count * side * side, machine_memory()
    if there is not None and size > there:
        needs = f"{count} patterns of {side} x {side} need {size / 2**30:.1f} GiB as float32"
        raise ValueError(f"{path}: {needs}, this machine has {there / 2**30:.1f} GiB of memory")


def machine_memory() -> int | None:
    """Bytes of memory that this machine has; None where it does not say."""
    known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None


def blocks(dataset: Any) -> Iterator[slice]:
    """Slices along the first axis of a dataset of patterns, of about :data:`BLOCK` bytes as float64."""
    step = max(1, BLOCK // (8 * math.prod(dataset.shape[1:])))
    return (slice(start, min(start + step, dataset.shape[0])) for start in range(0, dataset.shape[0], step))


def amplitudes(
    path: Path, name: str, patterns: np.ndarray, valid: np.ndarray | None, first: int, *, counts: bool
) -> Tensor:
    """Amplitudes of a block of patterns, the zero frequency brought from ``[N // 2, N // 2]`` to ``[0, 0]``.

    Args:
        patterns: ``[B, N, N]``: counts, or amplitudes already.
        valid: bool ``[N, N]`` or ``[B, N, N]`` in the same order; detectors mark other pixels by impossible numbers,
            which become 0. None: all are valid.
        first: the number of the block's first pattern, for messages.

    Raises:
        ValueError: a valid pixel is negative, infinite or not a number; the message names the first.
    """
    numbers = patterns.astype(np.float64)
    wrong = ~((numbers >= 0) & (numbers <= np.finfo(np.float32).max))
    if wrong.any():
        seen = wrong if valid is None else wrong & valid
        if seen.any():
            pattern, row, column = np.argwhere(seen)[0].tolist()
            what = "counts" if counts else "amplitudes"
            got = f"{numbers[pattern, row, column]:g} in pattern {first + pattern}, pixel [{row}, {column}]"
            raise ValueError(f"{path}: {name}: expected finite {what} >= 0, got {got}")
        numbers[wrong] = 0
    numbers = np.sqrt(numbers) if counts else numbers
    return torch.from_numpy(np.fft.ifftshift(numbers.astype(np.float32), axes=(-2, -1)))


def weight_of(path: Path, name: str, weights: np.ndarray, count: int, side: int) -> tuple[Tensor, np.ndarray] | None:
    """Weights ``[N, N]`` or ``[J, N, N]`` of a detector, as a scan has them, and which pixels are valid, as the
    detector has them; None where all weights are 1."""
    if weights.shape not in ((side, side), (count, side, side)) or weights.dtype.kind not in "biuf":
        expected = f"real [{side}, {side}] or [{count}, {side}, {side}]"
        raise ValueError(f"{path}: {name}: expected {expected}, got {weights.dtype} {list(weights.shape)}")
    weights = weights.astype(np.float32)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"{path}: {name}: expected finite numbers >= 0")
    if not weights.any():
        raise ValueError(f"{path}: {name}: expected at least one valid pixel, got none")
    if weights.ndim == 3 and (weights == weights[0]).all():
        weights = weights[0]
    if (weights == 1).all():
        return None
    return torch.from_numpy(np.fft.ifftshift(weights, axes=(-2, -1))), weights > 0


def read_counts(source: Source, datasets: Sequence[Any], valid: np.ndarray | None) -> Tensor:
    """Amplitudes ``[J, N, N]`` of the counts in datasets that follow each other, read block by block.

    Args:
        valid: as :func:`amplitudes`, of all patterns.
    """
    counts = [frames(source.path, name_of(dataset), dataset) for dataset in datasets]
    (side,) = {side for _, side in counts}
    total = sum(count for count, _ in counts)
    check_memory(source.path, total, side)
    made = torch.empty(total, side, side)
    first = 0
    for dataset in datasets:
        for part in blocks(dataset):
            block = source.array(dataset, part).reshape(-1, side, side)
            end = first + len(block)
            seen = valid[first:end] if valid is not None and valid.ndim == 3 else valid
            made[first:end] = amplitudes(source.path, name_of(dataset), block, seen, first, counts=True)
            first = end
    return made


def in_the_middle(values: np.ndarray) -> np.ndarray:
    """The zero frequency brought from ``[0, 0]`` to ``[N // 2, N // 2]``, where detectors have it."""
    return np.fft.fftshift(values, axes=(-2, -1))


def as_counts(path: Path, amplitudes: Tensor) -> np.ndarray:
    """Counts whose square roots are the float32 amplitudes, bit for bit: whole numbers in the smallest dtype where they
    are whole, float64 elsewhere.

    Raises:
        ValueError: amplitudes that are no square roots of finite counts.
    """
    values = amplitudes.detach().cpu().numpy()
    if values.dtype != np.float32 or not (np.isfinite(values) & ~np.signbit(values)).all():
        raise ValueError(f"{path}: amplitudes: expected finite float32 numbers >= 0, got {values.dtype}")
    whole = whole_counts(values)
    return values.astype(np.float64) ** 2 if whole is None else whole  # the square of a float32 is exact in float64


def whole_counts(amplitudes: np.ndarray) -> np.ndarray | None:
    """Unsigned whole numbers whose square roots are these numbers, bit for bit; None where there are none."""
    if amplitudes.dtype != np.float32 or not np.isfinite(amplitudes).all() or np.signbit(amplitudes).any():
        return None
    largest = float(amplitudes.max(initial=0)) ** 2
    if largest >= 2**32 - 1:
        return None
    dtype = next(kind for kind in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(kind).max - 1)
    counts = np.empty(amplitudes.shape, dtype)
    for made, values in zip(counts, amplitudes, strict=True):
        made[...] = np.rint(values.astype(np.float64) ** 2)
        if not np.array_equal(np.sqrt(made.astype(np.float64)).astype(np.float32), values):
            return None
    return counts


def binary_mask(path: Path, weight: Tensor) -> np.ndarray:
    """Valid pixels of weights 0 and 1."""
    values = weight.detach().cpu().numpy()
    if not ((values == 0) | (values == 1)).all():
        raise ValueError(f"{path}: weight: the format holds 0 and 1, got others; write .h5, which holds any")
    return values != 0
