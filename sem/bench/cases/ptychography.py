"""The ptychographic loss and its gradients against loops in torch, and against the FFTs that none can do without."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sem.bench import peers
from sem.bench.problems import complex_normal
from sem.bench.registry import Benchmark, Comparison, Contender, Expected
from sem.ops import ptychographic_loss, reference

VALUE_LIMIT, GRADIENT_LIMIT = 2e-6, 1e-5
BLOCK = 16  # patterns of a peer's step: the best of 4 to 64


def build(patterns: int, side: int, step: float, bars: tuple[float | None, ...]) -> Sequence[Comparison]:
    """A raster of whole-pixel positions, one probe mode, the amplitude loss; gradients to object and probe."""
    along = torch.arange(int(patterns**0.5))
    positions = torch.cartesian_prod(along, along).float() * step
    object_side = int(positions.max()) + side + 8
    object = complex_normal(object_side, object_side, seed=1).requires_grad_()
    probe = complex_normal(side, side, seed=2).unsqueeze(0).requires_grad_()
    data = complex_normal(len(positions), side * side, seed=3).abs().view(-1, side, side)

    def with_gradients(loss: Tensor) -> list[Tensor]:
        return [torch.view_as_real(grad) for grad in torch.autograd.grad(loss, (object, probe))]

    def native() -> list[Tensor]:
        return with_gradients(ptychographic_loss(object, probe, positions, data, subpixel="nearest").total)

    def recorded(block: int) -> list[Tensor]:
        parts = [
            with_gradients(reference.ptychographic_loss(object, probe, r, x, subpixel="nearest").sum())
            for r, x in zip(positions.split(block), data.split(block), strict=True)
        ]
        return [torch.stack(grads).sum(0) for grads in zip(*parts, strict=True)]

    def by_hand() -> list[Tensor]:
        grads = peers.ptychographic_gradients(object.detach(), probe.detach()[0], positions.long(), data, BLOCK)
        return [torch.view_as_real(grads[0]), torch.view_as_real(grads[1].unsqueeze(0))]

    wide = [tensor.detach().to(torch.complex128).requires_grad_() for tensor in (object, probe)]
    loss = reference.ptychographic_loss(wide[0], wide[1], positions.double(), data.double(), subpixel="nearest")
    truths = [torch.view_as_real(grad) for grad in torch.autograd.grad(loss.sum(), wide)]
    expected = [Expected(name, truth, GRADIENT_LIMIT) for name, truth in zip(("dO", "dP"), truths, strict=True)]
    subject = Contender("forward + backward", native, expected)
    waves = torch.zeros(max(1, 2**20 // (8 * side**2)), side, side, dtype=torch.complex64)
    transformed = torch.empty_like(waves)

    def transforms() -> list[Tensor]:
        for _ in range(0, len(positions), len(waves)):
            torch.fft.fft2(waves, norm="ortho", out=transformed)
            torch.fft.ifft2(transformed, norm="ortho", out=waves)
        return []

    others = [
        Contender("torch by hand, blocks of 16", by_hand, expected),
        Contender("autograd, blocks of 16", partial(recorded, BLOCK), expected),
        Contender("autograd, whole batch", partial(recorded, len(positions)), expected),
    ]
    lines = [Comparison(subject, other, "speed-up", bar) for other, bar in zip(others, bars, strict=False)]
    return [*lines, Comparison(subject, Contender("its FFTs alone", transforms, []), "time", bars[-1])]


def benchmark(patterns: int, side: int, step: float, bars: tuple[float | None, ...]) -> Benchmark:
    """The comparisons of :func:`build` under the name ``ptychography-PATTERNSxSIDE``."""
    return Benchmark(f"ptychography-{patterns}x{side}", partial(build, patterns, side, step, bars))


BENCHMARKS = [
    benchmark(1024, 128, 8, (3.2, None, 12.0, 1.3)),
    benchmark(441, 64, 6, (None, None, None, None)),
]
QUICK = [benchmark(16, 16, 3, (None, None, None, None))]
