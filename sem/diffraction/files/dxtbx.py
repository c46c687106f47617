"""Experiments as DIALS and diffBragg keep them: dxtbx's JSON to beam, detectors and crystal, and back.

dxtbx itself is not needed. Everything stays in the file's laboratory frame; :func:`experiment_of` turns what was made
elsewhere into it: z against the beam, x along the spindle.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sem.diffraction import conventions
from sem.diffraction.beam import Beam
from sem.diffraction.conventions import Convention, Vector
from sem.diffraction.crystal import Crystal
from sem.diffraction.detector import Detector
from sem.diffraction.files.dxtbx_models import (
    AT_SCAN_POINTS,
    BeamNumbers,
    Goniometer,
    Model,
    Panel,
    Scan,
    electric_axis,
    panel_frame,
    put_beam,
    put_crystal,
    put_panels,
    put_scan,
    read_beam,
    read_crystal,
    read_goniometer,
    read_panels,
    read_scan,
)
from sem.diffraction.parameters import MILLIMETRE

MODELS = ("imageset", "beam", "detector", "goniometer", "scan", "crystal", "profile", "scaling_model")
"""The lists of models in a document; an experiment names one of each by its number, or none."""
_MICROMETRE = 1e3  # per mm


@dataclass(frozen=True)
class DxtbxExperiment:
    """One experiment of a list: the models that its file holds, and what they are here.

    Args:
        models: of each of :data:`MODELS` the mapping in the file, or None.
        rest: what else the file says of the experiment, such as its identifier.
        source: the file, for messages.

    Example:
        >>> crystal, beam = Crystal((70, 80, 90, 90, 90, 90)), Beam(1.2)
        >>> made = experiment_of(crystal, beam, [Detector((64, 64), 0.1, 100.0)])
        >>> [round(x, 4) for x in made.panels[0].origin.tolist()], made.beam_numbers.direction.tolist()
        ([-3.3, 3.3, -100.0], [0.0, 0.0, 1.0])
        >>> made.detectors()[0]().origin.shape
        torch.Size([3])
    """

    models: dict[str, Model | None]
    rest: Model
    source: str = "experiment"

    @cached_property
    def beam_numbers(self) -> BeamNumbers:
        """Direction, wavelength in Å and polarisation, as the file has them.

        Raises:
            ValueError: there is no beam of one wavelength, or its numbers cannot be.
        """
        return read_beam(self.source, self.models["beam"])

    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        """Every panel in the laboratory."""
        return read_panels(self.source, self.models["detector"])

    @cached_property
    def goniometer(self) -> Goniometer:
        """The spindle's axis and setting; about x where the file has no goniometer."""
        return read_goniometer(self.source, self.models["goniometer"])

    @cached_property
    def scan(self) -> Scan | None:
        """Numbers of the images and their angles in degrees; None where the file has no scan."""
        return read_scan(self.source, self.models["scan"])

    @property
    def space_group(self) -> str:
        """The crystal's Hall symbol; empty without a crystal."""
        crystal = self.models["crystal"]
        return "" if crystal is None else str(crystal.get("space_group_hall_symbol", "P 1"))

    def notes(self) -> list[str]:
        """What the models hold that a simulation from them does not use."""
        found = []
        for name, model in self.models.items():
            varying = [key for key in model or {} if key.endswith(AT_SCAN_POINTS)]
            if varying:
                found.append(f"{name}: {', '.join(varying)} not used, the model is that of the whole scan")
        beam = self.models["beam"] or {}
        for name in ("flux", "divergence", "sigma_divergence"):
            if beam.get(name):
                found.append(f"beam: {name} not used")
        for name in ("profile", "scaling_model"):
            if self.models[name] is not None:
                found.append(f"{name}: not used")
        return found

    def beam(self, **settings: Any) -> Beam:
        """The beam, with more ``settings`` of :class:`sem.diffraction.Beam`; its direction is the detectors'."""
        numbers = self.beam_numbers
        return Beam(numbers.wavelength, polarisation=2 * numbers.fraction - 1, **settings)

    def convention(self, panel: int = 0) -> Convention:
        """The directions of beam, polarisation, spindle and a panel in the file's laboratory."""
        numbers, placed, goniometer = self.beam_numbers, self._panel(panel), self.goniometer
        axis = _unit(goniometer.setting @ goniometer.axis)
        normal = _normal(placed)
        return replace(
            conventions.custom(),
            beam=_vector(-numbers.direction),
            fast=_vector(placed.fast),
            slow=_vector(placed.slow),
            normal=_vector(normal),
            two_theta=_vector(axis),
            polarisation=_vector(electric_axis(numbers)),
            spindle=_vector(axis),
            pivot="sample",
        )

    def detector(self, panel: int = 0, **settings: Any) -> Detector:
        """One panel as a detector, with more ``settings`` of :class:`sem.diffraction.Detector`, such as oversample.

        A sensor with thickness and absorption is one layer unless ``layers`` says otherwise.

        Raises:
            ValueError: there is no such panel.
        """
        return Detector(**{**self.detector_settings(panel), **settings})

    def detector_settings(self, panel: int = 0) -> dict[str, Any]:
        """What :meth:`detector` hands to :class:`sem.diffraction.Detector`."""
        placed = self._panel(panel)
        normal = _normal(placed)
        # the nearest point, counted from the corner along axes that need not be exactly at right angles
        axes = np.stack([placed.fast, placed.slow], axis=1)
        near = np.linalg.lstsq(axes, -placed.origin + (placed.origin @ normal) * normal, rcond=None)[0]
        absorbs = placed.thickness > 0 and placed.absorption > 0
        return {
            "pixels": placed.pixels,
            "pixel_size": placed.pixel_size,
            "close_distance": float(placed.origin @ normal),
            "near_point": (float(near[0]), float(near[1])),
            "convention": self.convention(panel),
            "pivot": "sample",
            "thickness": placed.thickness * _MICROMETRE if absorbs else 0.0,
            "attenuation_depth": _MICROMETRE / placed.absorption if absorbs else None,
        }

    def detectors(self, **settings: Any) -> tuple[Detector, ...]:
        """Every panel as a detector of its own; ``settings`` as in :meth:`detector`."""
        return tuple(self.detector(number, **settings) for number in range(len(self.panels)))

    def reciprocal(self) -> np.ndarray:
        """a*, b*, c* as rows ``[3, 3]``, 1/Å, as they lie in the laboratory at spindle angle 0.

        Raises:
            ValueError: the experiment has no crystal.
        """
        if self.models["crystal"] is None:
            raise ValueError(f"{self.source}: expected an experiment with a crystal, got one without")
        goniometer = self.goniometer
        return (goniometer.setting @ goniometer.fixed @ read_crystal(self.source, self.models["crystal"])).T

    def angles(self, image: int | None = None) -> tuple[float, float]:
        """The spindle angle at which an image of the scan starts, the first by default, and its width, degrees.

        Raises:
            ValueError: the scan has no such image.
        """
        scan = self.scan
        if scan is None:
            if image is not None:
                raise ValueError(f"{self.source}: expected a scan to go with image {image}, got none")
            return 0.0, 0.0
        number = scan.first if image is None else image
        if not scan.first <= number <= scan.last:
            raise ValueError(f"{self.source}: expected an image from {scan.first} to {scan.last}, got {number}")
        return scan.start + (number - scan.first) * scan.width, scan.width

    def crystal(self, image: int | None = None, **settings: Any) -> Crystal:
        """The crystal at an image of the scan, with more ``settings`` of :class:`sem.diffraction.Crystal`: how many
        cells, which shape and what mosaic spread is not in the file.

        Raises:
            ValueError: the experiment has no crystal, the scan no such image.
        """
        phi, width = self.angles(image)
        rows = torch.from_numpy(self.reciprocal())
        return Crystal(**{"reciprocal": rows, "phi": phi, "oscillation": width, **settings})

    def updated(
        self,
        crystal: Crystal | None = None,
        beam: Beam | None = None,
        detectors: Sequence[Detector] | None = None,
        *,
        image: int | None = None,
        physics: str = "nanobragg",
    ) -> DxtbxExperiment:
        """The same experiment where these are: what was refined goes back into the models, all else stays as it was.

        A number that has moved by at most 1e-10 is left as the file has it. Where a model moves, what the file says of
        it at scan points is dropped. ``image`` is the one that the crystal was taken at.

        Raises:
            ValueError: another number of detectors than of panels, or a curved one.
        """
        models = copy.deepcopy(self.models)
        if detectors is not None:
            if not detectors:
                raise ValueError("detectors: expected one for each panel, got none")
            models["detector"] = put_panels(_present(models["detector"]), _placed(detectors, physics, self.panels))
        if beam is not None or detectors is not None:
            numbers = self.beam_numbers
            if beam is not None:
                fraction = (1 + float(beam.polarisation.detach())) / 2 if beam.polarised else numbers.fraction
                numbers = replace(numbers, wavelength=float(beam.wavelength.detach()), fraction=fraction)
            if detectors is not None:
                direction, normal = _directions(detectors[0])
                numbers = replace(numbers, direction=direction, normal=normal)
            models["beam"] = put_beam(_present(models["beam"]), numbers)
        if crystal is not None:
            goniometer, scan = self.goniometer, self.scan
            turned = _array(crystal.vectors(physics)[0])  # rows a, b, c, whose inverse has a*, b*, c* as columns
            matrix = np.linalg.solve(goniometer.setting @ goniometer.fixed, np.linalg.inv(turned))
            models["crystal"] = put_crystal(models["crystal"] or _new_crystal("P 1"), matrix)
            if scan is not None:
                first = float(crystal.phi.detach())
                width = float(crystal.oscillation.detach())
                first -= (0 if image is None else image - scan.first) * width
                models["scan"] = put_scan(_present(models["scan"]), replace(scan, start=first, width=width))
        return replace(self, models=models)

    def _panel(self, number: int) -> Panel:
        panels = self.panels
        if not 0 <= number < len(panels):
            raise ValueError(f"{self.source}: expected a panel from 0 to {len(panels) - 1}, got {number}")
        return panels[number]


def experiment_of(
    crystal: Crystal,
    beam: Beam,
    detectors: Sequence[Detector],
    *,
    space_group: str = "P 1",
    physics: str = "nanobragg",
) -> DxtbxExperiment:
    """An experiment of what was made here, in dxtbx's laboratory: z against the beam, x along the spindle as far as it
    is across the beam, y = z x x. The crystal is that of spindle angle 0, the scan its one image.

    Args:
        space_group: Hall symbol, which the crystal does not know.

    Raises:
        ValueError: no detector, or a curved one.
    """
    if not detectors:
        raise ValueError("detectors: expected at least one, got none")
    axes = detectors[0].axes
    turn = _to_dxtbx(_array(axes.beam), _array(axes.spindle), _array(axes.fast))
    placed = []
    for panel in _placed(detectors, physics, ()):
        placed.append(replace(panel, **{part: turn @ getattr(panel, part) for part in ("fast", "slow", "origin")}))
    direction, normal = (turn @ vector for vector in _directions(detectors[0]))
    fraction = (1 + float(beam.polarisation.detach())) / 2 if beam.polarised else 0.5
    numbers = BeamNumbers(direction, float(beam.wavelength.detach()), normal, fraction)
    phi, width = float(crystal.phi.detach()), float(crystal.oscillation.detach())
    rows = _array(crystal.vectors(physics)[0]) @ turn.T
    models: dict[str, Model | None] = dict.fromkeys(MODELS)
    models["beam"] = put_beam({"__id__": "monochromatic", "divergence": 0.0, "sigma_divergence": 0.0}, numbers)
    models["detector"] = {"panels": [_new_panel(panel) for panel in placed], "hierarchy": _new_group(len(placed))}
    identity = np.eye(3).ravel().tolist()
    models["goniometer"] = {
        "rotation_axis": (turn @ _array(axes.spindle)).tolist(),
        "fixed_rotation": identity,
        "setting_rotation": identity,
    }
    models["scan"] = {
        "image_range": [1, 1],
        "batch_offset": 0,
        "oscillation": [phi, width],
        "exposure_time": [0.0],
        "epochs": [0.0],
        "valid_image_ranges": {},
    }
    models["crystal"] = put_crystal(_new_crystal(space_group), np.linalg.inv(rows))
    return DxtbxExperiment(models, {"identifier": ""})


def _placed(detectors: Sequence[Detector], physics: str, panels: Sequence[Panel]) -> tuple[Panel, ...]:
    """Detectors as panels, by the names of ``panels``."""
    placed = []
    for number, detector in enumerate(detectors):
        if detector.curved:
            raise ValueError(f"detector {number}: expected a flat one, which dxtbx has, got a curved one")
        frame = detector(physics)
        depth = detector.attenuation_depth
        placed.append(
            Panel(
                panels[number].name if number < len(panels) else f"panel {number}",
                _array(frame.fast),
                _array(frame.slow),
                _array(frame.origin) / MILLIMETRE,
                (detector.fast_pixels, detector.slow_pixels),
                detector.pixel_size,
                detector.thickness / _MICROMETRE if depth else _old(panels, number, "thickness"),
                _MICROMETRE / depth if depth and detector.thickness else _old(panels, number, "absorption"),
            )
        )
    return tuple(placed)


def _old(panels: Sequence[Panel], number: int, name: str) -> float:
    """A sensor that absorbs everything keeps what the file says of it where that makes it no other."""
    if number >= len(panels) or (panels[number].thickness > 0 and panels[number].absorption > 0):
        return 0.0
    return float(getattr(panels[number], name))


def _directions(detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """The direction to the source, and the normal of the plane of polarisation."""
    direction = -_unit(_array(detector.axes.beam))
    return direction, _unit(np.cross(direction, _array(detector.axes.polarisation)))


def _to_dxtbx(beam: np.ndarray, spindle: np.ndarray, fast: np.ndarray) -> np.ndarray:
    """The rotation ``[3, 3]`` from a laboratory with these directions to dxtbx's."""
    z = -_unit(beam)
    for along in (spindle, fast, np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])):
        x = along - (along @ z) * z
        if float(np.linalg.norm(x)) > 1e-6:
            break
    x = _unit(x)
    return np.stack([x, np.cross(z, x), z])


def _new_panel(panel: Panel) -> Model:
    return {
        "name": panel.name,
        "type": "SENSOR_PAD",
        **panel_frame(panel),
        "raw_image_offset": [0, 0],
        "image_size": list(panel.pixels),
        "pixel_size": [panel.pixel_size] * 2,
        "trusted_range": [0.0, 65535.0],
        "thickness": panel.thickness,
        "material": "",
        "mu": panel.absorption,
        "identifier": "",
        "mask": [],
        "gain": 1.0,
        "pedestal": 0.0,
        "px_mm_strategy": {"type": "SimplePxMmStrategy"},
    }


def _new_group(panels: int) -> Model:
    return {
        "name": "",
        "type": "",
        "fast_axis": [1.0, 0.0, 0.0],
        "slow_axis": [0.0, 1.0, 0.0],
        "origin": [0.0, 0.0, 0.0],
        "children": [{"panel": number} for number in range(panels)],
    }


def _new_crystal(space_group: str) -> Model:
    return {"__id__": "crystal", "space_group_hall_symbol": space_group}


def _normal(panel: Panel) -> np.ndarray:
    """Across the panel, away from the sample."""
    normal = _unit(np.cross(panel.fast, panel.slow))
    return normal if float(normal @ panel.origin) > 0 else -normal


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _vector(values: np.ndarray) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _array(values: Any) -> np.ndarray:
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu().numpy()


def _present(model: Model | None) -> Model:
    assert model is not None
    return model
