"""The generators: :class:`FNO`, :class:`Hybrid` (stable or not) and :class:`CNN`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sem.ptycho.generator_settings import GeneratorSettings
from sem.ptycho.generators.layers import (
    HEADS,
    Down,
    Lift,
    Merge,
    ScaledBlock,
    SpectralBlock,
    SpectralConv2d,
    Up,
)

LEAST_SIDE = 8
_TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "log1p": torch.log1p, "sqrt": torch.sqrt}


class Generator(nn.Module):
    """From diffraction patterns to patches of the object.

    ``forward`` takes amplitudes, real ``[B, C, N, N]``, divided by the root mean square of the training set's and with
    the zero frequency in the **middle** (``torch.fft.fftshift`` of a :class:`sem.ptycho.Scan`'s), and returns complex
    ``[B, C, N, N]``, complex64 for float32. Activations lie channels last, in which convolutions of few channels take
    half the time on a CPU; weights do not, so that they can be saved as they are.
    """

    head: nn.Module

    def __init__(self, settings: GeneratorSettings, side: int) -> None:
        super().__init__()
        self.settings, self.side = settings, side
        self._transform = _TRANSFORMS[settings.input_transform]

    def forward(self, amplitudes: Tensor) -> Tensor:
        """Patches, complex ``[B, C, N, N]``, from ``amplitudes``, real and of that shape.

        Raises:
            ValueError: another number of channels, another side, or complex numbers.
        """
        expected = (self.settings.channels, self.side, self.side)
        if amplitudes.dim() != 4 or amplitudes.shape[1:] != expected or amplitudes.is_complex():
            got = f"{amplitudes.dtype} {list(amplitudes.shape)}"
            raise ValueError(f"amplitudes: expected real [B, {', '.join(map(str, expected))}], got {got}")
        x = self._transform(amplitudes).to(memory_format=torch.channels_last)
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """What the head reads, ``[B, width, N, N]``."""
        raise NotImplementedError


class FNO(Generator):
    """``lift``, ``blocks`` at the full side, ``project`` (1 x 1), ``refine`` (twice conv3, GELU), ``head``."""

    def __init__(self, settings: GeneratorSettings, side: int) -> None:
        super().__init__(settings, side)
        width = settings.width
        self.lift = Lift(settings.channels, width)
        rows = settings.negative_rows
        self.blocks = nn.ModuleList(
            SpectralBlock(width, settings.modes, side, negative_rows=rows) for _ in range(settings.blocks)
        )
        self.project = nn.Conv2d(width, width, 1)
        self.refine = nn.Sequential(*Lift(width, width), nn.GELU())
        self.head = HEADS[settings.head](width, settings.channels)

    def features(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for block in self.blocks:
            x = block(x)
        return self.refine(self.project(x))


class Hybrid(Generator):
    """A U of spectral blocks: ``lift``; at each level one of ``blocks``, and ``down`` to the next; the ``bottleneck``,
    a further block on the lowest level with half the modes; ``up``, and ``merge`` with what the level had; ``head``.
    ``up[i]`` and ``merge[i]`` lead to level ``i``."""

    def __init__(self, settings: GeneratorSettings, side: int) -> None:
        super().__init__(settings, side)
        sides = _sides(settings, side)
        channels = [settings.channels_at(level) for level in range(settings.blocks)]

        def block(level: int, modes: int) -> SpectralBlock:
            rows = settings.negative_rows
            if settings.architecture == "hybrid":
                return SpectralBlock(channels[level], modes, sides[level], negative_rows=rows)
            norm, initial = settings.block_norm, settings.layerscale_init
            return ScaledBlock(channels[level], modes, sides[level], norm, initial, negative_rows=rows)

        steps = list(zip(channels, channels[1:], sides, strict=False))
        self.lift = Lift(settings.channels, settings.width)
        self.blocks = nn.ModuleList(block(level, settings.modes) for level in range(settings.blocks))
        self.down = nn.ModuleList(Down(above, below) for above, below, _ in steps)
        self.bottleneck = block(-1, max(settings.modes // 2, 1))
        self.up = nn.ModuleList(Up(below, above, size) for above, below, size in steps)
        self.merge = nn.ModuleList(Merge(above) for above, _, _ in steps)
        self.head = HEADS[settings.head](settings.width, settings.channels)

    def features(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        skips = []
        for block, down in zip(self.blocks, self.down, strict=False):
            skips.append(block(x))
            x = down(skips[-1])
        x = self.bottleneck(self.blocks[-1](x))
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            x = merge(skips.pop(), up(x))
        return x


class CNN(Generator):
    """``lift``, ``encode`` (down, then twice conv3, GELU; twice the channels at each level below the first), and two
    ``decoders`` (up, conv3, GELU) that share nothing, for the two halves of the ``head``. No skips, no spectra.

    Nothing goes around a layer, so that weights begin as He's, which keep the variance from layer to layer; torch's
    would leave an output that hardly depends on the pattern."""

    def __init__(self, settings: GeneratorSettings, side: int) -> None:
        super().__init__(settings, side)
        sides = _sides(settings, side)
        channels = [settings.channels_at(level) for level in range(settings.blocks)]
        steps = list(zip(channels, channels[1:], sides, strict=False))
        self.lift = Lift(settings.channels, settings.width)
        self.encode = nn.ModuleList(
            nn.Sequential(Down(above, below), *Lift(below, below), nn.GELU()) for above, below, _ in steps
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(
                *(
                    nn.Sequential(Up(below, above, size), nn.Conv2d(above, above, 3, padding=1), nn.GELU())
                    for above, below, size in reversed(steps)
                )
            )
            for _ in range(2)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                _he(module)
        self.head = HEADS[settings.head](2 * settings.width, settings.channels, groups=2)

    def features(self, x: Tensor) -> Tensor:
        """``[B, 2 width, N, N]``: what the two decoders give, side by side."""
        x = self.lift(x)
        for encode in self.encode:
            x = encode(x)
        return torch.cat([decoder(x) for decoder in self.decoders], 1)


def _he(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Normal weights of variance 2 over the numbers that make an output's, biases 0."""
    taps = conv.kernel_size[0] ** 2 if isinstance(conv, nn.Conv2d) else 1  # of 2 x 2 with stride 2 each pixel has one
    nn.init.normal_(conv.weight, std=math.sqrt(2 / (conv.in_channels * taps)))
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


def _sides(settings: GeneratorSettings, side: int) -> list[int]:
    """Of each level: half, rounded up."""
    sides = [side]
    while len(sides) < settings.blocks:
        sides.append((sides[-1] + 1) // 2)
    most = next((level for level, size in enumerate(sides) if size < 2), None)
    if most is not None:
        raise ValueError(
            f"generator.blocks = {settings.blocks}: expected at most {most} for patterns of {side} x {side}, since "
            "each level halves them and the last needs 2 x 2"
        )
    return sides


_ARCHITECTURES: dict[str, Callable[[GeneratorSettings, int], Generator]] = {
    "fno": FNO,
    "hybrid": Hybrid,
    "stable_hybrid": Hybrid,
    "cnn": CNN,
}


def build_generator(settings: GeneratorSettings, side: int, *, seed: int = 0) -> Generator:
    """The network of ``settings`` for patterns of ``side x side`` pixels, 8 or more, even or odd.

    Its initial weights are drawn by torch's global generator, seeded with ``seed`` and put back where it was.

    Raises:
        ValueError: a side below 8, or more levels than it can be halved.

    Example:
        >>> small = GeneratorSettings(architecture="hybrid", width=8, blocks=3, modes=8, max_hidden=32)
        >>> build_generator(small, 32)(torch.zeros(4, 1, 32, 32)).shape
        torch.Size([4, 1, 32, 32])
    """
    if side < LEAST_SIDE:
        raise ValueError(f"side: expected at least {LEAST_SIDE}, got {side}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _ARCHITECTURES[settings.architecture](settings, side)
    _name_maps(network)
    return network


def _name_maps(network: Generator) -> None:
    """Say of the weights between channels what maps they are, for an optimizer that asks: all but those of the first
    layer, which reads the pattern, and of the head."""
    ends = {id(module) for module in (next(m for m in network.modules() if isinstance(m, nn.Conv2d)), network.head)}
    ends |= {id(module) for module in network.head.modules()}
    for module in network.modules():
        if id(module) in ends:
            continue
        if isinstance(module, nn.Conv2d):
            module.weight._linear_map = "filters"  # type: ignore[attr-defined]
        elif isinstance(module, nn.ConvTranspose2d):
            module.weight._linear_map = "transposed"  # type: ignore[attr-defined]
        elif isinstance(module, SpectralConv2d):
            module.weight._linear_map = "modes"  # type: ignore[attr-defined]
