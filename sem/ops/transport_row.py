"""transport_row: online entropic transport by one row of each sequence, for models that decode."""

from __future__ import annotations

import torch

from sem.ops import composed
from sem.ops.registration import Operator

# All float32: kernel and plan [B, M], seen [B], loads and lost [B, rounds, M]. What they are says
# csrc/include/sem/transport_row.hpp. There are no gradients.
transport_row = Operator(
    "transport_row(Tensor kernel, Tensor seen, Tensor loads, Tensor lost, float prior_rows, float tol)"
    " -> (Tensor plan, Tensor loads_after, Tensor lost_after)",
    empty=lambda kernel, seen, loads, *rest: tuple(map(torch.empty_like, (kernel, loads, loads))),
    sizes=lambda kernel, seen, loads, *rest: dict(zip(("batch", "rounds", "columns"), loads.shape, strict=True)),
    per_row=("kernel", "seen", "loads", "lost", "plan", "loads_after", "lost_after"),
    composed=composed.transport_row,
)
