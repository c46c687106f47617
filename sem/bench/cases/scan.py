"""The selective scan, forward and backward, against Python loops over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from sem.bench import peers
from sem.bench.peaks import Work
from sem.bench.problems import complex_normal, exact_gradients, generator
from sem.bench.registry import Benchmark, Comparison, Contender, Expected
from sem.ops import reference
from sem.ops.scan import scan

GROUPS = 16
LIMITS = {
    "states": 2e-6,
    "grad_x": 1e-5,
    "grad_dt_mag": 1e-5,
    "grad_dt_phase": 1e-5,
    "grad_decay": 1e-5,
    "grad_frequency": 1e-5,
}


def scan_inputs(batch: int, steps: int, channels: int, groups: int = GROUPS) -> list[Tensor]:
    """``x``, ``dt_mag``, ``dt_phase``, ``decay`` and ``frequency`` in the ranges of a model that trains."""
    source = generator(1)

    def log_uniform(low: float, high: float) -> Tensor:
        exponent = torch.empty(batch, steps, groups).uniform_(math.log(low), math.log(high), generator=source)
        return exponent.exp()

    decay = torch.empty(channels).uniform_(0.1, 8, generator=source)
    frequency = torch.empty(channels).uniform_(-math.pi, math.pi, generator=source)
    x = complex_normal(batch, steps, channels, seed=2)
    return [x, log_uniform(1e-3, 0.3), log_uniform(1e-3, 0.3), decay, frequency]


def build(batch: int, steps: int, channels: int, bar: float | None = None) -> Sequence[Comparison]:
    """The scan of ``[batch, steps, channels]`` on the CPU against a plain loop over time and a tuned one."""
    return against(
        batch, steps, channels, {"loop over time": peers.loop_scan, "tuned loop": peers.tuned_loop_scan}, bar
    )


def against(
    batch: int,
    steps: int,
    channels: int,
    others: Mapping[str, Callable[..., Tensor]],
    bar: float | None = None,
    device: str = "cpu",
) -> Sequence[Comparison]:
    """The scan against ``others``, of which ``bar`` judges the first."""
    leaves = [tensor.to(device).requires_grad_() for tensor in scan_inputs(batch, steps, channels)]
    grad = complex_normal(batch, steps, channels, seed=3).to(device)

    def twin(*inputs: Tensor) -> Tensor:
        return reference.scan(*inputs)[0]

    def both_ways(states: Tensor) -> list[Tensor]:
        return [states.detach(), *torch.autograd.grad(states, leaves, grad)]

    with torch.no_grad():
        states = twin(*(leaf.to(torch.complex128 if leaf.is_complex() else torch.float64) for leaf in leaves))
    gradients = exact_gradients(twin, leaves, grad, row_inputs=3, chunk=batch)
    truths = zip(LIMITS, (states, *gradients), strict=True)
    expected = [Expected(name, truth, LIMITS[name]) for name, truth in truths]
    # x in, states out; then x, states and their gradient in, that of x out. The arrays per group are small.
    work = Work(bytes=(2 + 4) * leaves[0].nbytes)
    native = Contender("forward + backward", lambda: both_ways(scan(*leaves)[0]), expected, work=work)
    peer_of = {name: partial(lambda scan: both_ways(scan(*leaves)), other) for name, other in others.items()}
    contenders = [Contender(name, run, expected) for name, run in peer_of.items()]
    return [
        Comparison(native, contender, "speed-up", bar if index == 0 else None)
        for index, contender in enumerate(contenders)
    ]


def benchmark(batch: int, steps: int, channels: int, bar: float | None = None) -> Benchmark:
    """The comparisons of :func:`build` under the name ``scan-BATCHxSTEPSxCHANNELS``."""
    return Benchmark(f"scan-{batch}x{steps}x{channels}", partial(build, batch, steps, channels, bar))


BENCHMARKS = [benchmark(8, 256, 512, bar=25.0)]
QUICK = [benchmark(2, 32, 64)]
