"""Five steps of every optimizer against its formula, written down once more in float64, and against torch's own."""

import itertools

import numpy as np
import pytest
import torch
from optimization_problem import PULL, TARGET, ThreeParameters
from torch import nn

from sem.optimization_settings import OptimizationSettings
from sem.training.optim import build_optimizer, set_learning_rate

RATES = (0.02, 0.05, 0.1, 0.07, 0.01)
SHIFTS = (0.0, 0.4, -0.8, 0.2, 0.5)
EPS = 1e-8
DECAYS, SLOW = ("weight", "slow"), ("slow",)


def cases_of_all():
    for decay in (0.0, 0.1):
        for name in ("adam", "adamw"):
            yield {"optimizer": name, "weight_decay": decay, "beta1": 0.8, "beta2": 0.97}
        for momentum, nesterov in itertools.product((0.0, 0.9), (False, True)):
            yield {"optimizer": "sgd", "weight_decay": decay, "momentum": momentum, "nesterov": nesterov}
        for momentum in (0.0, 0.9):
            yield {
                "optimizer": "muon",
                "weight_decay": decay,
                "muon_momentum": momentum,
                "learning_rate": 0.1,
                "muon_learning_rate": 0.3,
                "beta1": 0.8,
                "beta2": 0.97,
            }


CASES = list(cases_of_all())
TORCHS_CASES = [case for case in CASES if case["optimizer"] != "muon"]


def named(case):
    return "-".join(str(value) for value in case.values())


def adam(w, g, state, k, lr, wd, s, decoupled):
    if decoupled:
        w = w - lr * wd * w
    else:
        g = g + wd * w
    state["m"] = s.beta1 * state.get("m", 0.0) + (1 - s.beta1) * g
    state["v"] = s.beta2 * state.get("v", 0.0) + (1 - s.beta2) * g**2
    return w - lr * (state["m"] / (1 - s.beta1**k)) / (np.sqrt(state["v"] / (1 - s.beta2**k)) + EPS)


def sgd(w, g, state, lr, wd, s):
    g = g + wd * w
    if s.momentum == 0:
        return w - lr * g
    state["v"] = s.momentum * state["v"] + g if "v" in state else g
    return w - lr * (g + s.momentum * state["v"] if s.nesterov else state["v"])


def levelled(g):
    """The polynomials of muon on the singular values of ``g`` over its Frobenius norm."""
    u, values, vh = np.linalg.svd(g / np.linalg.norm(g), full_matrices=False)
    for a, b, c in ((7.7110, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013), (2.2183, -1.5940, 0.4107)):
        values = a * values + b * values**3 + c * values**5
    return u * values @ vh


def muon(w, g, state, lr, wd, s):
    state["m"] = s.muon_momentum * state.get("m", 0.0) + (1 - s.muon_momentum) * g
    ahead = g + s.muon_momentum * (state["m"] - g)
    return (1 - lr * wd) * w - lr * np.sqrt(max(1, w.shape[0] / w.shape[1])) * levelled(ahead)


def transcribed(settings):
    """The three parameters after each step."""
    weights = {name: p.detach().numpy().astype(float) for name, p in ThreeParameters(torch.float64).named_parameters()}
    states = {name: {} for name in weights}
    for k, (rate, shift) in enumerate(zip(RATES, SHIFTS, strict=True), start=1):
        for name, w in weights.items():
            g = PULL[name] * (w - TARGET - shift)
            lr = rate * (0.5 if name in SLOW else 1.0)
            wd = settings.weight_decay if name in DECAYS else 0.0
            if settings.optimizer == "sgd":
                weights[name] = sgd(w, g, states[name], lr, wd, settings)
            elif settings.optimizer == "muon" and name == "weight":
                lr *= settings.muon_learning_rate / settings.learning_rate
                weights[name] = muon(w, g, states[name], lr, wd, settings)
            else:
                weights[name] = adam(w, g, states[name], k, lr, wd, settings, settings.optimizer != "adam")
    return weights


def trained(optimizer, model):
    for rate, shift in zip(RATES, SHIFTS, strict=True):
        set_learning_rate(optimizer, rate)
        optimizer.zero_grad()
        model(shift).backward()
        optimizer.step()
    return {name: p.detach().double().numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=named)
def test_five_steps_are_those_of_the_formulas(case, dtype, tolerance, monkeypatch):
    monkeypatch.setattr("sem.training.muon.product_dtype", lambda maps: maps.dtype)
    settings = OptimizationSettings(**case)
    model = ThreeParameters(dtype)
    found, expected = trained(build_optimizer(model, settings), model), transcribed(settings)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance)


def torchs_own(model, s):
    """torch's optimizer in its plainest implementation, told everything by hand."""
    decays = {"params": [model.weight], "weight_decay": s.weight_decay}
    slow = {"params": [model.slow], "weight_decay": s.weight_decay, "lr_scale": 0.5}
    groups = [decays, {"params": [model.bias], "weight_decay": 0.0}, slow]
    if s.optimizer == "sgd":
        nesterov = s.nesterov and s.momentum > 0
        return torch.optim.SGD(groups, 1.0, momentum=s.momentum, nesterov=nesterov, foreach=False)
    kind = torch.optim.Adam if s.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, 1.0, betas=(s.beta1, s.beta2), foreach=False)


@pytest.mark.parametrize("case", TORCHS_CASES, ids=named)
def test_five_steps_are_those_of_torch(case):
    settings = OptimizationSettings(**case)
    ours, theirs = ThreeParameters(), ThreeParameters()
    found, expected = trained(build_optimizer(ours, settings), ours), trained(torchs_own(theirs, settings), theirs)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "muon"])
def test_a_parameter_that_has_its_first_gradient_late_takes_its_first_step_then(name):
    late, always = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    alone = nn.Parameter(torch.ones(2, 2))
    settings = OptimizationSettings(optimizer=name)
    both, single = (build_optimizer(nn.ParameterList(parameters), settings) for parameters in ([always, late], [alone]))
    always.grad = torch.ones(2, 2)
    both.step()
    late.grad, alone.grad = torch.full((2, 2), 0.5), torch.full((2, 2), 0.5)
    both.step()
    single.step()
    torch.testing.assert_close(late, alone)


@pytest.mark.parametrize("case", TORCHS_CASES, ids=named)
def test_complex_parameters_take_the_steps_of_their_parts(case):
    settings = OptimizationSettings(**case)
    start = torch.tensor([[0.5 - 0.25j, -1.0 + 2.0j]])
    whole, parts = nn.Parameter(start.clone()), nn.Parameter(torch.view_as_real(start.clone()))
    for parameter in (whole, parts):
        optimizer = build_optimizer(nn.ParameterList([parameter]), settings)
        for step in range(3):
            gradient = torch.tensor([[0.3 + 0.1j, -0.2 + 0.7j]]) * (1 + step)
            parameter.grad = gradient if parameter.is_complex() else torch.view_as_real(gradient)
            optimizer.step()
    torch.testing.assert_close(torch.view_as_real(whole.detach()), parts.detach())
