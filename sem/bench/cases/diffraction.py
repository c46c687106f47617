"""Diffraction images, forward and backward, against the twin under torch.compile: in float32, and in float64, the
precision that it needs for the kernel's accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from sem.bench.registry import Benchmark, Comparison, Contender, Expected
from sem.ops import (
    DetectorFrame,
    Domains,
    Polarisation,
    Sources,
    StructureFactors,
    diffraction,
    reference_diffraction,
)

PIXEL, DISTANCE, WAVELENGTH, CELL = 1e-4, 0.1, 6.2e-10, 1e-8
IMAGE_LIMIT, GRADIENT_LIMIT = 1e-6, 1e-4
MOST_COMPILED = 4
"""Steps of an image that are worth compiling: each is a graph of its own."""
TWIN_LIMIT = 1e-3
"""The twin in float32 has no better indices than float32 gives."""


def frame(pixels: int, rows: range) -> DetectorFrame:
    """Some rows of a square detector behind the crystal, the beam at its middle."""
    half = pixels * PIXEL / 2
    return DetectorFrame(
        origin=[DISTANCE, half - rows.start * PIXEL, -half],
        fast=[0.0, 0.0, 1.0],
        slow=[0.0, -1.0, 0.0],
        normal=[1.0, 0.0, 0.0],
        pixel_size=PIXEL,
        shape=(len(rows), pixels),
        close_distance=DISTANCE,
    )


def orientations(positions: int, mosaics: int) -> Tensor:
    """A simple cubic cell, turned a little about the spindle and by random amounts."""
    generator = torch.Generator().manual_seed(1)
    tilt = torch.randn(positions, mosaics, 3, dtype=torch.float64, generator=generator) * 2e-3
    tilt[..., 2] += torch.linspace(0, 0.02, positions, dtype=torch.float64).unsqueeze(1)
    turn = torch.zeros(positions, mosaics, 3, 3, dtype=torch.float64)
    turn[..., 0, 1], turn[..., 0, 2], turn[..., 1, 2] = -tilt[..., 2], tilt[..., 1], -tilt[..., 0]
    return CELL * torch.linalg.matrix_exp(turn - turn.mT)


def problem(
    pixels: int, positions: int = 1, mosaics: int = 1, sources: int = 1, rows: range | None = None
) -> tuple[Tensor, Callable[..., Tensor]]:
    """The orientations, and the image of them (of all rows if not told which) as a function of the implementation."""
    beam = Sources(
        torch.tensor([[-1.0, 0.0, 0.0]], dtype=torch.float64).repeat(sources, 1),
        WAVELENGTH * torch.linspace(1, 1.01, sources, dtype=torch.float64),
    )
    detector, polarisation = frame(pixels, range(pixels) if rows is None else rows), Polarisation([0.0, 0.0, 1.0])

    def image(function: Callable[..., Tensor], orientation: Tensor, **options: object) -> Tensor:
        domains = Domains(orientation, [5.0, 5.0, 5.0])
        return function(detector, beam, domains, StructureFactors(100.0), polarisation, **options)

    return orientations(positions, mosaics), image


def both_ways(function: Callable[[Tensor], Tensor], orientation: Tensor) -> list[Tensor]:
    """``[function(orientation), its gradient]``, of the sum of the image to the orientation."""
    leaf = orientation.clone().requires_grad_()
    out = function(leaf)
    return [out.detach(), *torch.autograd.grad(out.sum(), leaf)]


def build(pixels: int, positions: int, mosaics: int, backward: bool, bar: float | None = None) -> Sequence[Comparison]:
    """An image of ``pixels`` by ``pixels`` for ``positions`` of the spindle and ``mosaics`` domains at each, or that
    and its gradient to the orientation with ``backward``, against the twin in float32 (which ``bar`` is for) and in
    float64. Twins of more than ``MOST_COMPILED`` steps run eagerly."""
    orientation, image = problem(pixels, positions, mosaics)
    compiled = positions * mosaics <= MOST_COMPILED
    how, prepare = ("torch.compile", torch.compile) if compiled else ("eager", lambda function: function)
    twin, wide = (
        prepare(partial(image, reference_diffraction.diffraction, dtype=dtype))
        for dtype in (torch.float32, torch.float64)
    )
    run: Callable[[Callable[[Tensor], Tensor]], list[Tensor]]
    if backward:
        run, name = partial(both_ways, orientation=orientation), "forward + backward"
    else:
        run, name = (lambda function: [function(orientation)]), "forward"
    truths = run(partial(image, reference_diffraction.diffraction))
    names, limits = ("image", "grad_orientation"), (IMAGE_LIMIT, GRADIENT_LIMIT)
    expected = [Expected(*parts) for parts in zip(names, truths, limits, strict=False)]
    loose = [Expected(want.name, want.truth, TWIN_LIMIT) for want in expected]
    native = Contender(name, lambda: run(partial(image, diffraction)), expected)
    return [
        Comparison(native, Contender(f"twin, {how}", lambda: run(twin), loose), "speed-up", bar),
        Comparison(native, Contender(f"twin in float64, {how}", lambda: run(wide), expected)),
    ]


def benchmark(
    pixels: int, positions: int = 1, mosaics: int = 1, backward: bool = False, bar: float | None = None
) -> Benchmark:
    """The comparisons of :func:`build` under the name ``diffraction-DIRECTION-PIXELS-POSITIONSxMOSAICS``."""
    name = f"diffraction-{'backward' if backward else 'forward'}-{pixels}-{positions}x{mosaics}"
    return Benchmark(name, partial(build, pixels, positions, mosaics, backward, bar))


BENCHMARKS = [
    benchmark(1024, bar=15.0),
    benchmark(1024, backward=True, bar=8.0),
    benchmark(256, 10, 10),
]
QUICK = [benchmark(64), benchmark(64, 2, 2, backward=True)]
