"""born_step: log-probabilities of the Born head for a few waves, for models that decode on the CPU."""

from __future__ import annotations

from sem.ops.registration import Operator

# All float32: psi [B, D, 2], matrix [V, 2 D], bias [V], out [B, V]. There are no gradients, and no device has it.
born_step = Operator(
    "born_step(Tensor psi, Tensor matrix, Tensor bias, float floor) -> (Tensor out)",
    empty=lambda psi, matrix, *rest: psi.new_empty(len(psi), len(matrix)),
    sizes=lambda psi, matrix, *rest: {"batch": len(psi), "vocab": len(matrix), "dim": psi.shape[1]},
    per_row=("psi", "out"),
)
