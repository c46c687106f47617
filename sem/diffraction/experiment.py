"""From the flags of a command line to simulators and what to write of its image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sem.diffraction.beam import DEFAULT_FLUENCE, Beam
from sem.diffraction.crystal import DEFAULT_MOSAIC_SEED, Crystal
from sem.diffraction.detector import Detector
from sem.diffraction.detector_flags import detector_from
from sem.diffraction.file_settings import backgrounds_of, settings_of_files
from sem.diffraction.flags import CUSTOM, FLAGS, parse
from sem.diffraction.images import ADC_OFFSET, check_output
from sem.diffraction.panels import Panels
from sem.diffraction.parameters import ANGSTROM, DEGREE, MILLIMETRE, finite, nonnegative, positive
from sem.diffraction.point_spread import PointSpread
from sem.diffraction.readers import read_matrix, read_rows, read_sources
from sem.diffraction.reflections import Reflections
from sem.diffraction.rotations import umat2misset
from sem.diffraction.simulator import FEW_CELLS, Simulator, automatic_oversampling

DEFAULT_BEAM = 0.1
DEFAULT_SEED = 1
C_OUTPUTS = {
    "float_file": "floatimage.bin",
    "int_file": "intimage.img",
    "pgm_file": "image.pgm",
    "noise_file": "noiseimage.img",
}
"""What nanoBragg writes under these names; here where no output is named at all."""

OF_ONE_PANEL = frozenset({
    "pixels_fast", "pixels_slow", "size_fast", "size_slow", "pixel", "distance", "close_distance", "beam_x", "beam_y",
    "near_x", "near_y", "org_x", "org_y", "vector_fast", "vector_slow", "vector_normal", "region", "trace_pixel",
})  # fmt: skip
"""Settings that cannot be those of several panels. Turns about the sample can: they move the whole detector."""

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Outputs:
    """Which files to write, None for those that are not, and how."""

    float_file: str | None
    int_file: str | None
    pgm_file: str | None
    noise_file: str | None
    scale: float | None
    pgm_scale: float | None
    adc_offset: float
    gain: float
    readout_noise: float
    seed: int


@dataclass(frozen=True)
class Experiment:
    """A simulator of each panel, what to write, and notes on flags that have no effect."""

    panels: Panels
    outputs: Outputs
    notes: tuple[str, ...] = ()
    reference: bool = False
    show_config: bool = False
    trace_pixel: tuple[int, int] | None = None
    random_orientation: bool = False
    source: str = "experiment"
    """The file that several panels are from, for messages."""

    @property
    def simulator(self) -> Simulator:
        """The simulator of an experiment with one panel.

        Raises:
            ValueError: there are several.
        """
        last = len(self.panels) - 1
        if last:
            raise ValueError(f"{self.source}: expected -panel with a number from 0 to {last}, got none")
        return self.panels[0]


def experiment_from(arguments: Sequence[str]) -> Experiment:
    """What the flags ask for, files read, everything checked, nothing computed.

    Example:
        >>> flags = "-cell 100 100 100 90 90 90 -default_F 100 -lambda 6.2 -N 5 -detpixels 64"
        >>> experiment_from(flags.split()).simulator().shape
        torch.Size([64, 64])

    Raises:
        ValueError: one sentence on the first thing that is wrong.
    """
    given, notes = parse(arguments)
    said, masks, file_notes = settings_of_files(given)
    if len(said) > 1:
        _require_no_panels_own(given, len(said))
    unsaid = {f"near_{axis}" for axis in "xy" if f"org_{axis}" in given}  # the same point, which the flag says now
    every = [{name: value for name, value in of_panel.items() if name not in unsaid} | given for of_panel in said]
    values = every[0]
    notes += file_notes
    physics = values.get("physics", "nanobragg")
    beam = _beam(values)
    crystal = _crystal(values, float(beam.wavelength))
    detectors = [detector_from(of_panel, physics) for of_panel in every]
    for mask, detector in zip(masks, detectors, strict=True):
        shape = detector.slow_pixels, detector.fast_pixels
        if mask is not None and mask.shape != shape:
            wanted, got = (" x ".join(map(str, size)) for size in (shape, mask.shape))
            raise ValueError(
                f"{values['mask_file']}: expected a mask of {wanted} pixels as the detector has, got {got}"
            )
    axes = detectors[0].axes
    beam.polarisation_along(axes, beam(axes).direction)  # raises for one that is none
    for detector in detectors:
        detector.oversample = values.get("oversample") or automatic_oversampling(crystal, beam, detector, physics)
        if detector.oversample < 1:
            raise ValueError(f"oversample: expected a whole number >= 1, got {detector.oversample}")
    reflections = _reflections(values)
    panels = Panels(
        crystal,
        beam,
        detectors,
        reflections,
        background=backgrounds_of(values, len(detectors)),
        point_spread=_point_spread(values),
        masks=masks,
        physics=physics,
        phi_carryover=values.get("phi_carryover", "spec"),
        source_weighting=values.get("source_weighting", "ignore"),
        interpolate=reflections.table is not None and _interpolates(values),
        water=values.get("water", 0.0),
        d_min=values.get("d_min", 0.0),
        region=values.get("region"),
    )
    notes += _without_effect(given, values, detectors[0], physics, panels[0].interpolate)
    outputs = _outputs(values)
    if outputs.noise_file is None and {"gain", "readout_noise"} & set(given):
        notes.append("-gain and -readout_noise have no effect: no image with noise is written, see -noisefile")
    return Experiment(
        panels,
        outputs,
        tuple(notes),
        reference=values.get("reference", False),
        show_config=values.get("show_config", False),
        trace_pixel=values.get("trace_pixel"),
        random_orientation=values.get("misset") == "random",
        source=values.get("experiments_file", "experiment"),
    )


def _require_no_panels_own(given: Values, panels: int) -> None:
    """Raise for a flag that says of several panels what is one panel's own."""
    wrong = {name for name in given if name in OF_ONE_PANEL}
    if given.get("convention", CUSTOM) != CUSTOM:
        wrong.add("convention")
    for flag in FLAGS:
        if wrong & set(flag.sets) and (flag.count or flag.constant == given[flag.sets[0]]):
            wanted = f"-panel to go with it, a number from 0 to {panels - 1}"
            raise ValueError(f"{flag.name}: expected {wanted}, since each panel has its own, got none")


def _beam(values: Values) -> Beam:
    dispersion = values.get("dispersion")
    return Beam(
        values.get("wavelength"),
        polarisation=values.get("polarisation", 0.0),
        polarised=values.get("polarised", True),
        fluence=values.get("fluence", DEFAULT_FLUENCE),
        flux=values.get("flux") or None,  # no flux at all counts as none given
        exposure=values.get("exposure", 1.0),
        beam_size=values.get("beam_size", DEFAULT_BEAM),
        divergence=(values.get("divergence_h"), values.get("divergence_v")),
        divergence_step=(values.get("divergence_step_h"), values.get("divergence_step_v")),
        divergence_steps=(values.get("divergence_steps_h"), values.get("divergence_steps_v")),
        dispersion=None if dispersion is None else dispersion / 100,
        dispersion_steps=values.get("dispersion_steps"),
        sources=read_sources(values["source_file"]) if "source_file" in values else None,
        spectrum=_spectrum(values),
        round_divergence=values.get("round_divergence", True),
    )


def _spectrum(values: Values) -> Tensor | None:
    if "spectrum_file" not in values:
        return None
    return torch.from_numpy(read_rows(values["spectrum_file"], "a wavelength and a weight", least=2))


def _crystal(values: Values, wavelength: float) -> Crystal:
    cell = {"cell": values["cell"]} if "cell" in values else {}
    reciprocal = None
    if "matrix_file" in values:
        reciprocal = read_matrix(values["matrix_file"], wavelength)
    elif "reciprocal" in values and not cell:
        reciprocal = values["reciprocal"]
    if not cell and reciprocal is None:
        raise ValueError("crystal: expected -cell with six numbers or -mat with a matrix file, got neither")
    misset = values.get("misset", (0.0, 0.0, 0.0))
    if misset == "random":
        misset = random_misset(values.get("misset_seed", values.get("seed", DEFAULT_SEED)))
    oscillation, step, steps = _oscillation(values)
    single = Crystal(**cell, reciprocal=reciprocal)
    return Crystal(
        **cell,
        reciprocal=reciprocal,
        cells=_cells(values, single),
        shape=values.get("shape", "square"),
        fudge=values.get("fudge", 1.0),
        misset=misset,
        phi=values.get("phi", 0.0),
        oscillation=oscillation,
        phi_steps=steps,
        phi_step=step,
        mosaic_spread=values.get("mosaic", 0.0),
        mosaic_domains=values.get("mosaic_domains") if values.get("mosaic") else None,
        mosaic_seed=values.get("mosaic_seed", DEFAULT_MOSAIC_SEED),
    )


def _cells(values: Values, crystal: Crystal) -> list[int]:
    """Unit cells along a, b, c: as given (0 is 1), or as many as the sample, clipped to the beam, has room for."""
    edges = values["cell"][:3] if "cell" in values else crystal.vectors()[0].norm(dim=-1).tolist()
    beam = values.get("beam_size", DEFAULT_BEAM)
    cells = []
    for axis, edge in zip("abc", edges, strict=True):
        number = int(nonnegative(f"N{axis}", values.get(f"cells_{axis}", 1)))
        size = values.get(f"sample_{axis}")
        if size is not None:
            positive(f"sample size along {axis}", size, "in mm")
            # the beam runs along the crystal's first size, the other two are across it
            clipped = size if axis == "a" or beam <= 0 else min(size, beam)
            # in metres, so that a multiple of an edge is rounded as the C program rounds it
            number = math.ceil(clipped / (1 / MILLIMETRE) / (edge * ANGSTROM))
        cells.append(max(number, 1))
    return cells


def _interpolates(values: Values) -> bool:
    """Whether amplitudes are interpolated: as asked, or by the cells on the command line, not those of a sample."""
    few = any(values.get(f"cells_{axis}", 1) <= FEW_CELLS for axis in "abc")
    return values.get("interpolate", few)


def _oscillation(values: Values) -> tuple[float, float | None, int]:
    """Range, step and number of steps of the spindle from what is given of the three, by nanoBragg's rules.

    Nothing: one step. A number of steps alone: as many in 1 degree. A range alone: 2 steps of half of it. A step
    without a range: 2 such steps, whatever their number. A range, step or number below 0 counts as not given, a number
    of 0 as 1.
    """
    width, step, steps = values.get("oscillation"), values.get("phi_step"), values.get("phi_steps")
    finite("-osc and -phistep", (width or 0.0, step or 0.0), 2)
    width = None if width is None or width < 0 else width
    step = None if step is None or step <= 0 else step
    steps = None if steps is None or steps < 0 else max(steps, 1)
    if width is None:
        if step is not None:
            return step, step, 2
        return (0.0, None, 1) if steps is None else (1.0, None, steps)
    if step is None:
        return width, None, steps or (2 if width else 1)
    # in radians, so that a whole number of steps is rounded as the C program rounds it
    return width, step, steps or max(math.ceil((width * DEGREE) / (step * DEGREE)), 1)


def random_misset(seed: int) -> tuple[float, float, float]:
    """Turns about x, y, z in degrees of an orientation drawn evenly from all there are.

    A random unit quaternion gives the rotation; its matrix, x first, gives the angles.
    """
    generator = torch.Generator().manual_seed(abs(seed))
    w, x, y, z = torch.nn.functional.normalize(torch.randn(4, dtype=torch.float64, generator=generator), dim=0).tolist()
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    turn_x, turn_y, turn_z = umat2misset(torch.tensor(rotation, dtype=torch.float64)).tolist()
    return turn_x, turn_y, turn_z


def _reflections(values: Values) -> Reflections:
    default = values.get("default_F", 0.0)
    if "hkl_list_file" in values:
        if "hkl_file" in values:
            raise ValueError("structure factors: expected -hkl or -hkl_spectrum, one of the two")
        if "hkl_column" in values:
            raise ValueError("-hkl_column: expected -hkl to go with it; the list of -hkl_spectrum has its own columns")
        return Reflections.read_colours(values["hkl_list_file"], default, values.get("hkl_between", "linear"))
    if "hkl_between" in values:
        raise ValueError("-hkl_between: expected -hkl_spectrum to go with it, got none")
    if "hkl_file" in values:
        return Reflections.read(values["hkl_file"], default, values.get("hkl_column"))
    if default == 0:
        raise ValueError("structure factors: expected -hkl with a file or -default_F above 0, got neither")
    return Reflections(default)


def _point_spread(values: Values) -> PointSpread | None:
    kind, width = values.get("psf"), values.get("psf_width")
    if kind is None and width is None:
        return None
    if kind is None or width is None:
        raise ValueError(f"-psf and -psf_fwhm: expected both, got {'-psf' if width is None else '-psf_fwhm'} alone")
    return PointSpread(kind, width)


def _outputs(values: Values) -> Outputs:
    files: dict[str, str | None] = {name: values.get(name) for name in C_OUTPUTS}
    if not any(files.values()):
        files = dict(C_OUTPUTS)
    if not values.get("write_pgm", True):
        files["pgm_file"] = None
    if not values.get("write_noise", True):
        files["noise_file"] = None
    for name, path in files.items():
        if path is not None and name != "pgm_file":
            check_output(path, whole=name in ("int_file", "noise_file"))
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ValueError(f"{path}: expected a file in a folder that is there")
    return Outputs(
        **files,
        scale=values.get("scale"),
        pgm_scale=values.get("pgm_scale"),
        adc_offset=values.get("adc_offset", ADC_OFFSET),
        gain=positive("gain", values.get("gain", 1.0), "in counts per photon"),
        readout_noise=nonnegative("readout noise", values.get("readout_noise", 0.0), "in counts"),
        seed=abs(values.get("seed", DEFAULT_SEED)),
    )


def _without_effect(
    values: Values, all_values: Values, detector: Detector, physics: str, interpolates: bool
) -> list[str]:
    """Flags that say something which the rest of the experiment, files too in ``all_values``, makes irrelevant."""
    pivot, custom = detector.pivot_in(physics), detector.convention.name == CUSTOM
    notes = []
    if not custom and detector.pivot is not None and pivot != detector.pivot:
        notes.append("-pivot has no effect: the convention decides, as in nanoBragg; -physics exact listens to it")
    if not custom and any(name.startswith("vector_") for name in values):
        notes.append("explicit vectors have no effect: a convention that is named after them counts, as in nanoBragg")
    if "first_corner" in values:
        notes.append("-pix0_vector has no effect but to make the convention custom, as in nanoBragg")
    center, near = {"beam_x", "beam_y"} & set(values), {"near_x", "near_y"} & set(values)
    org = {"org_x", "org_y"} & set(values)
    if pivot == "sample" and not custom and physics == "nanobragg" and (center or near):
        notes.append(
            "-Xbeam, -Ybeam, -Xclose and -Yclose have no effect: XDS and DIALS listen to -ORGX and -ORGY alone, "
            "as in nanoBragg"
        )
    elif (near or org) and pivot == "beam" and not custom:
        notes.append("the nearest point has no effect: this detector turns about the beam, give -Xbeam and -Ybeam")
    elif (near or org) and {"beam_x", "beam_y"} <= set(all_values):
        notes.append("the nearest point has no effect: the beam centre is taken for it, as in nanoBragg")
    if values.get("interpolate") and not interpolates:
        notes.append("-interpolate has no effect: there is no table of structure factors")
    if values.get("oscillation", 0) < 0 or values.get("phi_step", 0) < 0:
        notes.append("-osc and -phistep below 0 count as not given, as in nanoBragg")
    for axis in "hv":
        steps, others = f"divergence_steps_{axis}", {f"divergence_{axis}", f"divergence_step_{axis}"}
        if values.get(steps) and not others & set(values):
            notes.append(f"-{axis}divsteps without a range or a step spans a whole radian, as in nanoBragg")
    if values.get("layers", 1) > 1 and not values.get("thickness"):
        notes.append("-detector_thicksteps has no effect: the sensor has no -detector_thick")
    if values.get("mosaic_domains", 1) > 1 and not values.get("mosaic"):
        notes.append("-mosaic_domains has no effect: without a -mosaic spread there is one domain")
    return notes
