"""What a scan's file says of itself before anything is reconstructed, and which way its axes lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sem.ptycho.files import AXES, ScanFile
from sem.ptycho.files.checks import laid_along
from sem.ptycho.pie import PIE
from sem.ptycho.scan import MARGIN, Scan
from sem.ptycho.simulation import disk_probe, far_intensity

RING_LIMIT = 1e-3
"""Share of a probe's power on its frame's outermost ring above which it is too wide for the frame."""
LIT = 0.1
"""Share of the largest illumination from which on a pixel of the object counts as lit."""
_BLOCK = 2**20  # pixels of waves held at a time
BINS, PADDED = 8, 4  # of a spacing; how many times finer than the scan's width frequencies are looked at


@dataclass(frozen=True)
class Inspection:
    """A scan in numbers.

    Attributes:
        spacing: pixels of the object from a position to the nearest other one, the median.
        extent: rows and columns of the object from the first position to the last.
        periodicity: how far the positions repeat, 0 to 1; 1 is a raster without jitter, whose period a reconstruction
            shows.
        dose: counts of a pattern: the least, the mean, the most.
        brightest: the most counts of a pixel.
        masked: pixels without weight, of all patterns.
        dead: valid pixels that never count, although those around them count 100 or more.
        radius: of the disk of the probe's area ``(sum |P|^2)^2 / sum |P|^4``, in pixels; None without a probe.
        overlap: ``1 - spacing / (2 radius)``; None without a probe.
        ring: share of the probe's power on its frame's outermost ring; None without a probe.
        probe_power: counts of a pattern where the object is 1, if the probe is in units of counts; None without one.
    """

    patterns: int
    side: int
    object_shape: tuple[int, int]
    spacing: float
    extent: tuple[float, float]
    periodicity: float
    dose: tuple[float, float, float]
    brightest: float
    masked: int
    dead: int
    radius: float | None
    overlap: float | None
    ring: float | None
    probe_power: float | None

    @property
    def warnings(self) -> list[str]:
        """A sentence for everything that a reconstruction would suffer from."""
        found = []
        if self.ring is not None and self.ring > RING_LIMIT:
            found.append(
                f"{self.ring:.2g} of the probe's power lies on its frame's outermost ring, more than {RING_LIMIT:g}: "
                "between pixels it wraps around"
            )
        if self.overlap is not None and self.overlap < 0.5:
            found.append(f"neighbouring positions overlap by {self.overlap:.0%}; 60 % and more are usual")
        if self.periodicity > 0.9:
            found.append("the positions repeat as a raster does, and so may errors of the reconstruction")
        if self.dead:
            found.append(f"{self.dead} pixels never count although those around them do: mask them")
        return found


def inspect_scan(contents: ScanFile) -> Inspection:
    """The numbers of a scan.

    Example:
        >>> from sem.ptycho import Simulation
        >>> found = inspect_scan(Simulation(side=16, rows=4, columns=5, lines=20, scan="raster", step=3).make())
        >>> found.patterns, found.spacing, found.extent, found.periodicity > 0.9, found.overlap > 0.5
        (20, 3.0, (9.0, 12.0), True, True)
    """
    scan = contents.scan
    counts = _counts(scan)
    of_patterns = counts.sum((1, 2))
    valid = _valid(scan)
    spacing = _spacing(scan.positions)
    height, width = scan.object_shape(margin=0)
    probe = contents.probe
    radius = None if probe is None else _radius(probe)
    extent = (scan.positions.amax(0) - scan.positions.amin(0)).tolist()
    return Inspection(
        patterns=len(scan),
        side=scan.side,
        object_shape=(height, width),
        spacing=spacing,
        extent=(extent[0], extent[1]),
        periodicity=periodicity(scan.positions),
        dose=(float(of_patterns.min()), float(of_patterns.mean()), float(of_patterns.max())),
        brightest=float(counts.max()),
        masked=int((~valid).sum()),
        dead=int(_dead(counts, valid).sum()),
        radius=radius,
        overlap=None if radius is None else max(0.0, 1 - spacing / (2 * radius)),
        ring=None if probe is None else ring_share(probe),
        probe_power=None if probe is None else float(probe.abs().double().square().sum()),
    )


def ring_share(probe: Tensor) -> float:
    """Share of the power of a probe ``[M, N, N]`` on the outermost ring of pixels of its frame, which wraps around
    where the probe stands between pixels."""
    power = probe.abs().double().square().sum(0)
    return float(1 - power[1:-1, 1:-1].sum() / power.sum().clamp_min(1e-300))


def periodicity(positions: Tensor) -> float:
    """The largest ``|mean exp(2 pi i q . r)|`` over ``q`` away from 0, up to 1.5 cycles per spacing of the positions: 1
    for a raster, small for a spiral. Of the 1024 positions nearest to the middle."""
    positions = positions[_near_the_middle(positions, 1024)]
    step = _spacing(positions) / BINS
    if len(positions) < 4 or not step > 0:
        return 0.0
    whole = ((positions - positions.amin(0)) / step).round().long()
    height, width = (int(k) + 1 for k in whole.amax(0))
    map = torch.zeros(height, width, dtype=torch.float64)
    map.index_put_((whole[:, 0], whole[:, 1]), torch.ones(len(whole), dtype=torch.float64), accumulate=True)
    size = PADDED * height, PADDED * width
    peaks = torch.fft.rfft2(map, s=size).abs() / len(positions)
    rows = torch.fft.fftfreq(size[0], d=1 / size[0]).abs().unsqueeze(1)
    columns = torch.arange(peaks.shape[1])
    own = (rows <= 2 * PADDED) & (columns <= 2 * PADDED)  # of the scan's width
    fine = ((rows / size[0]).square() + (columns / size[1]).square()).sqrt() * BINS > 1.5  # whole pixels repeat, too
    return float(peaks.masked_fill(own | fine, 0).max())


def illumination(positions: Tensor, probe: Tensor, shape: tuple[int, int]) -> Tensor:
    """``sum |P|^2`` over patterns at each pixel of an object of ``shape``, at whole pixels, float32."""
    power = probe.abs().square().sum(0)
    light = torch.zeros(shape, dtype=power.dtype)
    side = probe.shape[-1]
    for y, x in (positions + 0.5).floor().long().tolist():
        light[y : y + side, x : x + side] += power
    return light


def lit_box(positions: Tensor, probe: Tensor, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the object that hold all pixels with :data:`LIT` of the largest illumination."""
    light = illumination(positions, probe, shape)
    lit = light >= LIT * light.max()
    rows, columns = lit.any(1).nonzero().flatten(), lit.any(0).nonzero().flatten()
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def scale_to_counts(scan: Scan, probe: Tensor, object: Tensor | None = None) -> float:
    """By what a probe is to be multiplied so that behind an object, None: of ones, it gives the scan's counts."""
    valid = _valid(scan)
    if object is None:
        far = torch.fft.fft2(probe, norm="ortho").abs().double().square().sum(0)
        expected = float((far * valid).sum((-2, -1)).mean())
    else:
        expected = 0.0
        for part in torch.arange(len(scan)).split(max(1, _BLOCK // probe.numel())):
            far = far_intensity(object, probe, scan.positions[part]).double()
            expected += float((far * (valid if valid.dim() == 2 else valid[part])).sum()) / len(scan)
    if not expected > 0:
        raise ValueError("probe: expected some light on valid pixels, got none")
    return math.sqrt(float(_counts(scan).sum((1, 2)).mean()) / expected)


class AxesTrial(NamedTuple):
    """How the patterns fit, ``||A - X|| / ||X||``, where the positions' axes lie as ``axes`` says: with the probe as it
    is given, and once it was refined."""

    axes: str
    kept: float
    refined: float


def try_axes(
    contents: ScanFile,
    *,
    patterns: int = 64,
    sweeps: int = 10,
    seed: int = 0,
    progress: Callable[[AxesTrial], None] | None = None,
) -> list[AxesTrial]:
    """A few sweeps of rPIE under each of :data:`AXES`, on the patterns nearest to the scan's middle; in the order of
    :func:`best_first`. Half the sweeps keep the probe, half refine it.

    Args:
        contents: the scan as it was read with ``+y+x``; without a probe, a disk is taken.
        patterns: how many of them to try on.
        sweeps: of each trial.
        seed: of the order of patterns.
        progress: called with each trial.

    Raises:
        ValueError: the probe gives no light on valid pixels.

    Example:
        >>> from sem.ptycho import Simulation
        >>> contents = Simulation(side=16, rows=4, columns=4, lines=20, step=3).make()
        >>> found = try_axes(contents, patterns=9, sweeps=4)
        >>> len(found), found[0].axes
        (8, '+y+x')
    """
    scan = contents.scan
    near = _near_the_middle(scan.positions, patterns)
    weight = scan.weight if scan.weight is None or scan.weight.dim() == 2 else scan.weight[near]
    probe = disk_probe(scan.side) if contents.probe is None else contents.probe
    probe = (probe * scale_to_counts(scan, probe)).to(torch.complex64)
    size = float(scan.amplitudes[near].double().square().sum()) or 1.0
    first = max(1, sweeps // 2)
    found = []
    for axes in AXES:
        laid = torch.stack(laid_along(scan.positions[near], axes), 1)
        part = Scan(scan.amplitudes[near], laid - laid.amin(0) + MARGIN, weight, scan.background)
        reports = PIE(part, probe, alpha=0.1, probe_from=first, seed=seed).run(max(sweeps, first + 1)).reports
        kept, refined = (math.sqrt(2 * reports[k].loss / size) for k in (first - 1, -1))
        found.append(AxesTrial(axes, kept, refined))
        if progress is not None:
            progress(found[-1])
    return best_first(found)


def best_first(trials: Iterable[AxesTrial]) -> list[AxesTrial]:
    """Trials of all :data:`AXES`, the likeliest first.

    Two orientations that differ by both signs fit alike once the probe is refined, since ``conj(O(-r))`` and
    ``conj(P(-r))`` have the patterns of ``O`` and ``P``. So pairs of these are in order of the better ``refined`` of
    the two, and within a pair ``kept`` decides: only a probe that is right from the start tells them apart.
    """
    found = {trial.axes: trial for trial in trials}

    def order(trial: AxesTrial) -> tuple[float, float]:
        return min(trial.refined, found[opposite(trial.axes)].refined), trial.kept

    return sorted(found.values(), key=order)


def opposite(axes: str) -> str:
    """Of one of :data:`AXES` the other one of its pair, with both signs turned."""
    return axes.translate(str.maketrans("+-", "-+"))


def _counts(scan: Scan) -> Tensor:
    """Of valid pixels, float64 ``[J, N, N]``; 0 elsewhere."""
    return torch.where(_valid(scan), scan.amplitudes.double().square(), 0)


def _valid(scan: Scan) -> Tensor:
    side = scan.side
    return torch.ones(side, side, dtype=torch.bool) if scan.weight is None else scan.weight > 0


def _spacing(positions: Tensor) -> float:
    """The median over at most 1024 positions."""
    if len(positions) < 2:
        return 0.0
    some = torch.linspace(0, len(positions) - 1, min(len(positions), 1024)).long()
    away = torch.cdist(positions[some].double(), positions.double())
    away[torch.arange(len(some)), some] = math.inf
    return float(away.amin(1).median())


def _near_the_middle(positions: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` positions nearest to the middle of all, ascending."""
    middle = (positions.amax(0) + positions.amin(0)) / 2
    return (positions - middle).square().sum(1).argsort(stable=True)[:count].sort().values


def _radius(probe: Tensor) -> float:
    power = probe.abs().double().square().sum(0)
    area = float(power.sum().square() / power.square().sum().clamp_min(1e-300))
    return math.sqrt(area / math.pi)


def _dead(counts: Tensor, valid: Tensor) -> Tensor:
    """Valid pixels without a count whose neighbours, by their median, have 100 or more over all patterns."""
    total = counts.sum(0)
    seen = valid if valid.dim() == 2 else valid.any(0)
    middle = torch.fft.fftshift(total)  # neighbours on the detector
    padded = torch.nn.functional.pad(middle[None, None], (1, 1, 1, 1))
    around = torch.nn.functional.unfold(padded, 3)[0].view(9, -1)
    others = torch.cat([around[:4], around[5:]]).median(0).values.view_as(middle)
    return (total == 0) & seen & (torch.fft.ifftshift(others) >= 100)
