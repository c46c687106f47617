"""From patches that stand on their own, as a network predicts them, to one object."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sem.ops import Patches, overlap_add, shift_ramp
from sem.ops.boundary import choice, count

_SOME_WEIGHT = 0.1
_BLOCK = 2**20  # pixels of patches whose ramps are held at a time


class Stitched(NamedTuple):
    """``object [H, W]`` complex64, 0 where no patch lies, and the summed ``weight [H, W]`` float32."""

    object: Tensor
    weight: Tensor

    def area(self, share: float = _SOME_WEIGHT) -> Tensor:
        """Where to judge it, bool ``[H, W]``: where the weight is above ``share`` of its largest."""
        return self.weight > share * self.weight.max()

    def box(self, share: float = _SOME_WEIGHT) -> tuple[slice, slice]:
        """Rows and columns of the largest rectangle inside :meth:`area`: scores need one without gaps."""
        return _largest_rectangle(self.area(share).tolist())


def stitch(
    patches: Tensor,
    positions: Tensor,
    shape: tuple[int, int],
    *,
    probe: Tensor | None = None,
    keep: int | None = None,
    subpixel: str = "fourier",
) -> Stitched:
    """The mean of patches where they overlap, weighted by the light each pixel saw, or of their middles.

    The object is ``sum_j w_j p_j / sum_j w_j`` with ``w_j = |P|^2 / max |P|^2``, summed over modes. By the part of a
    pixel at which a position lies, patch and probe are moved by a Fourier ramp; ``w_j`` is the moved probe's. A patch
    is not periodic, so that a little of one edge reaches the other, where there is little light.

    Args:
        patches: complex64 ``[J, N, N]``, each in the frame of the probe.
        positions: real ``[J, 2]``: row and column of a patch's pixel ``[0, 0]``.
        shape: of the object.
        probe: complex64 ``[M, N, N]``; or instead of it
        keep: the middle ``keep x keep`` pixels of each patch are taken, with weight 1 (and no ramp of the weight, which
            would ring).
        subpixel: ``fourier``, or ``nearest``: patches stay on whole pixels.

    Raises:
        ValueError: shapes that do not fit, a patch that leaves the object, both or neither of ``probe`` and ``keep``.

    Example:
        >>> from sem.ptycho import disk_probe, lines_object, raster_scan
        >>> truth, positions = lines_object(48, 20, seed=1), raster_scan(7, 7, 4)
        >>> patches = torch.stack([truth[y : y + 16, x : x + 16] for y, x in positions.int().tolist()])
        >>> found = stitch(patches, positions, (48, 48), probe=disk_probe(16))
        >>> bool((found.object - truth)[found.box()].abs().max() < 1e-6)
        True
    """
    if patches.dim() != 3 or patches.shape[1] != patches.shape[2] or patches.dtype != torch.complex64:
        raise ValueError(f"patches: expected complex64 [J, N, N], got {patches.dtype} {list(patches.shape)}")
    number, side = patches.shape[:2]
    if positions.shape != (number, 2) or not positions.is_floating_point() or not bool(positions.isfinite().all()):
        got = f"{positions.dtype} {list(positions.shape)}"
        raise ValueError(f"positions: expected finite real [{number}, 2], got {got}")
    if (probe is None) == (keep is None):
        raise ValueError(f"probe, keep: expected one of the two, got {'neither' if probe is None else 'both'}")
    choice("subpixel", subpixel, ("fourier", "nearest"))
    corners = (positions + 0.5).floor().long()
    shift = (positions - corners).float()
    where = Patches(corners, side, shape)
    moves = subpixel == "fourier" and bool(shift.any())
    weight = _middle(side, keep) if probe is None else _light(probe, side, shift if moves else None)
    if moves:
        patches = moved(patches, shift)
    # overlap_add sums conj(p) waves and |p|^2: with p the root of the weight both sums come from one pass
    root = weight.sqrt()
    sums = overlap_add(
        patches.unsqueeze(1) * root, torch.zeros(shape, dtype=torch.complex64), root.to(torch.complex64), where
    )
    summed = sums.illumination
    return Stitched(torch.where(summed > 0, sums.to_object / summed.clamp_min(1e-38), 0), summed)


def _middle(side: int, keep: int | None) -> Tensor:
    """``[1, N, N]``."""
    size = count("keep", keep, least=1)
    if size > side:
        raise ValueError(f"keep: expected at most {side}, the patches' side, got {size}")
    first = side // 2 - size // 2
    weight = torch.zeros(1, side, side)
    weight[:, first : first + size, first : first + size] = 1
    return weight


def _light(probe: Tensor, side: int, shift: Tensor | None) -> Tensor:
    """Over the largest of the probe as it is: ``[1, N, N]``, or of every pattern ``[J, 1, N, N]``."""
    if probe.dim() != 3 or probe.shape[1:] != (side, side) or probe.dtype != torch.complex64:
        raise ValueError(f"probe: expected complex64 [M, {side}, {side}], got {probe.dtype} {list(probe.shape)}")
    light = probe.abs().square().sum(0, keepdim=True)
    largest = light.max()
    if not 0 < float(largest) < torch.inf:
        raise ValueError("probe: expected finite numbers that are not all 0")
    if shift is not None:
        spectrum = torch.fft.fft2(probe)
        blocks = shift.split(max(1, _BLOCK // probe.numel()))
        moved = (torch.fft.ifft2(shift_ramp(spectrum, block)) for block in blocks)
        light = torch.cat([there.abs().square().sum(1, keepdim=True) for there in moved])
    return light / largest


def moved(patches: Tensor, shift: Tensor) -> Tensor:
    """Complex patches ``[J, N, N]``, each moved by its own ``shift [J, 2]`` by a ramp of its spectrum, so that it wraps
    around. Can be differentiated by ``patches``."""
    ones = patches.new_ones(1, *patches.shape[1:])
    parts = zip(*(tensor.split(max(1, _BLOCK // ones.numel())) for tensor in (patches, shift)), strict=True)
    return torch.cat([torch.fft.ifft2(torch.fft.fft2(some) * shift_ramp(ones, by)[:, 0]) for some, by in parts])


def _largest_rectangle(rows: list[list[bool]]) -> tuple[slice, slice]:
    """By the heights of what is true above each row's pixels: a rectangle ends where a lower height begins."""
    best, found = 0, (slice(0, 0), slice(0, 0))
    heights = [0] * len(rows[0])
    for y, row in enumerate(rows):
        heights = [height + 1 if lit else 0 for height, lit in zip(heights, row, strict=True)]
        begun: list[tuple[int, int]] = []  # first column and height, rising
        for x, height in enumerate([*heights, 0]):
            first = x
            while begun and begun[-1][1] >= height:
                first, high = begun.pop()
                if high * (x - first) > best:
                    best = high * (x - first)
                    found = (slice(y + 1 - high, y + 1), slice(first, x))
            begun.append((first, height))
    return found
