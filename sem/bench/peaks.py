"""What the machine can do at best, measured; and the least time that follows for an operator's work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass

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
        local_bytes: read from a GPU's shared memory; 0 where they are not counted.
    """

    bytes: float
    multiply_adds: float = 0.0
    local_bytes: float = 0.0


@dataclass(frozen=True)
class Bound:
    """The least time for some work, and which of its parts takes it."""

    seconds: float
    by: str


@dataclass(frozen=True)
class Peaks:
    """Rates per second: bytes of a sum of two long arrays (on a GPU: of a copy), multiply-adds of a float32 matrix
    product (on the CPU: in cache), bytes from a GPU's shared memory (0: there is none)."""

    bytes: float
    multiply_adds: float
    local_bytes: float = 0.0

    def bound(self, work: Work) -> Bound:
        """The longest of moving the bytes, doing the arithmetic and reading shared memory, as if each hid the others
        completely."""
        parts = [
            Bound(work.bytes / self.bytes, "bytes"),
            Bound(work.multiply_adds / self.multiply_adds, "arithmetic"),
            Bound(work.local_bytes / self.local_bytes if self.local_bytes else 0.0, "shared memory"),
        ]
        return max(parts, key=lambda part: part.seconds)

    def best(self, other: Peaks) -> Peaks:
        """The higher of two measurements of each rate: a busy moment lowers what is seen, not what is possible."""
        return Peaks(*(max(own, theirs) for own, theirs in zip(astuple(self), astuple(other), strict=True)))


def measure_peaks() -> Peaks:
    """The rates on the threads that torch has now: the best of several calls, as a bound asks for."""
    left, right, product = (torch.ones(MATRIX_SIZE, MATRIX_SIZE) for _ in range(3))
    a, b, c = (torch.ones(STREAM_FLOATS) for _ in range(3))
    return Peaks(
        bytes=12 * STREAM_FLOATS / _least_seconds(lambda: torch.add(a, b, out=c), STREAM_REPEATS),
        multiply_adds=MATRIX_SIZE**3 / _least_seconds(lambda: torch.mm(left, right, out=product), MATRIX_REPEATS),
    )


DEVICE_MATRIX_SIZE = 8192
DEVICE_COPY_FLOATS = 2**27
DEVICE_REPEATS = 10
_SHARED_BYTES_PER_CLOCK = 128


def measure_device_peaks(device: torch.device) -> Peaks:
    """A GPU's rates: a copy of half a GiB, a float32 matrix product without TF32, and what follows for shared memory.

    A multiprocessor of an NVIDIA GPU reads 128 bytes a clock from shared memory and does one multiply-add a clock on
    each of its float32 lanes, so the rate of the one gives that of the other.
    """
    now = device_clock(device)
    side = DEVICE_MATRIX_SIZE
    left, right, product = (torch.ones(side, side, device=device) for _ in range(3))
    multiply_adds = side**3 / _least_seconds(lambda: torch.mm(left, right, out=product), DEVICE_REPEATS, now)
    source, target = (torch.ones(DEVICE_COPY_FLOATS, device=device) for _ in range(2))
    copied = 8 * DEVICE_COPY_FLOATS / _least_seconds(lambda: target.copy_(source), DEVICE_REPEATS, now)
    return Peaks(copied, multiply_adds, multiply_adds * _SHARED_BYTES_PER_CLOCK / _float_lanes(device))


def device_clock(device: torch.device) -> Callable[[], float]:
    """A clock that waits for the device before it is read, so that what was enqueued is counted where it was begun."""
    backend = torch.get_device_module(device)

    def now() -> float:
        backend.synchronize(device)
        return time.perf_counter()

    return now


def _float_lanes(device: torch.device) -> int:
    """Float32 multiply-adds that a multiprocessor does in a clock: 64 on compute capability 8.0, 128 after."""
    return 64 if torch.cuda.get_device_capability(device) == (8, 0) else 128


def _least_seconds(call: Callable[[], object], repeats: int, now: Callable[[], float] = time.perf_counter) -> float:
    seconds = []
    for _ in range(repeats):
        start = now()
        call()
        seconds.append(now() - start)
    return min(seconds)
