import math

import pytest
import torch
from helpers import double, generator, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_problems import same_bits

from sem.ops import Topology, cayley, potential_step, reference, ring_echo
from sem.ops.ring_echo import ring_echo_backward, ring_echo_forward
from sem.ops.testing import composed_on_cpu_tensors

NAMES = ("psi", "potential", "kerr", "edge_weight", "half_dt")


def problem(rows: int, width: int, seed: int = 0, half_dt: float = 0.7) -> list[torch.Tensor]:
    draw = generator(seed)
    return [
        torch.randn(rows, width, dtype=torch.complex64, generator=draw),
        2 * torch.randn(rows, width, generator=draw),
        torch.randn(width, generator=draw),
        2 * torch.rand(width, generator=draw),
        torch.tensor(half_dt),
    ]


def gradients(call, inputs, weight):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out = call(*leaves)
    return out.detach(), torch.autograd.grad(out, leaves, weight.to(out.dtype))


def test_by_hand():
    # on three equal edges of weight 1/3 with a = 1, U = J/3 - i (I - J/3)
    move = torch.full((3, 3), 1 / 3) - 1j * (torch.eye(3) - 1 / 3)
    psi, angle = torch.tensor([1.0, 2.0j, -1.0]), torch.tensor([math.pi, 0.0, math.pi / 2])
    expected = move.conj() @ (torch.exp(1j * angle) * (move @ psi))
    out = ring_echo(psi, angle, torch.zeros(3), torch.full((3,), 1 / 3), 1.0)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("composed", [False, True], ids=["kernel", "composed"])
@pytest.mark.parametrize(("rows", "width"), [(0, 5), (1, 3), (5, 16), (17, 19), (33, 128), (4, 300)])
def test_values_and_gradients_match_the_float64_twin(rows, width, composed):
    inputs = problem(rows, width)
    weight = torch.randn(rows, width, dtype=torch.complex64, generator=generator(9))
    if composed:
        with composed_on_cpu_tensors():
            out, grads = gradients(ring_echo, inputs, weight)
    else:
        out, grads = gradients(ring_echo, inputs, weight)
    exact, exact_grads = gradients(reference.ring_echo, [double(tensor) for tensor in inputs], weight)
    assert relative_error(out, exact) <= 2e-6
    scale = math.sqrt(1 + rows * width)
    for name, found, true in zip(NAMES, grads, exact_grads, strict=True):
        if name == "half_dt":  # a sum of terms of either sign
            assert abs(float(found - true)) <= 2e-5 * scale
        else:
            assert relative_error(found, true) <= 5e-6, name


def test_it_is_a_step_phases_and_the_step_back():
    psi, potential, kerr, weight, half_dt = problem(9, 40)
    ring = Topology.ring(40)
    turned = potential_step(cayley(psi, weight, ring, half_dt), potential, kerr)
    torch.testing.assert_close(
        ring_echo(psi, potential, kerr, weight, half_dt), cayley(turned, weight, ring, -half_dt), rtol=1e-5, atol=1e-5
    )


def test_the_ring_of_a_topology_is_found_in_any_order():
    ring = Topology.ring(5)
    assert ring.ring_order().tolist() == [0, 1, 2, 3, 4]
    shuffled = Topology(5, ring.edges[[3, 0, 4, 2, 1]].flip(1))
    assert torch.equal(shuffled.edges[shuffled.ring_order()], ring.edges)
    assert Topology.small_world(16, 2, 0.0).ring_order() is not None
    for other in (Topology.small_world(16, 4), Topology(5, ring.edges[:4]), Topology(2, [(0, 1)]), Topology(1, [])):
        assert other.ring_order() is None
    # as many edges as nodes, but two triangles
    assert Topology(6, [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5)]).ring_order() is None
    with pytest.raises(ValueError, match="nodes: expected at least 3 for a ring, got 2"):
        Topology.ring(2)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(3, 60), st.floats(-20, 20), st.integers(0, 10**6))
def test_norms_stay_and_without_phases_the_wave_does(rows, width, half_dt, seed):
    psi, potential, kerr, weight, _ = problem(rows, width, seed)
    out = ring_echo(psi, potential, kerr, weight, half_dt)
    torch.testing.assert_close(out.norm(dim=-1), psi.norm(dim=-1), rtol=1e-6, atol=0)
    still = ring_echo(psi, 0 * potential, 0 * kerr, weight, half_dt)
    torch.testing.assert_close(still, psi, rtol=0, atol=1e-5 * (1 + abs(half_dt)))


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 40), st.integers(0, 10**6))
def test_the_adjoint_of_the_linear_part_is_the_echo_of_the_negative_potential(width, seed):
    psi, potential, kerr, weight, half_dt = problem(3, width, seed)
    other = problem(3, width, seed + 1)[0]
    ahead = ring_echo(psi, potential, 0 * kerr, weight, half_dt)
    back = ring_echo(other, -potential, 0 * kerr, weight, half_dt)
    torch.testing.assert_close((other.conj() * ahead).sum(-1), (back.conj() * psi).sum(-1), rtol=1e-4, atol=1e-4)


def test_the_report_of_a_row_with_nan_stays_in_it():
    inputs = problem(20, 24)
    clean = ring_echo(*inputs)
    inputs[0][7, 3] = math.nan
    out = ring_echo(*inputs)
    assert out[7].isnan().all()
    others = torch.arange(20) != 7
    assert torch.equal(out[others], clean[others])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"psi": torch.ones(2, 2, dtype=torch.complex64)}, ValueError, "psi: expected at least 3 entries"),
        ({"potential": torch.ones(5)}, ValueError, r"potential: expected shape \[2, 5\], got \[5\]"),
        ({"kerr": torch.ones(4)}, ValueError, r"kerr: expected shape \[5\], got \[4\]"),
        ({"edge_weight": torch.ones(4)}, ValueError, r"edge_weight: expected shape \[5\], got \[4\]"),
        ({"edge_weight": -torch.ones(5)}, ValueError, "edge_weight: expected"),
        ({"edge_weight": torch.ones(5, device="meta")}, ValueError, "edge_weight: expected device cpu"),
        ({"half_dt": math.inf}, ValueError, "half_dt: expected"),
        ({"half_dt": torch.ones(2)}, ValueError, "half_dt: expected"),
    ],
)
def test_wrong_arguments(change, error, message):
    given = dict(zip(NAMES, problem(2, 5), strict=True)) | change
    with pytest.raises(error, match=message):
        ring_echo(**given)


def test_opcheck():
    for rows in (3, 0):
        psi, *rest = problem(rows, 7)
        arguments = (torch.view_as_real(psi), *rest)
        torch.library.opcheck(ring_echo_forward.op, arguments)
        out = ring_echo_forward(*arguments)
        torch.library.opcheck(ring_echo_backward.op, (*arguments, out, torch.randn_like(out)))


def test_bits_depend_on_nothing_but_the_row():
    inputs, weight = problem(70, 33), torch.randn(70, 33, dtype=torch.complex64, generator=generator(1))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        out, grads = gradients(ring_echo, inputs, weight)
        torch.set_num_threads(3)
        with torch.autocast("cpu", torch.bfloat16):
            again, grads_again = gradients(ring_echo, inputs, weight)
    finally:
        torch.set_num_threads(before)
    assert same_bits(out, again) and all(map(same_bits, grads, grads_again))
    part = [inputs[0][20:37], inputs[1][20:37], *inputs[2:]]
    alone, grads_alone = gradients(ring_echo, part, weight[20:37])
    assert same_bits(alone, out[20:37])
    assert same_bits(grads_alone[0], grads[0][20:37]) and same_bits(grads_alone[1], grads[1][20:37])
    blocks = ring_echo(torch.view_as_real(inputs[0]).bfloat16(), *inputs[1:])
    assert blocks.dtype == torch.float32 and blocks.shape == (70, 33, 2)
