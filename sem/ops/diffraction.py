"""diffraction: the far-field X-ray image of a small crystal, pixel by pixel, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from sem import native
from sem.ops import boundary
from sem.ops.diffraction_inputs import DetectorFrame, Domains, Number, Polarisation, Region, Sources, StructureFactors
from sem.ops.diffraction_problem import (
    CLASSICAL_RADIUS_SQUARED,
    DEFAULT_FLUENCE,
    Geometry,
    Settings,
    check_values,
    resolve,
)
from sem.ops.registration import first_order, register_row_vmap
from sem.precision import note_autocast

BACKENDS = ("native", "reference")
"""What computes a trace."""


def diffraction(
    detector: DetectorFrame,
    sources: Sources,
    domains: Domains,
    factors: StructureFactors,
    polarisation: Polarisation | None = None,
    region: Region | None = None,
    *,
    scale: Number = CLASSICAL_RADIUS_SQUARED * DEFAULT_FLUENCE,
    background: Number = 0.0,
    d_min: float = 0.0,
    mode: str = "nanobragg",
) -> Tensor:
    """The diffraction image of a crystal, in the manner of the C program nanoBragg.

    For every pixel, with ``d`` the unit vector to a subpixel, and over layers, subpixels, sources, spindle positions
    and mosaic domains, in that order::

        q = (d - incident) / wavelength         h, k, l = a.q, b.q, c.q       rest = h - nearest whole index
        I = background + sum weight * F_cell(h, k, l)**2 * F_latt(rest)**2
        out = scale * I / steps * capture * polarisation * solid_angle

    ``steps`` counts subpixels, sources, positions and domains. ``F_latt`` is, by ``domains.shape``::

        square   product over axes of sin(pi N rest) / sin(pi rest)
        round    0.7236 Na Nb Nc * 3 (sin x / x - cos x) / x**2      x**2 = pi**2 fudge sum (N rest)**2
        gauss    Na Nb Nc exp(-x / 0.63)                             x = fudge |sum rest a*|**2 (Na Nb Nc)**2
        tophat   Na Nb Nc where x < 0.3969, else 0                   in reciprocal Angstroms

    Args:
        detector, sources, domains, factors, polarisation, region: see :mod:`sem.ops.diffraction_inputs`. Without
            ``polarisation`` its factor is 1; without ``region`` every pixel is computed.
        scale: squared classical electron radius times photons per square metre; the default is 1 to seven digits.
        background: in photons per steradian (what ``I`` starts at).
        d_min: reflections of smaller spacing are left out, metres.
        mode: ``"nanobragg"`` repeats the C program's habits: ``solid_angle`` and ``polarisation`` are those of the
            first subpixel, source and layer, ``capture`` that of the last, and the background passes through them,
            through ``scale`` and the division by ``steps``. In ``"exact"`` every term has its own factors, and the
            background is averaged over subpixels and sources with them, without ``scale``.

    Returns:
        float32 ``[slow, fast]`` photons; 0 outside ``region``. Coordinates, Miller indices and their distance to the
        nearest whole ones are computed in float64 (on CUDA and XPU devices as sums of two float32, 48 bits) and rounded
        once; the rest is float32. A pixel's bits depend on that
        pixel alone, whatever the region and the number of threads.

    Gradients, exact and of first order, in float64 whatever the arguments hold: the detector's origin, axes, close
    distance and curvature; directions, wavelengths and weights of the sources; orientations, reciprocal metric, cells
    (an edge with N <= 1 has none) and fudge; structure factors, default and table; Kahn's factor and the polarisation
    axis; scale and background. Sums over pixels are taken in an order that depends on the image's size alone. There is
    no gradient where there is no derivative: the nearest index and the edge of tophat's spots count as constant, and so
    do ``d_min``, mask and region, pixel size and the layers. Backward computes the image again and keeps nothing of its
    size.

    Raises:
        TypeError, ValueError: an argument that does not fit, by name.
        NotImplementedError: a second derivative was asked for.

    In plain torch, in any precision: :func:`sem.ops.reference_diffraction.diffraction`.

    Example:
        >>> from sem.ops import DetectorFrame, Domains, Sources, StructureFactors
        >>> detector = DetectorFrame(
        ...     origin=[0.1, 0.0032, -0.0032],
        ...     fast=[0.0, 0.0, 1.0],
        ...     slow=[0.0, -1.0, 0.0],
        ...     normal=[1.0, 0.0, 0.0],
        ...     pixel_size=1e-4,
        ...     shape=(64, 64),
        ...     close_distance=0.1,
        ... )
        >>> sources = Sources(direction=torch.tensor([[-1.0, 0.0, 0.0]]), wavelength=torch.tensor([1e-10]))
        >>> cell = torch.diag(torch.tensor([1e-8, 1e-8, 1e-8], dtype=torch.float64))
        >>> domains = Domains(cell.reshape(1, 1, 3, 3).requires_grad_(), cells=[5, 5, 5])
        >>> image = diffraction(detector, sources, domains, StructureFactors(default=100.0))
        >>> image.sum().backward()
        >>> image.shape, cell.grad is None
        (torch.Size([64, 64]), True)
    """
    geometry, settings = resolve(
        detector, sources, domains, factors, polarisation, region, scale, background, d_min, mode
    )
    note_autocast("diffraction", geometry.frame.device.type)
    tensors = [tensor if tensor is not geometry.table else tensor.float() for tensor in geometry.tensors()]
    return _Diffraction.apply(*settings.numbers(), *tensors)


@dataclass(frozen=True)
class TracedValue:
    """A number or a vector that was computed for a pixel.

    Attributes:
        name: in the manner of nanoBragg's own trace, ``F_latt`` for instance.
        step: layer, subpixel (slow by slow), source, spindle position, mosaic domain; -1 where it belongs to none.
        values: one number, or three.
    """

    name: str
    step: tuple[int, int, int, int, int]
    values: tuple[float, ...]


@torch.no_grad()
def diffraction_trace(
    pixel: tuple[int, int],
    detector: DetectorFrame,
    sources: Sources,
    domains: Domains,
    factors: StructureFactors,
    polarisation: Polarisation | None = None,
    region: Region | None = None,
    *,
    scale: Number = CLASSICAL_RADIUS_SQUARED * DEFAULT_FLUENCE,
    background: Number = 0.0,
    d_min: float = 0.0,
    mode: str = "nanobragg",
    backend: str = "reference",
    dtype: torch.dtype | None = None,
) -> list[TracedValue]:
    """Every intermediate value of one pixel of :func:`diffraction`, named, in the order computed.

    Args:
        pixel: ``(slow, fast)``.
        backend: ``"native"``, the CPU kernel that computes the image, or ``"reference"``, the serial implementation it
            is tested against.
        dtype: of the reference, float64 (the default) or float32, with coordinates and indices in float64, rounded
            once; the kernel has float32.

    The other arguments are those of :func:`diffraction`. A pixel outside ``region`` has no values. The kernel computes
    ``F_latt`` squared, of all axes together: its sign and its axes are worked out for the trace by the same arithmetic.

    Example:
        >>> from sem.ops import DetectorFrame, Domains, Sources, StructureFactors
        >>> detector = DetectorFrame([0.1, 5e-5, -5e-5], [0, 0, 1], [0, -1, 0], [1, 0, 0], 1e-4, (1, 1), 0.1)
        >>> sources = Sources(torch.tensor([[-1.0, 0.0, 0.0]]), torch.tensor([1e-10]))
        >>> domains = Domains(1e-8 * torch.eye(3).reshape(1, 1, 3, 3), cells=[5, 5, 5])
        >>> trace = diffraction_trace((0, 0), detector, sources, domains, StructureFactors(default=100.0))
        >>> {value.name: round(value.values[0], 3) for value in trace}["F_latt"]
        125.0
    """
    native_kernel = boundary.choice("backend", backend, BACKENDS) == "native"
    dtype = dtype or (torch.float32 if native_kernel else torch.float64)
    if dtype not in ((torch.float32,) if native_kernel else (torch.float32, torch.float64)):
        raise ValueError(f"dtype: expected torch.float32, or of the reference torch.float64, got {dtype}")
    geometry, settings = resolve(
        detector, sources, domains, factors, polarisation, region, scale, background, d_min, mode
    )
    check_values(geometry)
    slow, fast = pixel
    if not (0 <= slow < settings.slow_pixels and 0 <= fast < settings.fast_pixels):
        raise ValueError(
            f"pixel: expected (slow, fast) inside {settings.slow_pixels} x {settings.fast_pixels}, got {tuple(pixel)}"
        )
    tensors = [t.cpu().to(dtype) if t is geometry.table else t.cpu() for t in geometry.tensors()]
    arguments = (*settings.numbers(), sizes_of(tensors), [t.data_ptr() for t in tensors], slow, fast)
    kernels = native.backend("cpu")
    if native_kernel:
        found = kernels.diffraction_trace(*arguments, torch.get_num_threads())
    else:
        found = kernels.diffraction_reference_trace(*arguments, dtype == torch.float64)
    return [TracedValue(name, tuple(step), tuple(values)) for name, step, values in found]


# Below, `tensors` are those of Geometry in their order, float64 but for the float32 table and the bool mask; `whole`
# and `real` are Settings.
_NAMES = [field.name for field in fields(Geometry)]
_TABLE, _MASK = _NAMES.index("table"), _NAMES.index("mask")
# Detector and beam, whose gradients cost as much as all the others.
_GEOMETRY = {"frame", "close_distance", "curvature", "incident", "wavelength", "kahn", "polarisation_axis"}
_ARGUMENTS = "int[] whole, float[] real, " + ", ".join(f"Tensor {name}" for name in _NAMES)


def sizes_of(tensors: Sequence[Tensor]) -> list[int]:
    """Sources, positions, domains, the table's shape, and whether there is a mask."""
    geometry = Geometry(*tensors)
    mask = int(geometry.mask.numel() > 0)
    return [len(geometry.incident), *geometry.orientation.shape[:2], *geometry.table.shape, mask]


def empty_image(whole: list[int], real: list[float], tensors: Sequence[Tensor]) -> Tensor:
    settings = Settings.of(whole, real)
    return tensors[_TABLE].new_empty(settings.slow_pixels, settings.fast_pixels)


def empty_gradients(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """For every tensor but the mask."""
    return tuple(map(torch.empty_like, tensors[:_MASK]))


def _forward(whole: list[int], real: list[float], *tensors: Tensor) -> Tensor:
    check_values(Geometry(*tensors))
    out = empty_image(whole, real, tensors)
    native.backend(out.device.type).diffraction_forward(
        whole, real, sizes_of(tensors), [t.data_ptr() for t in tensors], out.data_ptr(), torch.get_num_threads()
    )
    return out


def _backward(whole: list[int], real: list[float], geometry: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Gradients to every tensor but the mask, from that to the image, which comes last; 0 to those of ``_GEOMETRY``
    if not ``geometry``."""
    *tensors_, grad = tensors
    grads = empty_gradients(tensors_)
    native.backend(grad.device.type).diffraction_backward(
        whole,
        real,
        sizes_of(tensors_),
        [t.data_ptr() for t in tensors_],
        grad.data_ptr(),
        [t.data_ptr() for t in grads],
        geometry,
        torch.get_num_threads(),
    )
    return grads


diffraction_forward = torch.library.custom_op(
    "sem::diffraction_forward", _forward, mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor"
)
diffraction_backward = torch.library.custom_op(
    "sem::diffraction_backward",
    _backward,
    mutates_args=(),
    schema=f"({_ARGUMENTS.replace('real, ', 'real, bool geometry, ')}, Tensor grad) "
    f"-> ({', '.join(['Tensor'] * _MASK)})",
)
diffraction_forward.register_fake(lambda whole, real, *tensors: empty_image(whole, real, tensors))
diffraction_backward.register_fake(lambda whole, real, geometry, *tensors: empty_gradients(tensors))

# An image has no rows: torch.vmap calls the operator once per batch entry.
register_row_vmap(diffraction_forward, row_args=(), per_row_outputs=(False,))
register_row_vmap(diffraction_backward, row_args=(), per_row_outputs=(False,) * _MASK)

_gradients = first_order(diffraction_backward, "diffraction", "reference_diffraction")


class _Diffraction(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(whole: list[int], real: list[float], *tensors: Tensor) -> Tensor:
        return diffraction_forward(whole, real, *tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.whole, ctx.real, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2 : 2 + _MASK]
        geometry = any(need for name, need in zip(_NAMES, needed, strict=False) if name in _GEOMETRY)
        grads = _gradients(ctx.whole, ctx.real, geometry, *ctx.saved_tensors, grad.contiguous())
        return None, None, *(grad if need else None for grad, need in zip(grads, needed, strict=True)), None
