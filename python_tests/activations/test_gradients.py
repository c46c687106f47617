import pytest
import torch
from torch import nn

from sem.activations import flat, gradient_statistics, layer_parameters


def model_with_gradients(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    (scale * model(torch.randn(16, 4))).square().sum().backward()
    return model


def test_norms_are_those_of_the_concatenated_gradient():
    model = model_with_gradients()
    found = gradient_statistics(layer_parameters(model))
    assert list(found) == ["0", "2"]
    for name, values in found.items():
        parameters = list(model[int(name)].parameters())
        gradient = torch.cat([p.grad.flatten() for p in parameters]).double().norm()
        size = torch.cat([p.detach().flatten() for p in parameters]).double().norm()
        assert values == pytest.approx(
            {"grad_norm": float(gradient), "relative_grad_norm": float(gradient / size)}, rel=1e-6
        )


def test_clipping_by_norm_changes_all_or_nothing():
    model = model_with_gradients()
    before = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    groups = layer_parameters(model)
    loose = gradient_statistics(groups, lambda: nn.utils.clip_grad_norm_(model.parameters(), 2 * float(before)))
    assert {values["clipped_share"] for values in loose.values()} == {0.0}
    tight = gradient_statistics(groups, lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.5 * float(before)))
    assert {values["clipped_share"] for values in tight.values()} == {1.0}
    assert {name: values["grad_norm"] for name, values in tight.items()} == {
        name: values["grad_norm"] for name, values in loose.items()
    }  # before clipping
    after = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert float(after) == pytest.approx(0.5 * float(before), rel=1e-5)


def test_clipping_by_value_changes_what_is_beyond_it():
    model = model_with_gradients()
    gradients = torch.cat([p.grad.flatten() for p in model[0].parameters()]).abs()
    limit = float(gradients.median())
    found = gradient_statistics(
        {"first": model[0].parameters()}, lambda: nn.utils.clip_grad_value_(model[0].parameters(), limit)
    )
    assert found["first"]["clipped_share"] == pytest.approx(float((gradients > limit).float().mean()))
    assert 0.3 < found["first"]["clipped_share"] < 0.7


def test_zeros_and_nan_are_not_clipped():
    weight = nn.Parameter(torch.ones(4))
    weight.grad = torch.tensor([0.0, 0.5, 3.0, float("nan")])
    found = gradient_statistics({"w": [weight]}, lambda: nn.utils.clip_grad_value_([weight], 1.0))
    assert found["w"]["clipped_share"] == pytest.approx(1 / 3)
    assert found["w"]["grad_norm"] != found["w"]["grad_norm"]


def test_missing_gradients_and_weights_of_zero():
    weight, idle = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([3.0, 0.0, 4.0])
    found = gradient_statistics({"w": [weight], "idle": [idle], "none": []}, lambda: None)
    assert found == {
        "w": {"grad_norm": 5.0, "relative_grad_norm": None, "clipped_share": 0.0},
        "idle": {"grad_norm": 0.0, "relative_grad_norm": 0.0, "clipped_share": 0.0},
        "none": {"grad_norm": 0.0, "relative_grad_norm": None, "clipped_share": 0.0},
    }
    assert flat(found) == {
        "w/grad_norm": 5.0,
        "w/clipped_share": 0.0,
        "idle/grad_norm": 0.0,
        "idle/relative_grad_norm": 0.0,
        "idle/clipped_share": 0.0,
        "none/grad_norm": 0.0,
        "none/clipped_share": 0.0,
    }
    assert gradient_statistics({}) == {}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bfloat16])
def test_other_kinds_of_numbers(dtype):
    weight = nn.Parameter(torch.full((300,), 3, dtype=dtype))
    weight.grad = torch.full((300,), 4, dtype=dtype)
    found = gradient_statistics({"w": [weight]})["w"]
    assert found == pytest.approx({"grad_norm": 4 * 300**0.5, "relative_grad_norm": 4 / 3}, rel=1e-6)


def test_each_parameter_belongs_to_the_layer_that_holds_it():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.linear = nn.Parameter(torch.ones(1)), nn.Linear(2, 2)
            self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    groups = layer_parameters(nn.Sequential(Scaled(), nn.ReLU()))
    assert {name: len(group) for name, group in groups.items()} == {"0": 1, "0.linear": 2}
    assert list(layer_parameters(Scaled())) == ["(model)", "linear"]
