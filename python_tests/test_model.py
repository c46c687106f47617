import pytest
import torch

from sem.config import SEMConfig
from sem.diagnostics import Diagnostics
from sem.model import SEMModel, _propagators_behind
from sem.training.health import judge, wave_criteria

WHOLE = ("encoder.kind=transport", "propagator.pit_enabled=true", "spinor.rotation=true")
"""The system with all its parts."""
VARIANTS = {
    "default": (),
    "whole": WHOLE,
    "echo": ("propagator.echo=true", "propagator.laplacian_sparsity=2", "propagator.long_range_share=0"),
    "stacked": ("model.layout=stacked", *WHOLE),
    "born": ("sampler.kind=born", "encoder.carrier=demodulated", "propagator.potential=none"),
}


def small_config(*overrides, **encoder):
    return SEMConfig.from_dict(
        {
            "model": {"hidden_dim": 32, "num_layers": 2, "max_seq_length": 64},
            "encoder": {"sdr_candidates": 48, "sdr_sparsity": 12, **encoder},
            "spinor": {"state_dim": 4, "mimo_groups": 4},
            "propagator": {"cayley_dt": 0.1},
        },
        overrides,
    )


@pytest.fixture(params=VARIANTS)
def model(request):
    torch.manual_seed(0)
    return SEMModel(small_config(*VARIANTS[request.param])).train()


@pytest.fixture
def whole():
    torch.manual_seed(0)
    return SEMModel(small_config(*WHOLE)).train()


@pytest.mark.parametrize("first_change", [1, 7, 31])
def test_every_stage_is_causal_to_the_bit_in_training(model, first_change):
    tokens = torch.randint(256, (3, 32))
    changed = tokens.clone()
    changed[:, first_change:] = torch.randint(256, (3, 32 - first_change))
    stages = {}

    def keep(name):
        return lambda module, inputs, output: stages.setdefault(name, []).append(output)

    watched = {"encoder": model.encoder, "norm": model.final_norm, "head": model.sampler}
    watched |= {f"spinor {k}": layer for k, layer in enumerate(model.mamba_layers)}
    watched |= {f"propagator {k}": layer for k, layer in enumerate(model.propagator.layers)}
    for name, module in watched.items():
        module.register_forward_hook(keep(name))
    model(tokens)
    model(changed)
    assert set(stages) == set(watched)
    for name, (before, after) in stages.items():
        assert torch.equal(before[:, :first_change], after[:, :first_change]), name
    assert not torch.equal(stages["head"][0], stages["head"][1])


def test_sequences_do_not_see_each_other(model):
    tokens = torch.randint(256, (3, 32))
    alone = model(tokens[1:2])
    torch.testing.assert_close(model(tokens)[1:2], alone, rtol=1e-4, atol=1e-5)


def test_loss_is_the_likelihood(model):
    tokens, targets = torch.randint(256, (2, 2, 16))
    targets[0, 3] = -100
    log_probabilities = model(tokens)
    picked = log_probabilities.gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    expected = -picked[targets != -100].sum()
    torch.testing.assert_close(model.loss(tokens, targets)["nll_sum"], expected.detach(), rtol=1e-4, atol=1e-3)


def test_every_parameter_gets_a_finite_gradient(model):
    tokens, targets = torch.randint(256, (2, 2, 32))
    model.loss(tokens, targets)["loss"].backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # strength of an equalisation that is off
            continue
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().sum()) > 0, name


def diagnose(model):
    tokens = torch.randint(256, (4, 64))
    diagnostics = Diagnostics()
    model.loss(tokens, tokens, diagnostics)
    return diagnostics.summary()


def test_diagnostics_at_initialisation_are_healthy(model):
    summary = diagnose(model)
    assert summary["unitary_divergence"] < 0.5
    assert summary["unitarity_deviation"] < 1e-5
    assert summary["cg_unconverged"] == 0
    assert all(row.passed for row in judge(wave_criteria(model.config), summary))


def test_diagnostics_of_the_whole_system_are_healthy(whole):
    summary = diagnose(whole)
    assert summary["transport_unconverged"] == 0 and summary["transport_iterations"] <= 10
    assert summary["sdr_sparsity"] > 0.3
    assert summary["phase_entropy_after"] >= summary["phase_entropy_before"]


def test_model_without_propagators_has_nothing_to_say_of_them():
    model = SEMModel(small_config("propagator.num_layers=0"))
    summary = diagnose(model)
    assert not [name for name in summary if name.startswith(("unitarity", "cg_", "phase"))]
    rows = judge(wave_criteria(model.config), summary)
    assert [row.name for row in rows] == ["unitary_divergence"] and rows[0].passed


@pytest.mark.parametrize(("layout", "order"), [("interleaved", "spssp"), ("stacked", "ssspp")])
def test_layers_come_in_the_order_of_the_layout(layout, order):
    model = SEMModel(small_config(f"model.layout={layout}", "model.num_layers=3", "propagator.num_layers=2"))
    called = []
    for layer in model.mamba_layers:
        layer.register_forward_hook(lambda *_: called.append("s"))
    for layer in model.propagator.layers:
        layer.register_forward_hook(lambda *_: called.append("p"))
    model(torch.zeros(1, 4, dtype=torch.int64))
    assert "".join(called) == order


@pytest.mark.parametrize(
    ("mixing", "propagators", "order"),
    [(1, 1, "sp"), (3, 1, "ssps"), (3, 3, "spspsp"), (2, 5, "sppsppp"), (6, 2, "sspsssps"), (3, 0, "sss")],
)
def test_interleaved_propagators_are_spread_evenly(mixing, propagators, order):
    slices = _propagators_behind(mixing, propagators, "interleaved")
    assert "".join("s" + "p" * (where.stop - where.start) for where in slices) == order
    assert slices[0].start == 0 and slices[-1].stop == propagators


def test_plan_spreads_over_at_least_k_candidates_at_initialisation(whole):
    encoder = whole.encoder
    plan = (-encoder.token_cost() / encoder.epsilon).softmax(-1)
    assert float((1 / plan.square().sum(-1)).min()) >= encoder.sparsity


def test_frequencies_are_learned_in_training_and_fixed_in_inference():
    torch.manual_seed(0)
    model = SEMModel(small_config(kind="transport", frequency_weighting=True))
    tokens = torch.randint(10, (2, 16))
    first = model(tokens)
    assert int(model.encoder.token_counts.sum()) == 32
    assert not torch.equal(model(tokens), first)  # the second batch is weighted by the first
    model.eval()
    counts = model.encoder.token_counts.clone()
    assert torch.equal(model(tokens), model(tokens)) and torch.equal(model.encoder.token_counts, counts)
    clone = SEMModel(small_config(kind="transport", frequency_weighting=True)).eval()
    clone.load_state_dict(model.state_dict())
    assert torch.equal(clone(tokens), model(tokens))


def test_configured_sizes_are_used():
    config = SEMConfig.from_yaml("configs/max_aggression.yaml", ["model.vocab_size=300"])
    model = SEMModel(config)
    assert len(model.mamba_layers) == len(model.propagator.layers) == 8
    assert model.propagator.layers[0].pit_strength.item() == pytest.approx(0.01)
    assert model.sampler.weight.shape == (300, 256, 2)
