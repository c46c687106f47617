"""Statistics of blocks: of a residual branch, of two parallel branches, of the scale of a branch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from sem.activations.layers import widened
from sem.activations.moments import Number


@dataclass(frozen=True, eq=False)
class Block:
    """What belongs together; a part that is None has no statistic.

    Attributes:
        body: a module whose first tensor argument is the block's input ``x``, and its output the block's ``y``.
        spectral, local: the modules of two branches.
        layerscale: the factors on the branch, any shape; magnitudes where they are complex.

    Raises:
        ValueError: one of ``spectral`` and ``local`` without the other.
    """

    body: nn.Module | None = None
    spectral: nn.Module | None = None
    local: nn.Module | None = None
    layerscale: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.spectral is None) != (self.local is None):
            given = "local" if self.spectral is None else "spectral"
            raise ValueError(f"block: expected spectral and local together or neither, got {given} alone")


class BlockStatistics:
    """Sums over the outputs of a :class:`Block`, of one pass."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self._branches = {"spectral": _MeanSquare(), "local": _MeanSquare()}
        self._input, self._difference = _MeanSquare(), _MeanSquare()

    def see_branch(self, name: str, output: Tensor) -> None:
        """An output of the ``spectral`` or ``local`` branch."""
        self._branches[name].see(output)

    def see_body(self, x: Tensor, y: Tensor) -> None:
        """An input and the output it gave.

        Raises:
            ValueError: they differ in shape.
        """
        if x.shape != y.shape:
            raise ValueError(f"expected an output of the input's shape {list(x.shape)}, got {list(y.shape)}")
        self._input.see(x)
        self._difference.see(widened(y) - widened(x))

    def statistics(self) -> dict[str, Number]:
        """The block's statistics by name."""
        block, result = self.block, dict[str, Number]()
        if block.spectral is not None:
            result["spectral_local_ratio"] = self._branches["spectral"].over(self._branches["local"])
        if block.body is not None:
            result["residual_ratio"] = self._difference.over(self._input)
        if block.layerscale is not None:
            scale = widened(block.layerscale)
            scale = scale.abs() if scale.is_complex() else scale
            for name, value in (("mean", scale.mean()), ("min", scale.amin()), ("max", scale.amax())):
                result[f"layerscale_{name}"] = float(value)
        return result


class _MeanSquare:
    """The mean square of the numbers that are finite."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def see(self, values: Tensor) -> None:
        sizes = widened(values).abs()
        finite = sizes.isfinite()
        self._sum += float(sizes.where(finite, 0.0).square().sum())
        self._count += int(finite.sum())

    def over(self, other: _MeanSquare) -> float | None:
        """The ratio of the root mean squares; None where there is none."""
        if not self._count or not other._sum:
            return None
        return math.sqrt(self._sum / self._count / (other._sum / other._count))
