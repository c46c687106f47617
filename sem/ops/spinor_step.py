"""spinor_step: one position of a spinor layer in one kernel, for models that decode on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sem.ops.registration import Operator


def _sizes(x: Tensor, history: Tensor, state: Tensor, *rest: Any) -> dict[str, int]:
    blocks, taps, into, out_gate = rest[4], rest[5], rest[10], rest[14]
    num_blocks, size = blocks.shape[:2] if blocks.dim() > 1 else (0, 0)
    return {
        "batch": x.shape[0],
        "dim": x.shape[1],
        "num_blocks": num_blocks,
        "size": size,
        "out_gates": out_gate.shape[0],
        "num_taps": taps.shape[0],
        "groups": into.shape[0],
        "states": into.shape[1],
    }


# All float32: x [B, D, 2], history [B, taps - 1, D, 2], state [B, groups * states, 2], the rest as the parts of
# sem.spinor's layer take it (csrc/include/sem/spinor_step.hpp); gate, gate_bias and blocks are empty where there is no
# rotation, out_gate and out_gate_bias where the output has no gate. There are no gradients, and no device has it.
spinor_step = Operator(
    "spinor_step(Tensor x, Tensor history, Tensor state, Tensor gamma, float eps, Tensor gate, Tensor gate_bias,"
    " Tensor blocks, Tensor taps, Tensor offset, Tensor theta, Tensor time_steps, Tensor time_bias, Tensor into,"
    " Tensor out_of, Tensor decay, Tensor frequency, Tensor out_gate, Tensor out_gate_bias,"
    " Tensor out_matrix, float least_dt, float most_dt)"
    " -> (Tensor out, Tensor history_after, Tensor state_after)",
    empty=lambda x, history, state, *rest: tuple(map(torch.empty_like, (x, history, state))),
    sizes=_sizes,
    per_row=("x", "history", "state", "out", "history_after", "state_after"),
)
