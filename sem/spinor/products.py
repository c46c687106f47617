"""Matrix products in groups, on the columns of a wave as they lie."""

from __future__ import annotations

import torch
from torch import Tensor


def product(rows: Tensor, matrices: Tensor, out: Tensor, dtype: torch.dtype) -> Tensor:
    """``out[:, g] = rows[:, g] @ matrices[g]`` for ``rows [R, G, in]``, ``matrices [G, in, out]``, ``out [R, G, out]``.

    The columns of a group may lie apart from those of its neighbours; they are not gathered first. The product is taken
    in ``dtype``.
    """
    if dtype == out.dtype:
        torch.bmm(rows.transpose(0, 1), matrices, out=out.transpose(0, 1))
    else:
        out.copy_(torch.bmm(rows.transpose(0, 1).to(dtype), matrices.to(dtype)).transpose(0, 1))
    return out


def outer_product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """``left[:, g]^T @ right[:, g]``, ``[G, i, j]``, from ``left [R, G, i]`` and ``right [R, G, j]``."""
    if left.shape[2] > right.shape[2]:  # the longer side goes along the lanes of the matrix product
        return outer_product(right, left, dtype).transpose(1, 2)
    return torch.bmm(left.permute(1, 2, 0).to(dtype), right.transpose(0, 1).to(dtype)).to(right.dtype)
