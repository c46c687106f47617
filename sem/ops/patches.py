"""Where the patches of a scan lie in an object, checked once, as the ptychographic operators read it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sem.ops.boundary import count
from sem.ops.constants import CPU, Constant, plain_tensors


class Patches:
    """``J`` square patches of an object ``[height, width]``, whole pixels apart.

    Args:
        corners: ``[J, 2]`` integers (tensor or nested sequence): row and column of each patch's first pixel.
        side: pixels ``N`` along a patch.
        shape: ``(height, width)`` of the object.

    Raises:
        TypeError: ``corners`` or ``side`` are not integers.
        ValueError: another shape, or a patch that leaves the object; the message names the first.

    Example:
        >>> patches = Patches([(0, 0), (1, 2)], side=4, shape=(6, 8))
        >>> len(patches), patches.corners.tolist()
        (2, [[0, 0], [1, 2]])
    """

    def __init__(self, corners: Tensor | Sequence[Sequence[int]], side: int, shape: Sequence[int]) -> None:
        with plain_tensors():
            given = corners.detach().to(CPU) if isinstance(corners, Tensor) else torch.tensor(corners)
            if given.numel() == 0:
                given = given.reshape(0, 2).to(torch.int64)
            if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
                raise TypeError(f"corners: expected integers, got {given.dtype}")
            if given.dim() != 2 or given.shape[1] != 2:
                raise ValueError(f"corners: expected shape [J, 2], got {list(given.shape)}")
            if len(shape) != 2:
                raise ValueError(f"shape: expected (height, width), got {tuple(shape)}")
            height, width = (int(number) for number in shape)
            side = count("side", side)
            if not 1 <= side <= min(height, width):
                raise ValueError(f"side: expected 1 to {min(height, width)}, the object's smaller side, got {side}")
            if height * width >= 2**31:
                raise ValueError(f"shape: expected fewer than 2^31 pixels, got {height} x {width}")
            self.side, self.height, self.width = side, height, width
            self.corners = given.to(torch.int64, copy=True)
            outside = (self.corners < 0) | (self.corners > torch.tensor([height - side, width - side]))
            if outside.any():
                j = int(outside.any(1).nonzero()[0])
                raise ValueError(
                    f"corners: the {side} x {side} patch of pattern {j} at {tuple(self.corners[j].tolist())} leaves "
                    f"the object of {height} x {width} pixels"
                )
            self._packed = Constant(self.corners.to(torch.int32))

    def __len__(self) -> int:
        return len(self.corners)

    def packed(self, device: torch.device) -> Tensor:
        """The corners as the kernels read them, int32 ``[J, 2]`` on ``device``."""
        return self._packed.on(device)

    def __repr__(self) -> str:
        return f"Patches({len(self)} of {self.side} x {self.side} in {self.height} x {self.width})"
