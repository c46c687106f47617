"""An experiment in words, every default and every automatic choice resolved."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from sem.diffraction.background import Background
from sem.diffraction.detector import Detector
from sem.diffraction.experiment import Experiment
from sem.diffraction.point_spread import PointSpread
from sem.diffraction.reflections import Reflections

Rows = list[tuple[str, str]]


@torch.no_grad()
def describe(experiment: Experiment) -> dict[str, Rows]:
    """Rows of name and value with its unit, by part of the experiment."""
    simulator, several = experiment.panels[0], len(experiment.panels) > 1
    crystal, beam, detector = simulator.crystal, simulator.beam, simulator.detector
    reflections, physics = simulator.reflections, simulator.physics
    real, stars = crystal.vectors(physics)
    sources = beam(detector.axes)
    spread = _numbers(crystal.mosaic_spread.reshape(-1).tolist())
    groups: dict[str, Rows] = {
        "crystal": [
            *((f"{name}, Å", _numbers(vector)) for name, vector in zip("abc", real.tolist(), strict=True)),
            *((f"{name}*, 1/Å", _numbers(vector)) for name, vector in zip("abc", stars.tolist(), strict=True)),
            ("unit cells along a, b, c", _numbers(crystal.cells.tolist())),
            ("shape of the spots", f"{crystal.shape}, fudge {float(crystal.fudge):g}"),
            ("misset, degrees", _numbers(crystal.misset.tolist())),
            ("phi, degrees", _numbers(crystal.phi_angles().tolist())),
            ("mosaic", f"{crystal.mosaic_domains} domains, spread {spread} degrees"),
        ],
        "structure factors": [
            ("default", f"{float(reflections.default):g}"),
            ("table", _table(reflections)),
            ("between reflections", "tricubic" if simulator.interpolate else "nearest"),
        ],
        **{
            f"panel {number}" if several else "detector": _detector(panel.detector, physics)
            for number, panel in enumerate(experiment.panels)
        },
        "beam": [
            ("sources", str(len(sources.direction))),
            ("wavelengths, Å", _range((sources.wavelength * 1e10).tolist())),
            ("polarisation", f"{float(beam.polarisation):g}" if beam.polarised else "none"),
            ("fluence, photons/m²", f"{float(beam.fluence):g}"),
            ("water, µm", f"{float(simulator.water):g}"),
            ("background", _background(simulator.background)),
        ],
        "computation": [
            ("physics", physics),
            ("point spread", _point_spread(simulator.point_spread)),
            ("phi carry-over", simulator.phi_carryover),
            ("source weighting", simulator.source_weighting),
            ("d_min, Å", f"{simulator.d_min:g}"),
            ("region", "all pixels" if simulator.region is None else _numbers(simulator.region)),
            ("mask", _masks(experiment)),
        ],
        "output": [
            (name.replace("_", " "), str(value))
            for name, value in vars(experiment.outputs).items()
            if value is not None
        ],
    }
    return groups


def _detector(detector: Detector, physics: str) -> Rows:
    frame = detector(physics)
    return [
        ("convention", detector.convention.name),
        ("pixels, fast and slow", f"{detector.fast_pixels} x {detector.slow_pixels} of {detector.pixel_size:g} mm"),
        ("turns about", detector.pivot_in(physics)),
        ("beam centre, mm", _numbers(detector.beam_center.tolist())),
        ("nearest point, mm", _numbers(detector.near_point.tolist())),
        ("rotations, two-theta, degrees", _numbers([*detector.rotation.tolist(), float(detector.two_theta)])),
        ("first corner, m", _numbers(torch.as_tensor(frame.origin).tolist())),
        ("fast axis", _numbers(torch.as_tensor(frame.fast).tolist())),
        ("slow axis", _numbers(torch.as_tensor(frame.slow).tolist())),
        ("normal", _numbers(torch.as_tensor(frame.normal).tolist())),
        ("close distance, m", f"{float(frame.close_distance):.9g}"),
        ("subpixels", f"{detector.oversample} x {detector.oversample}"),
        ("sensor", f"{detector.layers} layers, {frame.attenuation:g} per metre"),
    ]


def _point_spread(spread: PointSpread | None) -> str:
    return "none" if spread is None else f"{spread.kind}, fwhm {float(spread.width):g} mm"


def _table(reflections: Reflections) -> str:
    if reflections.table is None:
        return "none"
    span = f"h k l {reflections.first} to {reflections.last}"
    if reflections.wavelengths is None:
        return span
    return f"{span} at {_numbers(reflections.wavelengths.tolist())} Å, {reflections.between} between them"


def _background(background: Background | None) -> str:
    if background is None:
        return "none"
    kind = f"profile over {background.axis}" if background.image is None else "image"
    return f"{kind}, scale {float(background.scale):g}"


def _masks(experiment: Experiment) -> str:
    masks = [panel.mask for panel in experiment.panels if panel.mask is not None]
    return f"{sum(int(mask.sum()) for mask in masks)} pixels computed" if masks else "none"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.7g}" for value in values)


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.7g}" if low == high else f"{low:.7g} to {high:.7g}"
