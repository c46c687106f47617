"""What the C program's users look for in its output, in its words: cell, crystal, fluence, sources, steps."""

from __future__ import annotations

import torch

from sem.diffraction.cell import cell_of, volume
from sem.diffraction.experiment import Experiment
from sem.diffraction.parameters import ANGSTROM, DEGREE, MICROMETRE

SHAPE_WORDS = {"square": "parallelpiped", "round": "ellipsoidal", "gauss": "gaussian", "tophat": "tophat-spot"}


@torch.no_grad()
def summary(experiment: Experiment) -> list[str]:
    """The lines that ``sem diffraction simulate`` prints before it computes.

    Example:
        >>> from sem.diffraction import experiment_from
        >>> flags = "-cell 70 80 90 90 90 90 -default_F 1 -N 5 -osc 1 -phisteps 4 -detpixels 16 -oversample 1"
        >>> for line in summary(experiment_from(flags.split()))[:3]:
        ...     print(line)
        Unit Cell: 70 80 90 90 90 90
        volume = 504000 A^3
        crystal is 0.035 x 0.04 x 0.045 microns
    """
    simulator = experiment.panels[0]
    crystal, beam, detector = simulator.crystal, simulator.beam, simulator.detector
    real, _ = crystal.vectors(simulator.physics)
    lengths, cells = real.norm(dim=-1), crystal.cells
    content = torch.linalg.det(real).abs()
    if crystal.has_cell:
        content = volume(crystal.lengths, crystal.angles * DEGREE)
    if crystal.reciprocal is None:
        angles: torch.Tensor = crystal.angles
    else:
        angles = cell_of(real)[1] / DEGREE
    sources = beam(detector.axes)
    first, steps = float(crystal.phi), crystal.phi_steps
    size = " x ".join(f"{length:g}" for length in (lengths * cells * (ANGSTROM / MICROMETRE)).tolist())
    finest = max(panel.detector.oversample for panel in experiment.panels)
    across = f"{finest}x{finest}"
    spread = _numbers(crystal.mosaic_spread.reshape(-1).tolist())
    lines = [
        f"Unit Cell: {_numbers([*lengths.tolist(), *angles.tolist()])}",
        f"volume = {float(content):g} A^3",
        f"crystal is {size} microns",
        f"{SHAPE_WORDS[crystal.shape]} xtal: {'x'.join(f'{number:g}' for number in cells.tolist())} cells",
        f"created a total of {len(sources.direction)} sources",
        f"incident fluence: {float(beam.fluence):g} photons/m^2",
        f"Kahn polarization factor: {float(beam.polarisation):f}" if beam.polarised else "no polarization factor",
        f"{crystal.mosaic_domains} mosaic domains over mosaic spread of {spread} degrees",
        f"{steps} phi steps from {first:g} to {first + float(crystal.oscillation):g} degrees",
        f"{across} pixel oversample steps",
        f"sensor is {detector.thickness * MICROMETRE:g} m thick in {detector.layers} layers",
    ]
    if len(experiment.panels) > 1:
        lines.append(f"{len(experiment.panels)} panels")
    if experiment.random_orientation:
        misset = " ".join(f"{angle:f}" for angle in crystal.misset.tolist())
        lines.insert(0, f"random orientation misset angles: {misset} deg")
    return lines


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
