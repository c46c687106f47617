import pytest
import torch

from sem.diagnostics import Diagnostics
from sem.ops import SolveError, SolveStatus, Topology, cayley, pit, potential_step, reference
from sem.propagator import CayleySolitonPropagator, CayleySolitonStack
from sem.propagator.cayley_soliton import cayley_residual


def norms(psi):
    return torch.view_as_real(psi).double().square().sum((-1, -2))


def without_graph(**options):
    """A layer whose unitary step does nothing that float32 could see."""
    return CayleySolitonPropagator(2, dt=1e-12, pit_enabled=False, laplacian_sparsity=2, **options)


def test_kerr_rotation_by_hand():
    psi = torch.tensor([1.0 + 0j, 0 + 3j])  # intensities 1 and 9, mean 5
    layer = without_graph()
    layer.kerr.data = torch.tensor([0.5, 1.0])
    expected = psi * torch.exp(1j * torch.tensor([0.5 * 1 / 5, 1.0 * 9 / 5]))
    torch.testing.assert_close(layer(psi), expected)


def test_potential_by_hand():
    psi = torch.tensor([1.0 + 0j, 0 + 3j])
    layer = without_graph(kerr=0.0, potential=True)
    weight, bias = torch.randn(2, 4), torch.randn(2)
    layer.potential.readout.weight.data, layer.potential.readout.bias.data = weight, bias
    z = psi / psi.abs().square().mean().sqrt()
    expected = psi * torch.exp(1j * (weight @ torch.cat([z.real, z.imag]) + bias))
    torch.testing.assert_close(layer(psi), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pit_enabled", [True, False])
@pytest.mark.parametrize("dt", [0.01, 1.0])
def test_layer_keeps_the_norm(dt, pit_enabled):
    torch.manual_seed(0)
    layer = CayleySolitonPropagator(48, dt=dt, kerr=0.5, pit_strength_init=0.5, pit_enabled=pit_enabled)
    psi = torch.randn(3, 20, 48, dtype=torch.complex64)
    assert float((norms(layer(psi)) / norms(psi) - 1).abs().max()) < 2e-6


def test_stack_stays_unitary_under_bf16_autocast():
    torch.manual_seed(0)
    stack = CayleySolitonStack(48, 8, dt=0.5)
    psi = torch.randn(2, 20, 48, dtype=torch.complex64)
    plain = stack(psi)
    with torch.autocast("cpu", torch.bfloat16):
        cast = stack(psi)
    assert torch.equal(plain, cast)
    assert float((norms(plain) / norms(psi) - 1).abs().max()) < 5e-6


def test_tokens_do_not_see_each_other():
    torch.manual_seed(0)
    stack = CayleySolitonStack(48, 2, dt=0.1)
    psi = torch.randn(2, 20, 48, dtype=torch.complex64)
    changed = psi.clone()
    changed[:, 11:] += 1
    assert torch.equal(stack(psi)[:, :11], stack(changed)[:, :11])


def test_training_keeps_one_wave_a_layer():
    torch.manual_seed(0)
    tokens, dim, layers = 512, 64, 4
    psi = torch.randn(tokens, dim, dtype=torch.complex64, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = CayleySolitonStack(dim, layers, dt=0.1)(psi)
    del kept[psi.untyped_storage().data_ptr()]  # the caller's
    assert sum(kept.values()) / layers <= 1.5 * psi.nbytes
    assert out.untyped_storage().data_ptr() in kept


def test_kerr_alone_and_kerr_of_pit_are_the_same_rotation():
    torch.manual_seed(0)
    psi, kerr = torch.randn(7, 33, dtype=torch.complex64), torch.randn(33)
    turned = potential_step(psi, torch.zeros(7, 33), kerr)
    torch.testing.assert_close(turned, pit(psi, None, 0.0, kerr=kerr), rtol=1e-5, atol=1e-5)


def test_zero_tokens_stay_zero_with_finite_gradients():
    layer = CayleySolitonPropagator(16)
    psi = torch.zeros(1, 2, 16, dtype=torch.complex64, requires_grad=True)
    out = layer(psi)
    torch.view_as_real(out).sum().backward()
    assert torch.equal(out, torch.zeros_like(out)) and torch.isfinite(torch.view_as_real(psi.grad)).all()


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    layer = CayleySolitonPropagator(32, dt=0.3)
    psi = torch.randn(5, 32, dtype=torch.complex64)
    target = torch.randn(5, 32)
    (layer(psi).real * target).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


def test_diagnostics_and_failure():
    torch.manual_seed(0)
    psi = torch.randn(2, 9, 32, dtype=torch.complex64)
    diagnostics = Diagnostics()
    CayleySolitonStack(32, 2, dt=0.3)(psi, diagnostics)
    summary = diagnostics.summary()
    assert 0 < summary["cg_residual"] <= 1e-5
    assert summary["cg_unconverged"] == 0
    assert summary["cg_iterations_max"] >= summary["cg_iterations_mean"] >= 1
    assert summary["unitarity_deviation"] < 1e-5
    assert summary["phase_entropy_after"] >= summary["phase_entropy_before"]
    with pytest.raises(SolveError, match="18 of 18 systems reached max_iter"):
        CayleySolitonPropagator(32, dt=3.0, cg_max_iter=1, on_failure="raise")(psi)


@pytest.mark.parametrize("strength", [-0.5, 0.5, 3.0])
def test_phases_are_equalised_whatever_strength_was_learned(strength):
    torch.manual_seed(0)
    layer = CayleySolitonPropagator(64, kerr=0.0, pit_strength_init=strength)
    psi = torch.polar(torch.ones(20, 64), 0.7 * torch.randn(20, 64))
    diagnostics = Diagnostics()
    layer(psi, diagnostics)
    summary = diagnostics.summary()
    assert summary["phase_entropy_after"] > summary["phase_entropy_before"] + 1e-3
    gradient = torch.autograd.grad(layer(psi).real.sum(), layer.pit_strength)[0]
    assert (gradient != 0) == (abs(strength) < 1)


def cayley_problem(tokens=5, dim=16, a=0.4):
    torch.manual_seed(0)
    graph, weight = Topology.small_world(dim, degree=4), torch.rand(32)
    psi = torch.randn(tokens, dim, dtype=torch.complex128)
    return psi, reference.cayley(psi, weight.double(), graph, a), weight, graph, a


def test_true_residual_is_that_of_the_original_system():
    psi, out, weight, graph, a = cayley_problem()
    assert float(cayley_residual(psi, out, weight, graph, a).max()) < 1e-15
    error = 1e-3 * torch.randn_like(out)
    wrong = out + error
    system = torch.eye(16) + 1j * a * reference.laplacian_dense(weight.double(), graph)
    defect = psi - (psi + wrong) / 2 @ system.T
    expected = defect.norm(dim=-1) / psi.norm(dim=-1)
    torch.testing.assert_close(cayley_residual(psi, wrong, weight, graph, a), expected)


def test_true_residual_looks_at_tokens_from_first_to_last():
    psi, out, weight, graph, a = cayley_problem(tokens=200)
    for token, seen in ((0, True), (199, True), (1, False)):
        wrong = out.clone()
        wrong[token] += 1
        residual = cayley_residual(psi.view(4, 50, 16), wrong.view(4, 50, 16), weight, graph, a)
        assert residual.shape == (64,)
        assert (float(residual.max()) > 1e-3) == seen
    assert cayley_residual(psi[:0], out[:0], weight, graph, a).shape == (0,)


def test_true_residual_of_no_wave_and_of_nan():
    psi, out, weight, graph, a = cayley_problem()
    psi[0] = out[0] = 0
    out[1, 3] = torch.nan
    residual = cayley_residual(psi, out, weight, graph, a)
    assert residual[0] == 0 and residual[1].isnan() and residual[2:].max() < 1e-15


def test_only_thorough_diagnostics_recompute_the_residual():
    torch.manual_seed(0)
    stack, psi = CayleySolitonStack(32, 2, dt=0.3), torch.randn(2, 9, 32, dtype=torch.complex64)
    routine, thorough = Diagnostics(), Diagnostics(thorough=True)
    assert torch.equal(stack(psi, routine), stack(psi, thorough))
    figures = thorough.summary()
    assert 0 < figures.pop("cg_true_residual") < 1e-5
    assert figures == routine.summary()


def test_tokens_without_a_wave_are_no_departure_from_unitarity():
    stack, diagnostics = CayleySolitonStack(16, 1), Diagnostics()
    stack(torch.zeros(1, 2, 16, dtype=torch.complex64), diagnostics)
    assert diagnostics.summary()["unitarity_deviation"] == 0


def test_a_state_dict_with_the_old_name_of_kerr_loads():
    torch.manual_seed(0)
    sizes = {"laplacian_sparsity": 2, "num_scales": 1}
    old = {
        f"layers.{layer}.{name}": torch.randn(shape)
        for layer in (0, 1)
        for name, shape in {
            "alpha": 8,
            "pit_strength": (),
            "hamiltonian.raw_weight": 8,
            "hamiltonian.scale_logits": 1,
        }.items()
    }
    before = dict(old)
    stack = CayleySolitonStack(8, 2, **sizes)
    stack.load_state_dict(old)
    assert old.keys() == before.keys()
    loaded = stack.state_dict()
    assert [name.replace("kerr", "alpha") for name in loaded] == list(old)
    for name, value in loaded.items():
        assert torch.equal(value, old[name.replace("kerr", "alpha")])
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"layers.0.alpha"'):
        stack.load_state_dict({**loaded, "layers.0.alpha": torch.zeros(8)})
    del old["layers.1.alpha"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"layers.1.kerr"'):
        stack.load_state_dict(old)


def test_the_old_name_of_the_argument_kerr():
    assert torch.equal(CayleySolitonPropagator(16, nonlinear_alpha=0.25).kerr, torch.full((16,), 0.25))
    with pytest.raises(ValueError, match=r"nonlinear_alpha: expected none beside kerr = 0.5, .* got 0.25"):
        CayleySolitonPropagator(16, kerr=0.5, nonlinear_alpha=0.25)


@pytest.mark.parametrize("pit_enabled", [True, False])
def test_echo_is_a_step_forward_the_phases_and_the_step_back(pit_enabled):
    torch.manual_seed(0)
    options = {"kerr": 0.4, "pit_enabled": pit_enabled, "pit_strength_init": 0.5, "laplacian_sparsity": 4}
    layer = CayleySolitonPropagator(24, dt=0.9, echo=True, potential=True, **options)
    psi = torch.randn(5, 24, dtype=torch.complex64)
    weights = layer.weights()
    graph, edge_weight = layer.hamiltonian.topology, weights.edge_weight
    potential = weights.potential.values(torch.view_as_real(psi))
    moved = cayley(psi, edge_weight, graph, 0.45)
    if pit_enabled:
        turned = potential_step(moved, potential, torch.zeros(24))
        turned = pit(turned, None, weights.strength, kerr=layer.kerr)
    else:
        turned = potential_step(moved, potential, layer.kerr)
    torch.testing.assert_close(layer(psi), cayley(turned, edge_weight, graph, -0.45), rtol=1e-4, atol=1e-5)


def test_echo_without_phases_is_nothing_and_with_them_it_changes_amplitudes():
    torch.manual_seed(0)
    psi = torch.randn(5, 24, dtype=torch.complex64)
    quiet = CayleySolitonPropagator(24, dt=1.0, kerr=0.0, echo=True, pit_enabled=False)
    torch.testing.assert_close(quiet(psi), psi, rtol=1e-4, atol=1e-5)
    loud = CayleySolitonPropagator(24, dt=1.0, kerr=0.0, echo=True, pit_enabled=False, potential=True)
    assert float((loud(psi).abs() - psi.abs()).abs().max().detach()) > 1e-2


def test_echo_reports_the_worse_of_its_two_solves():
    torch.manual_seed(0)
    layer = CayleySolitonPropagator(24, dt=3.0, echo=True, pit_enabled=False, cg_max_iter=1)
    diagnostics = Diagnostics(thorough=True)
    layer(torch.randn(2, 5, 24, dtype=torch.complex64), diagnostics)
    summary = diagnostics.summary()
    assert summary["cg_unconverged"] == 1 and summary["cg_iterations_max"] == 2
    assert summary["cg_residual"] > 1e-3 and summary["cg_true_residual"] > 1e-3


def test_an_echo_on_a_ring_is_solved_by_elimination_with_the_same_result():
    layer = CayleySolitonPropagator(
        32, 1.0, laplacian_sparsity=2, num_scales=1, long_range_share=0.0, pit_enabled=False, potential=True, echo=True
    )
    psi = torch.randn(2, 9, 32, dtype=torch.complex64)
    weights = layer.weights()
    assert weights.ring is not None
    out = layer(psi)
    torch.testing.assert_close(out, layer.step(psi, weights._replace(ring=None)), rtol=1e-5, atol=1e-5)
    diagnostics = Diagnostics(thorough=True)
    assert torch.equal(layer(psi, diagnostics), out)
    found = diagnostics.summary()
    assert 0 < found["cg_residual"] < 1e-5 and found["cg_unconverged"] == 0 and found["cg_iterations_max"] == 0
    psi[1, 3, 5] = float("nan")
    broken, info = layer.step(psi, weights, return_info=True)
    assert broken[1, 3].isnan().all() and torch.equal(broken[0], out[0])
    assert info.status.shape == (2, 9) and info.status.count_nonzero() == 1
    assert int(info.status[1, 3]) == SolveStatus.NONFINITE


@pytest.mark.parametrize("other", [{"pit_enabled": True}, {"laplacian_sparsity": 4}, {"on_failure": "raise"}])
def test_other_echoes_are_solved_by_iteration(other):
    ring = {"laplacian_sparsity": 2, "num_scales": 1, "long_range_share": 0.0, "pit_enabled": False}
    assert CayleySolitonPropagator(16, 0.5, echo=True, **(ring | other)).weights().ring is None
