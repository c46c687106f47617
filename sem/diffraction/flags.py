"""The flags of ``sem diffraction simulate``: nanoBragg's own, single dash, and a few more, in one table.

A command line is read as the C program reads it: flag after flag, each of which sets some settings, so that the last
one to set a setting counts. The table says for each flag what it sets, side effects included.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Value = Any
ELECTRONVOLT_ANGSTROM = 12398.42
CUSTOM = "CUSTOM"


def _number(text: str) -> float:
    return float(text)


def _whole(text: str) -> int:
    number = float(text)
    if number != int(number):
        raise ValueError
    return int(number)


def _text(text: str) -> str:
    return text


NUMBER, WHOLE, TEXT = ("number", _number), ("whole number", _whole), ("", _text)
Kind = tuple[str, Callable[[str], Value]]

COVERED, IGNORED, MISSING = "covered", "ignored", "not covered"


@dataclass(frozen=True)
class Flag:
    """One flag: its spellings, how many values of what kind follow it, what they set, and what that is."""

    names: tuple[str, ...]
    group: str
    sets: tuple[str, ...]
    """The settings that take its value; several flags may set one."""
    help: str
    kind: Kind = NUMBER
    count: int = 1
    unit: str = ""
    constant: Value = None
    """What a flag without values sets."""
    status: str = COVERED
    also: Mapping[str, Value] = field(default_factory=dict)
    """What it sets besides, whatever its value."""
    at_zero: Mapping[str, Value] = field(default_factory=dict)
    """What it sets besides if its value is 0."""
    first: str = ""
    """A setting that takes the first of several values."""
    convert: Callable[[Value], Value] | None = None
    """From the value given to the one set."""

    def effects(self, value: Value) -> dict[str, Value]:
        """Every setting of the flag given with ``value``."""
        set_to = value if self.convert is None else self.convert(value)
        effects = {**dict.fromkeys(self.sets, set_to), **self.also, **({} if set_to else self.at_zero)}
        return effects | {self.first: value[0]} if self.first else effects

    @property
    def name(self) -> str:
        """The first of its spellings, which messages use."""
        return self.names[0]


def _flag(names: str, group: str, sets: str, help: str, *rest: Any, **more: Any) -> Flag:
    return Flag(tuple(names.split()), group, tuple(sets.split()), help, *rest, **more)


def _switch(names: str, group: str, sets: str, help: str, constant: Value = True, **more: Any) -> Flag:
    return _flag(names, group, sets, help, TEXT, 0, constant=constant, **more)


def _vector(names: str, group: str, sets: str, help: str, **more: Any) -> Flag:
    also = {"convention": CUSTOM, **more.pop("also", {})}
    return _flag(names, group, sets, f"{help}; custom convention", NUMBER, 3, also=also, **more)


def _wavelength_of(energy: float) -> float:
    from sem.diffraction.parameters import positive  # brings torch, which the list of flags does without

    return ELECTRONVOLT_ANGSTROM / positive("energy", energy, "in eV")


def _depth(value: float) -> float:
    return 0.0 if math.isinf(value) else value


def _two_at_least(number: int) -> int:
    return max(number, 2) if number > 0 else 0


def _ignored(names: str, group: str, help: str, count: int = 0) -> Flag:
    return _flag(names, group, "", help, TEXT, count, status=IGNORED)


def _missing(names: str, group: str, help: str, count: int = 0) -> Flag:
    return _flag(names, group, "", help, TEXT, count, status=MISSING)


CRYSTAL, REFLECTIONS, DETECTOR, BEAM = "Crystal", "Structure factors", "Detector", "Beam"
SAMPLING, OUTPUT, MORE = "Sampling", "Output", "Beyond nanoBragg"

_BEAM, _SAMPLE = {"pivot": "beam"}, {"pivot": "sample"}
"""What flags of positions and conventions say besides: what the detector turns about where directions are custom."""
_ONLY_LOWER = "nanoBragg takes no notice of capitals; so does this command, with a note"

FLAGS: tuple[Flag, ...] = (
    _flag("-cell", CRYSTAL, "cell", "a b c alpha beta gamma", NUMBER, 6, "Å, degrees"),
    _flag("-mat", CRYSTAL, "matrix_file", "MOSFLM orientation matrix, in place of a cell", TEXT),
    _flag("-misset", CRYSTAL, "misset", "turns about x, y, z; or the word random", NUMBER, 3, "degrees"),
    _flag("-misset_seed", CRYSTAL, "misset_seed", "picks the random orientation", WHOLE),
    _flag("-N", CRYSTAL, "cells_a cells_b cells_c", "unit cells along a, b and c", WHOLE),
    _flag("-Na", CRYSTAL, "cells_a", "unit cells along a", WHOLE),
    _flag("-Nb", CRYSTAL, "cells_b", "unit cells along b", WHOLE),
    _flag("-Nc", CRYSTAL, "cells_c", "unit cells along c", WHOLE),
    _flag(
        "-samplesize -sample_size -xtalsize -xtal_size",
        CRYSTAL,
        "sample_a sample_b sample_c",
        "size along a, b and c",
        NUMBER,
        1,
        "mm",
    ),
    _flag("-sample_thick -sample_x -xtal_thick -xtal_x", CRYSTAL, "sample_a", "size along a", NUMBER, 1, "mm"),
    _flag("-sample_width -sample_y -xtal_width -xtal_y -width", CRYSTAL, "sample_b", "size along b", NUMBER, 1, "mm"),
    _flag(
        "-sample_height -sample_z -xtal_height -xtal_z -height", CRYSTAL, "sample_c", "size along c", NUMBER, 1, "mm"
    ),
    _switch("-square_xtal", CRYSTAL, "shape", "spots of a block-shaped crystal (the default)", "square"),
    _switch("-round_xtal", CRYSTAL, "shape", "spots of a ball-shaped crystal", "round"),
    _switch("-gauss_xtal", CRYSTAL, "shape", "Gaussian spots", "gauss"),
    _switch("-tophat_spots -binary_spots", CRYSTAL, "shape", "spots of one height with a sharp edge", "tophat"),
    _flag("-fudge", CRYSTAL, "fudge", "scales the size of all spots but square ones"),
    _flag("-mosaic -mosaici -mosaic_spr -mosaic_spread", CRYSTAL, "mosaic", "mosaic spread", NUMBER, 1, "degrees"),
    _flag("-mosaic_domains -mosaic_dom", CRYSTAL, "mosaic_domains", "number of domains", WHOLE),
    _flag("-mosaic_seed", CRYSTAL, "mosaic_seed", "picks the domains", WHOLE),
    _flag("-hkl", REFLECTIONS, "hkl_file", "rows h k l F; MTZ or CIF, by content", TEXT),
    _flag("-default_F", REFLECTIONS, "default_F", "amplitude of every reflection that the table does not hold"),
    _switch("-interpolate", REFLECTIONS, "interpolate", "tricubic between reflections", True),
    _switch("-nointerpolate", REFLECTIONS, "interpolate", "nearest reflection", False),
    _flag("-detpixels", DETECTOR, "pixels_fast pixels_slow", "pixels along both axes", WHOLE),
    _flag("-detpixels_f -detpixels_x", DETECTOR, "pixels_fast", "pixels along the fast axis", WHOLE),
    _flag("-detpixels_s -detpixels_y", DETECTOR, "pixels_slow", "pixels along the slow axis", WHOLE),
    _flag("-detsize", DETECTOR, "size_fast size_slow", "side of the detector", NUMBER, 1, "mm"),
    _flag("-detsize_f", DETECTOR, "size_fast", "its fast side", NUMBER, 1, "mm"),
    _flag("-detsize_s", DETECTOR, "size_slow", "its slow side", NUMBER, 1, "mm"),
    _flag("-pixel", DETECTOR, "pixel", "side of a pixel", NUMBER, 1, "mm"),
    _flag("-distance", DETECTOR, "distance", "sample to detector along the beam", NUMBER, 1, "mm", also=_BEAM),
    _flag(
        "-close_distance",
        DETECTOR,
        "close_distance",
        "sample to the detector's plane",
        NUMBER,
        1,
        "mm",
        also=_SAMPLE,
    ),
    _flag("-Xbeam", DETECTOR, "beam_x", "beam centre, the convention's x", NUMBER, 1, "mm", also=_BEAM),
    _flag("-Ybeam", DETECTOR, "beam_y", "beam centre, the convention's y", NUMBER, 1, "mm", also=_BEAM),
    _flag("-Xclose", DETECTOR, "near_x", "point nearest to the sample, fast", NUMBER, 1, "mm", also=_SAMPLE),
    _flag("-Yclose", DETECTOR, "near_y", "point nearest to the sample, slow", NUMBER, 1, "mm", also=_SAMPLE),
    _flag("-ORGX", DETECTOR, "org_x", "the same as XDS counts it, fast", NUMBER, 1, "pixels", also=_SAMPLE),
    _flag("-ORGY", DETECTOR, "org_y", "the same as XDS counts it, slow", NUMBER, 1, "pixels", also=_SAMPLE),
    _flag("-detector_rotx", DETECTOR, "rotation_x", "turn about x", NUMBER, 1, "degrees"),
    _flag("-detector_roty", DETECTOR, "rotation_y", "turn about y", NUMBER, 1, "degrees"),
    _flag("-detector_rotz", DETECTOR, "rotation_z", "turn about z", NUMBER, 1, "degrees"),
    _flag("-twotheta", DETECTOR, "two_theta", "swing of the detector's arm", NUMBER, 1, "degrees", also=_SAMPLE),
    _flag(
        "-pivot", DETECTOR, "pivot pivot_asked", "beam or sample; nanoBragg listens only with explicit vectors", TEXT
    ),
    _switch("-mosflm", DETECTOR, "convention", "MOSFLM's convention (the default)", "MOSFLM", also=_BEAM),
    _switch("-denzo", DETECTOR, "convention", "DENZO's convention", "DENZO", also=_BEAM),
    _switch("-adxv", DETECTOR, "convention", "ADXV's convention", "ADXV", also=_BEAM),
    _switch("-xds", DETECTOR, "convention", "XDS's convention", "XDS", also=_SAMPLE),
    _switch("-dials", DETECTOR, "convention", "DIALS's convention", "DIALS", also=_BEAM),
    _ignored("-MOSFLM", DETECTOR, _ONLY_LOWER),
    _ignored("-DENZO", DETECTOR, _ONLY_LOWER),
    _ignored("-ADXV", DETECTOR, _ONLY_LOWER),
    _ignored("-XDS", DETECTOR, _ONLY_LOWER),
    _ignored("-DIALS", DETECTOR, _ONLY_LOWER),
    _vector("-fdet_vector", DETECTOR, "vector_fast", "fast axis"),
    _vector("-sdet_vector", DETECTOR, "vector_slow", "slow axis"),
    _vector("-odet_vector", DETECTOR, "vector_normal", "detector normal"),
    _vector(
        "-twotheta_axis",
        DETECTOR,
        "vector_two_theta",
        "axis of the arm, whose x is taken for two-theta in degrees too",
        also=_SAMPLE,
        first="two_theta",
    ),
    _vector("-beam_vector", BEAM, "vector_beam", "direction of the beam"),
    _vector("-polar_vector", BEAM, "vector_polarisation", "direction of polarisation"),
    _vector("-spindle_axis", SAMPLING, "vector_spindle", "axis that phi turns about"),
    _vector("-pix0_vector", DETECTOR, "first_corner", "in metres; not used, beam centre and distance decide"),
    _vector("-pix0_vector_mm", DETECTOR, "first_corner", "in mm; not used, beam centre and distance decide"),
    _switch("-curved_det", DETECTOR, "curved", "all pixels at one distance"),
    _switch("-point_pixel", DETECTOR, "point_pixel", "solid angles of points"),
    _flag(
        "-detector_abs -detector_absorb",
        DETECTOR,
        "attenuation_depth",
        "depth where 1/e is left; inf or 0: no absorption, and no thickness that is given before",
        NUMBER,
        1,
        "µm",
        convert=_depth,
        at_zero={"thickness": 0.0},
    ),
    _flag("-detector_thick", DETECTOR, "thickness", "thickness of the sensor", NUMBER, 1, "µm"),
    _flag(
        "-detector_thicksteps -thicksteps",
        DETECTOR,
        "layers",
        "layers of the sensor, 2 at least",
        WHOLE,
        convert=_two_at_least,
    ),
    _flag("-mask", DETECTOR, "mask_file", "SMV image, pixels of 0 are left out; its header as -img", TEXT),
    _flag(
        "-img", DETECTOR, "image_file", "SMV image whose header gives sizes, distances, centre, wavelength, phi", TEXT
    ),
    _flag("-lambda -wave", BEAM, "wavelength", "central wavelength", NUMBER, 1, "Å"),
    _flag("-energy", BEAM, "wavelength", "central energy", NUMBER, 1, "eV", convert=_wavelength_of),
    _flag("-dispersion", BEAM, "dispersion", "range of wavelengths", NUMBER, 1, "%"),
    _flag("-dispsteps", BEAM, "dispersion_steps", "number of wavelengths", WHOLE),
    _flag("-divergence", BEAM, "divergence_h divergence_v", "range of directions, both ways", NUMBER, 1, "mrad"),
    _flag("-hdivrange", BEAM, "divergence_h", "horizontal range", NUMBER, 1, "mrad"),
    _flag("-vdivrange", BEAM, "divergence_v", "vertical range", NUMBER, 1, "mrad"),
    _flag("-hdivstep", BEAM, "divergence_step_h", "horizontal step", NUMBER, 1, "mrad"),
    _flag("-vdivstep", BEAM, "divergence_step_v", "vertical step", NUMBER, 1, "mrad"),
    _flag("-divsteps", BEAM, "divergence_steps_h divergence_steps_v", "points, both ways", WHOLE),
    _flag("-hdivsteps", BEAM, "divergence_steps_h", "horizontal points", WHOLE),
    _flag("-vdivsteps", BEAM, "divergence_steps_v", "vertical points", WHOLE),
    _switch("-round_div", BEAM, "round_divergence", "directions within an ellipse (the default)", True),
    _switch("-square_div", BEAM, "round_divergence", "directions in the corners too", False),
    _flag("-sourcefile", BEAM, "source_file", "rows x y z weight wavelength(m)", TEXT),
    _flag("-polar", BEAM, "polarisation", "Kahn's polarisation factor", also={"polarised": True}),
    _switch("-nopolar", BEAM, "polarised", "no polarisation factor", False),
    _flag("-fluence", BEAM, "fluence", "photons in all", NUMBER, 1, "1/m²"),
    _flag("-flux", BEAM, "flux", "photons per second", NUMBER, 1, "1/s"),
    _flag("-exposure", BEAM, "exposure", "time of exposure", NUMBER, 1, "s"),
    _flag("-beamsize", BEAM, "beam_size", "side of the beam; clips the sample", NUMBER, 1, "mm"),
    _flag("-water", BEAM, "water", "side of a cube of water in the beam", NUMBER, 1, "µm"),
    _flag("-phi", SAMPLING, "phi", "spindle angle at the start", NUMBER, 1, "degrees"),
    _flag("-osc", SAMPLING, "oscillation", "how far the spindle turns", NUMBER, 1, "degrees"),
    _flag("-phistep", SAMPLING, "phi_step", "from one computed angle to the next", NUMBER, 1, "degrees"),
    _flag("-phisteps", SAMPLING, "phi_steps", "number of angles", WHOLE),
    _flag("-dmin", SAMPLING, "d_min", "finest spacing computed", NUMBER, 1, "Å"),
    _flag("-oversample", SAMPLING, "oversample", "subpixels along each side; automatic if not given", WHOLE),
    _flag("-roi", SAMPLING, "region", "fast first, last, slow first, last; inclusive", WHOLE, 4, "pixels"),
    _missing("-oversample_thick", SAMPLING, "every step its own absorption: -physics exact does that"),
    _missing("-oversample_polar", SAMPLING, "every step its own polarisation: -physics exact does that"),
    _missing("-oversample_omega", SAMPLING, "every step its own solid angle: -physics exact does that"),
    _flag("-floatfile -floatimage", OUTPUT, "float_file", "raw float32 image", TEXT),
    _flag("-intfile -intimage", OUTPUT, "int_file", "SMV image without noise", TEXT),
    _flag("-scale", OUTPUT, "scale", "factor of that image; its maximum becomes 55000 if not given"),
    _flag("-adc -adc_offset", OUTPUT, "adc_offset", "added to SMV images", NUMBER, 1, "counts"),
    _flag("-noisefile -noiseimage", OUTPUT, "noise_file", "SMV image with Poisson noise", TEXT),
    _flag("-seed", OUTPUT, "seed", "picks the noise; 1 if not given", WHOLE),
    _flag("-pgmfile -pgmimage", OUTPUT, "pgm_file", "PGM picture", TEXT),
    _flag("-pgmscale", OUTPUT, "pgm_scale", "factor of the picture"),
    _switch("-nopgm", OUTPUT, "write_pgm", "no PGM picture", False),
    _switch("-nonoise", OUTPUT, "write_noise", "no image with noise", False),
    _ignored("-printout", OUTPUT, "prints every pixel"),
    _ignored("-printout_pixel", OUTPUT, "prints one pixel", 2),
    _ignored("-progress", OUTPUT, "progress meter"),
    _ignored("-noprogress", OUTPUT, "no progress meter"),
    _flag("-trace_pixel", OUTPUT, "trace_pixel", "prints the intermediate values of a pixel: slow, fast", WHOLE, 2),
    _ignored("-stol", REFLECTIONS, "background profile, which nanoBragg reads and does not use", 1),
    _ignored("-4stol", REFLECTIONS, "the same", 1),
    _ignored("-Q", REFLECTIONS, "the same", 1),
    _ignored("-stolout", REFLECTIONS, "the same", 1),
    _ignored("-density -sample_density", CRYSTAL, "nanoBragg reads it and does not use it", 1),
    _ignored("-MW -molecular_weight", CRYSTAL, "nanoBragg reads it and does not use it", 1),
    _ignored("-coherent", SAMPLING, "nanoBragg reads it and does not use it"),
    _flag("-detsize_x", MORE, "size_fast", "as -detsize_f, the only name that nanoBragg knows", NUMBER, 1, "mm"),
    _flag("-detsize_y", MORE, "size_slow", "as -detsize_s, the only name that nanoBragg knows", NUMBER, 1, "mm"),
    _flag("-source", MORE, "source_file", "as -sourcefile, the only name that nanoBragg knows", TEXT),
    _flag("-polarization", MORE, "polarisation", "as -polar, the only name that nanoBragg knows"),
    _switch("-noise", MORE, "write_noise", "an image with noise, which nanoBragg writes anyway", True),
    _flag("-physics", MORE, "physics", "nanobragg (the default) or exact: without that program's quirks", TEXT),
    _flag("-phi_carryover", MORE, "phi_carryover", "spec (the default), or c-parity: step 0 at phi 0 as in C", TEXT),
    _flag("-source_weighting", MORE, "source_weighting", "ignore (the default, as in C) or relative", TEXT),
    _flag("-hkl_column", MORE, "hkl_column", "column of an MTZ or CIF file", TEXT),
    _flag(
        "-expt", MORE, "experiments_file", "dxtbx experiments, whose beam, panels, crystal and scan are set first", TEXT
    ),
    _flag("-panel", MORE, "panel", "which panel of -expt, -img or -mask, from 0; all of -expt if not given", WHOLE),
    _flag(
        "-mosaic_widths",
        MORE,
        "mosaic",
        "mosaic spreads about the crystal's x (a), y and z (c*), in place of -mosaic",
        NUMBER,
        3,
        "degrees",
    ),
    _flag("-spectrum", MORE, "spectrum_file", "rows of wavelength (Å) and weight, in place of a dispersion", TEXT),
    _flag("-hkl_spectrum", MORE, "hkl_list_file", "rows of wavelength (Å), file as of -hkl, and its column", TEXT),
    _flag("-hkl_between", MORE, "hkl_between", "these wavelengths: linear (the default) or nearest", TEXT),
    _flag("-background_image", MORE, "background_image_file", "image of photons that are added to each pixel", TEXT),
    _flag("-background_profile", MORE, "background_profile_file", "rows x photons, which are added by angle", TEXT),
    _flag("-background_axis", MORE, "background_axis", "x of these rows: q (the default), two_theta or stol", TEXT),
    _flag("-background_scale", MORE, "background_scale", "factor of that image or profile"),
    _flag("-psf", MORE, "psf", "point spread of the detector: gauss or fiber", TEXT),
    _flag("-psf_fwhm", MORE, "psf_width", "its full width at half height", NUMBER, 1, "mm"),
    _flag("-gain", MORE, "gain", "counts per photon in the image with noise; 1 if not given"),
    _flag(
        "-readout_noise", MORE, "readout_noise", "standard deviation of what is added to it then", NUMBER, 1, "counts"
    ),
    _switch("-reference", MORE, "reference", "image and trace in float64, by the serial reference"),
    _switch("-show_config", MORE, "show_config", "print the resolved experiment, compute nothing"),
)
BY_NAME = {name: flag for flag in FLAGS for name in flag.names}


def parse(arguments: Sequence[str]) -> tuple[dict[str, Value], list[str]]:
    """What the flags set, one after the other, and a note for every flag without effect.

    Example:
        >>> parse(["-lambda", "1.5", "-N", "5"])[0]
        {'wavelength': 1.5, 'cells_a': 5, 'cells_b': 5, 'cells_c': 5}
        >>> parse(["-lambda", "1.5", "-pivot", "sample", "-distance", "80", "-energy", "12398.42"])[0]
        {'wavelength': 1.0, 'pivot': 'beam', 'pivot_asked': 'sample', 'distance': 80.0}

    Raises:
        ValueError: an unknown flag, with the nearest known one; a flag that is not covered; values that are missing or
            of another kind.
    """
    values: dict[str, Value] = {}
    notes = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        flag = BY_NAME.get(word)
        if flag is None:
            raise ValueError(_unknown(word))
        if flag.status == MISSING:
            raise ValueError(f"{word}: not covered ({flag.help})")
        random = "misset" in flag.sets and words[:1] and words[0].startswith("rand")
        count = 1 if random else flag.count
        given, words = words[:count], words[count:]
        if flag.status == IGNORED:
            notes.append(f"{word} has no effect: {flag.help}")
            continue
        value = "random" if random else _value(flag, word, given, count)
        values |= flag.effects(value)
    return values, notes


def _value(flag: Flag, word: str, given: Sequence[str], count: int) -> Value:
    if not count:
        return flag.constant
    kind, convert = flag.kind
    unit = f" ({flag.unit})" if flag.unit else ""
    wanted = f"{count} {kind or 'value'}{'s' if count > 1 else ''}{unit}: {flag.help}"
    if len(given) < count:
        raise ValueError(f"{word}: expected {wanted}; got {' '.join(given) or 'none'}")
    try:
        numbers = tuple(convert(text) for text in given)
    except (ValueError, OverflowError):
        raise ValueError(f"{word}: expected {wanted}; got {' '.join(given)}") from None
    return numbers[0] if count == 1 else numbers


def _unknown(word: str) -> str:
    if not word.startswith("-"):
        return f"{word}: expected a flag such as -cell, got a value that belongs to none"
    lower = {name.lower(): name for name in reversed(BY_NAME)}
    near = lower.get(word.lower()) or next(iter(difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)), None)
    hint = (
        f"; did you mean {lower.get(near, near)}?" if near else "; sem diffraction simulate -help lists the known ones"
    )
    return f"{word}: unknown flag{hint}"
