"""Phase transport, forward and backward, against the kernel density estimate in torch operations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sem.bench import peers
from sem.bench.peaks import Work
from sem.bench.problems import complex_normal, exact_gradients
from sem.bench.registry import Benchmark, Comparison, Contender, Expected
from sem.ops import reference
from sem.ops.pit import pit

BINS = 32
CHUNK = 512  # rows of the twin at a time
LIMITS = {"out": 2e-6, "grad_psi": 1e-5, "grad_strength": 1e-5}


def build(batch: int, steps: int, width: int, bar: float | None = None, device: str = "cpu") -> Sequence[Comparison]:
    """Phase transport of ``batch * steps`` rows of ``width``, forward and backward with gradients to wave and strength,
    against the kernel density estimate in torch on the same ``device``."""
    rows = batch * steps
    psi = complex_normal(rows, width, seed=1).to(device).requires_grad_()
    strength = torch.tensor(0.1, device=device, requires_grad=True)
    rms = torch.linspace(0.5, 2, rows, device=device)

    def twin(psi: Tensor, rms: Tensor, strength: Tensor) -> Tensor:
        return reference.pit(psi, rms, strength, BINS)

    def exact(strength: Tensor) -> Tensor:
        chunks = zip(psi.split(CHUNK), rms.split(CHUNK), strict=True)
        with torch.no_grad():
            return torch.cat([twin(p.to(torch.complex128), r.double(), strength.double()) for p, r in chunks])

    # Noise plus the direction of the shift: of noise alone, the sum in grad_strength all but cancels.
    value = exact(strength)
    moved = (value - exact(torch.zeros_like(strength))).to(torch.complex64)
    grad = complex_normal(rows, width, seed=2).to(device) + moved / moved.abs().square().mean().sqrt()

    def both_ways(out: Tensor) -> list[Tensor]:
        return [out.detach(), *torch.autograd.grad(out, [psi, strength], grad)]

    grad_psi, _, grad_strength = exact_gradients(twin, [psi, rms, strength], grad, row_inputs=2, chunk=CHUNK)
    truths = zip(LIMITS, (value, grad_psi, grad_strength), strict=True)
    expected = [Expected(name, truth, LIMITS[name]) for name, truth in truths]
    # psi in and out; then psi and the gradient in, its own out. The arithmetic is not one of multiply-adds alone.
    work = Work(bytes=(2 + 3) * psi.nbytes)
    native = Contender("forward + backward", lambda: both_ways(pit(psi, rms, strength, BINS)), expected, work=work)
    estimate = Contender("KDE in torch", lambda: both_ways(peers.kde_pit(psi, rms, strength, BINS)), expected)
    return [Comparison(native, estimate, "speed-up", bar)]


def benchmark(batch: int, steps: int, width: int, bar: float | None = None, device: str = "cpu") -> Benchmark:
    """The comparison of :func:`build` under the name ``pit-BATCHxSTEPSxWIDTH``."""
    return Benchmark(f"pit-{batch}x{steps}x{width}", partial(build, batch, steps, width, bar, device))


BENCHMARKS = [benchmark(8, 512, 256, bar=30.0)]
QUICK = [benchmark(2, 64, 64)]
