"""The forward model of ptychography against stored numbers of a float64 program that was written from the formulas
alone (``golden/``: numpy, checked by torch's autograd and by differences), and against the float64 twin."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import relative_error

from sem.ops import (
    Patches,
    PatternStatus,
    exit_waves,
    far_residual,
    overlap_add,
    ptychographic_loss,
    reference,
    shift_ramp,
)
from sem.ops.testing import composed_on_cpu_tensors

GOLDEN = Path(__file__).parent / "golden"
MODELS = ("whole", "subpixel", "odd", "edges")
LIMITS = {"object": 1e-5, "probe": 1e-5, "positions": 5e-5, "background": 2e-4}


def golden(name):
    with np.load(GOLDEN / f"model_{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def single(tensor):
    return tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)


def of_largest(value, exact):
    """Largest difference, of the largest entry."""
    return float((value - exact.to(value.dtype)).abs().max() / exact.abs().max())


def arguments(name, convert=single):
    found = golden(name)
    tensors = [convert(found[key]) for key in ("object", "probe", "positions")]
    data = convert(found["counts"].sqrt())
    return tensors, data, convert(found["weight"]), convert(found["background"]), found


@pytest.mark.parametrize("back_end", ["kernels", "composed"])
@pytest.mark.parametrize("kind", ["amplitude", "poisson"])
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_the_stored_ones(name, kind, back_end):
    leaves, data, weight, background, found = arguments(name)
    leaves = [leaf.requires_grad_() for leaf in (*leaves, background)]
    with composed_on_cpu_tensors() if back_end == "composed" else torch.enable_grad():
        result = ptychographic_loss(*leaves[:3], data, weight=weight, background=leaves[3], kind=kind)
        result.total.backward()
    assert of_largest(result.loss, found[f"{kind}_loss"]) < 2e-6
    assert float((result.total.detach() - found[f"{kind}_loss"].sum()).abs() / found[f"{kind}_loss"].sum()) < 2e-6
    assert result.status.tolist() == [PatternStatus.OK] * len(data)
    for leaf, (key, limit) in zip(leaves, LIMITS.items(), strict=True):
        assert of_largest(leaf.grad, found[f"{kind}_grad_{key}"]) < limit, key


@pytest.mark.parametrize("name", MODELS)
def test_the_twin_gives_the_stored_numbers(name):
    leaves, data, weight, background, found = arguments(name, lambda tensor: tensor)
    leaves = [leaf.requires_grad_() for leaf in (*leaves, background)]
    for kind in ("amplitude", "poisson"):
        loss = reference.ptychographic_loss(*leaves[:3], data, weight=weight, background=leaves[3], kind=kind)
        assert of_largest(loss.detach(), found[f"{kind}_loss"]) < 1e-10
        for grad, key in zip(torch.autograd.grad(loss.sum(), leaves), LIMITS, strict=True):
            assert of_largest(grad, found[f"{kind}_grad_{key}"]) < 2e-7, key


@pytest.mark.parametrize("name", MODELS)
def test_amplitudes_and_power_are_the_stored_ones(name):
    (object, probe, positions), _, _, background, found = arguments(name)
    whole = (positions + 0.5).floor()
    patches = Patches(whole.long(), probe.shape[-1], object.shape)
    moved = torch.fft.ifft2(shift_ramp(torch.fft.fft2(probe), positions - whole))
    waves = torch.fft.fft2(exit_waves(object, moved, patches), norm="ortho")
    intensity = waves.abs().square().sum(1) + background
    assert of_largest(intensity[:6].sqrt(), found["model_amplitude"]) < 1e-6
    assert of_largest(intensity.sum((1, 2)), found["model_power"]) < 1e-6


@pytest.mark.parametrize("kind", ["amplitude", "poisson", "intensity", "amplitude_mae"])
@pytest.mark.parametrize("subpixel", ["fourier", "nearest"])
def test_agrees_with_the_twin(kind, subpixel):
    (object, probe, positions), data, weight, _, _ = arguments("subpixel")
    leaves = [tensor.requires_grad_() for tensor in (object, probe, positions)]
    settings = dict(weight=weight.expand_as(data).contiguous(), kind=kind, scale=3.0, subpixel=subpixel)
    result = ptychographic_loss(*leaves, data, **settings)
    exact_leaves = [leaf.detach().to(torch.complex128 if leaf.is_complex() else torch.float64) for leaf in leaves]
    exact_leaves = [leaf.requires_grad_() for leaf in exact_leaves]
    settings["weight"] = settings["weight"].double()
    exact = reference.ptychographic_loss(*exact_leaves, data.double(), **settings)
    # squares of intensities have twice their error, and behind two more transforms that of the FFT library at hand
    bound = 1e-5 if (kind, subpixel) == ("intensity", "fourier") else 5e-6
    assert of_largest(result.loss, exact.detach()) < bound
    grads = torch.autograd.grad(3 * result.total, leaves)
    expected = torch.autograd.grad(3 * exact.sum(), exact_leaves, allow_unused=True)
    looser = 4 if kind == "intensity" else 1
    for grad, truth, limit in zip(grads, expected, (1e-5, 1e-5, 5e-5), strict=True):
        assert float(grad.abs().max()) == 0 if truth is None else of_largest(grad, truth) < looser * limit


def test_bits_do_not_depend_on_threads_blocks_or_run():
    (object, probe, positions), data, weight, background, _ = arguments("subpixel")
    leaves = [tensor.requires_grad_() for tensor in (object, probe, positions, background)]

    def found(threads, block, subpixel):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            result = ptychographic_loss(
                *leaves[:3], data, weight=weight, background=leaves[3], subpixel=subpixel, block=block
            )
            return [*result, *torch.autograd.grad(result.total, leaves)]
        finally:
            torch.set_num_threads(before)

    for subpixel in ("fourier", "nearest"):
        first = found(1, None, subpixel)
        for threads, block in ((1, 1), (1, 5), (2, 4), (3, 12), (1, None)):
            for value, other in zip(first, found(threads, block, subpixel), strict=True):
                assert torch.equal(value, other), (threads, block, subpixel)


def test_a_pattern_does_not_depend_on_the_others():
    (object, probe, positions), data, weight, _, _ = arguments("subpixel")
    whole = ptychographic_loss(object, probe, positions, data, weight=weight)
    some = torch.tensor([7, 2, 9])
    part = ptychographic_loss(object, probe, positions[some], data[some], weight=weight)
    assert torch.equal(whole.loss[some], part.loss) and torch.equal(whole.misfit[some], part.misfit)


def test_a_bad_pattern_is_said_and_leaves_the_others_alone():
    (object, probe, positions), data, weight, _, _ = arguments("subpixel")
    object.requires_grad_()
    good = torch.tensor([j for j in range(len(data)) if j != 4])
    clean = ptychographic_loss(object, probe, positions[good], data[good], weight=weight)
    (expected,) = torch.autograd.grad(clean.total, object)
    spoilt = data.clone()
    spoilt[4, 3, 3] = torch.nan
    weight = weight.clone()
    weight[3, 3] = 1
    found = ptychographic_loss(object, probe, positions, spoilt, weight=weight)
    assert found.status[4] == PatternStatus.NONFINITE and int(found.status.ne(0).sum()) == 1
    assert found.loss[4] == 0 and found.misfit[4].isnan()
    (grad,) = torch.autograd.grad(found.total, object)
    assert grad.isfinite().all()
    with torch.no_grad():
        again = ptychographic_loss(object, probe, positions[good], data[good], weight=weight)
    assert torch.equal(found.loss[good], again.loss)
    assert relative_error(grad, expected) < 0.2  # the weight of one pixel apart


@pytest.mark.parametrize("kind", ["amplitude", "poisson", "intensity", "amplitude_mae", "projection"])
@pytest.mark.parametrize("spoil", ["dark", "nearly dark", "below zero"])
def test_devices_say_the_same_of_pixels_without_light(spoil, kind):
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(3, 2, 5, 5, dtype=torch.complex64, generator=generator)
    data, background = torch.rand(3, 5, 5, generator=generator), torch.zeros(5, 5)
    if spoil == "below zero":  # as an optimiser of the background may leave it
        background[2, 2] = -50
    else:
        waves[1, :, 2, 2] *= 0 if spoil == "dark" else 1e-22
    kernels = far_residual(waves, data, None, background, kind)
    with composed_on_cpu_tensors():
        composed = far_residual(waves, data, None, background, kind)
    for found, expected in zip(kernels, composed, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_second_derivatives_raise_instead_of_missing_terms():
    (object, probe, positions), data, _, _, _ = arguments("subpixel")
    patches = Patches((positions + 0.5).floor().long(), probe.shape[-1], object.shape)
    for name, call in (
        ("exit_waves", lambda o: exit_waves(o, probe, patches).abs().square().sum()),
        ("shift_ramp", lambda o: shift_ramp(o[:, :9, :9], positions).abs().square().sum()),
        ("ptychographic_loss", lambda o: ptychographic_loss(o, probe, positions, data).total),
    ):
        leaf = (probe if name == "shift_ramp" else object).clone().requires_grad_()
        (grad,) = torch.autograd.grad(call(leaf), leaf, create_graph=True)
        with pytest.raises(NotImplementedError, match=f"{name}: only first.*sem.ops.reference.{name} has second"):
            (grad.abs().sum() + leaf.abs().sum()).backward()
    waves = exit_waves(object, probe, patches)
    with pytest.raises(NotImplementedError, match="far_residual: .*sem.ops.reference.ptychographic_loss has second"):
        far_residual(waves.clone().requires_grad_(), data).loss.sum().backward()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Patches([(0, 0)], 4.5, (9, 9)), TypeError, "side: expected an int, got float"),
        (lambda: Patches([(0, 0)], 4, (9, 9, 2)), ValueError, r"shape: expected \(height, width\), got \(9, 9, 2\)"),
        (lambda: Patches([(0, 6)], 4, (9, 9)), ValueError, "patch of pattern 0 at .0, 6. leaves the object of 9 x 9"),
    ],
)
def test_patches_that_cannot_be(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_parseval_and_adjointness():
    (object, probe, _), _, _, _, _ = arguments("whole")
    side = probe.shape[-1]
    patches = Patches([(0, 0), (5, 9), (5, 9), (object.shape[0] - side, 3)], side, object.shape)
    waves = exit_waves(object, probe, patches)
    far = torch.fft.fft2(waves, norm="ortho")
    power = waves.abs().square().sum((1, 2, 3))
    torch.testing.assert_close(far.abs().square().sum((1, 2, 3)), power, rtol=1e-6, atol=0)
    chi = torch.randn(waves.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    sums = overlap_add(chi, object, probe, patches)

    def inner(a, b):
        return (a.conj().to(torch.complex128) * b.to(torch.complex128)).sum()

    for x, adjoint in ((object, sums.to_object), (probe, sums.to_probe)):
        torch.testing.assert_close(inner(waves, chi), inner(x, adjoint), rtol=1e-5, atol=1e-3)


def test_projection_has_the_measured_moduli_where_there_are_valid_pixels():
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(3, 2, 8, 8, dtype=torch.complex64, generator=generator)
    data, weight = torch.rand(3, 8, 8, generator=generator), torch.ones(8, 8)
    weight[2:4] = 0
    found = far_residual(waves, data, weight, kind="projection").out
    moduli = found.abs().square().sum(1).sqrt()
    torch.testing.assert_close(moduli[:, weight > 0], data[:, weight > 0], rtol=1e-6, atol=1e-7)
    assert torch.equal(found[:, :, weight == 0], waves[:, :, weight == 0])
    by_gradient = waves - far_residual(waves, data, weight).out
    torch.testing.assert_close(by_gradient, found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("operator", ["exit_waves", "shift_ramp"])
def test_operators_agree_with_their_twins(operator):
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, dtype=torch.complex64, generator=generator)  # noqa: E731
    if operator == "exit_waves":
        patches = Patches([(0, 0), (2, 3), (5, 1)], 7, (12, 11))
        leaves = [normal(12, 11), normal(3, 2, 7, 7)]
        call, twin = (lambda o, p: exit_waves(o, p, patches)), (lambda o, p: reference.exit_waves(o, p, patches))
    else:
        leaves = [normal(2, 7, 7), torch.rand(5, 2, generator=generator) - 0.5]
        call, twin = shift_ramp, reference.shift_ramp
    exact = [leaf.to(torch.complex128 if leaf.is_complex() else torch.float64).requires_grad_() for leaf in leaves]
    truth = twin(*exact)
    cotangent = normal(*truth.shape)
    expected = torch.autograd.grad(truth, exact, cotangent.to(torch.complex128))
    for leaf in leaves:
        leaf.requires_grad_()
    for composed in (False, True):
        with composed_on_cpu_tensors() if composed else torch.enable_grad():
            out = call(*leaves)
            grads = torch.autograd.grad(out, leaves, cotangent)
        assert relative_error(torch.view_as_real(out.detach()), torch.view_as_real(truth.detach())) < 1e-6
        for grad, exact_grad in zip(grads, expected, strict=True):
            difference = (grad.to(exact_grad.dtype) - exact_grad).norm() / exact_grad.norm()
            assert float(difference) < 2e-6


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(positions=torch.tensor([[0.0, 0.0], [9.0, 0.0]])), ValueError, "patch of pattern 1 at .9, 0. leaves"),
        (dict(positions=torch.tensor([[0.0, 0.0], [torch.nan, 0.0]])), ValueError, "finite numbers.* for pattern 1"),
        (dict(positions=torch.zeros(2, 3)), ValueError, r"positions: expected shape \[J, 2\], got \[2, 3\]"),
        (dict(data=torch.zeros(3, 8, 8)), ValueError, r"data: expected shape \[2, 8, 8\], got \[3, 8, 8\]"),
        (dict(weight=torch.ones(8, 7)), ValueError, "weight: expected shape"),
        (dict(kind="projection"), ValueError, "kind: expected one of 'amplitude', 'poisson'"),
        (dict(subpixel="linear"), ValueError, "subpixel: expected one of 'fourier', 'nearest'"),
        (dict(object=torch.ones(12, 12, dtype=torch.complex128)), TypeError, "object: expected complex64"),
        (dict(probe=torch.ones(8, 8, dtype=torch.complex64)), ValueError, "probe: expected at least 3"),
        (dict(block=0), ValueError, "block: expected at least 1"),
        (dict(data=torch.ones(2, 8, 8, requires_grad=True)), ValueError, "data: expected .* requires no gradient"),
        (dict(weight=torch.ones(8, 8, requires_grad=True)), ValueError, "weight: expected .* requires no gradient"),
    ],
)
def test_mistakes_are_named(change, error, message):
    given = dict(
        object=torch.ones(12, 12, dtype=torch.complex64),
        probe=torch.ones(1, 8, 8, dtype=torch.complex64),
        positions=torch.zeros(2, 2),
        data=torch.ones(2, 8, 8),
    )
    with pytest.raises(error, match=message):
        ptychographic_loss(**(given | change))


def test_no_patterns_give_no_loss_and_gradients_of_zero():
    object = torch.ones(9, 9, dtype=torch.complex64, requires_grad=True)
    probe = torch.ones(1, 4, 4, dtype=torch.complex64)
    found = ptychographic_loss(object, probe, torch.zeros(0, 2), torch.zeros(0, 4, 4))
    found.total.backward()
    assert float(found.total.detach()) == 0 and found.loss.shape == (0,)
    assert torch.equal(object.grad, torch.zeros_like(object))
