"""What generators are built of. Every step of a block is a module, so that a hook finds it by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.precision import note_autocast
from sem.ptycho.generator_settings import BlockNorm


class SpectralConv2d(nn.Module):
    """A convolution as large as the image, by low spatial frequencies: ``irfft2(W rfft2(x))``.

    Of the spectrum rows ``[0, m)`` and ``[N - m, N)`` by columns ``[0, m)`` are kept, the waves of both diagonals, and
    each is multiplied by a matrix over channels of its own; all others are 0. Only what is kept is computed, as
    products with Fourier matrices along rows and columns; the numbers are those of ``torch.fft``, and the time, forward
    and backward on a CPU, half to four fifths.

    Args:
        in_channels, out_channels: of ``x`` and the result.
        modes: ``m`` asked for. **Clamped** to half the side, ``N // 2``; the attribute ``modes`` is what is used.
        side: ``N`` of the images, at least 2.
        negative_rows: False drops rows ``[N - m, N)``, as a published network does: waves along one of the diagonals
            do not pass then.

    Raises:
        ValueError: no modes, a side below 2, images of another shape.

    Attributes:
        weight: float32 ``[C_out, C_in, 2, m, m, 2]``: for rows from 0 and for rows from ``N - m``, a complex number for
            each row and column; ``[C_out, C_in, 1, m, m, 2]`` without the latter. Of standard deviation
            ``C_in^-1/2`` at the start.

    Example:
        >>> layer = SpectralConv2d(3, 5, modes=12, side=16)
        >>> layer.modes, layer(torch.zeros(2, 3, 16, 16)).shape
        (8, torch.Size([2, 5, 16, 16]))
    """

    to_rows: Tensor
    to_columns: Tensor
    from_columns: Tensor
    from_rows: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, modes: int, side: int, *, negative_rows: bool = True
    ) -> None:
        super().__init__()
        for name, value, least in (("modes", modes, 1), ("side", side, 2)):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        self.in_channels, self.out_channels, self.side = in_channels, out_channels, side
        self.asked, self.modes = modes, min(modes, side // 2)
        m, parts = self.modes, 2 if negative_rows else 1
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, parts, m, m, 2) * (2 * in_channels) ** -0.5)
        place = torch.arange(side, dtype=torch.float64)
        rows, columns = torch.cat([torch.arange(m), torch.arange(-m, 0)][:parts]), torch.arange(m)
        row = torch.outer(rows.double(), place) * (2 * math.pi / side)
        column = torch.outer(columns.double(), place) * (2 * math.pi / side)
        cos, sin = column.cos(), column.sin()
        # columns beyond the first stand for their conjugates on the other side, too
        twice = (1 + (columns > 0)).double() / side**2
        matrices = {
            "to_rows": torch.stack([row.cos(), -row.sin()], 1).flatten(0, 1),  # [(rows, re im), N]
            "to_columns": torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)]),  # [(re im, m), (re im, N)]
            "from_columns": torch.cat([torch.cat([cos.T, -sin.T], 1), torch.cat([sin.T, cos.T], 1)]) * twice.repeat(2),
            "from_rows": torch.stack([row.cos(), -row.sin()], 1).flatten(0, 1).T,
        }
        for name, matrix in matrices.items():
            self.register_buffer(name, matrix.float().contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C_in, N, N]`` to ``[B, C_out, N, N]``, computed in float32 whatever autocast says."""
        expected = (self.in_channels, self.side, self.side)
        if x.shape[1:] != expected:
            raise ValueError(f"x: expected shape [B, {', '.join(map(str, expected))}], got {list(x.shape)}")
        device = x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            note_autocast("SpectralConv2d", device)
            with torch.autocast(device, enabled=False):
                return self._convolved(x)
        return self._convolved(x)

    def _convolved(self, x: Tensor) -> Tensor:
        samples, m, side = len(x), self.modes, self.side
        kept_rows = m * self.weight.shape[2]
        # channels last throughout: the innermost axis of every product is one that nothing is summed over
        lines = x.to(self.weight.dtype).permute(0, 2, 3, 1).reshape(samples, side, side * self.in_channels)
        rows = _by_each(self.to_rows, lines).view(samples * kept_rows, 2 * side, self.in_channels)
        kept = _by_each(self.to_columns, rows).view(samples, kept_rows, 2, m, self.in_channels)
        modes = torch.view_as_complex(kept.permute(1, 3, 0, 4, 2).contiguous())  # [rows, m, B, C_in]
        matrices = torch.view_as_complex(self.weight).permute(2, 3, 4, 1, 0).flatten(0, 2).contiguous()
        mixed = torch.view_as_real(torch.bmm(modes.flatten(0, 1), matrices))
        mixed = mixed.view(kept_rows, m, samples, self.out_channels, 2).permute(2, 0, 4, 1, 3)
        columns = _by_each(self.from_columns, mixed.reshape(samples * kept_rows, 2 * m, self.out_channels))
        image = _by_each(self.from_rows, columns.view(samples, 2 * kept_rows, side * self.out_channels))
        return image.view(samples, side, side, self.out_channels).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        """Channels, modes and side for ``repr``; also the modes that were asked for, where they were clamped."""
        clamped = f" (of {self.asked})" if self.modes < self.asked else ""
        clamped += "" if self.weight.shape[2] == 2 else ", negative_rows=False"
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}{clamped}, side={self.side}"


def _by_each(matrix: Tensor, batch: Tensor) -> Tensor:
    return torch.bmm(matrix.expand(len(batch), -1, -1), batch)


class Sum(nn.Module):
    """``a + b``."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class RMSNorm2d(nn.Module):
    """Divides each sample by its root mean square over channels and pixels: unlike an instance norm, which takes each
    channel's mean away, it lets overall brightness through."""

    eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean((1, 2, 3), keepdim=True) + self.eps).rsqrt()


class LayerScale(nn.Module):
    """A learned factor of each channel."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(-1, 1, 1)


class Lift(nn.Sequential):
    """conv3, GELU, conv3: also what merges a skip."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(_conv3(in_channels, out_channels), nn.GELU(), _conv3(out_channels, out_channels))


def _conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class SpectralBlock(nn.Module):
    """``x + GELU(spectral(x) + local(x))``, ``local`` a convolution of 3 x 3."""

    def __init__(self, channels: int, modes: int, side: int, *, negative_rows: bool = True) -> None:
        super().__init__()
        self.spectral = SpectralConv2d(channels, channels, modes, side, negative_rows=negative_rows)
        self.local = _conv3(channels, channels)
        self.sum = Sum()
        self.gelu = nn.GELU()
        self.residual = Sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x, self.branch(x))

    def branch(self, x: Tensor) -> Tensor:
        """What is added to ``x``, real ``[B, C, N, N]``."""
        return self.gelu(self.sum(self.spectral(x), self.local(x)))


class ScaledBlock(SpectralBlock):
    """``x + scale Norm(GELU(spectral(x) + local(x)))`` with a small ``scale``: nearly the identity at the start."""

    def __init__(
        self, channels: int, modes: int, side: int, norm: BlockNorm, initial: float, *, negative_rows: bool = True
    ) -> None:
        super().__init__(channels, modes, side, negative_rows=negative_rows)
        self.norm = _NORMS[norm](channels)
        self.scale = LayerScale(channels, initial)

    def branch(self, x: Tensor) -> Tensor:
        return self.scale(self.norm(super().branch(x)))


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": nn.InstanceNorm2d,
    "rms": lambda channels: RMSNorm2d(),
    "none": lambda channels: nn.Identity(),
}


class Down(nn.Module):
    """A convolution of 2 x 2 with stride 2; an odd side repeats its last line first, so that no pixel is left out."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        odd = x.shape[-1] % 2
        return self.conv(functional.pad(x, (0, odd, 0, odd), mode="replicate") if odd else x)


class Up(nn.Module):
    """A transposed convolution of 2 x 2 with stride 2, cut to ``side``, the one that :class:`Down` had."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[..., : self.side, : self.side]


class Merge(nn.Module):
    """A skip and what comes from below, side by side, through conv3, GELU, conv3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = Lift(2 * channels, channels)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return self.layers(torch.cat([skip, x], 1))


class CartesianHead(nn.Module):
    """Real and imaginary parts, each linear in the features; ``groups`` 2: each in its own half of them."""

    def __init__(self, features: int, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, 2 * channels, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        a, b = _single(self.conv(x)).chunk(2, 1)
        return torch.complex(a, b).contiguous()


class PolarHead(nn.Module):
    """``softplus`` amplitude, which is 1 everywhere at the start, and phase ``pi tanh``; ``groups`` as in
    :class:`CartesianHead`."""

    def __init__(self, features: int, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, 2 * channels, 1, groups=groups)
        with torch.no_grad():
            self.conv.weight[:channels] = 0
            assert self.conv.bias is not None
            self.conv.bias[:channels] = math.log(math.e - 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = _single(self.conv(x)).chunk(2, 1)
        return torch.polar(functional.softplus(a), math.pi * b.tanh()).contiguous()


def _single(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


HEADS = {"cartesian": CartesianHead, "polar": PolarHead}
