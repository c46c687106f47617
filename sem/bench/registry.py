"""What a benchmark is, and the one place where benchmarks are found by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sem.bench.peaks import Work

Kind = Literal["speed-up", "time"]


def relative_error(value: Tensor, truth: Tensor) -> float:
    """``||value - truth|| / ||truth||``, in double precision."""
    wide = value.detach().to(truth.dtype)
    return float(torch.linalg.vector_norm(wide - truth) / torch.linalg.vector_norm(truth))


def worst_row_error(value: Tensor, truth: Tensor) -> float:
    """The largest relative error of a row (last dimension), in double precision."""
    wide = value.detach().to(truth.dtype)
    rows = torch.linalg.vector_norm(wide - truth, dim=-1) / torch.linalg.vector_norm(truth, dim=-1)
    return float(rows.max())


@dataclass(frozen=True)
class Expected:
    """What one output has to be: its float64 truth, and how far from it ``measure`` may find the output."""

    name: str
    truth: Tensor
    limit: float
    measure: Callable[[Tensor, Tensor], float] = relative_error


@dataclass(frozen=True)
class Check:
    """The measured error of one output and the limit it is held to."""

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit; an error that is NaN is not."""
        return self.error <= self.limit  # False for NaN


@dataclass(frozen=True)
class Contender:
    """Something that is timed.

    Attributes:
        run: computes outputs in the order of ``expected``.
        share: the part of the problem that ``run`` does, for what is too slow to do all of it; its times are divided
            by it.
        work: what it cannot do without, where that is known.
    """

    name: str
    run: Callable[[], Sequence[Tensor]]
    expected: Sequence[Expected]
    share: float = 1.0
    work: Work | None = None

    def checks(self) -> list[Check]:
        """Compute once and compare every output with its truth."""
        outputs = self.run()
        return [
            Check(want.name, want.measure(output, want.truth), want.limit)
            for want, output in zip(self.expected, outputs, strict=True)
        ]


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    A ``'speed-up'`` is the peer's time over the subject's, and must be at least ``bar``; a ``'time'`` is the
    subject's time over the peer's, and must be at most ``bar``. Without a bar nothing is judged.
    """

    subject: Contender
    peer: Contender
    kind: Kind = "speed-up"
    bar: float | None = None

    def meets_bar(self, ratio: float) -> bool | None:
        """Whether ``ratio``, a quotient of times as the kind has it, meets the bar; None without one."""
        if self.bar is None:
            return None
        return ratio >= self.bar if self.kind == "speed-up" else ratio <= self.bar


@dataclass(frozen=True)
class Point:
    """One of several sizes that an operator is measured at, along one axis of its problem."""

    operator: str
    axis: str
    size: float


@dataclass(frozen=True)
class Benchmark:
    """Lines that share one problem and are timed together.

    ``name`` is what ``--only`` selects; ``build`` makes the problem, its truth and the comparisons; ``point`` is where
    it stands in a plot of growth.
    """

    name: str
    build: Callable[[], Sequence[Comparison]]
    point: Point | None = None


class Registry:
    """Benchmarks by name, in the order they were added."""

    def __init__(self, benchmarks: Sequence[Benchmark] = ()) -> None:
        self._benchmarks: dict[str, Benchmark] = {}
        for benchmark in benchmarks:
            self.add(benchmark)

    def add(self, benchmark: Benchmark) -> None:
        """Append ``benchmark``.

        Raises:
            ValueError: there is one of its name.
        """
        if benchmark.name in self._benchmarks:
            raise ValueError(f"benchmark {benchmark.name!r} is registered already")
        self._benchmarks[benchmark.name] = benchmark

    def select(self, parts: Sequence[str]) -> list[Benchmark]:
        """Benchmarks whose name contains one of ``parts``; all of them for no parts.

        Raises:
            ValueError: a part that no name contains.
        """
        for part in parts:
            if not any(part in name for name in self._benchmarks):
                names = ", ".join(self._benchmarks)
                raise ValueError(f"no benchmark has {part!r} in its name; there are: {names}")
        return [b for b in self if not parts or any(part in b.name for part in parts)]

    def __iter__(self) -> Iterator[Benchmark]:
        return iter(self._benchmarks.values())

    def __len__(self) -> int:
        return len(self._benchmarks)
