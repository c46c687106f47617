"""transport_row: the CPU's kernel and the composition agree; sem.encoder's tests compare both with whole sequences."""

import pytest
import torch
from helpers import relative_error

from sem.encoder import online_transport, transport_kernel
from sem.ops import composed
from sem.ops.testing import composed_on_cpu_tensors
from sem.ops.transport_row import transport_row


def problem(batch, rounds, columns):
    generator = torch.Generator().manual_seed(batch + 10 * rounds + columns)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    lost = 1e-7 * (draw(batch, rounds, columns) - 0.5)
    return draw(batch, columns) + 0.05, 20 + 40 * draw(batch), 3 * draw(batch, rounds, columns), lost


@pytest.mark.parametrize("tol", [0.0, 10.0])  # all rounds, or two: rounding decides nothing
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 5, 17), (3, 50, 64), (0, 4, 8)])
def test_matches_the_composition_in_double_precision(sizes, tol):
    inputs = problem(*sizes)
    exact = composed.transport_row(*(tensor.double() for tensor in inputs), 16.0, tol)
    plan, loads, lost = transport_row(*inputs, 16.0, tol)
    assert plan.shape == exact[0].shape and loads.shape == lost.shape == exact[1].shape
    if len(plan):
        assert relative_error(plan, exact[0]) < 1e-6
        assert relative_error(loads.double() + lost.double(), exact[1] + exact[2]) < 1e-6


def test_the_first_row_is_that_of_a_sequence():
    log_kernel = torch.randn(4, 1, 12, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(4, 50, 12)
    plan, _, _ = transport_row(
        transport_kernel(log_kernel).squeeze(1), torch.full((4,), 17.0), nothing, nothing, 16.0, 1e-3
    )
    torch.testing.assert_close(plan, online_transport(log_kernel, 16.0, 1e-3, 50).plan.squeeze(1), rtol=3e-6, atol=1e-8)


def test_a_field_of_the_wrong_size_is_an_error():
    kernel, seen, loads, lost = problem(2, 5, 17)
    with pytest.raises(TypeError, match="transport_row: field 'seen': expected 2 numbers, got 3"):
        transport_row(kernel, torch.zeros(3), loads, lost, 16.0, 1e-3)


def test_devices_compose_it():
    inputs = problem(2, 5, 17)
    with composed_on_cpu_tensors():
        composition = transport_row(*inputs, 16.0, 1e-3)
    for part, expected in zip(composition, composed.transport_row(*inputs, 16.0, 1e-3), strict=True):
        assert torch.equal(part, expected)
    assert not torch.equal(composition[0], transport_row(*inputs, 16.0, 1e-3)[0])  # the kernel rounds otherwise
