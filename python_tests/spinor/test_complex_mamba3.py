import pytest
import torch
from helpers import relative_error

from sem.layers import ComplexLinear, ComplexRMSNorm, WidelyLinear
from sem.ops import scan
from sem.ops.testing import composed_on_cpu_tensors
from sem.spinor import ComplexMamba3Layer
from sem.spinor.complex_mamba3 import CausalConv, GatedBlockRotation, SelectiveStates, SpinorState


def affine(layer, z):
    return torch.cat([z.real, z.imag], -1) @ layer.weight.T + layer.bias


@pytest.fixture
def z():
    torch.manual_seed(0)
    return torch.randn(2, 11, 16, dtype=torch.complex64)


def test_complex_linear_is_the_complex_product(z):
    layer = ComplexLinear(16, 5)
    expected = z @ torch.view_as_complex(layer.weight).T
    torch.testing.assert_close(layer(z), expected, rtol=1e-5, atol=1e-5)


def test_norm_counts_active_entries_only(z):
    z = z.clone()
    z[..., 8:] = 0
    out = ComplexRMSNorm(16)(z)
    torch.testing.assert_close(out[..., :8].abs().square().mean(-1), torch.ones(2, 11), rtol=1e-4, atol=1e-4)


def test_norm_of_a_zero_token_is_zero_with_finite_gradient():
    z = torch.zeros(1, 1, 16, dtype=torch.complex64, requires_grad=True)
    out = ComplexRMSNorm(16)(z)
    torch.view_as_real(out).sum().backward()
    assert torch.equal(out, torch.zeros_like(out)) and torch.isfinite(torch.view_as_real(z.grad)).all()


def test_gated_block_rotation(z):
    layer = GatedBlockRotation(16, 4)
    z.requires_grad_()
    gate = torch.sigmoid(1.7015 * affine(layer.gate, z))
    turned = torch.block_diag(*torch.view_as_complex(layer.blocks))
    expected = z + gate * (z @ turned.T - z)
    torch.testing.assert_close(layer(z), expected, rtol=1e-5, atol=1e-5)
    leaves, cotangent = [z, *layer.parameters()], torch.randn_like(expected)
    grads = [torch.autograd.grad(out, leaves, cotangent) for out in (layer(z), expected)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_causal_convolution(z):
    layer = CausalConv(16, 4)
    taps = torch.view_as_complex(layer.taps)
    padded = torch.cat([z.new_zeros(2, 3, 16), z], 1)
    expected = sum(padded[:, k : k + 11] * taps[k] for k in range(4)) + torch.complex(*layer.bias.chunk(2))
    torch.testing.assert_close(layer(z), expected, rtol=1e-5, atol=1e-5)


def test_causal_convolution_with_the_magnitude_gate(z):
    layer = CausalConv(16, 4)
    theta = torch.randn(16)
    v = layer(z)
    expected = v * (1 - torch.exp(-v.abs().square() * theta.exp()))
    torch.testing.assert_close(layer(z, theta), expected)


def test_a_scale_of_a_complex_linear_map(z):
    layer, scale = ComplexLinear(16, 5), torch.tensor(0.3, requires_grad=True)
    torch.testing.assert_close(layer(z, scale), 0.3 * layer(z))
    (grad,) = torch.autograd.grad(layer(z, scale).real.sum(), scale)
    torch.testing.assert_close(grad, layer(z).real.sum(), rtol=1e-4, atol=1e-4)


def test_selective_states(z):
    layer = SelectiveStates(16, 3, 4)
    into, out_of = torch.view_as_complex(layer.into), torch.view_as_complex(layer.out_of)
    log_dt = affine(layer.time_steps, z).exp().clamp(1e-4, 2)
    dt_mag, dt_phase = log_dt.chunk(2, -1)
    decay = torch.nn.functional.softplus(layer.raw_decay).reshape(4, 3)
    frequency = layer.frequency.reshape(4, 3)
    state = z.new_zeros(2, 4, 3)
    outputs = []
    for t in range(11):
        a = torch.exp(torch.complex(-dt_mag[:, t, :, None] * decay, dt_phase[:, t, :, None] * frequency))
        assert (a.abs() < 1).all()
        drive = torch.einsum("gnp,bgp->bgn", into, z[:, t].reshape(2, 4, 4))
        state = a * state + dt_mag[:, t, :, None] * drive
        outputs.append(torch.einsum("gpn,bgn->bgp", out_of, state).reshape(2, 16))
    torch.testing.assert_close(layer(z), torch.stack(outputs, 1), rtol=1e-4, atol=1e-5)


def recorded_states(layer, z, initial):
    """:meth:`StateWeights.advance` out of recorded operations on complex tensors, with all groups at once."""
    log_dt = affine(layer.time_steps, z).exp().clamp(1e-4, 2)
    into, out_of = torch.view_as_complex(layer.into), torch.view_as_complex(layer.out_of)
    drive = torch.einsum("gnp,bsgp->bsgn", into, z.unflatten(-1, (layer.groups, -1))).flatten(-2)
    decay = torch.nn.functional.softplus(layer.raw_decay)
    states, last = scan(drive, *(dt.contiguous() for dt in log_dt.chunk(2, -1)), decay, layer.frequency, initial)
    return torch.einsum("gpn,bsgn->bsgp", out_of, states.unflatten(-1, (layer.groups, -1))).flatten(-2), last


@pytest.mark.parametrize("composed", [False, True], ids=["kernel", "composed"])
def test_gradients_of_selective_states(z, composed):
    if composed:
        with composed_on_cpu_tensors():
            check_gradients_of_selective_states(z)
    else:
        check_gradients_of_selective_states(z)


def check_gradients_of_selective_states(z):
    layer = SelectiveStates(16, 3, 4)
    initial = torch.randn(2, 12, dtype=torch.complex64, requires_grad=True)
    leaves = [z.requires_grad_(), initial, *layer.parameters()]
    cotangents = torch.randn(2, 11, 16, dtype=torch.complex64), torch.randn(2, 12, dtype=torch.complex64)
    found = map(torch.view_as_complex, layer.weights().advance(*map(torch.view_as_real, (z, initial))))
    found, expected = tuple(found), recorded_states(layer, z, initial)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    grads = [torch.autograd.grad(outputs, leaves, cotangents) for outputs in (found, expected)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_selective_states_keep_nothing_of_the_size_of_their_states():
    layer = SelectiveStates(8, 64, 2)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        layer(torch.randn(2, 40, 8, dtype=torch.complex64, requires_grad=True))
    assert max(sizes) <= 2 * 64 * 8 * 2 < 2 * 40 * 2 * 64


def test_layer_is_causal_to_the_bit(z):
    layer = ComplexMamba3Layer(16, block_size=4, state_dim=3, mimo_groups=4, num_layers=2)
    changed = z.clone()
    changed[:, 6:] += 1
    before, after = layer(z), layer(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.equal(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("d_conv", [1, 2, 4, 9])
@pytest.mark.parametrize("sizes", [1, 3, [1, 9, 1]])
def test_layer_continues_a_sequence(z, d_conv, sizes):
    layer = ComplexMamba3Layer(16, block_size=4, state_dim=3, mimo_groups=4, d_conv=d_conv)
    state, weights = layer.start(2), layer.weights()
    x, whole = torch.view_as_real(z), torch.view_as_real(layer(z))
    parts = []
    for piece in x.split(sizes, 1):
        out, state = weights.advance(piece.contiguous(), state)
        assert state.history.shape == (2, d_conv - 1, 16, 2) and state.states.shape == (2, 12, 2)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)
    fresh, _ = weights.advance(x[:, 5:6].contiguous(), layer.start(2))
    assert (fresh - whole[:, 5:6]).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient(z):
    layer = ComplexMamba3Layer(16, block_size=4, state_dim=3, mimo_groups=4)
    layer(z).abs().square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


def test_width_must_fit_blocks_and_groups():
    with pytest.raises(ValueError, match="dim: expected a multiple of mimo_groups = 8, got 20"):
        ComplexMamba3Layer(20, mimo_groups=8)
    with pytest.raises(ValueError, match="dim: expected a multiple of block_size = 8, got 20"):
        ComplexMamba3Layer(20, block_size=8, mimo_groups=4, rotation=True)
    assert ComplexMamba3Layer(20, block_size=8, mimo_groups=4).rotation is None


@pytest.mark.parametrize("rotation", [False, True])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize(("batch", "d_conv"), [(1, 4), (3, 1), (8, 2), (9, 4)])
def test_one_position_in_one_kernel_is_the_layer(batch, d_conv, gate, rotation):
    torch.manual_seed(0)
    sizes = {"block_size": 4, "state_dim": 10, "mimo_groups": 3, "d_conv": d_conv}
    layer = ComplexMamba3Layer(24, **sizes, rotation=rotation, output_gate=gate)
    for parameter in layer.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    weights = layer.weights()
    state = SpinorState(*map(torch.randn_like, layer.start(batch)))
    x = torch.randn(batch, 1, 24, 2)
    with torch.no_grad():
        out, after = weights.advance(x, state)
    parts, parts_after = weights.advance(x, state)  # recorded, so in parts
    assert parts.requires_grad and not out.requires_grad
    for value, exact in zip((out, *after), (parts, *parts_after), strict=True):
        assert value.shape == exact.shape and relative_error(value, exact) < 1e-6


def test_a_widely_linear_map_is_one_of_the_wave_and_its_conjugate():
    layer, z, scale = WidelyLinear(6, 4), torch.randn(3, 6, dtype=torch.complex64), torch.tensor(0.3)
    blocks = layer.weight.detach().view(4, 2, 6, 2)
    of_re, of_im = (torch.complex(blocks[:, 0, :, k], blocks[:, 1, :, k]) for k in (0, 1))
    w, v = (of_re - 1j * of_im) / 2, (of_re + 1j * of_im) / 2
    torch.testing.assert_close(layer(z).detach(), z @ w.T + z.conj() @ v.T)
    torch.testing.assert_close(layer(z, scale), 0.3 * layer(z))


@pytest.mark.parametrize(("projection", "shape"), [("widely_linear", (48, 48)), ("complex", (24, 24, 2))])
def test_kinds_of_the_last_map(projection, shape):
    layer = ComplexMamba3Layer(24, state_dim=4, mimo_groups=4, projection=projection)
    assert layer.out.weight.shape == shape
    assert layer(torch.randn(1, 3, 24, dtype=torch.complex64)).shape == (1, 3, 24)
