"""A scan's patterns as engines compute with them: waves to the detector and back, part by part.

In complex64 by the kernels of :mod:`sem.ops`, in complex128 by their twins composed of torch's operators.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sem.ops import composed_ptychography as composed
from sem.ops.exit_waves import OverlapSums, exit_waves_forward, overlap_add_sums
from sem.ops.far_residual import KINDS, PatternStatus, far_residual_in_place
from sem.ops.shift_ramp import shift_ramp_backward, shift_ramp_forward
from sem.ptycho.scan import Scan

Part = slice | Tensor
"""Patterns: a slice of their numbers, or the numbers."""

_BLOCK_BYTES = 2**20  # of waves worked on at a time: what stays in cache


class ForwardModel:
    """Patterns of ``scan`` in an object of ``shape``.

    Attributes:
        data: ``X``, real ``[J, N, N]``. weight, background: those of the scan, or None.
        masks: 1 where a pixel is valid, else 0, ``[N, N]`` or ``[J, N, N]``; empty where all are.
        loss, misfit, status: of every pattern when it was last met, as :class:`sem.ops.FarResidual` has them.
        moves: whether any position lies between pixels.
        noise: ``4 sum (A - X)^2`` over valid pixels that photon noise makes of a perfect fit.
    """

    def __init__(self, scan: Scan, shape: tuple[int, int], dtype: torch.dtype) -> None:
        real = torch.empty(0, dtype=dtype).real.dtype
        self.shape, self.side = shape, scan.side
        self.data = scan.amplitudes.to(real).contiguous()
        self.weight = None if scan.weight is None else scan.weight.to(real).contiguous()
        self.background = None if scan.background is None else scan.background.to(real).contiguous()
        valid = None if self.weight is None else self.weight > 0
        self.masks = self.data.new_empty(0) if valid is None or bool(valid.all()) else valid.to(real)
        self.noise = _photon_noise(self.data, self.masks)
        self._floor = self.data.new_empty(0) if self.background is None else self.background
        self.loss, self.misfit = torch.zeros(len(scan), dtype=real), torch.zeros(len(scan), dtype=real)
        self.status = torch.zeros(len(scan), dtype=torch.int8)
        single = dtype == torch.complex64
        self._exit_waves = exit_waves_forward if single else composed.exit_waves_forward
        self._overlap_add = overlap_add_sums if single else composed.overlap_add
        self._ramp = shift_ramp_forward if single else composed.shift_ramp_forward
        self._unramp = shift_ramp_backward if single else composed.shift_ramp_backward
        # pattern by pattern: to take a view of a tensor costs as much as to add to it
        singly = [self.data, self.loss, self.misfit, self.status]
        self._singly = list(zip(*(tensor.split(1) for tensor in singly), strict=True))
        self._masks_singly = self.masks.split(1) if self.masks.dim() == 3 else None
        self.stand_at(scan)

    def __len__(self) -> int:
        return len(self.data)

    def stand_at(self, scan: Scan) -> None:
        """Take the positions of ``scan``.

        Raises:
            ValueError: a patch leaves the object; the message names the pattern.
        """
        self._corner = scan.patches(self.shape).packed(self.data.device)
        self.positions = scan.positions.to(self.data.dtype)
        self.shift = self.positions - scan.corners
        self.moves = bool(self.shift.any())
        self._first: list[int] = (scan.corners[:, 0] * self.shape[1] + scan.corners[:, 1]).tolist()

    def block(self, modes: int) -> int:
        """How many patterns stay in cache."""
        return max(1, _BLOCK_BYTES // (8 * modes * self.side**2))

    def blocks(self, modes: int) -> list[slice]:
        """All patterns, as many at a time."""
        size = self.block(modes)
        return [slice(first, first + size) for first in range(0, len(self), size)]

    def patch(self, image: Tensor, j: int) -> Tensor:
        """Where pattern ``j`` lies in a contiguous ``[H, W]``."""
        return image.as_strided((self.side, self.side), (self.shape[1], 1), self._first[j])

    def moved(self, probe: Tensor, part: Part | int, spectrum: Tensor | None = None) -> Tensor:
        """``probe [M, N, N]`` as it stands at the patterns, ``[J, M, N, N]``; ``[1, M, N, N]`` where none moves it.
        ``spectrum``: its :meth:`spectrum`, where that is at hand."""
        if not self.moves:
            return probe.unsqueeze(0)
        spectrum = torch.fft.fft2(probe) if spectrum is None else spectrum
        return torch.fft.ifft2(torch.view_as_complex(self._ramp(torch.view_as_real(spectrum), self._shift_of(part))))

    def spectrum(self, probe: Tensor) -> Tensor | None:
        """What :meth:`moved` needs of a probe that stays; None where none moves it."""
        return torch.fft.fft2(probe) if self.moves else None

    def _shift_of(self, part: Part | int) -> Tensor:
        return self.shift[part].view(-1, 2)

    def moved_back(self, waves: Tensor, part: Part | int) -> Tensor:
        """The adjoint of :meth:`moved`: ``[J, M, N, N]``, moved back and added up."""
        if not self.moves:
            return waves.sum(0)
        spectra = torch.view_as_real(torch.fft.fft2(waves))
        sums, _ = self._unramp(torch.zeros_like(spectra[0]), self._shift_of(part), spectra)
        return torch.fft.ifft2(torch.view_as_complex(sums))

    def exit_waves(self, object: Tensor, there: Tensor, part: Part) -> Tensor:
        """``P_jm O[patch j]``, ``[J, M, N, N]``, of probes ``[1 or J, M, N, N]`` that stand there."""
        return torch.view_as_complex(self._exit_waves(_blocks(object), _blocks(there), self._corner[part]))

    def overlap(
        self, waves: Tensor, object: Tensor, there: Tensor, part: Part, *, to_probe: bool = True
    ) -> OverlapSums:
        """:func:`sem.ops.overlap_add`; ``to_probe`` is moved back to where ``probe`` is, ``[M, N, N]``, or, where it is
        not wanted, of no use."""
        chi, image, probes = map(_blocks, (waves, object, there))
        to_object, along, illumination, exposure = self._overlap_add(chi, image, probes, self._corner[part])
        back = torch.view_as_complex(along)
        back = self.moved_back(back, part) if to_probe else back[0]
        return OverlapSums(torch.view_as_complex(to_object), back, illumination, exposure)

    def residual(
        self, far: Tensor, part: Part, kind: str = "amplitude", weight: Tensor | None = None, scale: float = 1.0
    ) -> Tensor:
        """In place of far waves ``[J, M, N, N]``: what is to be taken from them, ``Psi - Psi'``, where ``Psi'`` has the
        measured moduli where a pixel is valid and lit; for ``"projection"`` ``Psi'`` itself, for any other kind of
        :func:`sem.ops.far_residual` its gradient. ``weight`` is used instead of :attr:`masks`. :attr:`loss`,
        :attr:`misfit` and :attr:`status` of the patterns are those of the waves before."""
        masks = self.masks if weight is None else weight
        masks = masks[part] if masks.dim() == 3 else masks
        size = len(far)
        reports = self.loss.new_empty(size), self.loss.new_empty(size), self.status.new_empty(size)
        psi = torch.view_as_real(far)
        far_residual_in_place(psi, self.data[part], masks, self._floor, KINDS.index(kind), reports, scale)
        self.loss[part], self.misfit[part], self.status[part] = reports
        return far

    def residual_of(self, psi: Tensor, j: int) -> None:
        """:meth:`residual` of one pattern; ``psi`` is its waves ``[1, M, N, N, 2]``."""
        data, *reports = self._singly[j]
        masks = self.masks if self._masks_singly is None else self._masks_singly[j]
        far_residual_in_place(psi, data, masks, self._floor, 0, reports)

    def squares(self) -> float:
        """``sum (A - X)^2`` over the valid pixels of all patterns, each when it was last met; not a number where waves
        are not, since the data are: the scan has seen to that."""
        if bool((self.status == PatternStatus.NONFINITE).any()):
            return math.nan
        return 2 * float(self.loss.sum(dtype=torch.float64))

    def illumination(self, probe: Tensor) -> Tensor:
        """``sum |P|^2`` over patterns and modes at every pixel of the object, real ``[H, W]``."""
        light = torch.zeros(self.shape, dtype=self.data.dtype)
        power = self.moved(probe, slice(None)).abs().square().sum(1).expand(self.data.shape)
        for j, part in enumerate(power):
            self.patch(light, j).add_(part)
        return light


_DARK = (0.0, 6.49, -6.31, 9.59, -2.69)


def _photon_noise(data: Tensor, masks: Tensor) -> float:
    """The sum over valid pixels of ``v = E 4 (sqrt(mean) - sqrt(n))^2`` of Poisson counts ``n``, from the counts.

    ``v`` is 1 + 7 / (16 mean) of many counts, rises to 1.8 at one and falls to 0 with the mean. Added up is what has
    the mean ``v`` to within 0.06 (v + 0.1) for every mean: of up to four counts the numbers above, found by least
    squares over means from 0.001 to 100, of more ``1 + 7 / (16 n)``.
    """
    table, total = torch.tensor(_DARK, dtype=torch.float64), 0.0
    for j, pattern in enumerate(data):
        counts = pattern.double().square().round_()
        if masks.numel():  # what stands in other pixels may be anything
            counts = torch.where((masks if masks.dim() == 2 else masks[j]) > 0, counts, 0)
        few = table[counts.clamp(max=len(table) - 1).long()]
        total += float(torch.where(counts < len(table), few, 1 + 0.4375 / counts).sum())
    return total


def _blocks(wave: Tensor) -> Tensor:
    """Contiguous ``[.., 2]`` that is in memory what it looks like."""
    return torch.view_as_real(wave.resolve_conj().contiguous())


def fft(waves: Tensor, out: Tensor | None = None) -> Tensor:
    """The unitary Fourier transform of the last two dimensions, zero frequency at ``[0, 0]``; into ``out`` where
    given."""
    return torch.fft.fft2(waves, norm="ortho", out=out)


def ifft(waves: Tensor, out: Tensor | None = None) -> Tensor:
    """The inverse of :func:`fft`."""
    return torch.fft.ifft2(waves, norm="ortho", out=out)
