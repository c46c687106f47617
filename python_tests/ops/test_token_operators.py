"""The operators on tokens one by one or a few at a time: accuracy, gradients, and what a result may depend on."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from helpers import double, relative_error
from scan_problems import same_bits
from token_operators import TOKEN_OPERATORS, conv_problem, weight_like

from sem.ops import causal_conv, complex_rms_norm, gated_rotation, potential_step, reference, wave_gate
from sem.ops.testing import composed_on_cpu_tensors

operators = pytest.mark.parametrize("operator", TOKEN_OPERATORS, ids=str)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def check(found, expected, accuracy):
    for k, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert relative_error(ours, theirs) <= accuracy, k


@operators
@pytest.mark.parametrize("batch, steps", [(0, 3), (2, 0), (1, 1), (3, 2), (2, 65), (1, 200)])
@pytest.mark.parametrize("width", [1, 6, 16, 17, 40, 130])
def test_output_and_gradients_match_the_double_twin(operator, batch, steps, width):
    inputs = operator.problem(batch, steps, width)
    weight = weight_like(inputs[0])
    found = operator.gradients(operator.native, inputs, weight)
    assert found[0].dtype == torch.complex64
    check(found, operator.gradients(operator.twin, [double(t) for t in inputs], weight), 3e-6)


@operators
@pytest.mark.parametrize("width", [6, 16])
def test_the_composition_for_other_devices_matches_the_double_twin(operator, width):
    inputs = operator.problem(3, 9, width)
    weight = weight_like(inputs[0])
    expected = operator.gradients(operator.twin, [double(t) for t in inputs], weight)
    kernel = operator.gradients(operator.native, inputs, weight)
    with composed_on_cpu_tensors():
        composition = operator.gradients(operator.native, inputs, weight)
    check(composition, expected, 3e-6)
    assert not all(map(same_bits, composition, kernel))


@operators
def test_gradients_of_the_twin_by_finite_differences(operator):
    inputs = [double(t).requires_grad_() for t in operator.problem(2, 3, 4)]
    assert torch.autograd.gradcheck(operator.twin, inputs)


@operators
def test_the_meta_device_has_shapes(operator):
    meta = [tensor.to("meta") for tensor in operator.problem()]
    assert operator.native(*meta).device.type == "meta"


@operators
def test_opcheck(operator):
    forward, backward = operator.kernels
    for inputs in (operator.problem(), operator.problem(0)):
        arguments = operator.blocks(inputs)
        torch.library.opcheck(forward.op, (*arguments, *operator.constants))
        grad = torch.randn_like(arguments[0])
        torch.library.opcheck(backward.op, (*arguments, grad, *operator.constants))


@operators
def test_compiles_without_graph_breaks(operator):
    def objective(*inputs):
        return torch.view_as_real(operator.native(*inputs)).square().sum()

    eager, compiled = ([t.requires_grad_() for t in operator.problem()] for _ in range(2))
    objective(*eager).backward()
    torch.compile(objective, fullgraph=True, backend="aot_eager")(*compiled).backward()
    for ours, theirs in zip(compiled, eager, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)


@operators
def test_functional_gradient_and_vmap_over_every_input(operator):
    problems = [operator.problem(seed=10 * seed) for seed in range(3)]
    stacked = [torch.stack(parts) for parts in zip(*problems, strict=True)]
    real = [k for k, tensor in enumerate(problems[0]) if not tensor.is_complex()]

    def objective(*inputs):
        return torch.view_as_real(operator.native(*inputs)).square().sum()

    together = torch.func.vmap(torch.func.grad(objective, tuple(real)))(*stacked)
    for n, problem in enumerate(problems):
        for ours, theirs in zip(together, torch.func.grad(objective, tuple(real))(*problem), strict=True):
            torch.testing.assert_close(ours[n], theirs, rtol=1e-5, atol=1e-5)
    first = (0, *(None for _ in problems[0][1:]))
    folded = torch.func.vmap(operator.native, first)(stacked[0], *problems[0][1:])
    assert same_bits(folded[0], operator.native(*problems[0]))
    all_at_once = torch.func.vmap(operator.native)(*stacked)
    assert same_bits(all_at_once[2], operator.native(*problems[2]))


@operators
def test_forward_mode_and_second_derivatives_raise(operator):
    inputs = operator.problem()
    with pytest.raises((RuntimeError, NotImplementedError), match="jvp"):
        torch.func.jvp(lambda x: operator.native(x, *inputs[1:]).real, (inputs[0],), (inputs[0],))
    leaf = inputs[1].requires_grad_()
    (grad,) = torch.autograd.grad(operator.native(*inputs).abs().sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        grad.abs().sum().backward()


@operators
def test_autocast_changes_no_bit(operator):
    inputs = operator.problem(2, 17, 24)
    weight = weight_like(inputs[0])
    for place in (nullcontext, composed_on_cpu_tensors):
        with place():
            outside = operator.gradients(operator.native, inputs, weight)
            with torch.autocast("cpu", torch.bfloat16):
                assert all(map(same_bits, outside, operator.gradients(operator.native, inputs, weight)))


@operators
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_are_widened_and_get_gradients_of_their_dtype(operator, dtype):
    reals = [torch.view_as_real(t) if t.is_complex() else t for t in operator.problem()]
    half = [t.to(dtype).requires_grad_() for t in reals]
    out = operator.native(*half)
    assert out.dtype == torch.float32 and out.shape == half[0].shape
    assert same_bits(out, operator.native(*(t.detach().float() for t in half)))
    out.square().sum().backward()
    assert all(t.grad.dtype == dtype and t.grad.abs().sum() > 0 for t in half)


@operators
def test_strided_and_conjugated_inputs(operator):
    inputs = operator.problem(2, 9, 12)
    strided = [
        t.transpose(0, 1).contiguous().transpose(0, 1) if t.dim() > 1 else t.repeat_interleave(2)[::2] for t in inputs
    ]
    strided[0] = strided[0].conj().resolve_conj().conj()
    assert same_bits(operator.native(*strided), operator.native(*inputs))


@operators
def test_bits_do_not_depend_on_the_batch_or_the_threads(operator, threads):
    inputs = operator.problem(5, 70, 136)
    weight = weight_like(inputs[0])
    threads(1)
    found = operator.gradients(operator.native, inputs, weight)
    for count in (2, 3):
        threads(count)
        assert all(map(same_bits, found, operator.gradients(operator.native, inputs, weight)))
    some = [3, 0]
    part = operator.gradients(operator.native, operator.chosen(inputs, some), weight[some])
    for k in (-1, *operator.rows):
        assert same_bits(found[k + 1][some], part[k + 1])


@operators
def test_nan_stays_in_its_row(operator):
    inputs = operator.problem(3, 6, 17)
    clean = operator.native(*inputs)
    inputs[0][1, 2, 5] = math.nan
    out = operator.native(*inputs)
    assert torch.isnan(out[1, 2, 5].real)
    untouched = torch.ones(3, 6, dtype=torch.bool)
    untouched[1, 2:] = False
    assert same_bits(out[untouched], clean[untouched])
    if operator.name != "causal_conv":
        assert same_bits(out[1, 3:], clean[1, 3:])


def test_a_norm_of_zeros_is_zero_with_finite_gradient():
    z = torch.zeros(2, 17, dtype=torch.complex64, requires_grad=True)
    out = complex_rms_norm(z, torch.ones(17), 0.0)
    torch.view_as_real(out).sum().backward()
    assert not out.abs().any() and torch.isfinite(torch.view_as_real(z.grad)).all()


places = pytest.mark.parametrize("place", [nullcontext, composed_on_cpu_tensors], ids=["kernel", "composed"])


@places
def test_gates_of_any_size_have_finite_values_and_gradients(place):
    logits = torch.tensor([-1e30, -100.0, -50.0, 0.0, 50.0, 100.0, 1e30])
    inputs = [torch.full((7,), 1 - 2j, dtype=torch.complex64), logits]
    weight = torch.full((7,), 0.5 + 1j)
    with place():
        found = TOKEN_OPERATORS[3].gradients(wave_gate, inputs, weight)
    expected = TOKEN_OPERATORS[3].gradients(reference.wave_gate, [double(t) for t in inputs], weight)
    for ours, theirs in zip(found, expected, strict=True):
        for k in range(7):
            assert abs(complex(ours[k]) - complex(theirs[k])) <= 1e-6 * abs(complex(theirs[k])) + 1e-30, k


@places
def test_a_potential_step_keeps_moduli_and_leaves_a_row_of_zeros(place):
    psi = torch.randn(3, 40, dtype=torch.complex64)
    psi[1] = 0
    psi.requires_grad_()
    with place():
        out = potential_step(psi, 300 * torch.randn(3, 40), 100 * torch.randn(40))
        torch.testing.assert_close(out.abs(), psi.abs(), rtol=1e-6, atol=0)
        assert not out[1].any()
        out.real.sum().backward()
        torch.testing.assert_close(psi.grad[1].abs(), torch.ones(40))
        tiny = torch.full((1, 3), 1e-22 + 0j)
        torch.testing.assert_close(potential_step(tiny, torch.zeros(1, 3), torch.ones(3)), tiny, rtol=1e-3, atol=0)


@places
def test_phases_of_a_thousand_radians_are_those_of_the_floats(place):
    psi, angle = torch.ones(4, 50, dtype=torch.complex64), 2000 * torch.rand(4, 50) - 1000
    with place():
        out = potential_step(psi, angle, torch.zeros(50))
    assert relative_error(out, torch.exp(1j * angle.double())) < 1e-6


@pytest.mark.parametrize("taps", [1, 2, 4, 9, 70])
@pytest.mark.parametrize("steps", [1, 5, 64, 150])
def test_convolution_of_any_width(taps, steps):
    inputs = conv_problem(2, steps, 5, taps=taps)
    for given in (inputs, inputs[:3]):
        weight, operator = weight_like(inputs[0]), TOKEN_OPERATORS[2]
        found = operator.gradients(causal_conv, given, weight)
        check(found, operator.gradients(reference.causal_conv, [double(t) for t in given], weight), 3e-6)


def test_no_history_is_a_history_of_zeros():
    x, taps, bias, theta, history = conv_problem()
    assert same_bits(causal_conv(x, taps, bias, theta), causal_conv(x, taps, bias, theta, torch.zeros_like(history)))


@pytest.mark.parametrize("cut", [0, 1, 3, 64, 69, 70])
def test_two_parts_of_a_sequence_are_bit_equal_to_one_run(cut):
    x, taps, bias, theta, history = conv_problem(2, 70, 20)
    whole = causal_conv(x, taps, bias, theta, history)
    first = causal_conv(x[:, :cut], taps, bias, theta, history)
    handed_over = torch.cat([history, x[:, :cut]], 1)[:, cut:]
    second = causal_conv(x[:, cut:], taps, bias, theta, handed_over)
    assert same_bits(torch.cat([first, second], 1), whole)


def test_later_inputs_do_not_change_earlier_outputs():
    x, taps, bias, theta, _ = conv_problem(1, 70, 20)
    changed = x.clone()
    changed[:, 33:] += 1
    before, after = causal_conv(x, taps, bias, theta), causal_conv(changed, taps, bias, theta)
    assert same_bits(before[:, :33], after[:, :33]) and not torch.equal(before[:, 33], after[:, 33])


def test_a_small_wave_is_gated_to_its_full_precision():
    x = torch.full((1, 1, 1), 1e-4, dtype=torch.complex64)
    out = causal_conv(x, torch.ones(1, 1, dtype=torch.complex64), torch.zeros(1, 2), torch.zeros(1))
    assert abs(float(out.real) / 1e-12 - 1) < 1e-5


WAVE = torch.zeros(2, 5, 6, dtype=torch.complex64)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: complex_rms_norm(None, torch.ones(6)), TypeError, "z: expected a torch.Tensor, got NoneType"),
        (lambda: complex_rms_norm(WAVE.to(torch.complex128), torch.ones(6)), TypeError, "z: expected complex64"),
        (lambda: complex_rms_norm(WAVE, torch.ones(5)), ValueError, r"gamma: expected shape \[6\], got \[5\]"),
        (lambda: complex_rms_norm(WAVE, torch.ones(6, device="meta")), ValueError, "gamma: expected device cpu"),
        (lambda: complex_rms_norm(WAVE, torch.ones(6), -1.0), ValueError, "eps: expected a finite number >= 0"),
        (
            lambda: gated_rotation(WAVE, torch.ones(2, 5, 5), torch.ones(2, 3, 3, 2)),
            ValueError,
            r"logits: expected shape \[2, 5, 6\], got \[2, 5, 5\]",
        ),
        (
            lambda: gated_rotation(WAVE, torch.ones(2, 5, 6), torch.ones(2, 4, 4, 2)),
            ValueError,
            r"blocks: expected shape \[6 / b, b, b\], got \[2, 4, 4\]",
        ),
        (
            lambda: gated_rotation(WAVE, torch.ones(2, 5, 6), torch.ones(3, 2, 3, 2)),
            ValueError,
            "blocks: expected shape",
        ),
        (
            lambda: gated_rotation(WAVE, torch.ones(2, 5, 6), torch.ones(1, 2, 3, 3, 2)),
            ValueError,
            "blocks: expected shape",
        ),
        (lambda: wave_gate(None, torch.ones(6)), TypeError, "psi: expected a torch.Tensor, got NoneType"),
        (lambda: wave_gate(WAVE, torch.ones(6)), ValueError, r"logits: expected shape \[2, 5, 6\], got \[6\]"),
        (
            lambda: wave_gate(WAVE, torch.ones(2, 5, 6, dtype=torch.float64)),
            TypeError,
            "logits: expected float32 .* got torch.float64",
        ),
        (
            lambda: wave_gate(WAVE, torch.ones(2, 5, 6, device="meta")),
            ValueError,
            "logits: expected device cpu, as the first argument, got meta",
        ),
        (
            lambda: potential_step(WAVE, torch.ones(5, 6), torch.ones(6)),
            ValueError,
            r"potential: expected shape \[2, 5, 6\], got \[5, 6\]",
        ),
        (
            lambda: potential_step(WAVE, torch.ones(2, 5, 6), torch.ones(5)),
            ValueError,
            r"kerr: expected shape \[6\], got \[5\]",
        ),
        (
            lambda: potential_step(WAVE, WAVE, torch.ones(6)),
            TypeError,
            "potential: expected float32, bfloat16 or float16, got torch.complex64",
        ),
        (
            lambda: potential_step(WAVE, torch.ones(2, 5, 6), torch.ones(6, device="meta")),
            ValueError,
            "kerr: expected device cpu, as the first argument, got meta",
        ),
        (
            lambda: causal_conv(WAVE[0], torch.ones(4, 6, 2), torch.ones(6, 2)),
            ValueError,
            "x: expected at least 3 dimension",
        ),
        (
            lambda: causal_conv(WAVE[None], torch.ones(4, 6, 2), torch.ones(6, 2)),
            ValueError,
            r"x: expected shape \[B, S, C\], got \[1, 2, 5, 6\]",
        ),
        (
            lambda: causal_conv(WAVE, torch.ones(4, 5, 2), torch.ones(6, 2)),
            ValueError,
            r"taps: expected shape \[W, 6\], W >= 1, got \[4, 5\]",
        ),
        (
            lambda: causal_conv(WAVE, torch.ones(0, 6, 2), torch.ones(6, 2)),
            ValueError,
            r"taps: expected shape \[W, 6\], W >= 1, got \[0, 6\]",
        ),
        (
            lambda: causal_conv(WAVE, torch.ones(4, 6, 2), torch.ones(12, 2)),
            ValueError,
            r"bias: expected shape \[6\], got \[12\]",
        ),
        (
            lambda: causal_conv(WAVE, torch.ones(4, 6, 2), torch.ones(6, 2), torch.ones(5)),
            ValueError,
            r"theta: expected shape \[6\], got \[5\]",
        ),
        (
            lambda: causal_conv(WAVE, torch.ones(4, 6, 2), torch.ones(6, 2), None, WAVE[:, :2]),
            ValueError,
            r"history: expected shape \[2, 3, 6\], got \[2, 2, 6\]",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
