import copy
import itertools
import types

import pytest
import torch
from optimization_problem import ThreeParameters
from torch import nn

from sem.optimization_settings import OptimizationSettings
from sem.training.optim import build_optimizer, load_optimizer_state, parameter_groups, set_learning_rate


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


def adamw(model):
    return build_optimizer(model, OptimizationSettings(optimizer="adamw", learning_rate=0.5, weight_decay=0.1))


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


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_nothing_to_train_is_an_error(name):
    with pytest.raises(ValueError, match="trainable parameter"):
        build_optimizer(nn.Identity(), OptimizationSettings(optimizer=name))


def test_an_unknown_optimizer_is_an_error_however_it_is_named():
    with pytest.raises(ValueError, match="optimization.optimizer = 'lion': expected one of adam, adamw, sgd, muon"):
        OptimizationSettings(optimizer="lion")
    with pytest.raises(ValueError, match="optimizer = 'lion': expected one of adam, adamw, sgd, muon"):
        build_optimizer(nn.Linear(2, 2), types.SimpleNamespace(optimizer="lion", weight_decay=0.0))


KINDS = {
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
    "sgd": {"optimizer": "sgd"},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0},
    "muon": {"optimizer": "muon"},
}


def stepped(kind):
    """An optimizer after two steps, and another one of its kind that has taken none."""
    torch.manual_seed(0)
    one, other = ThreeParameters(), ThreeParameters()
    used = build_optimizer(one, OptimizationSettings(**KINDS[kind]))
    for shift in (0.1, 0.7):
        one(shift).backward()
        used.step()
    return used, build_optimizer(other, OptimizationSettings(**KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_comes_back_bit_by_bit(kind):
    used, new = stepped(kind)
    load_optimizer_state(new, copy.deepcopy(used.state_dict()))
    states = [
        [{name: value.tolist() for name, value in optimizer.state[p].items()} for p in group["params"]]
        for optimizer in (used, new)
        for group in optimizer.param_groups
    ]
    assert states[: len(states) // 2] == states[len(states) // 2 :]
    assert any(entry for entry in states[0]) == (kind != "sgd without momentum")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sgd without momentum"])
@pytest.mark.parametrize("spoil", ["missing", "strange", "shape", "dtype", "no tensor", "sparse"])
def test_no_entry_reaches_the_optimizer_unseen(kind, spoil):
    used, new = stepped(kind)
    state = copy.deepcopy(used.state_dict())
    for entry in state["state"].values():
        name, value = next((name, value) for name, value in entry.items() if name != "step")
        if spoil == "missing":
            del entry[name]
            entry["step"] = torch.zeros(())  # an entry without anything is that of a parameter without a gradient
        else:
            entry["other" if spoil == "strange" else name] = {
                "strange": value,
                "shape": value.flatten()[:1],
                "dtype": value.double(),
                "no tensor": 3,
                "sparse": value.to_sparse(),
            }[spoil]
    with pytest.raises(ValueError, match="optimizer: parameter 0: expected"):
        load_optimizer_state(new, state)
    assert not new.state


def test_momentum_that_is_not_kept_is_refused_and_momentum_that_was_not_begins():
    (used, _), (without, plain) = stepped("sgd"), stepped("sgd without momentum")
    with pytest.raises(ValueError, match=r"parameter 0: expected \[\], got \['momentum_buffer'\]"):
        load_optimizer_state(plain, used.state_dict())
    load_optimizer_state(used, without.state_dict())
    assert not any(used.state.values()) and used.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(("own", "saved"), list(itertools.permutations(["adam", "adamw", "sgd", "muon"], 2)))
def test_another_optimizers_state_is_refused_by_name(own, saved):
    (_, new), (used, _) = stepped(own), stepped(saved)
    with pytest.raises(ValueError, match=f"optimizer: expected the state of '{own}', got that of '{saved}'"):
        load_optimizer_state(new, used.state_dict())


@pytest.mark.parametrize("saved", ["adamw", "muon"])
@pytest.mark.parametrize("own", KINDS)
def test_a_state_of_before_groups_had_names_is_known_by_what_is_in_it(own, saved):
    (_, new), (used, _) = stepped(own), stepped(saved)
    state = used.state_dict()
    for group in state["param_groups"]:
        del group["optimizer"]
    if own == saved:
        load_optimizer_state(new, state)
        assert new.state and all(group["optimizer"] == own for group in new.param_groups)
    else:
        with pytest.raises(ValueError, match=f"got that of '{saved}'"):
            load_optimizer_state(new, state)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_of_ones_own_loads_its_own_state(make):
    models = ThreeParameters(), ThreeParameters()
    used, new = (make(model.parameters(), lr=0.1) for model in models)
    models[0](0.3).backward()
    used.step()
    load_optimizer_state(new, used.state_dict())
    assert len(new.state) == len(used.state)
