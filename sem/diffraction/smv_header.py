"""What an SMV header says about an experiment: where the beam and the detector are, in every convention."""

from __future__ import annotations

import torch

from sem.diffraction.parameters import MILLIMETRE
from sem.diffraction.simulator import Simulator

DIALS_AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))
"""The laboratory's axes as DIALS names them, where the beam runs along x."""


@torch.no_grad()
def smv_header(simulator: Simulator) -> dict[str, str]:
    """Entries for :func:`sem.diffraction.images.write_smv`: lengths in mm, angles in degrees, the wavelength in Å."""
    detector, crystal = simulator.detector, simulator.crystal
    frame = detector(simulator.physics)
    origin, fast, slow, normal = (
        torch.as_tensor(vector) for vector in (frame.origin, frame.fast, frame.slow, frame.normal)
    )
    close = float(frame.close_distance)
    pixel, (_, slow_size) = detector.pixel_size, detector.size
    beam = detector.axes.beam
    along = close / float(beam @ normal)  # where the beam meets the detector's plane
    spot = along * beam - origin
    spot_fast, spot_slow = float(spot @ fast) / MILLIMETRE, float(spot @ slow) / MILLIMETRE
    near_fast, near_slow = -float(origin @ fast) / MILLIMETRE, -float(origin @ slow) / MILLIMETRE
    dials = [float(origin @ torch.tensor(axis, dtype=torch.float64)) / MILLIMETRE for axis in DIALS_AXES]
    center_x, center_y = detector.convention.center_of((spot_fast, spot_slow), pixel, slow_size)
    numbers = {
        "PIXEL_SIZE": pixel,
        "DISTANCE": along / MILLIMETRE,
        "WAVELENGTH": float(simulator.beam.wavelength),
        "BEAM_CENTER_X": center_x,
        "BEAM_CENTER_Y": center_y,
        "ADXV_CENTER_X": spot_fast,
        "ADXV_CENTER_Y": slow_size - spot_slow,
        "MOSFLM_CENTER_X": spot_slow - 0.5 * pixel,
        "MOSFLM_CENTER_Y": spot_fast - 0.5 * pixel,
        "DENZO_X_BEAM": spot_slow,
        "DENZO_Y_BEAM": spot_fast,
        "XDS_ORGX": near_fast / pixel + 0.5,
        "XDS_ORGY": near_slow / pixel + 0.5,
        "CLOSE_DISTANCE": close / MILLIMETRE,
        "PHI": float(crystal.phi),
        "OSC_START": float(crystal.phi),
        "OSC_RANGE": float(crystal.oscillation),
        "TWOTHETA": float(detector.two_theta),
    }
    entries = {name: f"{number:g}" for name, number in numbers.items()}
    return entries | {
        "DIALS_ORIGIN": ",".join(f"{number:g}" for number in dials),
        "DETECTOR_SN": "000",
        "BEAMLINE": "fake",
    }
