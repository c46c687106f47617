"""Clipped gradients: within their bound, in the direction they had, and told truthfully."""

import types
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sem.optimization_settings import ClipKind, OptimizationSettings
from sem.training.clipping import Clipping, build_clipping

SHAPES = ((5, 3), (4, 2, 3, 3), (6,), (), (1, 7))
KINDS = [kind for kind in get_args(ClipKind) if kind != "none"]
BOUNDS = st.floats(1e-3, 10.0)
SEEDS = st.integers(0, 2**31)
DTYPES = st.sampled_from([torch.float32, torch.complex64])


def parameters_of(seed, dtype, scale=1.0):
    """Weights of several sizes, some below 1e-3, with a gradient each; and one without."""
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for number, shape in enumerate(SHAPES):
        parameter = nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype) * 10.0 ** (1 - 2 * number))
        parameter.grad = torch.randn(shape, generator=generator, dtype=dtype) * scale
        parameters.append(parameter)
    return [*parameters, nn.Parameter(torch.ones(2))]


def clipped(clipping, parameters):
    """Gradients before and after, and all that is told of it."""
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(before)
    figures = {name: value.item() for name, value in clipping.clip(parameters, norm).items()}
    return before, [p.grad for p in parameters if p.grad is not None], figures | clipping.told_by_norm(norm.item())


def units_of(tensor):
    """What is one unit each, as rows."""
    return tensor.reshape(len(tensor), -1) if tensor.ndim > 1 else tensor.reshape(1, -1)


def same_direction(one, other):
    """Whether the rows of ``other`` are those of ``one`` times factors in (0, 1]."""
    factors = other.norm(dim=-1, keepdim=True) / one.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(other, one * factors, rtol=1e-4, atol=1e-7)
    return bool((factors <= 1 + 1e-6).all())


@settings(deadline=None)  # the first example pays for what torch loads
@given(seed=SEEDS, dtype=DTYPES, bound=BOUNDS)
def test_norm_is_within_its_bound_and_the_direction_kept(seed, dtype, bound):
    before, after, figures = clipped(Clipping("norm", bound), parameters_of(seed, dtype))
    whole = [torch.cat([gradient.flatten() for gradient in gradients]).unsqueeze(0) for gradients in (before, after)]
    assert whole[1].norm().item() <= bound * (1 + 1e-5)
    assert same_direction(*whole)
    assert figures["grad_norm_clipped"] == pytest.approx(whole[1].norm().item(), rel=1e-5)
    assert figures["clipped_share"] == float(whole[0].norm().item() > bound)


@settings(deadline=None)  # the first example pays for what torch loads
@given(seed=SEEDS, dtype=DTYPES, bound=BOUNDS)
def test_the_largest_value_is_within_its_bound_and_each_direction_kept(seed, dtype, bound):
    before, after, figures = clipped(Clipping("value", bound), parameters_of(seed, dtype))
    lengths = [torch.cat([gradient.flatten() for gradient in gradients]).abs() for gradients in (before, after)]
    assert lengths[1].max().item() <= bound * (1 + 1e-5)
    for one, other in zip(before, after, strict=True):
        assert same_direction(one.reshape(-1, 1), other.reshape(-1, 1))
        assert torch.equal(other[one.abs() < bound], one[one.abs() < bound])
    assert figures["grad_norm_clipped"] == pytest.approx(lengths[1].norm().item(), rel=1e-5)
    assert figures["clipped_share"] == pytest.approx((lengths[0] > bound).float().mean().item())


@settings(deadline=None)  # the first example pays for what torch loads
@given(seed=SEEDS, dtype=DTYPES, bound=BOUNDS)
def test_each_units_ratio_is_within_its_bound_and_its_direction_kept(seed, dtype, bound):
    parameters = parameters_of(seed, dtype)
    before, after, figures = clipped(Clipping("agc", bound), parameters)
    count = above = 0
    for parameter, *gradients in zip(parameters, before, after, strict=False):
        one, other = map(units_of, gradients)
        weights = units_of(parameter.detach()).norm(dim=1).clamp(min=1e-3)
        assert (other.norm(dim=1) / weights).max().item() <= bound * (1 + 1e-5)
        assert same_direction(one, other)
        within = one.norm(dim=1) < bound * weights * (1 - 1e-6)
        assert torch.equal(other[within], one[within])
        count, above = count + len(one), above + int((one.norm(dim=1) > bound * weights).sum())
    assert figures["clipped_share"] == pytest.approx(above / count)
    everything = torch.cat([gradient.flatten() for gradient in after])
    assert figures["grad_norm_clipped"] == pytest.approx(everything.norm().item(), rel=1e-5)


def test_units_by_hand():
    rows, gain = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), nn.Parameter(torch.tensor([6.0, 8.0]))
    rows.grad, gain.grad = torch.tensor([[0.0, 2.0], [0.3, 0.4]]), torch.tensor([0.6, 0.8])
    _, (of_rows, of_gain), figures = clipped(Clipping("agc", 0.1), [rows, gain])
    torch.testing.assert_close(of_rows, torch.tensor([[0.0, 0.5], [0.6e-4, 0.8e-4]]))
    torch.testing.assert_close(of_gain, torch.tensor([0.6, 0.8]))
    assert figures["clipped_share"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_gradients_stay_zero_and_no_gradients_are_no_problem(kind):
    parameters = parameters_of(0, torch.float32, scale=0.0)
    _, after, figures = clipped(Clipping(kind, 0.1), parameters)
    assert not any(gradient.any() for gradient in after)
    assert figures == {"grad_norm_clipped": 0.0, "clipped_share": 0.0}
    assert Clipping(kind, 0.1).clip([nn.Parameter(torch.ones(2))], torch.zeros(())) == {}


@pytest.mark.parametrize("clipping", [Clipping("none", 1e-3), *(Clipping(kind, 0.0) for kind in KINDS)], ids=str)
def test_no_clipping_leaves_every_bit(clipping):
    before, after, figures = clipped(clipping, parameters_of(0, torch.float32))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert figures == {} and not clipping.active


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a number of the device's."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_waits_for_the_device(kind):
    parameters = parameters_of(0, torch.complex64) + parameters_of(1, torch.float32)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    with Waits() as waits:
        figures = Clipping(kind, 0.1).clip(parameters, norm)
        assert waits.count == 0
        float(norm)
    assert waits.count == 1  # it would have been noticed
    assert bool(figures) == (kind != "norm")  # whose figures need nothing of the device but the norm itself


def test_unknown_kinds_and_impossible_bounds_are_errors():
    words = "expected one of none, norm, value, agc"
    with pytest.raises(ValueError, match=f"optimization.gradient_clip_kind = 'global': {words}"):
        OptimizationSettings(gradient_clip_kind="global")
    with pytest.raises(ValueError, match=f"gradient_clip_kind = 'global': {words}"):
        build_clipping(types.SimpleNamespace(gradient_clip=1.0, gradient_clip_kind="global"))
    for bound in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="gradient_clip = .*: expected a number >= 0"):
            Clipping("norm", bound)
    for kind in ("value", "agc"):
        with pytest.raises(ValueError, match=f"gradient_clip = 0: expected a bound > 0 beside .*_kind = '{kind}'"):
            OptimizationSettings(gradient_clip_kind=kind)
