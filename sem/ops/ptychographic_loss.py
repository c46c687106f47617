"""ptychographic_loss: what a scan's patterns say of object and probe, with exact gradients and no graph."""

from __future__ import annotations

from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from sem.ops import boundary, kernels
from sem.ops.exit_waves import exit_waves_forward, overlap_add_sums
from sem.ops.far_residual import LOSSES, far_residual_kernel, masks_and_floor, residual_sizes
from sem.ops.patches import Patches
from sem.ops.registration import second_derivative
from sem.ops.shift_ramp import shift_ramp_backward, shift_ramp_forward
from sem.precision import note_autocast, outside_autocast

SUBPIXEL = ("fourier", "nearest")
_BLOCK_BYTES = 2**20  # of waves worked on at a time: what stays in cache
_DEVICE_BLOCK_BYTES = 2**23  # on a GPU, whose cache is larger, and which smaller ones would not keep busy


class PtychographicLoss(NamedTuple):
    """``total``, 0-d, is what to differentiate: the sum of ``loss``. Of each pattern, without gradients: ``loss`` and
    ``misfit = sum w |A - X| / sum w X``, float32 ``[J]``, and ``status``, int8 ``[J]`` (:class:`PatternStatus`)."""

    total: Tensor
    loss: Tensor
    misfit: Tensor
    status: Tensor


def ptychographic_loss(
    object: Tensor,
    probe: Tensor,
    positions: Tensor,
    data: Tensor,
    *,
    weight: Tensor | None = None,
    background: Tensor | None = None,
    kind: str = "amplitude",
    scale: float = 1.0,
    subpixel: str = "fourier",
    block: int | None = None,
) -> PtychographicLoss:
    """Sum over a scan of :func:`far_residual`'s losses of ``Psi_jm = FFT(P_jm O[patch j])``, orthonormal.

    A position ``r`` is split into whole pixels ``i = floor(r + 1/2)``, where the patch begins, and the rest ``f``, by
    which the probe is moved: ``P_j = F^-1[F[P] exp(-2 pi i q . f_j)]``.

    Args:
        object: ``O``, ``[H, W]`` complex64. probe: ``P``, ``[M, N, N]`` complex64 modes, shared by all patterns.
        positions: ``r``, ``[J, 2]`` real: row and column, in pixels of the object, of each patch's first pixel.
        data, weight, background, kind, scale: as :func:`far_residual` takes them; ``kind`` is one of its losses.
        subpixel: ``"fourier"``, or ``"nearest"``: ``f`` is taken as 0, and positions have no gradient.
        block: patterns worked on at a time; None: as many as stay in cache. It changes no bit of the kernels' sums.

    Returns:
        :class:`PtychographicLoss`. Memory beyond arguments and gradients is that of one block.

    Gradients, exact and of first order, to ``object``, ``probe``, ``positions`` and ``background``. They are computed
    with the loss, where an argument needs one, and only scaled in the backward pass.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range, or a patch that leaves the
            object; the message names the pattern.
        NotImplementedError: a second derivative was asked for.

    ``torch.func`` and ``torch.vmap`` do not know it; they know its parts.

    In plain torch: :func:`sem.ops.reference.ptychographic_loss`.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> object = torch.ones(12, 12, dtype=torch.complex64, requires_grad=True)
        >>> probe = torch.randn(1, 8, 8, dtype=torch.complex64, generator=generator)
        >>> found = ptychographic_loss(object, probe, torch.tensor([[0.0, 0.0], [3.5, 2.25]]), torch.ones(2, 8, 8))
        >>> found.total.backward()
        >>> object.grad.shape, found.status.tolist()
        (torch.Size([12, 12]), [0, 0])
    """
    wave, _ = boundary.wave("object", object, dims=2, shape=("H", "W"))
    modes, _ = boundary.wave("probe", probe, dims=3, shape=("M", "N", "N"))
    if modes.shape[1] != modes.shape[2] or modes.shape[0] == 0:
        raise ValueError(f"probe: expected shape [M, N, N], got {list(modes.shape[:-1])}")
    side = modes.shape[1]
    where = boundary.real("positions", positions, ("J", 2))
    count = len(where)
    moduli = boundary.real("data", data, (count, side, side))
    masks, floor = masks_and_floor(moduli, weight, background)
    for name, given in (("data", data), ("weight", weight)):
        if given is not None and given.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name}: expected a tensor that requires no gradient, since it gets none; detach it")
    for name, tensor in dict(probe=modes, positions=where, data=moduli, weight=masks, background=floor).items():
        boundary.same_device(name, tensor, wave)
    number = LOSSES.index(boundary.choice("kind", kind, LOSSES))
    fourier = boundary.choice("subpixel", subpixel, SUBPIXEL) == "fourier"
    size = 8 * modes.shape[0] * side * side
    bytes_at_a_time = _BLOCK_BYTES if wave.is_cpu else _DEVICE_BLOCK_BYTES
    block = max(1, bytes_at_a_time // size) if block is None else boundary.count("block", block, least=1)
    whole = (where.detach() + 0.5).floor()
    if not bool(whole.isfinite().all()):
        j = int((~whole.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"positions: expected finite numbers, got {tuple(where[j].tolist())} for pattern {j}")
    patches = Patches(whole.long(), side, wave.shape[:2])
    note_autocast("ptychographic_loss", wave.device.type)
    settings = (patches.packed(wave.device), number, boundary.positive("scale", scale), fourier, block)
    return PtychographicLoss(*_Loss.apply(wave, modes, where - whole, moduli, masks, floor, settings))


class _Loss(Function):
    @staticmethod
    def forward(ctx: Any, object: Tensor, probe: Tensor, shift: Tensor, data: Tensor, *rest: Any) -> Any:
        weight, background, (corner, kind, scale, fourier, block) = rest
        scan = _Scan(object, probe, shift, corner, data, weight, background, kind, scale, fourier)
        needed = [ctx.needs_input_grad[k] for k in (0, 1, 2, 5)]
        with outside_autocast(object.device.type):
            work = (_Kernels if kernels.has(far_residual_kernel.name, object) else _Composition)(scan, any(needed))
            work.run(block)
            ctx.grads = work.gradients() if any(needed) else None
        reports = work.loss, work.misfit, work.status
        ctx.mark_non_differentiable(*reports)
        ctx.save_for_backward(object, probe, shift, background)
        return work.loss.sum(dtype=torch.float64).float(), *reports

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
        needed = [ctx.needs_input_grad[k] for k in (0, 1, 2, 5)]
        parts = [part if need else None for part, need in zip(ctx.grads, needed, strict=True)]
        scaled = _Scaled.apply if torch.is_grad_enabled() else _scaled
        to_object, to_probe, to_shift, to_background = scaled(grad, parts, *ctx.saved_tensors)
        return to_object, to_probe, to_shift, None, None, to_background, None


def _scaled(grad: Tensor, parts: list[Tensor | None], *arguments: Tensor) -> tuple[Tensor | None, ...]:
    return tuple(None if part is None else grad * part for part in parts)


class _Scaled(Function):
    """Depends on the loss's arguments, so that to differentiate it is an error, not a missing term."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor | None, ...]:
        return _scaled(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(second_derivative("ptychographic_loss"))


class _Scan(NamedTuple):
    """float32: object [H, W, 2], probe [M, N, N, 2], shift [J, 2], data, weight and background as ``far_residual``
    takes them; corner int32 [J, 2]."""

    object: Tensor
    probe: Tensor
    shift: Tensor
    corner: Tensor
    data: Tensor
    weight: Tensor
    background: Tensor
    kind: int
    scale: float
    fourier: bool

    def weights_of(self, part: slice) -> Tensor:
        return self.weight[part] if self.weight.dim() == 3 else self.weight


class _Work:
    """The sums over patterns. Where the probe is moved, ``to_probe`` is the gradient to its spectrum."""

    def __init__(self, scan: _Scan, wanted: bool) -> None:
        self.scan, self.wanted = scan, wanted
        self.spectrum = torch.view_as_real(_fft(scan.probe)) if scan.fourier else scan.probe
        self.loss = scan.data.new_empty(len(scan.data))
        self.misfit, self.status = torch.empty_like(self.loss), torch.empty_like(self.loss, dtype=torch.int8)
        sums = scan.object, scan.probe, scan.shift, scan.background
        self.to_object, self.to_probe, self.to_shift, self.to_background = map(torch.zeros_like, sums)

    def run(self, block: int) -> None:
        """All patterns, ``block`` at a time."""
        raise NotImplementedError

    def gradients(self) -> tuple[Tensor, ...]:
        to_probe = torch.view_as_real(_ifft(self.to_probe)) if self.scan.fourier else self.to_probe
        return self.to_object, to_probe, self.to_shift, self.to_background


class _Composition(_Work):
    """By operators that return their sums."""

    def run(self, block: int) -> None:
        for first in range(0, len(self.scan.data), block):
            self._block(slice(first, first + block))

    def _block(self, part: slice) -> None:
        scan, corner, shift = self.scan, self.scan.corner[part], self.scan.shift[part]
        probe = scan.probe.unsqueeze(0)
        if scan.fourier:
            probe = torch.view_as_real(_ifft(shift_ramp_forward(self.spectrum, shift)))
        psi = torch.view_as_real(_fft(exit_waves_forward(scan.object, probe, corner)))
        given = psi, scan.data[part], scan.weights_of(part), scan.background, scan.kind, scan.scale
        residual, self.loss[part], self.misfit[part], self.status[part], to_background = far_residual_kernel(*given)
        if not self.wanted:
            return
        if scan.background.numel():
            self.to_background += to_background
        chi = torch.view_as_real(_ifft(residual))
        to_object, to_probe, _, _ = overlap_add_sums(chi, scan.object, probe, corner)
        self.to_object += to_object
        if scan.fourier:
            moved = torch.view_as_real(_fft(to_probe))
            to_probe, self.to_shift[part] = shift_ramp_backward(self.spectrum, shift, moved)
            self.to_probe += to_probe
        else:
            self.to_probe += to_probe.squeeze(0)


class _Kernels(_Work):
    """By kernels that go on where the block before ended, so that a sum's bits do not depend on where blocks end, in
    memory that stays in cache. What does not change from block to block is written down once: a block takes little."""

    def run(self, block: int) -> None:
        scan = self.scan
        ours = scan.corner, scan.shift, scan.data, self.loss, self.misfit, self.status, self.to_shift
        parts = zip(*(tensor.split(block) for tensor in ours), strict=True)
        weights = iter(scan.weight.split(block)) if scan.weight.dim() == 3 else repeat(scan.weight)
        for corner, shift, data, loss, misfit, status, to_shift in parts if len(scan.data) else ():
            self._prepare(len(corner), weight := next(weights))
            if scan.fourier:
                self._ramp["shift"] = self._unramp["shift"] = shift
                self._call("shift_ramp_forward", self._ramp)
                torch.fft.ifft2(self._far, norm="ortho", out=self._moved)
            self._exit["corner"] = self._add["corner"] = corner
            self._call("exit_waves_forward", self._exit)
            torch.fft.fft2(self._near, norm="ortho", out=self._far)
            self._residual |= {"data": data, "weight": weight, "loss": loss, "misfit": misfit, "status": status}
            self._call("far_residual", self._residual)
            if not self.wanted:
                continue
            torch.fft.ifft2(self._far, norm="ortho", out=self._near)
            if scan.fourier:
                self._far.zero_()  # where the gradients to the patterns' own probes are added up
            self._call("overlap_add", self._add)
            if scan.fourier:
                torch.fft.fft2(self._far, norm="ortho", out=self._near)
                self._unramp["to_shift"] = to_shift
                self._call("shift_ramp_backward", self._unramp)

    _patterns = 0

    def _prepare(self, patterns: int, weight: Tensor) -> None:
        """Memory and the kernels' fields for blocks of so many patterns."""
        if patterns == self._patterns:
            return
        self._patterns = patterns
        scan = self.scan
        modes, side = scan.probe.shape[:2]
        height, width = scan.object.shape[:2]
        near, far, moved = (scan.probe.new_empty(patterns, *scan.probe.shape) for _ in range(3))
        self._near, self._far, self._moved = map(torch.view_as_complex, (near, far, moved))
        sizes = {"patterns": patterns, "modes": modes, "side": side}
        self._ramp = {**sizes, "spectrum": self.spectrum, "out": far}
        self._unramp = {
            **sizes,
            "spectrum": self.spectrum,
            "grad_out": near,
            "onto": True,
            "to_spectrum": self.to_probe,
        }
        patches = {**sizes, "height": height, "width": width, "object": scan.object, "waves": near}
        patches |= {"probes": patterns, "probe": moved} if scan.fourier else {"probes": 1, "probe": scan.probe}
        self._exit = patches
        to_probe = far if scan.fourier else self.to_probe
        self._add = {**patches, "onto": True, "to_object": self.to_object, "to_probe": to_probe}
        self._residual = {
            **residual_sizes(far, scan.data, weight),
            "kind": scan.kind,
            "scale": scan.scale,
            "onto": True,
            "psi": far,
            "background": scan.background,
            "out": far,
            "to_background": self.to_background if self.wanted else None,
        }

    def _call(self, name: str, fields: dict[str, Any]) -> None:
        kernels.call(name, self.scan.object, fields)


def _fft(blocks: Tensor) -> Tensor:
    return torch.fft.fft2(torch.view_as_complex(blocks), norm="ortho")


def _ifft(blocks: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.view_as_complex(blocks), norm="ortho")
