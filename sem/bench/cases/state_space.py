"""The selective state space, forward and backward, against the scan between two products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sem.bench.cases.scan import scan_inputs
from sem.bench.peaks import Work
from sem.bench.problems import complex_normal, exact_gradients
from sem.bench.registry import Benchmark, Comparison, Contender, Expected
from sem.ops import reference
from sem.ops.scan import scan
from sem.ops.state_space import state_space

# the forward's products, and the backward's, one of which is the forward's again
PRODUCTS = 2 + 5
LIMITS = {
    "y": 2e-6,
    "grad_x": 1e-5,
    "grad_dt_mag": 1e-5,
    "grad_dt_phase": 1e-5,
    "grad_into": 1e-5,
    "grad_out_of": 1e-5,
    "grad_decay": 1e-5,
    "grad_frequency": 1e-5,
}


def composed(
    x: Tensor, dt_mag: Tensor, dt_phase: Tensor, into: Tensor, out_of: Tensor, decay: Tensor, frequency: Tensor
) -> Tensor:
    """:func:`state_space` out of matrix products and the native scan, under autograd."""
    groups, states, width = into.shape
    drive = torch.bmm(x.reshape(-1, groups, width).transpose(0, 1), into.mT).transpose(0, 1)
    every_state, _ = scan(drive.reshape(*x.shape[:2], -1), dt_mag, dt_phase, decay, frequency)
    return torch.bmm(every_state.view(-1, groups, states).transpose(0, 1), out_of.mT).transpose(0, 1).reshape_as(x)


def build(batch: int, steps: int, groups: int, states: int, width: int) -> Sequence[Comparison]:
    """The state space of ``[batch, steps, groups * width]`` with ``states`` to a group, forward and backward, against
    :func:`composed`."""
    _, dt_mag, dt_phase, decay, frequency = scan_inputs(batch, steps, groups * states, groups)
    into = complex_normal(groups, states, width, seed=3) / width**0.5
    out_of = complex_normal(groups, width, states, seed=4) / states**0.5
    x = complex_normal(batch, steps, groups * width, seed=2)
    leaves = [t.requires_grad_() for t in (x, dt_mag, dt_phase, into, out_of, decay, frequency)]
    grad = complex_normal(batch, steps, groups * width, seed=5)

    def twin(*inputs: Tensor) -> Tensor:
        return reference.state_space(*inputs)[0]

    def both_ways(y: Tensor) -> list[Tensor]:
        return [y.detach(), *torch.autograd.grad(y, leaves, grad)]

    with torch.no_grad():
        y = twin(*(leaf.to(torch.complex128 if leaf.is_complex() else torch.float64) for leaf in leaves))
    gradients = exact_gradients(twin, leaves, grad, row_inputs=3, chunk=batch)
    expected = [Expected(name, truth, LIMITS[name]) for name, truth in zip(LIMITS, (y, *gradients), strict=True)]
    # x in, y out; then x and the gradient to y in, that to x out. A complex multiply-add is four real ones.
    work = Work(bytes=(2 + 3) * x.nbytes, multiply_adds=4.0 * PRODUCTS * batch * steps * groups * states * width)
    native = Contender("forward + backward", lambda: both_ways(state_space(*leaves)[0]), expected, work=work)
    parts = Contender("products and scan", lambda: both_ways(composed(*leaves)), expected)
    return [Comparison(native, parts)]


def benchmark(batch: int, steps: int, groups: int, states: int, width: int) -> Benchmark:
    """The comparison of :func:`build` under the name ``state_space-BATCHxSTEPSxGROUPSxSTATESxWIDTH``."""
    name = f"state_space-{batch}x{steps}x{groups}x{states}x{width}"
    return Benchmark(name, partial(build, batch, steps, groups, states, width))


BENCHMARKS = [benchmark(8, 256, 8, 16, 16), benchmark(8, 256, 16, 128, 8)]
QUICK = [benchmark(2, 32, 2, 16, 4)]
