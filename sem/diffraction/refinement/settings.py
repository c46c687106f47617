"""What a refinement is told: what moves, what is compared, and by which rules it ends."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sem.diffraction.parameters import choice, count, finite, nonnegative, positive
from sem.diffraction.refinement.background import BACKGROUNDS
from sem.diffraction.refinement.coordinates import REFINABLE, SYSTEMS
from sem.diffraction.refinement.likelihood import LIKELIHOODS


@dataclass(frozen=True)
class RefinementSettings:
    """All that decides the outcome of a refinement but the experiment and the data.

    Args:
        refine: parameters that move, of :data:`~sem.diffraction.refinement.coordinates.REFINABLE`.
        likelihood: "poisson" of photon counts, or "gaussian".
        variance: of the Gaussian likelihood: a number in photons² for all pixels, or an image file; None estimates one
            number from the residuals, and the goodness of fit then says nothing.
        background: "none", "flat" or "radial", profiled out with the scale.
        background_terms: knots of a radial background.
        system: crystal system, which ties lengths and angles.
        restrain: standard deviations about the start, by parameter.
        stages: factors > 1 by which spots are modelled broader than they are, one stage after the other, before the
            last stage, which is sharp; empty for that stage alone.
        blur: standard deviation in pixels of the Gaussian that data and model go through in a stage, per unit of its
            factor less 1.
        iterations: most steps of a stage.
        offset: counts in a pixel without photons.
        gain: counts per photon.
        trusted: lowest and highest count that is compared, both included; None for -inf (Gaussian) or ``offset``
            (Poisson) to 65534 in images of whole numbers up to 65535, infinity in others.
        panel: which one of an image with several; None for the only one.
        frame: which exposure of an HDF5 file, from 0; None for the only one.
        mask: an image file whose pixels > 0 are compared; None for all.
        explained: share of what the background leaves unexplained, noise apart, that the model must explain for the fit
            not to count as lost.

    Raises:
        ValueError: a setting that is none, by name.
    """

    refine: tuple[str, ...]
    likelihood: str = "poisson"
    variance: float | str | None = None
    background: str = "flat"
    background_terms: int = 5
    system: str = "triclinic"
    restrain: Mapping[str, float] = field(default_factory=dict)
    stages: tuple[float, ...] = (3.0,)
    blur: float = 0.0
    iterations: int = 50
    offset: float = 0.0
    gain: float = 1.0
    trusted: tuple[float, float] | None = None
    panel: int | None = None
    frame: int | None = None
    mask: str | None = None
    explained: float = 0.5

    def __post_init__(self) -> None:
        for name in self.refine:
            choice("refine", name, tuple(REFINABLE))
            if REFINABLE[name].in_scale:
                raise ValueError(f"refine: expected a parameter that does more than the scale does, got {name}")
        if twice := [name for name, times in Counter(self.refine).items() if times > 1]:
            raise ValueError(f"refine: expected each parameter once, got {twice[0]} several times")
        if not self.refine:
            raise ValueError("refine: expected the name of a parameter, got none")
        choice("likelihood", self.likelihood, LIKELIHOODS)
        if self.variance is not None and self.likelihood != "gaussian":
            raise ValueError("variance: expected likelihood gaussian to go with it, got poisson, whose is its mean")
        if isinstance(self.variance, float):
            positive("variance", self.variance, "in photons²")
        choice("background", self.background, BACKGROUNDS)
        if self.background == "radial" and count("background terms", self.background_terms) < 2:
            raise ValueError(f"background terms: expected a whole number >= 2, got {self.background_terms}")
        choice("system", self.system, tuple(SYSTEMS))
        for name, sigma in self.restrain.items():
            if name not in self.refine:
                raise ValueError(f"restrain: expected a parameter that is refined, got {name}")
            positive(f"restrain {name}", sigma)
        for factor in self.stages:
            if not (math.isfinite(factor) and factor > 1):
                raise ValueError(f"stages: expected factors > 1, got {factor:g}")
        nonnegative("blur", self.blur, "in pixels")
        count("iterations", self.iterations)
        finite("offset", (self.offset,), 1)
        positive("gain", self.gain, "in counts per photon")
        if self.trusted is not None and not self.trusted[0] < self.trusted[1]:
            shown = f"{self.trusted[0]:g} {self.trusted[1]:g}"
            raise ValueError(f"trusted: expected a lowest count below the highest, got {shown}")
        if not 0 <= self.explained < 1:
            raise ValueError(f"explained: expected a number >= 0 and < 1, got {self.explained:g}")

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        plain = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> RefinementSettings:
        """The settings that :meth:`to_mapping` made plain."""
        given = dict(mapping)
        for name in ("refine", "stages", "trusted"):
            if given.get(name) is not None:
                given[name] = tuple(given[name])
        return cls(**given)
