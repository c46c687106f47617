"""Several panels behind one crystal in one beam: their images, and the gradients that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sem.diffraction.background import Background
from sem.diffraction.beam import Beam
from sem.diffraction.crystal import Crystal
from sem.diffraction.detector import Detector
from sem.diffraction.reflections import Reflections
from sem.diffraction.rigid_body import RigidBody, facing
from sem.diffraction.simulator import Simulator, ask_for_gradients

COMMON = ("beam", "polarisation", "spindle")
"""The directions that all panels have from one laboratory."""
_PARALLEL = 1e-9


class Panels(nn.Module):
    """One exposure on several panels, differentiable in the parameters of its parts.

    What panels share, they share as one parameter: the crystal, the beam, its direction, polarisation and spindle
    (``detectors.0.axes.beam``, which is that of all of them from now on), structure factors and water. Its gradient is
    the sum over the panels; a panel's own are those of ``detectors.N``. Several panels, flat ones, move together by
    ``detector``: its ``distance``, ``beam_center``, ``rotation`` and ``two_theta`` are those of
    :class:`sem.diffraction.rigid_body.RigidBody`, and images of one ``background`` each have ``background.scale`` where
    they share it.

    Args:
        crystal, beam, reflections: as of :class:`sem.diffraction.Simulator`.
        detectors: one for each panel, all in one laboratory, of any sizes.
        background: one for all panels, or one for each.
        masks: for each panel bool ``[slow, fast]``, True where a pixel is computed, or None.
        options: further ones of :class:`sem.diffraction.Simulator`, for every panel.

    Example:
        >>> sides = [Detector((24, 32), 0.2, 80.0, beam_center=(3.2, x)) for x in (4.9, -0.1)]
        >>> panels = Panels(Crystal((70, 80, 90, 90, 90, 90), cells=(5, 5, 5)), Beam(), sides, Reflections(100.0))
        >>> panels().shape
        torch.Size([2, 32, 24])
        >>> misset, turn = panels.refine("crystal.misset", "detectors.1.rotation")
        >>> panels().sum().backward()
        >>> misset.grad.shape, turn.grad.shape
        (torch.Size([3]), torch.Size([3]))

    Raises:
        ValueError: no detector, one in another laboratory, some that move with other panels already, another number of
            masks, what a simulator refuses.
    """

    def __init__(
        self,
        crystal: Crystal,
        beam: Beam,
        detectors: Sequence[Detector],
        reflections: Reflections,
        *,
        background: Background | Sequence[Background] | None = None,
        masks: Sequence[Tensor | None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if not detectors:
            raise ValueError("detectors: expected at least one, got none")
        for number, detector in enumerate(detectors):
            _share_directions(detectors[0], detector, number)
        every: Sequence[Background | None] = (
            [background] * len(detectors) if background is None or isinstance(background, Background) else background
        )
        for name, values in (("background", every), ("masks", masks)):
            if values is not None and len(values) != len(detectors):
                raise ValueError(f"{name}: expected one for each of {len(detectors)} panels, got {len(values)}")
        self.crystal, self.beam, self.reflections = crystal, beam, reflections
        self.detector = _body_of(detectors, options.get("physics", "nanobragg"))
        for detector in detectors:
            detector.body = self.detector
        self.detectors = nn.ModuleList(detectors)
        self.background: nn.Module | None
        if background is None or isinstance(background, Background):
            self.background = background
        else:
            self.background = nn.ModuleList(background)
            if all(one.scale is background[0].scale for one in background):
                self.background.register_parameter("scale", background[0].scale)
        made = []
        for number, detector in enumerate(detectors):
            mask = None if masks is None else masks[number]
            made.append(Simulator(crystal, beam, detector, reflections, background=every[number], mask=mask, **options))
            made[-1].water = made[0].water
        self.water, self.point_spread = made[0].water, made[0].point_spread
        self.simulators = nn.ModuleList(made)

    def __len__(self) -> int:
        return len(self.simulators)

    def __getitem__(self, number: int) -> Simulator:
        """One panel with all that it shares with the others."""
        return cast(Simulator, self.simulators[number])

    def __iter__(self) -> Iterator[Simulator]:
        return (self[number] for number in range(len(self)))

    def refine(self, *names: str) -> list[nn.Parameter]:
        """As :meth:`sem.diffraction.Simulator.refine`, with names such as ``crystal.misset`` and
        ``detectors.1.rotation``."""
        return ask_for_gradients(self, names)

    def images(self, *, reference: bool = False) -> list[Tensor]:
        """The image ``[slow, fast]`` of each panel, as :meth:`sem.diffraction.Simulator.forward` gives it."""
        scene = self[0].scene()
        return [simulator(reference=reference, scene=scene) for simulator in self]

    def forward(self, *, reference: bool = False) -> Tensor | list[Tensor]:
        """``[panels, slow, fast]`` of panels of one size, else a list of ``[slow, fast]``; see :meth:`images`."""
        images = self.images(reference=reference)
        return torch.stack(images) if len({image.shape for image in images}) == 1 else images


def _body_of(detectors: Sequence[Detector], physics: str) -> RigidBody | None:
    """What moves all of them: what does so already, else what starts from where they are; none for one panel, for
    curved ones, and where no panel faces the beam."""
    body, axes = detectors[0].body, detectors[0].axes
    if any(detector.body is not body for detector in detectors):
        raise ValueError("detectors: expected all of them to move together or none, got some that move with others")
    if body is not None or len(detectors) == 1 or any(detector.curved for detector in detectors):
        return body
    with torch.no_grad():
        frames = [detector(physics) for detector in detectors]
    return RigidBody(frames, axes.beam, axes.two_theta) if facing(frames, axes.beam) else None


def _share_directions(first: Detector, detector: Detector, number: int) -> None:
    """Make the directions of the laboratory one parameter each."""
    for name in COMMON:
        mine, theirs = getattr(first.axes, name), getattr(detector.axes, name)
        if float((mine - theirs).detach().abs().max()) > _PARALLEL:
            wanted = " ".join(f"{part:g}" for part in mine.tolist())
            got = " ".join(f"{part:g}" for part in theirs.tolist())
            raise ValueError(f"detector {number}: expected the {name} of detector 0, {wanted}, got {got}")
        setattr(detector.axes, name, mine)
