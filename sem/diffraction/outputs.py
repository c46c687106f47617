"""The files of a simulation: raw floats, counts, counts with noise and a picture, of one panel or of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sem.diffraction import images
from sem.diffraction.experiment import Experiment
from sem.diffraction.files.kinds import HDF5
from sem.diffraction.readout import Readout
from sem.diffraction.smv_header import image_settings, smv_header

_OF_A_PANEL = ("distance", "spot")
"""What an HDF5 file of several panels does not say, since it differs from one to the next."""


def write_outputs(experiment: Experiment, arrived: Sequence[Tensor], panels: Sequence[Tensor]) -> Iterator[str]:
    """Write what was asked for of all panels; yields a line on each file.

    Args:
        experiment: what to write, and of what.
        arrived: for each panel the mean number of photons ``[slow, fast]`` before its point spread, from which noise is
            drawn.
        panels: its image, all else.

    HDF5 holds all panels if they are of one size. In all else there is a file for each of several, ``a_0.img`` and so
    on in place of ``a.img``. One scale of counts, and one stream of random numbers, serve for all panels; a picture
    whose scale is not given has its own.

    Raises:
        OSError: a file could not be written.
    """
    # what a mask leaves out has the offset of the counts, what is outside the region has none
    outputs, inside = experiment.outputs, [simulator.inside() for simulator in experiment.panels]
    if outputs.float_file is not None:
        yield from _write(experiment, outputs.float_file, [panel.float() for panel in panels])
    if outputs.int_file is not None:
        scale = outputs.scale
        if scale is None or scale <= 0:
            scale = images.automatic_scale(max(float(panel.max()) for panel in panels))
        scaled = [
            images.counts(panel, scale, outputs.adc_offset, c)[0] for panel, c in zip(panels, inside, strict=True)
        ]
        for name in _write(experiment, outputs.int_file, scaled):
            yield f"{name}, scaled by {scale:g}"
    if outputs.noise_file is not None:
        generator = torch.Generator().manual_seed(outputs.seed)
        readout = Readout(outputs.gain, outputs.readout_noise, outputs.adc_offset)
        noisy = [
            readout.draw(photons, generator, simulator.spread, chosen)
            for photons, simulator, chosen in zip(arrived, experiment.panels, inside, strict=True)
        ]
        overloads = sum(int((counts == images.OVERLOAD).sum()) for counts in noisy)
        for name in _write(experiment, outputs.noise_file, noisy):
            yield f"{name}, seed {outputs.seed}, {overloads} overloads"
    if outputs.pgm_file is not None:
        names = _names(outputs.pgm_file, len(panels))
        for name, panel, simulator in zip(names, panels, experiment.panels, strict=True):
            images.write_pgm(name, panel, outputs.pgm_scale, simulator.inside(), simulator.computed())
            yield name


def _write(experiment: Experiment, path: str, pixels: Sequence[Tensor]) -> Iterator[str]:
    """In the format that the name asks for; the C program's, whatever its name, where it asks for none."""
    kind = images.SUFFIXES.get(Path(path).suffix.lower())
    if kind == HDF5 and len(pixels) > 1 and len({panel.shape for panel in pixels}) == 1:
        settings = image_settings(experiment.panels[0])
        images.write_field(path, pixels, {name: settings[name] for name in settings if name not in _OF_A_PANEL})
        yield f"{path}, {len(pixels)} panels"
        return
    for name, simulator, panel in zip(_names(path, len(pixels)), experiment.panels, pixels, strict=True):
        if kind is not None:
            images.write_field(name, [panel], image_settings(simulator))
        elif panel.is_floating_point():
            images.write_float(name, panel)
        else:
            images.write_smv(name, panel, smv_header(simulator))
        yield name


def _names(path: str, panels: int) -> list[str]:
    if panels == 1:
        return [path]
    whole = Path(path)
    return [str(whole.with_name(f"{whole.stem}_{number}{whole.suffix}")) for number in range(panels)]
