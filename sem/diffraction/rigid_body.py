"""The detector that several panels are parts of, which moves as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sem.diffraction.parameters import DEGREE, MILLIMETRE, parameter
from sem.diffraction.rotations import about_axis, about_xyz
from sem.ops.diffraction.inputs import DetectorFrame

_FACING = 0.01  # the least cosine between the beam and the normal of a panel that a distance along the beam is told by
_ALIKE = 1e-6  # panels whose angles to the beam differ by less are equally near to it, on every machine


class RigidBody(nn.Module):
    """Moves panels together: along the beam, across it, and about the sample.

    Distance and beam centre are those of the panel whose middle the beam passes nearest to, the first of several, and
    carry all others along. Turns count from where the panels are, and come after the shifts.

    Args:
        frames: where the panels are, at least one of them :func:`facing` the beam.
        beam: its direction, ``[3]``.
        two_theta: axis of that turn, ``[3]``.

    Parameters (float64, without gradients until asked for): ``distance`` from the sample to the plane of that panel
    along the beam, mm; ``beam_center``, where the beam meets this plane, from the panel's first corner along (fast,
    slow), mm; ``rotation`` about x, y and z, in this order, and then ``two_theta``, degrees, 0 to begin with.
    """

    def __init__(self, frames: Sequence[DetectorFrame], beam: Tensor, two_theta: Tensor) -> None:
        super().__init__()
        beam = beam.detach()
        frame = _nearest(facing(frames, beam), beam)
        fast, slow, origin = (_vector(part) for part in (frame.fast, frame.slow, frame.origin))
        start = torch.linalg.solve(torch.stack([beam, -fast, -slow], dim=1), origin) / MILLIMETRE
        self.start: Tensor
        self.directions: Tensor
        self.axis: Tensor
        self.register_buffer("start", start)
        self.register_buffer("directions", torch.stack([beam, -fast, -slow]))
        self.register_buffer("axis", two_theta.detach().clone())
        self.distance = parameter(start[0])
        self.beam_center = parameter(start[1:])
        self.rotation = parameter((0.0, 0.0, 0.0))
        self.two_theta = parameter(0.0)

    def forward(self, vectors: Tensor) -> Tensor:
        """A panel's origin, in metres, fast, slow and normal, ``[4, 3]``, where they are now: the same bits where
        nothing has moved."""
        shift = (torch.cat([self.distance.reshape(1), self.beam_center]) - self.start) @ self.directions * MILLIMETRE
        moved = torch.cat([vectors[:1] + shift, vectors[1:]])
        return about_axis(about_xyz(moved, self.rotation * DEGREE), self.axis, self.two_theta * DEGREE)


def facing(frames: Sequence[DetectorFrame], beam: Tensor) -> list[DetectorFrame]:
    """Those panels whose planes the beam does not run along."""
    return [frame for frame in frames if abs(float(beam @ _vector(frame.normal))) > _FACING]


def _nearest(frames: Sequence[DetectorFrame], beam: Tensor) -> DetectorFrame:
    """The first of those panels whose middle is nearest to the beam."""
    angles = []
    for frame in frames:
        slow, fast = (pixels * frame.pixel_size / 2 for pixels in frame.shape)
        middle = _vector(frame.origin) + fast * _vector(frame.fast) + slow * _vector(frame.slow)
        angles.append(float(torch.atan2(torch.linalg.cross(beam, middle).norm(), beam @ middle)))
    return next(frame for frame, angle in zip(frames, angles, strict=True) if angle <= min(angles) + _ALIKE)


def _vector(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).detach()
