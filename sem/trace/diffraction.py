"""The trace of one pixel of a diffraction image: from its place on the detector to its photons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from sem.diffraction.parameters import ANGSTROM
from sem.diffraction.simulator import Simulator
from sem.ops.diffraction.problem import CLASSICAL_RADIUS_SQUARED
from sem.trace.record import Trace

STEPS = ("layer", "subpixel", "source", "phi", "mosaic")
NO_STEP = (-1,) * len(STEPS)
Quantity = tuple[str, tuple[int, ...], Tensor]
"""A name, the step that it belongs to, its values."""


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
    entries = [(value.name, value.step, torch.tensor(value.values, dtype=torch.float64)) for value in values]
    for name, step, numbers in [*_geometry(simulator), *_with_orientations(simulator, pixel, entries)]:
        trace.add(_name(name, step, several), numbers)
    return trace


@torch.no_grad()
def _geometry(simulator: Simulator) -> Iterator[Quantity]:
    """The detector and the crystal before the spindle turns it, from the arguments that the kernel is given."""
    frame = simulator.detector(simulator.physics)
    yield "pix0_vector_meters", NO_STEP, torch.as_tensor(frame.origin)
    yield "fdet_vec", NO_STEP, torch.as_tensor(frame.fast)
    yield "sdet_vec", NO_STEP, torch.as_tensor(frame.slow)
    yield "close_distance_meters", NO_STEP, torch.as_tensor(frame.close_distance)
    for axis, vector in zip("abc", simulator.crystal.vectors(simulator.physics)[1], strict=True):
        yield f"rot_{axis}_star_A_inv", NO_STEP, vector  # at spindle angle 0 for all that the name says, as in C
    yield "fluence_photons_per_m2", NO_STEP, simulator.beam.fluence
    yield "r_e_sqr", NO_STEP, torch.tensor(CLASSICAL_RADIUS_SQUARED, dtype=torch.float64)


@torch.no_grad()
def _with_orientations(simulator: Simulator, pixel: tuple[int, int], entries: Iterable[Quantity]) -> Iterator[Quantity]:
    """``entries`` with the cell's vectors before the indices that they give, those of the step before if carried."""
    orientation = simulator.orientations() / ANGSTROM
    carries = simulator.carries_over()
    first_pixel = carries and pixel == tuple(simulator.computed().nonzero()[0].tolist())
    for name, step, numbers in entries:
        if name == "hkl_frac":
            phi, mosaic = step[-2:]
            carried = carries and not (first_pixel and max(step[:-2]) <= 0)
            for axis, vector in zip("abc", orientation[-1 if carried and phi == 0 else phi, mosaic], strict=True):
                yield f"rot_{axis}_angstroms", step, vector
        yield name, step, numbers


def _name(name: str, step: tuple[int, ...], several: list[bool]) -> str:
    parts = [f"{kind} {at}" for kind, at, many in zip(STEPS, step, several, strict=True) if many and at >= 0]
    return f"{name}[{', '.join(parts)}]" if parts else name
