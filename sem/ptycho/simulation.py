"""Objects, probes, scan positions and patterns to try reconstructions on. Every random thing has a seed of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sem.ops import Patches, exit_waves, shift_ramp
from sem.ptycho.scan import Scan


def lines_object(side: int, lines: int, *, seed: int, phase: bool = True, margin: int = 40) -> Tensor:
    """Random one-pixel lines, blurred at three widths and added: complex64 ``[side, side]`` of mean amplitude 1.

    The amplitude is ``I = G_1 + 2 G_5 + 5 G_10`` (Gaussian blurs of 1, 5 and 10 pixels) over its mean, the phase
    ``pi tanh((I - max I / 2) / (3 mean I))``, or 0. Lines are drawn on a canvas of ``margin`` pixels more on each side,
    of which four times the widest blur, 40, are the fewest that leave no edge.

    Example:
        >>> truth = lines_object(48, 20, seed=1)
        >>> truth.shape, round(float(truth.abs().mean()), 3)
        (torch.Size([48, 48]), 1.0)
    """
    canvas = torch.zeros(side + 2 * margin, side + 2 * margin, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(lines):
        ends = torch.rand(2, 2, dtype=torch.float64, generator=generator) * (len(canvas) - 1)
        steps = int((ends[1] - ends[0]).abs().max().ceil()) + 1
        along = torch.linspace(0, 1, steps, dtype=torch.float64).unsqueeze(1)
        pixels = (ends[0] + along * (ends[1] - ends[0])).round().long().unique(dim=0)
        canvas[pixels[:, 0], pixels[:, 1]] += 1
    image = sum(share * blurred(canvas, sigma) for share, sigma in ((1, 1), (2, 5), (5, 10)))
    assert isinstance(image, Tensor)
    image = image[margin : margin + side, margin : margin + side]
    angle = math.pi * ((image - image.max() / 2) / (3 * image.mean())).tanh() if phase else torch.zeros_like(image)
    return torch.polar(image / image.mean(), angle).to(torch.complex64)


def siemens_object(side: int, spokes: int, *, phase: bool = True) -> Tensor:
    """A star whose spokes are ever finer towards its middle: complex64 ``[side, side]`` of mean amplitude 1.

    Spokes let half the amplitude through that the rest does, and turn the phase by 1, or 0. The star ends 5 % of
    ``side`` before the edges; a pixel holds the mean of 4 x 4 points.

    Example:
        >>> star = siemens_object(64, 12)
        >>> round(float(star.abs().mean()), 3), round(float(star.abs().min() / star.abs().max()), 2)
        (1.0, 0.5)
    """
    along = (torch.arange(4 * side, dtype=torch.float64) + 0.5) / 4 - side / 2
    y, x = along.unsqueeze(1), along.expand(len(along), -1)
    inside = y.square() + x.square() < (0.45 * side) ** 2
    spoke = ((spokes * torch.atan2(y, x)).cos() > 0) & inside
    share = torch.nn.functional.avg_pool2d(spoke.double()[None], 4)[0]
    wave = torch.polar(1 - 0.5 * share, share if phase else torch.zeros_like(share))
    return (wave / wave.abs().mean()).to(torch.complex64)


def noise_object(side: int, bandwidth: float, *, seed: int) -> Tensor:
    """A phase of white noise up to ``bandwidth`` cycles per pixel, of standard deviation 1, and amplitude 1:
    complex64 ``[side, side]``.

    Raises:
        ValueError: ``bandwidth`` is below ``1 / side``, the lowest frequency there is.

    Example:
        >>> noise = noise_object(32, 0.1, seed=1)
        >>> bool(torch.allclose(noise.abs(), torch.ones(32, 32))), round(float(noise.angle().std()), 2)
        (True, 1.0)
    """
    q = torch.fft.fftfreq(side, dtype=torch.float64)
    passed = (q.square().unsqueeze(1) + q.square()).sqrt() <= bandwidth
    passed[0, 0] = False  # the mean, which is a factor
    if not passed.any():
        raise ValueError(f"bandwidth: expected {1 / side:.4g} cycles per pixel or more, got {bandwidth:g}")
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(side, side, dtype=torch.float64, generator=generator)
    angle = torch.fft.ifft2(torch.fft.fft2(white) * passed).real
    return torch.polar(torch.ones_like(angle), angle / angle.std()).to(torch.complex64)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Real ``[H, W]`` convolved with a Gaussian of standard deviation ``sigma`` pixels; beyond the edges it is 0."""
    reach = torch.arange(-4 * math.ceil(sigma), 4 * math.ceil(sigma) + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (reach / sigma).square())
    kernel = kernel / kernel.sum()
    padded = torch.nn.functional.pad(image[None, None], (len(reach) // 2,) * 4)
    return torch.nn.functional.conv2d(
        torch.nn.functional.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1)
    )[0, 0]


def disk_probe(side: int, radius: float | None = None, *, edge: float = 0.5, defocus: float | None = None) -> Tensor:
    """A soft disk, defocused: complex64 ``[1, side, side]`` with its middle at pixel ``side // 2`` and total power 1.

    Args:
        radius: of the disk in pixels; None: ``0.22 side``.
        edge: width of its edge, ``1 / (1 + exp((|r| - radius) / edge))``.
        defocus: ``d`` of ``exp(-i pi d |q|^2)`` in Fourier space; None: ``60 (side / 64)^2``. At 0 the probe is real
            and symmetric, and every pattern has a twin.

    Example:
        >>> probe = disk_probe(32)
        >>> probe.shape, round(float(probe.abs().square().sum()), 3)
        (torch.Size([1, 32, 32]), 1.0)
    """
    radius = 0.22 * side if radius is None else radius
    defocus = 60 * (side / 64) ** 2 if defocus is None else defocus
    along = torch.arange(side, dtype=torch.float64) - side // 2
    distance = (along.square().unsqueeze(1) + along.square()).sqrt()
    disk = torch.sigmoid((radius - distance) / edge)
    q = torch.fft.fftfreq(side, dtype=torch.float64)
    power = q.square().unsqueeze(1) + q.square()
    chirp = torch.polar(torch.ones_like(power), -math.pi * defocus * power)
    probe = torch.fft.ifft2(torch.fft.fft2(disk.to(torch.complex128)) * chirp)
    return (probe / probe.abs().square().sum().sqrt()).to(torch.complex64).unsqueeze(0)


def orthogonal_modes(probe: Tensor) -> Tensor:
    """The same mixed probe by modes that are orthogonal, the strongest first: intensities do not change.

    Args:
        probe: complex ``[M, N, N]``.

    Returns:
        ``U^H P`` with ``<P_m, P_n> = U diag U^H``.

    Example:
        >>> probe = torch.cat([disk_probe(16), disk_probe(16, 5.0)])
        >>> modes = orthogonal_modes(probe).flatten(1)
        >>> bool((modes @ modes.mH)[0, 1].abs() < 1e-6)
        True
    """
    flat = probe.flatten(1).to(torch.complex128)
    return (mixing_of_modes(probe) @ flat).to(probe.dtype).view(probe.shape)


def mixing_of_modes(probe: Tensor) -> Tensor:
    """``U^H``, complex128 ``[M, M]``, of :func:`orthogonal_modes`."""
    flat = probe.flatten(1).to(torch.complex128)
    _, vectors = torch.linalg.eigh(flat @ flat.mH)  # ascending
    return vectors.flip(1).mH.resolve_conj()


def with_hermite_modes(probe: Tensor, modes: int, share: float = 0.05) -> Tensor:
    """``probe [1, N, N]`` and further modes to start a mixed one from: it times low Hermite polynomials along rows and
    columns, made orthogonal, each with ``share`` of its power.

    Raises:
        ValueError: more than 16 modes, shares that leave nothing to the first.

    Example:
        >>> modes = with_hermite_modes(disk_probe(32), 3, share=0.1)
        >>> [round(power, 2) for power in modes.abs().square().sum((1, 2)).tolist()]
        [0.8, 0.1, 0.1]
    """
    if share < 0 or share * (modes - 1) >= 1:
        raise ValueError(
            f"share: expected less than 1 / {modes - 1} for each of {modes - 1} further modes, got {share:g}"
        )
    side = probe.shape[-1]
    along = torch.arange(side, dtype=torch.float64) - side // 2
    weight = probe[0].abs().square().double()
    width = float(((weight.sum(0) * along.square()).sum() / weight.sum()).sqrt())
    u = along / max(width, 1.0)
    lines = [torch.ones_like(u), u, u.square() - 1, u**3 - 3 * u]
    orders = sorted(((a, b) for a in range(4) for b in range(4)), key=lambda ab: (sum(ab), ab))[:modes]
    if len(orders) < modes:
        raise ValueError(f"modes: expected at most 16, got {modes}")
    made: list[Tensor] = []
    for a, b in orders:
        mode = probe[0].to(torch.complex128) * (lines[a].unsqueeze(1) * lines[b])
        for before in made:
            mode = mode - (before.conj() * mode).sum() * before
        made.append(mode / mode.abs().square().sum().sqrt())
    total = float(probe.abs().square().sum())
    powers = [1 - share * (modes - 1)] + [share] * (modes - 1)
    return torch.stack([math.sqrt(total * p) * mode for p, mode in zip(powers, made, strict=True)]).to(probe.dtype)


def raster_scan(rows: int, columns: int, step: float, *, jitter: int = 1, seed: int = 0) -> Tensor:
    """Positions of a raster, each moved by up to ``jitter`` whole pixels each way, float32 ``[rows * columns, 2]``; the
    smallest is 0. Without jitter the raster's own period shows in a reconstruction.

    Example:
        >>> raster_scan(2, 2, 5, jitter=0)
        tensor([[0., 0.],
                [0., 5.],
                [5., 0.],
                [5., 5.]])
    """
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float() * step
    generator = torch.Generator().manual_seed(seed)
    moved = grid + torch.randint(-jitter, jitter + 1, grid.shape, generator=generator)
    return moved - moved.amin(0)


def spiral_scan(count: int, spacing: float) -> Tensor:
    """Positions on a Fermat spiral, ``r = spacing sqrt(k)`` at ``137.508 k`` degrees, float32 ``[count, 2]``; the
    smallest is 0.

    Example:
        >>> positions = spiral_scan(50, 3.0)
        >>> positions.shape, positions.amin(0).tolist()
        (torch.Size([50, 2]), [0.0, 0.0])
    """
    k = torch.arange(count, dtype=torch.float64)
    angle = math.radians(137.508) * k
    spiral = spacing * k.sqrt().unsqueeze(1) * torch.stack([angle.sin(), angle.cos()], 1)
    return (spiral - spiral.amin(0)).float()


def far_intensity(object: Tensor, probe: Tensor, positions: Tensor) -> Tensor:
    """What a detector expects without background, in counts of the probe's units, ``[J, N, N]`` float32.

    Args:
        object: complex64 ``[H, W]``. probe: complex64 ``[M, N, N]``, the same for all patterns.
        positions: ``[J, 2]`` real, in pixels of the object; fractions of a pixel move the probe.

    Raises:
        ValueError: shapes that do not fit, positions that are not finite, or a patch that leaves the object.

    Example:
        >>> probe = disk_probe(16)
        >>> far = far_intensity(torch.ones(20, 24) + 0j, probe, torch.tensor([[0.0, 0.0], [2.5, 3.0]]))
        >>> torch.allclose(far.sum((1, 2)), probe.abs().square().sum())
        True
    """
    if probe.dim() != 3 or probe.shape[1] != probe.shape[2]:
        raise ValueError(f"probe: expected shape [M, N, N], got {list(probe.shape)}")
    if positions.dim() != 2 or positions.shape[1] != 2 or len(positions) == 0:
        raise ValueError(f"positions: expected shape [J, 2], J >= 1, got {list(positions.shape)}")
    if not bool(positions.isfinite().all()):
        raise ValueError("positions: expected finite numbers")
    positions = positions.float()
    whole = (positions + 0.5).floor()
    moved = torch.fft.ifft2(shift_ramp(torch.fft.fft2(probe), positions - whole))
    waves = exit_waves(object, moved, Patches(whole.long(), probe.shape[-1], object.shape))
    return torch.fft.fft2(waves, norm="ortho").abs().square().sum(1)


def simulate(
    object: Tensor,
    probe: Tensor,
    positions: Tensor,
    *,
    photons: float = 1e6,
    background: Tensor | None = None,
    seed: int | None = 0,
    weight: Tensor | None = None,
) -> tuple[Scan, Tensor]:
    """Patterns of a known object.

    Args:
        object: complex64 ``[H, W]``. probe: complex64 ``[M, N, N]``. positions: ``[J, 2]``.
        photons: mean over patterns of the counts of a pattern, background apart; the probe is scaled to it.
        background: counts ``[N, N]`` more.
        seed: of the Poisson noise, drawn in float64; None: no noise.

    Returns:
        The scan, and the probe in units of counts, as which it belongs to it.

    Raises:
        ValueError: ``photons`` is not above 0, there is no light in the patterns, or as :func:`far_intensity`.

    Example:
        >>> truth, probe = lines_object(40, 10, seed=1), disk_probe(16)
        >>> scan, probe = simulate(truth, probe, raster_scan(4, 4, 6), photons=1e5, seed=3)
        >>> len(scan), 0.9e5 < float(scan.amplitudes.square().sum((1, 2)).mean()) < 1.1e5
        (16, True)
    """
    if not 0 < photons < math.inf:
        raise ValueError(f"photons: expected a number > 0, got {photons}")
    mean = float(far_intensity(object, probe, positions).double().sum((1, 2)).mean())
    if not mean > 0:
        raise ValueError("object, probe: expected some light in the patterns, got none")
    probe = probe * math.sqrt(photons / mean)
    expected = far_intensity(object, probe, positions).double() + (0 if background is None else background.double())
    if seed is not None:
        expected = torch.poisson(expected, torch.Generator().manual_seed(seed))
    return Scan.from_counts(expected, positions, weight, background), probe
