"""What files named on a command line say of the experiment, under the names of the flags' settings.

Flags act on top of it, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sem.diffraction import conventions
from sem.diffraction.background import Background
from sem.diffraction.files.field_image import FieldImage
from sem.diffraction.files.kinds import CBF, EDF, HDF5, TIFF, kind_of
from sem.diffraction.flags import CUSTOM
from sem.diffraction.images import masked_in, read_panels, read_smv
from sem.diffraction.readers import read_rows

if TYPE_CHECKING:
    from sem.diffraction.files.dxtbx import DxtbxExperiment

Values = Mapping[str, Any]
_HEADER = {
    "PIXEL_SIZE": "pixel",
    "DISTANCE": "distance",
    "CLOSE_DISTANCE": "close_distance",
    "WAVELENGTH": "wavelength",
    "BEAM_CENTER_X": "beam_x",
    "BEAM_CENTER_Y": "beam_y",
    "XDS_ORGX": "org_x",
    "XDS_ORGY": "org_y",
    "PHI": "phi",
    "OSC_RANGE": "oscillation",
}
"""Entries of an SMV header, and what they set."""


def settings_of_files(given: Values) -> tuple[list[dict[str, Any]], list[Tensor | None], list[str]]:
    """For each panel that is computed the settings of ``-expt``, ``-img`` and ``-mask``, in this order, and its mask
    (bool, True where a pixel is computed); notes on what is not used.

    Raises:
        ImportError: a file's format needs a library that is not installed.
        ValueError: a file is damaged or none of its kind, or has not as many panels as are computed.
    """
    values: list[dict[str, Any]] = [{}]
    masks: list[Tensor | None] = [None]
    notes = []
    if "experiments_file" in given:
        from sem.diffraction.files.dxtbx_document import read_experiments

        listed = read_experiments(given["experiments_file"])
        chosen = given.get("panel")
        panels = range(len(listed[0].panels)) if chosen is None else (chosen,)
        values = [_of_experiment(listed[0], number) for number in panels]
        notes += [f"{given['experiments_file']}: {note}" for note in listed[0].notes()]
        if len(listed) > 1:
            notes.append(f"{given['experiments_file']}: the first of {len(listed)} experiments is taken")
        if len(values) > 1:
            if "image_file" in given:
                notes.append(f"-img {given['image_file']} is not read: -expt says what its {len(values)} panels are")
            return values, _masks_of(given.get("mask_file"), len(values)), notes
    for name in ("image_file", "mask_file"):
        if name not in given:
            continue
        source, is_mask = given[name], name == "mask_file"
        kind = kind_of(source)
        if kind in (CBF, EDF, TIFF, HDF5):
            found = read_panels(source)
            alone = "experiments_file" in given and len(found.panels) == 1  # a mask of the one panel that is computed
            number = found.panel(None if alone else given.get("panel"), source)
            said = _of_image(found, number, given.get("convention", "MOSFLM"))
            masks = [torch.from_numpy(masked_in(found, number, kind).copy())] if is_mask else masks
        else:
            pixels, header = read_smv(source)
            said = _of_header(header, pixels, flipped=is_mask, source=source)
            masks = [pixels > 0] if is_mask else masks
        if "experiments_file" not in given:  # which knows the detector better than a header
            values[0] |= said
    return values, masks, notes


def backgrounds_of(given: Values, panels: int) -> Background | list[Background] | None:
    """What ``-background_image`` or ``-background_profile`` say: for each of several panels an image with one scale.

    Raises:
        ImportError: a file's format needs a library that is not installed.
        ValueError: a file is damaged or none of its kind, has not as many panels as are computed; both are given, or
            neither of them with what goes with them.
    """
    scale, axis = given.get("background_scale", 1.0), given.get("background_axis", "q")
    if "background_profile_file" in given:
        if "background_image_file" in given:
            raise ValueError("background: expected -background_image or -background_profile, one of the two")
        source = given["background_profile_file"]
        rows = torch.from_numpy(read_rows(source, "x photons", 2))
        try:
            return Background(profile=rows, axis=axis, scale=scale)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
    image_given = "background_image_file" in given
    if "background_axis" in given:
        raise ValueError("-background_axis: expected -background_profile to go with it, got none")
    if "background_scale" in given and not image_given:
        raise ValueError("-background_scale: expected -background_image or -background_profile, got neither")
    if not image_given:
        return None
    source = given["background_image_file"]
    found = read_panels(source)
    if panels > 1 and len(found.panels) != panels:
        raise ValueError(f"{source}: expected {panels} panels as -expt has, got {len(found.panels)}")
    alone = "experiments_file" in given and len(found.panels) == 1
    chosen = range(panels) if panels > 1 else (found.panel(None if alone else given.get("panel"), source),)
    made = []
    for number in chosen:
        pixels, good = found.pixels(number)
        try:
            made.append(Background(torch.from_numpy(np.where(good, pixels, 0.0)), scale=scale))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        made[-1].scale = made[0].scale
    return made


def _masks_of(source: str | None, panels: int) -> list[Tensor | None]:
    """A mask for each of several panels."""
    if source is None:
        return [None] * panels
    found, kind = read_panels(source), kind_of(source)
    if len(found.panels) != panels:
        raise ValueError(f"{source}: expected a mask of {panels} panels as -expt has, got {len(found.panels)}")
    return [torch.from_numpy(masked_in(found, number, kind).copy()) for number in range(panels)]


def _of_experiment(experiment: DxtbxExperiment, panel: int) -> dict[str, Any]:
    """Everything as flags could say it, in the file's own laboratory."""
    settings = experiment.detector_settings(panel)
    beam, convention = experiment.beam_numbers, settings["convention"]
    phi, width = experiment.angles()
    values: dict[str, Any] = {
        **{f"vector_{name}": getattr(convention, name) for name in conventions.DIRECTIONS},
        "convention": convention,
        "pivot": settings["pivot"],
        "pixel": settings["pixel_size"],
        "close_distance": settings["close_distance"],
        "wavelength": beam.wavelength,
        "polarisation": 2 * beam.fraction - 1,
        "phi": phi,
    }
    values |= dict(zip(("pixels_fast", "pixels_slow"), settings["pixels"], strict=True))
    values |= dict(zip(("near_x", "near_y"), settings["near_point"], strict=True))
    if width:
        values["oscillation"] = width
    if settings["attenuation_depth"] is not None:
        values |= {"thickness": settings["thickness"], "attenuation_depth": settings["attenuation_depth"], "layers": 1}
    if experiment.models["crystal"] is not None:
        values["reciprocal"] = torch.from_numpy(experiment.reciprocal())
    return values


def _of_image(image: FieldImage, panel: int, convention: str) -> dict[str, Any]:
    """Of one of several panels only its size is known; the spot is that of the whole detector."""
    slow, fast = image.panels[panel].shape
    found = {"pixels_fast": fast, "pixels_slow": slow}
    found |= {name: value for name, value in image.settings.items() if name != "spot" and value != 0}
    if "spot" in image.settings and "pixel" in found and len(image.panels) == 1:
        named = conventions.custom() if convention == CUSTOM else conventions.convention(convention)
        center = named.center_of(image.settings["spot"], found["pixel"], slow * found["pixel"])
        if named.pivot == "sample":  # which listens to the nearest point in pixels alone
            center = tuple(part / found["pixel"] + 0.5 for part in center)
        names = ("org_x", "org_y") if named.pivot == "sample" else ("beam_x", "beam_y")
        found |= dict(zip(names, center, strict=True))
    return found


def _of_header(header: Mapping[str, str], pixels: Tensor, *, flipped: bool, source: str) -> dict[str, Any]:
    """What an SMV header says about the experiment. A mask counts y from the far end.

    Two-theta is not among it: nanoBragg writes it and does not read it.
    """
    slow, fast = pixels.shape
    found: dict[str, Any] = {"pixels_fast": fast, "pixels_slow": slow}
    for key, name in _HEADER.items():
        if key in header:
            try:
                found[name] = float(header[key])
            except ValueError:
                raise ValueError(f"{source}: expected a number for {key} in the header, got {header[key]!r}") from None
    if flipped and "beam_y" in found and "pixel" in found:
        found["beam_y"] = slow * found["pixel"] - found["beam_y"]
    if found.get("oscillation") == 0:
        del found["oscillation"]
    return found
