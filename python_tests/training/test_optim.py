import pytest
import torch
from torch import nn

from sem.training.optim import build_adamw, parameter_groups, set_learning_rate


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.table = nn.Parameter(torch.ones(4, 2))
        self.table._no_weight_decay = True
        self.slow = nn.Parameter(torch.ones(2, 2))
        self.slow._lr_scale = 0.5
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.shared = self.linear


def test_groups_follow_dimensions_and_marks():
    model = Mixed()
    groups = {(g["weight_decay"], g["lr_scale"]): g["params"] for g in parameter_groups(model, 0.1)}
    found = {key: {id(p) for p in params} for key, params in groups.items()}
    assert found == {
        (0.1, 1.0): {id(model.linear.weight)},
        (0.0, 1.0): {id(model.linear.bias), id(model.table)},
        (0.1, 0.5): {id(model.slow)},
    }
    assert sum(len(params) for params in groups.values()) == 4


def adamw(model, **changes):
    return build_adamw(model, **({"learning_rate": 0.5, "weight_decay": 0.1, "betas": (0.9, 0.95)} | changes))


def test_decay_and_scale_act_as_marked():
    model = Mixed()
    optimizer = adamw(model)
    set_learning_rate(optimizer, 0.2)
    weight = model.linear.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.linear.weight.detach(), weight * (1 - 0.2 * 0.1))
    torch.testing.assert_close(model.slow.detach(), torch.full((2, 2), 1 - 0.1 * 0.1))
    assert torch.equal(model.table.detach(), torch.ones(4, 2))


def test_real_parameters_use_the_fused_kernel_and_complex_ones_the_multi_tensor_one():
    assert adamw(Mixed()).defaults["fused"]
    model = nn.ParameterList([torch.zeros(2, 2, dtype=torch.complex64)])
    optimizer = adamw(model)
    assert optimizer.defaults["foreach"]
    model[0].grad = torch.ones_like(model[0])
    optimizer.step()
    torch.testing.assert_close(model[0].detach().real, torch.full((2, 2), -0.5), rtol=1e-4, atol=0)


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="trainable parameter"):
        adamw(nn.Identity())
