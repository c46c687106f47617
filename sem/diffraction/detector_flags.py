"""From the settings of a command line to a detector, by nanoBragg's rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from sem.diffraction import conventions
from sem.diffraction.conventions import Convention
from sem.diffraction.detector import Detector
from sem.diffraction.flags import CUSTOM
from sem.diffraction.parameters import MILLIMETRE, nonnegative, positive

DEFAULT_PIXEL, DEFAULT_SIZE, DEFAULT_DISTANCE = 0.1, 102.4, 100.0

Values = Mapping[str, Any]


def detector_from(values: Values, physics: str) -> Detector:
    """The detector that the flags set, in its convention.

    Raises:
        ValueError: sizes, vectors or angles that make no detector.
    """
    pixel = positive("pixel", values.get("pixel", DEFAULT_PIXEL), "in mm")
    pixels, sides = [], []
    for axis in ("fast", "slow"):
        number = values.get(f"pixels_{axis}")
        side = positive("detsize", values.get(f"size_{axis}", DEFAULT_SIZE), "in mm")
        if number is None:
            number = math.ceil(side / pixel - 0.5)
        else:
            side = number * pixel
        if number < 1:
            raise ValueError(f"detpixels: expected a whole number >= 1, got {number}")
        pixels.append(number)
        sides.append(side)
    size = (sides[0], sides[1])
    convention = _convention(values, physics)
    center, near = _centers(values, convention, physics, pixel, size)
    thickness, layers, layer_step = _layers(values)
    depth = values.get("attenuation_depth", thickness)
    if thickness and not depth:
        raise ValueError(
            f"detector: expected an attenuation depth above 0 for a sensor of {thickness:g} µm, got one that absorbs "
            "nothing; -detector_abs inf behind -detector_thick takes the thickness away"
        )
    detector = Detector(
        (pixels[0], pixels[1]),
        pixel,
        values.get("distance", DEFAULT_DISTANCE),
        close_distance=values.get("close_distance"),
        convention=convention,
        beam_center=center,
        near_point=near,
        rotation=tuple(values.get(f"rotation_{axis}", 0.0) for axis in "xyz"),
        two_theta=values.get("two_theta", 0.0),
        pivot=values.get("pivot" if convention.name == CUSTOM else "pivot_asked"),
        curved=values.get("curved", False),
        point_pixel=values.get("point_pixel", False),
        thickness=thickness,
        attenuation_depth=depth or None,
        layers=layers,
        layer_step=layer_step,
        size=size,
    )
    _, cosine = detector.tilted()
    if abs(float(cosine)) < 1e-12:
        normal, beam = (" ".join(f"{part:g}" for part in vector) for vector in (convention.normal, convention.beam))
        raise ValueError(
            f"detector: expected a normal that is not perpendicular to the beam, got normal {normal} and beam {beam}"
        )
    closest = float(torch.as_tensor(detector(physics).close_distance).detach()) / MILLIMETRE
    if closest <= 0:
        raise ValueError(f"detector: expected a normal that points away from the sample, got a plane at {closest:g} mm")
    return detector


def _centers(
    values: Values, convention: Convention, physics: str, pixel: float, size: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The beam centre and the point nearest to the sample.

    In the custom convention they are one pair of numbers for nanoBragg: the beam centre if it is given, else the
    nearest point in mm, else that in pixels, else the middle. A convention that turns about the sample listens to the
    nearest point in pixels alone; in ``exact`` it listens to all of them as the custom one does.
    """
    near = {"x": size[0] / 2, "y": size[1] / 2}
    near |= {axis: (values[f"org_{axis}"] - 0.5) * pixel for axis in "xy" if f"org_{axis}" in values}
    turns_about_sample = convention.pivot == "sample" and convention.name != CUSTOM
    in_pixels = near["x"], near["y"]
    near |= {axis: values[f"near_{axis}"] for axis in "xy" if f"near_{axis}" in values}
    if turns_about_sample or convention.name == CUSTOM:
        both = values.get("beam_x", near["x"]), values.get("beam_y", near["y"])
        return both, in_pixels if turns_about_sample and physics == "nanobragg" else both
    center = convention.default_center(pixel, size)
    return (values.get("beam_x", center[0]), values.get("beam_y", center[1])), (near["x"], near["y"])


def _layers(values: Values) -> tuple[float, int, float]:
    """The sensor's thickness, its number of layers and the depth of one, µm.

    Without a thickness there is one layer. A thickness alone is cut into 2 layers; as many layers as given reach from
    face to face.
    """
    thickness = values.get("thickness", 0.0)
    if thickness <= 0:
        nonnegative("detector thickness", thickness, "in µm")
        return 0.0, 1, 0.0
    layers = values.get("layers")
    if not layers:
        return thickness, 2, thickness / 2
    return thickness, layers, thickness / max(layers - 1, 1)


def _convention(values: Values, physics: str) -> Convention:
    name = values.get("convention", "MOSFLM")
    if isinstance(name, Convention):  # of a file, which knows all directions
        return name
    if name != CUSTOM:
        return conventions.convention(name)
    vectors = {name.removeprefix("vector_"): value for name, value in values.items() if name.startswith("vector_")}
    if physics == "nanobragg":
        return conventions.as_given(**vectors)
    return conventions.custom(conventions.BUILT_IN, **vectors)
