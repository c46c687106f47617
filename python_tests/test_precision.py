"""The precision policy: what the configuration says happens, stage by stage, and nothing else switches bfloat16 on."""

import logging

import pytest
import torch
from small_model import SMALL_MODEL
from torch import nn

from sem.config import SEMConfig
from sem.model import SEMModel
from sem.ops import Topology, cayley, cg_solve, laplacian_cg, laplacian_matvec, phase_entropy, pit, scan
from sem.precision import (
    MODES,
    PrecisionPolicy,
    autocast_reached,
    effective_precision,
    note_autocast,
    reset_autocast_reached,
    use_precision,
)
from sem.propagator import CayleySolitonStack

SMALL = (
    *SMALL_MODEL,
    "model.num_layers=2",
    "model.max_seq_length=12",
    "encoder.kind=transport",
)


@pytest.fixture(autouse=True)
def fresh_count():
    reset_autocast_reached()
    yield
    reset_autocast_reached()


def small_model(mode, *overrides):
    torch.manual_seed(0)
    model = SEMModel(SEMConfig().with_overrides(*SMALL, *overrides))
    policy = PrecisionPolicy(mode, "cpu")
    use_precision(model, policy)
    return model, policy


def batch():
    torch.manual_seed(1)
    return torch.randint(256, (2, 12)), torch.randint(256, (2, 12))


class MatrixDtypes(torch.overrides.TorchFunctionMode):
    """Which dtypes the matrix products between ``begin`` and the present had, by the stage they ran in."""

    PRODUCTS = (nn.functional.linear, torch.bmm, torch.matmul, torch.Tensor.matmul)

    def __init__(self, model):
        super().__init__()
        self.stage = "encoder"
        self.dtypes: dict[str, set[torch.dtype]] = {}
        self.autocast: dict[str, bool] = {}
        stages = {
            model.encoder: "encoder",
            model.propagator: "propagator",
            model.sampler: "head",
        }
        for layer in model.mamba_layers:
            stages[layer] = "spinor"
        self.handles = [module.register_forward_pre_hook(self.enter(name)) for module, name in stages.items()]

    def enter(self, name):
        def hook(module, arguments):
            self.stage = name
            self.autocast[name] = torch.is_autocast_enabled("cpu")

        return hook

    def __torch_function__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if function in self.PRODUCTS:
            self.dtypes.setdefault(self.stage, set()).add(result.dtype)
        return result


def dtypes_by_stage(mode, outer=False, head="coherent"):
    """Dtypes of matrix products and state of autocast of each stage, in a forward pass as a trainer makes it."""
    model, policy = small_model(mode, f"sampler.kind={head}")
    with MatrixDtypes(model) as seen, torch.autocast("cpu", torch.bfloat16, enabled=outer), policy.forward_context():
        model(batch()[0])
    for handle in seen.handles:
        handle.remove()
    return seen.dtypes, seen.autocast


@pytest.mark.parametrize("outer", [False, True])
def test_float32_mode_computes_everything_in_float32_even_inside_autocast(outer):
    dtypes, autocast = dtypes_by_stage("32-true", outer)
    assert set(dtypes) == {"encoder", "spinor", "propagator", "head"}
    assert all(found == {torch.float32} for found in dtypes.values())
    assert autocast == {"encoder": False, "spinor": False, "propagator": False, "head": False}
    assert autocast_reached() == {}


def test_mixed_mode_reaches_the_propagator_which_records_it():
    dtypes, autocast = dtypes_by_stage("bf16-mixed")
    assert all(torch.bfloat16 in dtypes[stage] for stage in ("encoder", "spinor"))
    assert dtypes["propagator"] == dtypes["head"] == {torch.float32}
    assert autocast == {"encoder": True, "spinor": True, "propagator": True, "head": True}
    assert autocast_reached() == {"propagator": 2, "coherent head": 1}  # once per layer


def test_amplitudes_follow_autocast():
    for mode in ("bf16-mixed", "selective-bf16"):
        dtypes, autocast = dtypes_by_stage(mode, head="born")
        assert dtypes["head"] == {torch.bfloat16} and autocast["head"]


@pytest.mark.parametrize("outer", [False, True])
def test_selective_mode_keeps_the_propagator_outside_autocast(outer):
    dtypes, autocast = dtypes_by_stage("selective-bf16", outer)
    assert all(torch.bfloat16 in dtypes[stage] for stage in ("encoder", "spinor"))
    assert dtypes["propagator"] == dtypes["head"] == {torch.float32}
    assert autocast == {"encoder": True, "spinor": True, "propagator": False, "head": False}
    assert autocast_reached() == {}


@pytest.mark.parametrize("mode", MODES)
def test_log_probabilities_and_gradients_are_float32_and_near_full_precision(mode):
    tokens, targets = batch()
    exact, _ = small_model("32-true")
    model, policy = small_model(mode)
    with policy.forward_context():
        log_probabilities = model(tokens)
        model(tokens, targets)["loss"].backward()
    assert log_probabilities.dtype == torch.float32
    torch.testing.assert_close(log_probabilities.exp(), exact(tokens).exp(), atol=2e-3, rtol=0)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.grad.dtype for parameter in learned} == {torch.float32}


@pytest.mark.parametrize("mode", MODES)
def test_propagator_has_the_bits_of_float32_in_every_mode(mode):
    torch.manual_seed(0)
    stack = CayleySolitonStack(24, 3, dt=0.4, potential=True)
    psi = torch.randn(2, 5, 24, dtype=torch.complex64)
    cotangent = torch.randn(2, 5, 24, dtype=torch.complex64)

    def run(context):
        stack.zero_grad()
        leaf = psi.clone().requires_grad_()
        with context:
            out = stack(leaf)
        torch.autograd.backward(out, cotangent)
        return [out.detach(), leaf.grad, *(p.grad.clone() for p in stack.parameters())]

    policy = PrecisionPolicy(mode, "cpu")
    plain = run(torch.autocast("cpu", enabled=False))
    for context in (policy.forward_context(), policy.stage_context(pinned=True)):
        assert all(torch.equal(a, b) for a, b in zip(plain, run(context), strict=True))


def test_every_pinned_operator_records_autocast_and_logs_it_once(caplog):
    graph = Topology.small_world(8, degree=2)
    weight = torch.ones(graph.num_edges)
    psi = torch.randn(3, 8, dtype=torch.complex64)
    dt = torch.full((1, 3, 2), 0.1)
    calls = {
        "laplacian_matvec": lambda: laplacian_matvec(psi, weight, graph),
        "cayley": lambda: cayley(psi, weight, graph, 0.05),
        "laplacian_cg": lambda: laplacian_cg(psi, weight, graph, 1.0, 0.5, 0.0),
        "pit": lambda: pit(psi, None, 0.5),
        "phase_entropy": lambda: phase_entropy(psi),
        "scan": lambda: scan(psi.unsqueeze(0), dt, dt, torch.ones(8), torch.ones(8)),
        "cg_solve": lambda: cg_solve(lambda v: 2 * v, torch.ones(4)),
    }
    for call in calls.values():
        call()
    assert autocast_reached() == {}
    with caplog.at_level(logging.WARNING), torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            for call in calls.values():
                call()
    assert autocast_reached() == dict.fromkeys(calls, 2)
    lines = [record.getMessage() for record in caplog.records]
    for name in calls:
        (line,) = [line for line in lines if f"reached {name}," in line]
        assert "bfloat16" in line and "float32" in line


def test_a_device_without_autocast_records_nothing():
    note_autocast("cayley", "meta")
    assert autocast_reached() == {}


def test_compiled_model_follows_the_policy_without_graph_breaks():
    model, policy = small_model("selective-bf16")
    tokens = batch()[0]
    layer, stack = model.mamba_layers[0], model.propagator

    def forward(psi):
        with model.stage("spinor"):
            psi = layer(psi)
        with model.stage("propagator"):
            return stack(psi)

    with policy.forward_context(), torch.no_grad():
        psi = model.encoder(tokens)
        compiled = torch.compile(forward, fullgraph=True, backend="aot_eager")(psi)
        torch.testing.assert_close(compiled, forward(psi))


def test_effective_precision_is_told_stage_by_stage():
    model, policy = small_model("bf16-mixed")
    assert effective_precision(model, policy) == {
        "encoder": "bfloat16 autocast",
        "spinor": "bfloat16 autocast",
        "propagator": "float32, pinned inside autocast",
        "head": "float32, pinned inside autocast",
    }
    assert set(effective_precision(model, PrecisionPolicy("32-true", "cpu")).values()) == {"float32"}
    assert effective_precision(nn.Linear(2, 2), policy) == {"Linear": "bfloat16 autocast"}


def test_selective_mode_needs_stages():
    with pytest.raises(ValueError, match=r"selective-bf16.*stages.*got Linear; use 'bf16-mixed' or '32-true'"):
        use_precision(nn.Linear(2, 2), PrecisionPolicy("selective-bf16", "cpu"))


def test_a_mode_is_named_exactly():
    with pytest.raises(ValueError, match=r"training.precision_mode = 'bf16': expected one of 32-true, bf16-mixed"):
        PrecisionPolicy("bf16", "cpu")


def test_bfloat16_that_the_device_does_not_have_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    for mode in ("bf16-mixed", "selective-bf16"):
        with pytest.raises(ValueError, match=f"{mode}.*expected '32-true', since cuda:1 has no bfloat16"):
            PrecisionPolicy.for_device(mode, "cuda:1")
    assert PrecisionPolicy.for_device("32-true", "cuda:1").mode == "32-true"
