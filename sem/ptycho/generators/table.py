"""What a generator is made of: its layers by name, the shapes they give, the numbers they learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sem.ptycho.generators.architectures import Generator
from sem.ptycho.generators.layers import SpectralConv2d


@dataclass(frozen=True)
class LayerRow:
    """A layer: its name in ``named_modules``, its class, the shape of what it gives for one sample, its learned real
    numbers, those of the layers inside included."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """``parameters``, the real numbers learned, and ``complex_once``, the same with a complex weight counted once, as
    published sizes count; ``layers`` in the order in which they are done. Printed, it shows the outer ones."""

    architecture: str
    side: int
    parameters: int
    complex_once: int
    layers: tuple[LayerRow, ...]
    clamped: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.architecture}, {self.side} x {self.side}: {self.parameters:,} parameters"]
        lines[0] += f" ({self.complex_once:,} with complex ones counted once)"
        names = {row.name for row in self.layers}
        for row in self.layers:
            if not any(row.name.startswith(f"{other}.") for other in names):
                shape = " x ".join(map(str, row.shape))
                lines.append(f"  {row.name:14} {row.kind:14} {shape:>16} {row.parameters:>12,}")
        return "\n".join([*lines, *self.clamped])


def layers_of(generator: Generator) -> dict[str, nn.Module]:
    """What hooks may look at, by name: everything but the network itself and what merely lists others.

    Names are stable: ``lift``, ``blocks.0`` and inside a block ``spectral``, ``local``, ``sum``, ``gelu``, ``norm``,
    ``scale`` and ``residual``; ``down.0``, ``bottleneck``, ``up.0``, ``merge.0``, ``head``; of fno ``project`` and
    ``refine``, of cnn ``encode.0`` and ``decoders.0``.
    """
    return {
        name: module for name, module in generator.named_modules() if name and not isinstance(module, nn.ModuleList)
    }


def summary(generator: Generator) -> Summary:
    """Of a generator, from one pattern of zeros sent through it.

    Example:
        >>> from sem.ptycho.generators import GeneratorSettings, build_generator
        >>> settings = GeneratorSettings(architecture="fno", width=4, blocks=1, modes=12)
        >>> print(summary(build_generator(settings, 16)))
        fno, 16 x 16: 4,758 parameters (2,710 with complex ones counted once)
          lift           Lift                4 x 16 x 16          188
          blocks.0       SpectralBlock       4 x 16 x 16        4,244
          project        Conv2d              4 x 16 x 16           20
          refine         Sequential          4 x 16 x 16          296
          head           CartesianHead       1 x 16 x 16           10
          blocks.0.spectral: 8 modes instead of 12, half its side of 16
    """
    rows: list[LayerRow] = []
    hooks = []
    for name, module in layers_of(generator).items():

        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            count = sum(p.numel() for p in module.parameters())
            rows.append(LayerRow(name, type(module).__name__, tuple(output.shape[1:]), count))

        hooks.append(module.register_forward_hook(record))
    first = next(generator.parameters())
    side, settings = generator.side, generator.settings
    try:
        with torch.no_grad():
            generator(torch.zeros(1, settings.channels, side, side, dtype=first.dtype, device=first.device))
    finally:
        for hook in hooks:
            hook.remove()
    spectral = {name: m for name, m in generator.named_modules() if isinstance(m, SpectralConv2d)}
    parameters = sum(p.numel() for p in generator.parameters())
    clamped = (
        f"  {name}: {m.modes} modes instead of {m.asked}, half its side of {m.side}"
        for name, m in spectral.items()
        if m.modes < m.asked
    )
    once = parameters - sum(m.weight.numel() // 2 for m in spectral.values())
    return Summary(settings.architecture, side, parameters, once, tuple(rows), tuple(clamped))
