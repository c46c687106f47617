"""What an SMV header says about an experiment: where the beam and the detector are, in every convention."""

from __future__ import annotations

from typing import Any

import torch

from sem.diffraction.parameters import MILLIMETRE
from sem.diffraction.simulator import Simulator

DIALS_AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))
"""The laboratory's axes as DIALS names them, where the beam runs along x."""


@torch.no_grad()
def smv_header(simulator: Simulator) -> dict[str, str]:
    """Entries for :func:`sem.diffraction.images.write_smv`: lengths in mm, angles in degrees, the wavelength in Å.

    The numbers are the C program's, in its order and to its six digits. Its centres are where the beam arrives after
    :meth:`sem.diffraction.Detector.arm`, which is not quite on the detector where two-theta turns it about the sample.
    """
    detector, crystal = simulator.detector, simulator.crystal
    frame = detector(simulator.physics)
    origin, fast, slow = (torch.as_tensor(vector) for vector in (frame.origin, frame.fast, frame.slow))
    pixel, (_, slow_size) = detector.pixel_size, detector.size
    arm = detector.arm(simulator.physics)
    spot = arm * detector.axes.beam - origin
    spot_fast, spot_slow = float(spot @ fast) / MILLIMETRE, float(spot @ slow) / MILLIMETRE
    near_fast, near_slow = -float(origin @ fast) / MILLIMETRE, -float(origin @ slow) / MILLIMETRE
    dials = [float(origin @ torch.tensor(axis, dtype=torch.float64)) / MILLIMETRE for axis in DIALS_AXES]
    about_sample = detector.pivot_in(simulator.physics) == "sample"
    center_x, center_y = (detector.near_point if about_sample else detector.beam_center).tolist()
    before = {
        "PIXEL_SIZE": pixel,
        "DISTANCE": float(arm) / MILLIMETRE,
        "WAVELENGTH": float(simulator.beam.wavelength),
        "BEAM_CENTER_X": center_x,
        "BEAM_CENTER_Y": center_y,
        "ADXV_CENTER_X": spot_fast,
        "ADXV_CENTER_Y": slow_size - spot_slow,
        "MOSFLM_CENTER_X": spot_slow - 0.5 * pixel,
        "MOSFLM_CENTER_Y": spot_fast - 0.5 * pixel,
        "DENZO_X_BEAM": spot_slow,
        "DENZO_Y_BEAM": spot_fast,
    }
    after = {
        "XDS_ORGX": near_fast / pixel + 0.5,
        "XDS_ORGY": near_slow / pixel + 0.5,
        "CLOSE_DISTANCE": float(frame.close_distance) / MILLIMETRE,
        "PHI": float(crystal.phi),
        "OSC_START": float(crystal.phi),
        "OSC_RANGE": float(crystal.oscillation),
        "TWOTHETA": float(detector.two_theta),
    }
    return {
        **{name: f"{number:g}" for name, number in before.items()},
        "DIALS_ORIGIN": ",".join(f"{number:g}" for number in dials),
        **{name: f"{number:g}" for name, number in after.items()},
        "DETECTOR_SN": "000",
        "BEAMLINE": "fake",
    }


@torch.no_grad()
def image_settings(simulator: Simulator) -> dict[str, Any]:
    """What the headers of other formats say, as :class:`sem.diffraction.files.field_image.FieldImage` names it.

    The spot is where the beam arrives; a detector that the beam does not reach has none.
    """
    detector, crystal = simulator.detector, simulator.crystal
    frame, beam = detector(simulator.physics), detector.axes.beam
    origin, fast, slow, normal = (
        torch.as_tensor(vector) for vector in (frame.origin, frame.fast, frame.slow, frame.normal)
    )
    settings: dict[str, Any] = {
        "pixel": detector.pixel_size,
        "wavelength": float(simulator.beam.wavelength),
        "phi": float(crystal.phi),
        "oscillation": float(crystal.oscillation),
    }
    along = float(beam @ normal)
    if along > 1e-9:
        distance = float(origin @ normal) / along
        spot = distance * beam - origin
        settings["distance"] = distance / MILLIMETRE
        settings["spot"] = (float(spot @ fast) / MILLIMETRE, float(spot @ slow) / MILLIMETRE)
    return settings
