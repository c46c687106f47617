"""What the machine can do at best, measured; and the least time that follows for an operator's work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

MATRIX_SIZE = 384
STREAM_FLOATS = 2**24
MATRIX_REPEATS, STREAM_REPEATS = 40, 8


@dataclass(frozen=True)
class Work:
    """What a computation cannot do without.

    Attributes:
        bytes: inputs read and outputs written, each once.
        multiply_adds: of float32; 0 where they are not counted.
    """

    bytes: float
    multiply_adds: float = 0.0


@dataclass(frozen=True)
class Bound:
    """The least time for some work, and which of its parts takes it."""

    seconds: float
    by: str


@dataclass(frozen=True)
class Peaks:
    """Rates per second: bytes of a sum of two long arrays, multiply-adds of a float32 matrix product in cache."""

    bytes: float
    multiply_adds: float

    def bound(self, work: Work) -> Bound:
        """The longer of moving the bytes and doing the arithmetic, as if each hid the other completely."""
        moving, computing = work.bytes / self.bytes, work.multiply_adds / self.multiply_adds
        return Bound(computing, "arithmetic") if computing > moving else Bound(moving, "bytes")

    def best(self, other: Peaks) -> Peaks:
        """The higher of two measurements of each rate: a busy moment lowers what is seen, not what is possible."""
        return Peaks(max(self.bytes, other.bytes), max(self.multiply_adds, other.multiply_adds))


def measure_peaks() -> Peaks:
    """The rates on the threads that torch has now: the best of several calls, as a bound asks for."""
    left, right, product = (torch.ones(MATRIX_SIZE, MATRIX_SIZE) for _ in range(3))
    a, b, c = (torch.ones(STREAM_FLOATS) for _ in range(3))
    return Peaks(
        bytes=12 * STREAM_FLOATS / _least_seconds(lambda: torch.add(a, b, out=c), STREAM_REPEATS),
        multiply_adds=MATRIX_SIZE**3 / _least_seconds(lambda: torch.mm(left, right, out=product), MATRIX_REPEATS),
    )


def _least_seconds(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
