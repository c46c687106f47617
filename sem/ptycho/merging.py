"""One object from patches that overlap, and the way back of a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sem.ops import Patches, exit_waves, overlap_add

FLOOR = 1e-6
"""Of the largest summed weight: what is below it counts as this much, so that nothing is divided by next to nothing."""


def merge_patches(values: Tensor, weight: Tensor, patches: Patches) -> Tensor:
    """``O(x) = sum_j w(x - i_j) o_j(x - i_j) / sum_j w(x - i_j)``: where patches overlap, their mean by weight.

    Args:
        values: ``o_j``, ``[J, N, N]`` complex64.
        weight: ``w``, ``[N, N]`` float32, at least 0: the probe's power ``|P|^2`` says what a pattern can tell.
        patches: where they lie.

    Returns:
        ``[H, W]`` complex64; 0 where no patch is.

    Gradient, exact, to ``values``: ``w(x - i_j) g(x) / sum w``. ``weight`` has none.

    Example:
        >>> patches = Patches([(0, 0), (0, 1)], side=2, shape=(2, 3))
        >>> values = torch.tensor([1.0, 3.0], dtype=torch.complex64).view(2, 1, 1).expand(2, 2, 2)
        >>> merge_patches(values, torch.ones(2, 2), patches)[0].real.tolist()
        [1.0, 2.0, 3.0]
    """
    return _Merge.apply(values, weight, patches)


class _Merge(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, patches: Patches) -> Tensor:
        # overlap_add sums conj(p) waves and |p|^2: with p the root of the weight both sums come from one pass
        root = weight.sqrt()
        nothing = values.new_zeros(patches.height, patches.width)
        sums = overlap_add((values * root).unsqueeze(1), nothing, root.unsqueeze(0).to(values.dtype), patches)
        light = sums.illumination
        light = light.clamp_min(FLOOR * light.max().clamp_min(torch.finfo(light.dtype).tiny / FLOOR))
        ctx.save_for_backward(light, weight)
        ctx.patches = patches
        return sums.to_object / light

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        light, weight = ctx.saved_tensors
        power = weight.unsqueeze(0).to(grad.dtype)
        return exit_waves(grad / light, power, ctx.patches).squeeze(1), None, None
