import math

import pytest
import torch
from helpers import strength_limit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sem.ops import reference
from sem.ops.pit import RULES, phase_entropy, pit

WIDTHS = [1, 2, 3, 17, 64, 256, 1000, 4096]
TOKENS = [0, 1, 15, 16, 17, 1000]
SIZES = [(5, width) for width in WIDTHS] + [(tokens, 17) for tokens in TOKENS] + [(1000, 64)]


def wave(*shape, seed=0, bunched=True):
    generator = torch.Generator().manual_seed(seed)
    psi = torch.randn(*shape, dtype=torch.complex64, generator=generator)
    return psi + 0.7 if bunched else psi


def from_phases(phases, seed=0):
    size = 0.1 + torch.rand(phases.shape, generator=torch.Generator().manual_seed(seed))
    return torch.polar(size, phases)


def von_mises(kappa, *shape, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.distributions.VonMises(torch.tensor(0.4), torch.tensor(float(kappa))).sample(shape)


def double(tensor):
    return tensor if tensor is None else tensor.to(torch.promote_types(tensor.dtype, torch.float64))


def error(actual, expected):
    """Norm-wise relative error over all elements, in double."""
    expected = double(expected.detach())
    difference = torch.linalg.vector_norm(double(actual.detach()) - expected)
    norm = torch.linalg.vector_norm(expected)
    return float(difference / norm) if norm > 0 else float(difference)


def rms(psi):
    return psi.to(torch.complex128).abs().square().mean(-1).sqrt()


def results(function, psi, reference_rms, strength, direction, kerr=None, **options):
    """Output and gradients of ``sum Re(conj(direction) out)`` to every tensor argument, kerr last."""
    tensors = (psi, reference_rms, strength, kerr)
    arguments = [tensor if tensor is None else tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = function(*arguments[:3], kerr=arguments[3], **options)
    inputs = [tensor for tensor in arguments if tensor is not None]
    return out.detach(), torch.autograd.grad((direction.conj() * out).real.sum(), inputs)


def twin_results(psi, reference_rms, strength, direction, kerr=None, **options):
    """The same from the float64 twin."""
    arguments = (double(tensor) for tensor in (psi, reference_rms, strength, direction, kerr))
    return results(reference.pit, *arguments, **options)


def kerr_of(width, seed=4):
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("tokens", "width"), SIZES)
def test_values_and_gradients_match_the_float64_twin(tokens, width, rule):
    psi, direction = wave(tokens, width), wave(tokens, width, seed=1, bunched=False)
    target = 0.5 + torch.rand(tokens, generator=torch.Generator().manual_seed(2))
    for reference_rms in (None, target):
        arguments = (psi, reference_rms, torch.tensor(0.5), direction)
        out, grads = results(pit, *arguments, rule=rule)
        exact, expected = twin_results(*arguments, rule=rule)
        assert error(out, exact) <= 2e-6
        for grad, want in zip(grads[:-1], expected[:-1], strict=True):
            assert error(grad, want) <= 1e-5
        assert abs(float(grads[-1] - expected[-1])) <= strength_limit(expected[-1], direction, out)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("tokens", "width"), SIZES)
def test_kerr_values_and_gradients_match_the_float64_twin(tokens, width, rule):
    psi, direction = wave(tokens, width), wave(tokens, width, seed=1, bunched=False)
    kerr = kerr_of(width)
    for reference_rms in (None, 0.5 + torch.rand(tokens, generator=torch.Generator().manual_seed(2))):
        arguments = (psi, reference_rms, torch.tensor(0.5), direction, kerr)
        out, grads = results(pit, *arguments, rule=rule)
        exact, expected = twin_results(*arguments, rule=rule)
        assert error(out, exact) <= 2e-6
        for grad, want in zip(grads[:-2], expected[:-2], strict=True):
            assert error(grad, want) <= 1e-5
        # Terms of the kerr gradient cancel between rows as those of the strength gradient do; this is their size.
        intensity = psi.abs().square()
        size = direction.abs() * out.abs() * intensity / intensity.mean(-1, keepdim=True)
        limit = 1e-5 * expected[-1].abs() + 1e-7 * torch.linalg.vector_norm(size, dim=0)
        difference = torch.linalg.vector_norm(grads[-1] - expected[-1])
        assert difference <= torch.linalg.vector_norm(limit)


def test_kerr_by_hand():
    psi = torch.tensor([1.0 + 0j, 0 + 3j])  # intensities 1 and 9, mean 5
    kerr = torch.tensor([0.5, 1.0])
    expected = psi * torch.exp(1j * torch.tensor([0.5 * 1 / 5, 1.0 * 9 / 5]))
    torch.testing.assert_close(pit(psi, None, 0.0, kerr=kerr), expected)
    assert torch.equal(pit(psi, None, 0.3, kerr=torch.zeros(2)), pit(psi, None, 0.3))


def test_kerr_comes_before_the_density_is_taken():
    psi, kerr = wave(9, 50), kerr_of(50)
    turned = pit(psi, None, 0.0, kerr=kerr)
    assert error(pit(psi, None, 1.0, kerr=kerr), pit(turned, None, 1.0)) <= 2e-6


def test_kerr_of_zero_rows_and_bad_rows():
    direction = wave(4, 19, seed=1)
    psi, kerr = wave(4, 19), kerr_of(19)
    psi[1] = 0
    out, grads = results(pit, psi, None, torch.tensor(0.5), direction, kerr)
    assert torch.equal(out[1], torch.zeros(19, dtype=torch.complex64)) and torch.equal(grads[0][1], direction[1])
    assert torch.isfinite(grads[2]).all()
    kept = [0, 2, 3]
    without_row = results(pit, psi[kept], None, torch.tensor(0.5), direction[kept], kerr)[1]
    assert error(grads[2], without_row[2]) <= 1e-6
    psi[2, 3] = math.nan
    out, bad = results(pit, psi, None, torch.tensor(0.5), direction, kerr)
    assert torch.isnan(torch.view_as_real(out[2])).all() and torch.isnan(bad[2]).all()
    assert torch.equal(bad[0][[0, 1, 3]], grads[0][[0, 1, 3]])
    kerr[5] = math.nan
    out, _ = results(pit, psi, None, torch.tensor(0.5), direction, kerr)
    assert torch.isnan(torch.view_as_real(out[[0, 2, 3]])).all() and not torch.isnan(torch.view_as_real(out[1])).any()


@pytest.mark.parametrize("bins", [4, 5, 12, 13, 33, 64, 512])
@pytest.mark.parametrize("rule", RULES)
def test_any_number_of_bins(bins, rule):
    arguments = (wave(9, 100), None, torch.tensor(0.7), wave(9, 100, seed=1))
    out, grads = results(pit, *arguments, num_bins=bins, rule=rule)
    exact, expected = twin_results(*arguments, num_bins=bins, rule=rule)
    assert error(out, exact) <= 2e-6
    assert error(grads[0], expected[0]) <= 1e-5


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e35])
def test_any_scale(scale):
    psi = wave(7, 33)
    target, strength = torch.ones(7), torch.tensor(0.5)
    out, grads = results(pit, psi * scale, target, strength, psi)
    assert error(out, pit(psi, target, strength)) <= 2e-6
    assert error(grads[0], twin_results(psi * scale, target, strength, psi)[1][0]) <= 1e-5


def test_entries_without_a_phase():
    psi = wave(1, 20)
    with_zeros = torch.cat([psi, torch.zeros(1, 3)], dim=1).requires_grad_()
    out = pit(with_zeros, None, 1.0)
    assert torch.equal(out[:, 20:], torch.zeros(1, 3, dtype=torch.complex64))
    assert error(out[:, :20], pit(psi, None, 1.0)) <= 1e-6
    (grad,) = torch.autograd.grad(out.real.sum(), with_zeros)
    assert torch.allclose(grad[:, 20:], torch.ones(1, 3, dtype=torch.complex64))

    tiny = torch.tensor([[1.0, 1j, 1e-38 + 1e-39j, 0.3 + 0.1j]], dtype=torch.complex64)
    grads = results(pit, tiny, torch.ones(1), torch.tensor(1.0), wave(1, 4))[1]
    assert all(torch.isfinite(torch.view_as_real(g) if g.is_complex() else g).all() for g in grads)


def test_zero_rows_give_zeros():
    psi = torch.cat([wave(1, 8), torch.zeros(1, 8), wave(1, 8, seed=5)])
    target = torch.full((3,), 2.0)
    out, (grad_psi, grad_reference, grad_strength) = results(pit, psi, target, torch.tensor(0.5), wave(3, 8, seed=1))
    assert torch.equal(out[1], torch.zeros(8, dtype=torch.complex64))
    assert torch.equal(grad_psi[1], torch.zeros(8, dtype=torch.complex64)) and grad_reference[1] == 0
    assert torch.isfinite(grad_strength)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nonfinite_rows_are_contained(bad):
    clean, direction = wave(5, 19), wave(5, 19, seed=1)
    psi = clean.clone()
    psi[2, 7] = complex(0.5, bad)
    kept = [0, 1, 3, 4]
    expected, expected_grads = results(pit, clean, torch.ones(5), torch.tensor(0.5), direction)
    out, grads = results(pit, psi, torch.ones(5), torch.tensor(0.5), direction)
    assert torch.equal(out[kept], expected[kept])
    assert torch.isnan(torch.view_as_real(out[2])).all() and torch.isnan(torch.view_as_real(grads[0][2])).all()
    for grad, want in zip(grads[:2], expected_grads[:2], strict=True):
        assert torch.equal(grad[kept], want[kept])
    assert torch.isnan(grads[2])


@pytest.mark.parametrize("strength", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("width", [64, 256])
@pytest.mark.parametrize("kind", ["kappa 1", "kappa 2", "kappa 5", "kappa 10", "two clusters", "one angle and noise"])
def test_score_raises_the_entropy_of_bunched_phases_and_keeps_the_norm(kind, width, strength):
    if kind.startswith("kappa"):
        phases = von_mises(kind.split()[1], 32, width)
    elif kind == "two clusters":
        phases = von_mises(8, 32, width) + 2.0 * (torch.arange(width) % 2)
    else:
        phases = 0.02 * von_mises(1, 32, width)
    psi = from_phases(phases)
    out = pit(psi, None, strength)
    assert (phase_entropy(out) > phase_entropy(psi)).all()
    assert (rms(out) / rms(psi) - 1).abs().max() <= 1e-6
    target = 0.5 + torch.rand(32, generator=torch.Generator().manual_seed(3))
    assert (rms(pit(psi, target, strength)) / target - 1).abs().max() <= 1e-6


def test_density_ratio_is_another_rule_and_does_not_equalise():
    psi = from_phases(von_mises(2, 64, 256))
    change = {rule: phase_entropy(pit(psi, None, 1.0, rule=rule)) - phase_entropy(psi) for rule in RULES}
    assert change["score"].min() > 0.005
    assert change["density_ratio"].mean() < 0


def test_two_phases_repel_across_the_cut():
    psi = torch.polar(torch.ones(2), torch.tensor([math.pi - 0.1, -math.pi + 0.1]))
    out = pit(psi, None, 1.0).angle()
    assert math.pi - 0.3 < out[0] < math.pi - 0.11 and -math.pi + 0.11 < out[1] < -math.pi + 0.3


@pytest.mark.parametrize(("rule", "bound"), [("score", 6.6e-4), ("density_ratio", 2.4e-4)])
@pytest.mark.parametrize("width", [1, 2, 64, 256])
def test_rotation_equivariance_up_to_the_stated_anisotropy(rule, bound, width):
    sigma = 2 * math.pi / 32
    for spread in (0.05, 0.5, 3.0):
        psi = from_phases(spread * torch.randn(16, width, generator=torch.Generator().manual_seed(width)))
        base = pit(psi, None, 1.0, rule=rule)
        for turn in (0.5 * sigma, 0.3, 1.0, 2.9):
            rotation = torch.polar(torch.tensor(1.0), torch.tensor(turn))
            angle = (pit(psi * rotation, None, 1.0, rule=rule) * rotation.conj() * base.conj()).angle()
            assert angle.abs().max() <= bound * sigma + 1e-6


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 70),
    rows=st.integers(1, 4),
    bins=st.integers(4, 80),
    strength=st.floats(0, 1),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 10**6),
)
def test_properties_of_a_turn(width, rows, bins, strength, rule, seed):
    psi = wave(rows, width, seed=seed)
    out = pit(psi, None, strength, bins, rule)
    sigma = 2 * math.pi / bins
    assert (out * psi.conj()).angle().abs().max() <= strength * sigma * (1 + 1e-6) + 1e-6  # no shift beyond the bound
    assert error(out.abs(), psi.abs()) <= 1e-6  # magnitudes stay
    quarter = pit(psi * 1j, None, strength, 4 * bins, rule) / 1j  # a quarter turn is a whole number of bins
    assert error(quarter, pit(psi, None, strength, 4 * bins, rule)) <= 2e-6
    if rule == "score":  # the density ratio moves every phase the same way round, so it has no mirror image
        mirrored = pit(psi.conj(), None, strength, bins, rule).conj()
        assert error(mirrored, out) <= 2e-6
    order = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
    assert error(pit(psi[:, order], None, strength, bins, rule), out[:, order]) <= 2e-6


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("with_reference", [False, True])
def test_twin_gradients_to_second_order(rule, with_reference):
    psi = wave(2, 4).to(torch.complex128).requires_grad_()
    strength = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.8, 1.7], dtype=torch.float64, requires_grad=True)
    kerr = torch.randn(4, dtype=torch.float64, requires_grad=True)
    inputs = (psi, strength, kerr, target) if with_reference else (psi, strength, kerr)

    def function(psi, strength, kerr, target=None):
        return reference.pit(psi, target, strength, 8, rule, kerr=kerr)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("rule", [0, 1])
def test_opcheck(rows, rule):
    psi, grad, strength = torch.randn(rows, 5, 2), torch.randn(rows, 5, 2), torch.tensor(0.5)
    for target, kerr in ((torch.rand(rows), torch.empty(0)), (torch.empty(0), torch.rand(5))):
        torch.library.opcheck(torch.ops.sem.pit_forward.default, (psi, target, strength, kerr, 32, rule))
        torch.library.opcheck(torch.ops.sem.pit_backward.default, (psi, target, strength, kerr, grad, 32, rule))


def test_compile_fullgraph():
    def loss(psi, target, strength, kerr):
        return pit(psi, target, strength, kerr=kerr).abs().pow(3).sum() + pit(psi, None, 0.3).real.sum()

    arguments = [
        wave(6, 24).requires_grad_(),
        torch.rand(6).requires_grad_(),
        torch.tensor(0.5, requires_grad=True),
        kerr_of(24).requires_grad_(),
    ]
    eager = torch.autograd.grad(loss(*arguments), arguments)
    compiled = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*arguments), arguments)
    for a, b in zip(compiled, eager, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_func_grad_and_vmap():
    def loss(psi, target, strength, kerr=None):
        return (pit(psi, target, strength, kerr=kerr) * weight).real.sum()

    weight = wave(4, 9, seed=3)
    psi, target, strength, kerr = wave(4, 9), torch.rand(4) + 0.5, torch.tensor(0.5), kerr_of(9)
    inputs = [tensor.clone().requires_grad_() for tensor in (psi, target, strength, kerr)]
    expected = torch.autograd.grad(loss(*inputs), inputs)
    for a, b in zip(torch.func.grad(loss, argnums=(0, 1, 2, 3))(psi, target, strength, kerr), expected, strict=True):
        assert torch.equal(a, b)

    batch = wave(5, 4, 9, seed=7)
    assert torch.equal(torch.vmap(lambda p: pit(p, target, strength))(batch), pit(batch, target.expand(5, 4), strength))
    assert torch.equal(torch.vmap(lambda p: pit(p, None, strength))(batch), pit(batch, None, strength))
    turned = torch.vmap(lambda p: pit(p, None, strength, kerr=kerr))(batch)
    assert torch.equal(turned, pit(batch, None, strength, kerr=kerr))
    strengths = torch.linspace(0, 1, 5)
    swept = torch.vmap(lambda s: pit(psi, None, s))(strengths)
    assert torch.equal(swept, torch.stack([pit(psi, None, s) for s in strengths]))
    per_sample = torch.vmap(torch.func.grad(loss, argnums=2), in_dims=(0, None, None))(batch, target, strength)
    each = [torch.func.grad(loss, argnums=2)(p, target, strength) for p in batch]
    assert torch.equal(per_sample, torch.stack(each))


def test_forward_mode_and_second_derivatives_raise():
    psi = wave(2, 6)
    with pytest.raises(NotImplementedError, match="jvp|forward"), torch.autograd.forward_ad.dual_level():
        pit(torch.autograd.forward_ad.make_dual(psi, psi), None, 0.5)
    strength = torch.tensor(0.5, requires_grad=True)
    (grad,) = torch.autograd.grad(pit(psi, None, strength).real.sum(), strength, create_graph=True)
    with pytest.raises(NotImplementedError, match="sem.ops.reference.pit"):
        grad.backward()


def test_autocast_changes_no_bit():
    psi, target, direction = wave(8, 40), torch.rand(8) + 0.5, wave(8, 40, seed=1)
    out, grads = results(pit, psi, target, torch.tensor(0.5), direction)
    with torch.autocast("cpu", torch.bfloat16):
        inside, inside_grads = results(pit, psi, target, torch.tensor(0.5), direction)
    assert torch.equal(out, inside)
    assert all(torch.equal(a, b) for a, b in zip(grads, inside_grads, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_widened_and_get_narrow_gradients(dtype):
    blocks = torch.view_as_real(wave(3, 10)).to(dtype).requires_grad_()
    target = torch.ones(3, dtype=dtype, requires_grad=True)
    out = pit(blocks, target, 0.5)
    assert out.dtype == torch.float32 and torch.equal(out, pit(blocks.float(), target.float(), 0.5))
    grads = torch.autograd.grad(out.square().sum() + out.sum(), (blocks, target))
    assert all(grad.dtype == dtype for grad in grads)


def test_a_rows_bits_do_not_depend_on_the_batch_or_the_threads():
    psi, direction, target = wave(67, 50), wave(67, 50, seed=1), torch.rand(67) + 0.5
    strength, kerr = torch.tensor(0.5), kerr_of(50)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        out, grads = results(pit, psi, target, strength, direction, kerr)
        torch.set_num_threads(2)
        again, again_grads = results(pit, psi, target, strength, direction, kerr)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(out, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, again_grads, strict=True))
    for rows in (slice(3, 4), slice(20, 49), torch.arange(66, -1, -1)):
        part, part_grads = results(pit, psi[rows], target[rows], strength, direction[rows], kerr)
        assert torch.equal(part, out[rows])
        assert torch.equal(part_grads[0], grads[0][rows]) and torch.equal(part_grads[1], grads[1][rows])


def test_layout_of_the_input_does_not_matter():
    psi = wave(6, 5, 9)
    expected = pit(psi, None, 0.5)
    strided = torch.stack([psi, psi], dim=-1)[..., 0]
    assert torch.equal(pit(strided, None, 0.5), expected)
    assert torch.equal(pit(psi.transpose(0, 1), None, 0.5), expected.transpose(0, 1))
    assert torch.equal(pit(psi.conj(), None, 0.5), pit(psi.conj().resolve_conj(), None, 0.5))
    assert torch.equal(pit(torch.view_as_real(psi), None, 0.5), torch.view_as_real(expected))
    assert torch.equal(pit(psi[0, 0], None, 0.5), expected[0, 0])


class _LargestResult(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_tensor_with_a_bins_axis_and_only_inputs_are_saved():
    psi, target = wave(40, 64).requires_grad_(), torch.ones(40, requires_grad=True)
    saved = []
    with (
        _LargestResult() as largest,
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        pit(psi, target, torch.tensor(0.5, requires_grad=True)).real.sum().backward()
    assert 0 < largest.elements <= 2 * psi.numel()
    assert sum(tensor.numel() for tensor in saved if tensor.dim() == 3) == 2 * psi.numel()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"psi": [1.0]}, TypeError, "psi: expected a torch.Tensor, got list"),
        ({"psi": wave(2, 6).to(torch.complex128)}, TypeError, "psi: expected complex64"),
        (
            {"psi": torch.zeros(2, 6)},
            ValueError,
            r"psi: expected complex64 .* got torch.float32 of shape \[2, 6\]",
        ),
        (
            {"psi": torch.zeros(2, 6, dtype=torch.int64)},
            TypeError,
            "psi: expected complex64 .* got torch.int64",
        ),
        ({"psi": torch.zeros(2, 0, dtype=torch.complex64)}, ValueError, "psi: expected D >= 1"),
        ({"reference_rms": torch.ones(3)}, ValueError, r"reference_rms: expected shape \[2\], got \[3\]"),
        ({"reference_rms": torch.ones(2).double()}, TypeError, "reference_rms: expected float32"),
        ({"reference_rms": torch.ones(2, device="meta")}, ValueError, "reference_rms: expected device cpu"),
        ({"strength": torch.ones(2)}, ValueError, "strength: expected one element"),
        ({"strength": "1"}, TypeError, "strength: expected a number"),
        ({"strength": math.nan}, ValueError, "strength: expected a finite number"),
        ({"kerr": torch.ones(5)}, ValueError, r"kerr: expected shape \[6\], got \[5\]"),
        ({"kerr": torch.ones(6).double()}, TypeError, "kerr: expected float32"),
        ({"kerr": torch.ones(6, device="meta")}, ValueError, "kerr: expected device cpu"),
        ({"kerr": 0.5}, TypeError, "kerr: expected a torch.Tensor, got float"),
        ({"num_bins": 3}, ValueError, "num_bins: expected at least 4, got 3"),
        ({"num_bins": 5000}, ValueError, "num_bins: expected at most 4096, got 5000"),
        ({"num_bins": 32.0}, TypeError, "num_bins: expected an int, got float"),
        ({"rule": "other"}, ValueError, "rule: expected one of 'score', 'density_ratio', got 'other'"),
    ],
)
def test_errors_name_the_argument(change, kind, message):
    arguments = {"psi": wave(2, 6), "reference_rms": torch.ones(2), "strength": 0.5} | change
    with pytest.raises(kind, match=message):
        pit(**arguments)
