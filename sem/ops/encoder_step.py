"""encoder_step: one token of each sequence through the encoder, for models that decode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops import composed
from sem.ops.registration import Operator


def _sizes(kernel: Tensor, positions: Tensor, loads: Tensor, lost: Tensor, lift: Tensor, rates: Tensor, *rest: Any):
    batch, rounds, columns = loads.shape
    return {"batch": batch, "rounds": rounds, "columns": columns, "dim": rates.shape[0]}


def _empty(kernel: Tensor, positions: Tensor, loads: Tensor, lost: Tensor, lift: Tensor, rates: Tensor, *rest: Any):
    return kernel.new_empty(len(kernel), len(rates), 2), torch.empty_like(loads), torch.empty_like(loads)


# All float32: kernel [B, M], positions [B], loads and lost [B, rounds, M], lift [2 D, M], rates [D], wave [B, D, 2];
# what they are, csrc/include/sem/encoder_step.hpp says. There are no gradients.
encoder_step = Operator(
    "encoder_step(Tensor kernel, Tensor positions, Tensor loads, Tensor lost, Tensor lift, Tensor rates,"
    " float prior_rows, float tol, int sparsity) -> (Tensor wave, Tensor loads_after, Tensor lost_after)",
    empty=_empty,
    sizes=_sizes,
    per_row=("kernel", "positions", "loads", "lost", "wave", "loads_after", "lost_after"),
    composed=composed.encoder_step,
)
