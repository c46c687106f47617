"""What a detector makes of the photons that arrive: spread, counted with a gain, read out with noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sem.diffraction.images import ADC_OFFSET, counts, poisson
from sem.diffraction.parameters import finite, nonnegative, positive


@dataclass(frozen=True)
class Readout:
    """From photons to the numbers in a file.

    Args:
        gain: counts per photon.
        noise: standard deviation of what the electronics add to a pixel, counts.
        offset: added to every pixel, so that noise stays above 0, counts.

    Example:
        >>> readout = Readout(gain=2.0, noise=3.0)
        >>> readout.expected(torch.tensor([[5.0, 100.0]])).tolist()
        [[50.0, 240.0]]
        >>> drawn = readout.draw(torch.full((100, 100), 100.0), seed=1)
        >>> drawn.dtype, abs(float(drawn.double().mean()) - 240) < 1, abs(float(drawn.double().std()) - 20.2) < 0.5
        (torch.int32, True, True)

    Raises:
        ValueError: a gain that is not above 0, a noise below 0, an offset that is no number.
    """

    gain: float = 1.0
    noise: float = 0.0
    offset: float = ADC_OFFSET

    def __post_init__(self) -> None:
        positive("gain", self.gain, "in counts per photon")
        nonnegative("readout noise", self.noise, "in counts")
        finite("ADC offset", (self.offset,), 1)

    def expected(self, image: Tensor) -> Tensor:
        """The mean counts of an ``image`` of mean photons that its point spread has been applied to; not clipped.

        Linear, and so are its gradients.
        """
        return image * self.gain + self.offset

    def draw(
        self,
        photons: Tensor,
        seed: int | torch.Generator,
        spread: Callable[[Tensor], Tensor] | None = None,
        computed: Tensor | None = None,
    ) -> Tensor:
        """Counts of 0 to 65535, int32 ``[slow, fast]``, the same for the same seed.

        In this order: Poisson's noise of the photons that arrive, the point ``spread`` of those that did (which is why
        it makes neighbours alike, and noise smaller), the gain, the noise of the readout, the offset, the nearest whole
        number, the clip.

        Args:
            photons: the mean, before any point spread: :meth:`sem.diffraction.Simulator.photons`.
            seed: of the random numbers, or a generator of the CPU that is drawn from as it stands.
            spread: such as :meth:`sem.diffraction.Simulator.spread`.
            computed: bool, the pixels that are; the others become 0.
        """
        generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        values = poisson(photons, generator).to(torch.float64)
        with torch.no_grad():
            values = values if spread is None else spread(values)
            values = values * self.gain
            if self.noise:
                values = values + self.noise * torch.randn(values.shape, dtype=torch.float64, generator=generator)
        return counts(values, 1.0, self.offset, computed)[0]
