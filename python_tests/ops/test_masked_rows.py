"""A row that the loss does not use adds nothing to the gradients that rows share, even where it holds NaN."""

import pytest
import torch
from operators import OPERATORS

ROWS, MASKED = 5, 2

with_rows = pytest.mark.parametrize(
    "operator", [one for one in OPERATORS if one.name != "diffraction" and not one.plain_torch], ids=repr
)


def gradients(operator, problem):
    """For a loss over all rows but the masked one."""
    tensors = {name: tensor.clone().requires_grad_() for name, tensor in problem.tensors.items()}
    keep = torch.arange(ROWS) != MASKED
    loss = sum(out[keep].abs().square().sum() for out in operator.on(problem)(*tensors.values()))
    return dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True))


@with_rows
def test_a_masked_row_of_nan_leaves_all_gradients_as_they_were(operator):
    problem = operator.plain(ROWS)
    with_own_rows = [name for name, tensor in problem.tensors.items() if tensor.ndim > 0 and len(tensor) == ROWS]
    assert with_own_rows and len(with_own_rows) <= len(problem.tensors)
    expected = gradients(operator, problem)
    assert all(gradient.abs().sum() > 0 for gradient in expected.values())
    for name in with_own_rows:
        problem.tensors[name][MASKED] = torch.nan
    for name, found in gradients(operator, problem).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-6, atol=1e-6, msg=name)
