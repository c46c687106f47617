"""The trace of one pixel of a diffraction image: from its place on the detector to its photons."""

from __future__ import annotations

import torch

from sem.diffraction.simulator import Simulator
from sem.ops.diffraction.operator import TracedValue
from sem.trace.record import Trace

STEPS = ("layer", "subpixel", "source", "phi", "mosaic")


def trace_diffraction(
    simulator: Simulator, pixel: tuple[int, int], *, backend: str = "native", dtype: torch.dtype | None = None
) -> Trace:
    """Record every intermediate value of ``pixel``, ``(slow, fast)``, under nanoBragg's own names for them.

    The step that a value belongs to stands behind its name, of the kinds of which there are several:
    ``hkl_frac[phi 0, mosaic 3]``. Where there is one of each the names are bare, as in the C program's trace.

    Args:
        simulator: the experiment.
        backend: ``"native"``, the CPU kernel that computes the image, or ``"reference"``, serial and scalar.
        dtype: of the reference, float64 (the default) or float32; of the kernel float32.

    Raises:
        ValueError: a pixel that is not on the detector, or not computed; another back end or dtype.

    Example:
        >>> from sem.diffraction import experiment_from
        >>> flags = "-cell 100 100 100 90 90 90 -default_F 100 -lambda 6.2 -N 5 -detpixels 64 -osc 1"
        >>> trace = trace_diffraction(experiment_from(flags.split()).simulator, (3, 5))
        >>> [entry.name for entry in trace.entries if entry.name.startswith("F_cell")]
        ['F_cell[phi 0]', 'F_cell[phi 1]']
    """
    values = simulator.trace(pixel, backend=backend, dtype=dtype)
    if not values:
        raise ValueError(f"pixel: expected one that is computed, got {pixel}, which region or mask leave out")
    detector = simulator.detector
    trace = Trace(
        {
            "operator": "diffraction",
            "backend": backend,
            "device": "cpu",
            "dtype": dtype or (torch.float32 if backend == "native" else torch.float64),
            "physics": simulator.physics,
            "phi_carryover": simulator.phi_carryover,
            "detector": f"{detector.slow_pixels} x {detector.fast_pixels}",
            "pixel": f"{pixel[0]} {pixel[1]}",
        }
    )
    several = [max(value.step[kind] for value in values) > 0 for kind in range(len(STEPS))]
    for value in values:
        trace.add(_name(value, several), torch.tensor(value.values, dtype=torch.float64))
    return trace


def _name(value: TracedValue, several: list[bool]) -> str:
    parts = [f"{kind} {at}" for kind, at, many in zip(STEPS, value.step, several, strict=True) if many and at >= 0]
    return f"{value.name}[{', '.join(parts)}]" if parts else value.name
