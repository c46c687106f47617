"""The crystal: its cell, how it lies, how it turns, and how well its domains are aligned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sem.diffraction.cell import dual, real_vectors, reciprocal_vectors, require_cell, volume
from sem.diffraction.parameters import (
    ANGSTROM,
    DEGREE,
    MOST_STEPS,
    choice,
    count,
    finite,
    nonnegative,
    parameter,
    positive,
)
from sem.diffraction.rotations import about_axis, about_xyz, by_vector, unit

SHAPES = ("square", "round", "gauss", "tophat")
DEFAULT_MOSAIC_SEED = 12345678
DEFAULT_DOMAINS = 10


class Crystal(nn.Module):
    """A crystal of ``cells`` unit cells along a, b and c. Lengths in Å, angles in degrees.

    Args:
        cell: a, b, c, alpha, beta, gamma; or else
        reciprocal: a*, b*, c* as rows ``[3, 3]``, in 1/Å, as it lies in the laboratory at spindle angle 0. With a cell
            too, as nanoBragg takes a matrix and a cell: the directions of a, b, c are those of the vectors, their
            lengths and the volume are the cell's.
        cells: unit cells along each axis of a mosaic domain; real numbers of at least 1.
        shape: of the spots: "square", "round", "gauss" or "tophat".
        fudge: scales the size of the spots of all shapes but the square one.
        misset: turns about x, y and z, in this order.
        phi: spindle angle at the start.
        oscillation: how far the spindle turns during the exposure.
        phi_steps: angles computed, ``phi + i * oscillation / phi_steps``; 2 with an oscillation, else 1, if None.
        phi_step: from one angle to the next, in place of ``oscillation / phi_steps``.
        mosaic_spread: largest angle between a domain and the crystal; or three, about the crystal's own axes x (along
            a), y and z (along c*), which turn with it.
        mosaic_domains: 10 with a spread, else 1, if None. The first domain is aligned with the crystal.
        mosaic_seed: picks the axes and the relative angles of the domains.

    Parameters (float64, without gradients until asked for): ``lengths``, ``angles`` (or ``reciprocal``), ``misset``,
    ``phi``, ``oscillation``, ``phi_step``, ``mosaic_spread``, ``cells``, ``fudge``. The domains'
    axes and relative angles are drawn once: the image is a smooth function of the spread.

    Example:
        >>> crystal = Crystal((70, 80, 90, 75, 85, 95), cells=(5, 5, 5))
        >>> spindle = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        >>> crystal(spindle).shape  # phi steps, domains, (a, b, c), (x, y, z) in metres
        torch.Size([1, 1, 3, 3])

    Raises:
        ValueError: an impossible cell, fewer than one unit cell, a negative spread, an unknown shape.
    """

    def __init__(
        self,
        cell: Sequence[float] | None = None,
        *,
        reciprocal: Sequence[Sequence[float]] | Tensor | None = None,
        cells: Sequence[float] = (1, 1, 1),
        shape: str = "square",
        fudge: float = 1.0,
        misset: Sequence[float] = (0.0, 0.0, 0.0),
        phi: float = 0.0,
        oscillation: float = 0.0,
        phi_steps: int | None = None,
        phi_step: float | None = None,
        mosaic_spread: float | Sequence[float] = 0.0,
        mosaic_domains: int | None = None,
        mosaic_seed: int = DEFAULT_MOSAIC_SEED,
    ) -> None:
        super().__init__()
        if cell is None and reciprocal is None:
            raise ValueError("crystal: expected a cell or reciprocal vectors, got neither")
        self.shape = choice("shape", shape, SHAPES)
        self.reciprocal: nn.Parameter | None = None
        if cell is not None:
            numbers = tuple(float(value) for value in cell)
            require_cell(numbers)
            self.lengths, self.angles = parameter(numbers[:3]), parameter(numbers[3:])
        if reciprocal is not None:
            self.reciprocal = parameter(_require_reciprocal(reciprocal))
        self.has_cell = cell is not None
        self.cells = parameter([positive(f"N{axis}", number) for axis, number in zip("abc", cells, strict=True)])
        if bool((self.cells < 1).any()):
            raise ValueError(f"cells: expected at least 1 along each axis, got {' '.join(f'{n:g}' for n in cells)}")
        self.fudge = parameter(positive("fudge", fudge))
        self.misset = parameter(finite("misset", misset, 3))
        self.phi, self.oscillation = (
            parameter(finite("phi", (phi,), 1)[0]),
            parameter(finite("osc", (oscillation,), 1)[0]),
        )
        self.phi_steps = count("phi steps", phi_steps or (2 if oscillation else 1), MOST_STEPS)
        self.phi_step: nn.Parameter | None = None
        if phi_step is not None:
            self.phi_step = parameter(finite("phi step", (phi_step,), 1)[0])
        widths = (mosaic_spread,) if isinstance(mosaic_spread, (int, float)) else tuple(mosaic_spread)
        if len(widths) not in (1, 3):
            raise ValueError(f"mosaic spread: expected one angle or three, got {len(widths)}")
        checked = [nonnegative("mosaic spread", width, "in degrees") for width in widths]
        self.mosaic_spread = parameter(checked if len(widths) == 3 else checked[0])
        if mosaic_domains is None:
            mosaic_domains = DEFAULT_DOMAINS if any(widths) else 1
        self.mosaic_domains = count("mosaic domains", mosaic_domains, MOST_STEPS)
        axes, relative = _domains(self.mosaic_domains, mosaic_seed)
        self.mosaic_axes: Tensor
        self.mosaic_relative_angles: Tensor
        self.register_buffer("mosaic_axes", axes)
        self.register_buffer("mosaic_relative_angles", relative)

    def vectors(self, physics: str = "nanobragg") -> tuple[Tensor, Tensor]:
        """Real-space and reciprocal vectors at spindle angle 0, rows ``[3, 3]`` each, in Å and 1/Å.

        In ``nanobragg`` the real-space vectors of a cell have its lengths and the directions of the cross products of
        its reciprocal vectors, which that program gives a slightly wrong c*; in ``exact`` both sets are dual.
        """
        misset = self.misset * DEGREE
        if self.reciprocal is not None and not self.has_cell:
            turned = about_xyz(self.reciprocal, misset)
            return real_vectors(turned), turned
        angles = self.angles * DEGREE
        stars: Tensor = (
            reciprocal_vectors(self.lengths, angles, exact=physics == "exact")
            if self.reciprocal is None
            else self.reciprocal
        )
        real = unit(dual(about_xyz(stars, misset))) * self.lengths.unsqueeze(-1)
        if self.reciprocal is not None and physics == "exact":
            return real, real_vectors(real)
        return real, dual(real) / volume(self.lengths, angles)

    def phi_angles(self) -> Tensor:
        """The spindle angles computed, ``[phi_steps]``, degrees."""
        steps = torch.arange(self.phi_steps, dtype=torch.float64, device=self.phi.device)
        step = self.oscillation / self.phi_steps if self.phi_step is None else self.phi_step
        return self.phi + steps * step

    def carried_steps(self) -> Tensor:
        """Which step's angle nanoBragg leaves the crystal at in each step, ``[phi_steps]``.

        It does not turn the crystal to an angle of 0 but leaves it where it is. Step 0, which is left at the last
        orientation of the pixel before, is not taken from elsewhere here.
        """
        radian = 180 / math.pi  # that program counts in radians, where an angle may miss 0 that in degrees does not
        phi = float(self.phi.detach()) / radian
        if self.phi_step is not None:
            step = float(self.phi_step.detach()) / radian
        else:
            step = float(self.oscillation.detach()) / radian / self.phi_steps
        source = torch.arange(self.phi_steps)
        for index in range(1, self.phi_steps):
            if phi + step * index == 0:
                source[index] = source[index - 1]
        return source

    def forward(self, spindle: Tensor, physics: str = "nanobragg") -> Tensor:
        """a, b, c in metres for each spindle angle and domain, ``[phi_steps, domains, 3, 3]``."""
        real, _ = self.vectors(physics)
        return self.turned(real * ANGSTROM, spindle)

    def turned(self, vectors: Tensor, spindle: Tensor) -> Tensor:
        """a, b, c ``[3, 3]`` at each spindle angle and in each domain, ``[phi_steps, domains, 3, 3]``.

        With one spread a domain is turned after the spindle, about an axis that stands still, as nanoBragg does it;
        with three before it, so that it stays the same domain. Three equal ones are like one: at spindle angle 0 domain
        by domain, at others in their distribution.
        """
        if self.mosaic_spread.dim():
            turned = by_vector(vectors, self._domain_turns(vectors)[:, None, :])
            return about_axis(turned, spindle, (self.phi_angles() * DEGREE)[:, None, None])
        angles = (self.phi_angles() * DEGREE)[:, None, None]
        rotated = about_axis(vectors, spindle, angles)
        tilt = (self.mosaic_spread * DEGREE * self.mosaic_relative_angles)[:, None]
        return about_axis(rotated, self.mosaic_axes[:, None, :], tilt)

    def _domain_turns(self, vectors: Tensor) -> Tensor:
        """Each domain's turn at spindle angle 0 as a vector, along its axis and as long as its angle, ``[domains, 3]``:
        that of a spread of 1, whose parts along the crystal's axes are scaled by the three spreads."""
        along_a, along_c_star = unit(vectors[0]), unit(torch.linalg.cross(vectors[0], vectors[1]))
        own = torch.stack([along_a, torch.linalg.cross(along_c_star, along_a), along_c_star])
        turns = self.mosaic_relative_angles[:, None] * self.mosaic_axes
        return (turns @ own.mT * (self.mosaic_spread * DEGREE)) @ own


def _domains(domains: int, seed: int) -> tuple[Tensor, Tensor]:
    """Axes ``[domains, 3]``, even on the sphere, and angles ``[domains]`` in units of the spread, 0 for the first."""
    generator = torch.Generator().manual_seed(abs(seed))
    draws = 2 * torch.rand(domains, 3, dtype=torch.float64, generator=generator) - 1
    turn, height, fill = draws.unbind(dim=-1)
    across = (1 - height.square()).sqrt()
    axes = torch.stack([across * torch.sin(math.pi * turn), across * torch.cos(math.pi * turn), height], dim=-1)
    relative = (1 - fill.square()) ** (1 / 3)
    relative[0] = 0.0
    return axes, relative


def _require_reciprocal(rows: Sequence[Sequence[float]] | Tensor | None) -> Tensor:
    stars = torch.as_tensor(rows, dtype=torch.float64)
    if stars.shape != (3, 3) or not bool(stars.isfinite().all()):
        raise ValueError(f"reciprocal: expected three rows of three finite numbers, got shape {list(stars.shape)}")
    lengths = stars.norm(dim=-1)
    if float(torch.linalg.det(stars).abs()) < 1e-6 * float(lengths.prod()):
        raise ValueError("reciprocal: expected three vectors that span the space, got vectors in one plane")
    return stars
