"""A ptychographic scan: what the detector counted, where the probe stood, and which pixels count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sem.ops import Patches

MARGIN = 8
"""Pixels of the object around all patches, which refinement of positions needs."""


@dataclass(frozen=True, eq=False)
class Scan:
    """``J`` patterns of one object.

    Args:
        amplitudes: ``X``, the square roots of the counts, float32 ``[J, N, N]``, with the zero frequency at ``[0, 0]``.
        positions: ``[J, 2]`` real: row and column, in pixels of the object, of the probe's pixel ``[0, 0]``.
        weight: ``[N, N]`` or ``[J, N, N]`` real, at least 0; 0: no valid pixel. None: all are valid.
        background: ``[N, N]`` counts that no wave explains. None: none.

    Raises:
        TypeError, ValueError: a tensor of the wrong dtype or shape, negative or infinite numbers; the message names it.

    Example:
        >>> scan = Scan.from_counts(torch.full((2, 8, 8), 4.0), torch.tensor([[0.0, 0.0], [0.0, 3.5]]))
        >>> len(scan), scan.side, float(scan.amplitudes[0, 0, 0]), scan.object_shape(margin=2)
        (2, 8, 2.0, (10, 14))
    """

    amplitudes: Tensor
    positions: Tensor
    weight: Tensor | None = None
    background: Tensor | None = None

    def __post_init__(self) -> None:
        data = self.amplitudes
        if data.dim() != 3 or data.shape[1] != data.shape[2] or not data.is_floating_point():
            raise ValueError(f"amplitudes: expected real [J, N, N], got {data.dtype} {list(data.shape)}")
        if self.positions.shape != (len(data), 2) or not self.positions.is_floating_point():
            got = f"{self.positions.dtype} {list(self.positions.shape)}"
            raise ValueError(f"positions: expected real [{len(data)}, 2], a row and a column per pattern, got {got}")
        frame = data.shape[1:]
        if self.weight is not None and self.weight.shape not in (frame, data.shape):
            shapes = f"{list(frame)} or {list(data.shape)}"
            raise ValueError(f"weight: expected shape {shapes}, got {list(self.weight.shape)}")
        if self.background is not None and self.background.shape != frame:
            raise ValueError(f"background: expected shape {list(frame)}, got {list(self.background.shape)}")
        for name in ("positions", "weight", "background"):
            tensor = getattr(self, name)
            if tensor is not None and not bool(tensor.isfinite().all()):
                raise ValueError(f"{name}: expected finite numbers")
            if name != "positions" and tensor is not None and bool((tensor < 0).any()):
                raise ValueError(f"{name}: expected numbers >= 0, got {float(tensor.min()):.4g}")
        bad = _invalid(data, self.weight)
        if bad.any():
            j = int(bad.flatten(1).any(1).nonzero()[0])
            first = float(data[j][bad[j]][0])
            raise ValueError(
                f"amplitudes: expected finite numbers >= 0 where pixels are valid, got {first:.4g} in pattern {j}"
            )

    @classmethod
    def from_counts(
        cls, counts: Tensor, positions: Tensor, weight: Tensor | None = None, background: Tensor | None = None
    ) -> Scan:
        """From counts with the zero frequency at ``[0, 0]``; a detector has it in the middle, ``torch.fft.ifftshift``
        over the last two dimensions brings it here. What stands in pixels of weight 0 does not matter: detectors mark
        dead ones by numbers such as -1.

        Raises:
            ValueError: negative counts, or such that are not finite, in valid pixels; or as :class:`Scan`.
        """
        exact = counts.to(torch.float64)  # unsigned integers, as detectors write them, know few operations
        if weight is None or weight.shape in (exact.shape[1:], exact.shape):
            bad = exact[_invalid(exact, weight)]
            if bad.numel():
                raise ValueError(
                    f"counts: expected finite numbers >= 0 where pixels are valid, got {float(bad[0]):.4g}"
                )
        return cls(exact.sqrt().float(), positions, weight, background)

    def __len__(self) -> int:
        return len(self.amplitudes)

    @property
    def side(self) -> int:
        """``N``, pixels along each side of a pattern."""
        return self.amplitudes.shape[-1]

    @property
    def corners(self) -> Tensor:
        """Whole pixels at which the patches begin, int64 ``[J, 2]``: ``floor(r + 1/2)``."""
        return (self.positions + 0.5).floor().long()

    def object_shape(self, margin: int = MARGIN) -> tuple[int, int]:
        """The smallest object that holds all patches, and ``margin`` pixels more beyond the last."""
        height, width = (int(self.corners[:, axis].max()) + self.side + margin for axis in (0, 1))
        return height, width

    def patches(self, shape: tuple[int, int]) -> Patches:
        """The patches in an object of ``shape``.

        Raises:
            ValueError: one leaves the object; the message names the pattern.
        """
        return Patches(self.corners, self.side, shape)

    def at(self, positions: Tensor) -> Scan:
        """The same patterns at ``positions``, real ``[J, 2]``."""
        return Scan(self.amplitudes, positions, self.weight, self.background)

    def with_margin(self, margin: int = MARGIN) -> Scan:
        """The same with positions that begin at ``margin``: refinement may move them by as much."""
        return self.at(self.positions - (self.positions.amin(0, keepdim=True) if len(self) else 0) + margin)


def _invalid(numbers: Tensor, weight: Tensor | None) -> Tensor:
    """Where valid pixels are negative, infinite or not a number."""
    bad = (numbers < 0) | ~numbers.isfinite()
    return bad if weight is None else bad & (weight > 0)
