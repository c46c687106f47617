"""Muon's steps against their formula by singular values, and AdamW's beside them against torch's own."""

import copy

import pytest
import torch
from torch import nn

from sem.config_sections import TrainingConfig
from sem.layers import ComplexLinear
from sem.training.muon import MuonWithAdamW, polar_factor, product_dtype
from sem.training.optim import build_optimizer


def singular_values_of(matrices):
    return torch.linalg.svdvals(matrices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("shape", [(5, 5), (3, 9), (9, 3), (2, 4, 7), (64, 64), (1, 1)])
def test_polar_factor_keeps_directions_and_levels_singular_values(dtype, shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=dtype)
    found = polar_factor(matrices)
    values = singular_values_of(found)
    before = singular_values_of(matrices) / torch.linalg.matrix_norm(matrices).unsqueeze(-1)
    assert bool((values > (45 * before).clamp_max(0.9)).all()) and float(values.max()) < 1.1
    # U S' V^H: the singular vectors are those of the matrix
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    between = u.mH @ found @ vh.mH
    off = between - torch.diag_embed(between.diagonal(dim1=-2, dim2=-1))
    assert float(off.abs().max()) < 1e-4


def test_bfloat16_products_move_singular_values_by_little():
    torch.manual_seed(0)
    matrices = torch.randn(2, 48, 96)
    values = singular_values_of(polar_factor(matrices.bfloat16()).float())
    torch.testing.assert_close(values, singular_values_of(polar_factor(matrices)), rtol=0.02, atol=0.0)


def test_only_single_precision_is_ever_multiplied_in_another():
    assert product_dtype(torch.zeros(1, dtype=torch.float64)) == torch.float64
    assert product_dtype(torch.zeros(1, dtype=torch.complex64)) == torch.complex64
    assert product_dtype(torch.zeros(1)) in (torch.float32, torch.bfloat16)


def test_polar_factor_of_zeros_is_zero():
    assert not polar_factor(torch.zeros(2, 3, 3)).any()


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_a_step_is_momentum_with_a_look_ahead_then_the_polar_factor(kind, monkeypatch):
    monkeypatch.setattr("sem.training.muon.product_dtype", lambda maps: maps.dtype)
    torch.manual_seed(1)
    shape = (3, 6, 4) if kind == "real" else (3, 6, 4, 2)
    weight = nn.Parameter(torch.randn(shape))
    group = {"params": [weight], "linear_map": kind, "weight_decay": 0.5}
    optimizer = MuonWithAdamW([group], lr=0.1, momentum=0.9)
    expected, buffer = weight.detach().clone(), torch.zeros(shape)
    for _ in range(3):
        weight.grad = torch.randn(shape)
        buffer = 0.9 * buffer + 0.1 * weight.grad
        ahead = weight.grad + 0.9 * (buffer - weight.grad)
        turned = polar_factor(torch.view_as_complex(ahead)) if kind == "complex" else polar_factor(ahead)
        step = torch.view_as_real(turned) if kind == "complex" else turned
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * (6 / 4) ** 0.5 * step
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


AS_MAPS = {  # of a convolution's weight, the same maps as matrices, and how muon calls those
    "filters": (lambda weight: weight.flatten(1), "real"),
    "transposed": (lambda weight: weight.flatten(1).mT, "real"),
    "modes": (lambda weight: weight.flatten(2, 3).permute(2, 0, 1, 3), "complex"),
}


@pytest.mark.parametrize(
    ("kind", "shape"), [("filters", (6, 2, 1, 2)), ("transposed", (4, 3, 2, 1)), ("modes", (6, 4, 2, 3, 2))]
)
def test_convolutions_take_the_steps_of_the_maps_that_they_hold(kind, shape, monkeypatch):
    monkeypatch.setattr("sem.training.muon.product_dtype", lambda maps: maps.dtype)
    torch.manual_seed(1)
    as_maps, of_matrices = AS_MAPS[kind]
    weight = nn.Parameter(torch.randn(shape))
    plain = nn.Parameter(as_maps(weight.detach()).clone())
    groups = [{"params": [weight], "linear_map": kind}], [{"params": [plain], "linear_map": of_matrices}]
    optimizers = [MuonWithAdamW(group, lr=0.1) for group in groups]
    for _ in range(2):
        weight.grad = torch.randn(shape)
        plain.grad = as_maps(weight.grad).clone()
        before = weight.detach().clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(as_maps(weight.detach()), plain.detach())
    maps = as_maps((weight.detach() - before) / 0.1)
    maps = torch.view_as_complex(maps.contiguous()) if kind == "modes" else maps
    values = singular_values_of(maps) / (max(1, maps.shape[-2] / maps.shape[-1])) ** 0.5
    assert float(values.min()) > 0.8 and float(values.max()) < 1.1


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList(ComplexLinear(6, 6) for _ in range(2))
        self.plain = nn.Linear(4, 4)


def backward(model):
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))


def test_what_is_no_linear_map_takes_adamws_steps():
    torch.manual_seed(0)
    model = Mixed()
    other = nn.Linear(4, 4)
    other.load_state_dict(model.plain.state_dict())
    training = TrainingConfig(optimizer="muon", learning_rate=0.01, weight_decay=0.2)
    ours = build_optimizer(model, training)
    decays = [{"params": [other.weight], "weight_decay": 0.2}, {"params": [other.bias], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(decays, lr=0.01, betas=(0.9, 0.95))
    for _ in range(3):
        backward(model)
        other.weight.grad, other.bias.grad = model.plain.weight.grad.clone(), model.plain.bias.grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(model.plain.weight, other.weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(model.plain.bias, other.bias, rtol=1e-5, atol=1e-7)


def test_a_restored_optimizer_takes_the_same_steps():
    torch.manual_seed(0)
    one, other = Mixed(), Mixed()
    training = TrainingConfig(optimizer="muon")
    first = build_optimizer(one, training)
    backward(one)
    first.step()
    other.load_state_dict(one.state_dict())
    second = build_optimizer(other, training)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for model, optimizer in ((one, first), (other, second)):
        backward(model)
        optimizer.step()
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_maps_of_one_shape_do_not_see_each_other():
    torch.manual_seed(0)
    together, alone = Mixed(), Mixed()
    alone.load_state_dict(together.state_dict())
    training = TrainingConfig(optimizer="muon")
    both, single = build_optimizer(together, training), build_optimizer(alone, training)
    backward(together)
    backward(alone)
    together.maps[1].weight.grad.mul_(-3)
    both.step()
    single.step()
    torch.testing.assert_close(together.maps[0].weight, alone.maps[0].weight, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(together.maps[1].weight, alone.maps[1].weight)


def test_rates_are_set_apart():
    training = TrainingConfig(optimizer="muon", learning_rate=1e-3, muon_learning_rate=0.02, muon_momentum=0.8)
    optimizer = build_optimizer(Mixed(), training)
    scales = {group["linear_map"]: group["lr_scale"] for group in optimizer.param_groups}
    assert scales == {"complex": pytest.approx(20), None: 1.0}
    assert all(group["momentum"] == 0.8 for group in optimizer.param_groups)


def test_unknown_kinds_are_errors():
    with pytest.raises(
        ValueError, match=r"linear_map: expected one of real, complex, filters, transposed, modes, None, got 'unitary'"
    ):
        MuonWithAdamW([{"params": [nn.Parameter(torch.ones(2, 2))], "linear_map": "unitary"}], lr=0.1)
