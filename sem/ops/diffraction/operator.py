"""diffraction: the far-field X-ray image of a small crystal, pixel by pixel, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sem import native
from sem.ops import boundary
from sem.ops.diffraction.inputs import DetectorFrame, Domains, Number, Polarisation, Region, Sources, StructureFactors
from sem.ops.diffraction.problem import (
    CLASSICAL_RADIUS_SQUARED,
    DEFAULT_FLUENCE,
    ProblemTensors,
    Settings,
    check_values,
    resolve,
)
from sem.ops.registration import Operator
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
        detector, sources, domains, factors, polarisation, region: see :mod:`sem.ops.diffraction.inputs`. Without
            ``polarisation`` its factor is 1; without ``region`` every pixel is computed.
        scale: squared classical electron radius times photons per square metre; the default is 1 to seven digits.
        background: in photons per steradian (what ``I`` starts at).
        d_min: reflections of smaller spacing are left out, metres.
        mode: ``"nanobragg"`` repeats the C program's habits: ``solid_angle`` and ``polarisation`` are those of the
            first subpixel, source and layer, ``capture`` that of the last layer's first subpixel, and the background
            passes through them, through ``scale`` and the division by ``steps``. In ``"exact"`` every term has its own
            factors, and the background is averaged over subpixels and sources with them, without ``scale``.

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

    In plain torch, in any precision: :func:`sem.ops.diffraction.reference.diffraction`.

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
    problem, settings = resolve(
        detector, sources, domains, factors, polarisation, region, scale, background, d_min, mode
    )
    note_autocast("diffraction", problem.frame.device.type)
    tensors = [tensor if tensor is not problem.table else tensor.float() for tensor in problem.tensors()]
    return diffraction_forward(*settings.numbers(), *tensors)


@torch.no_grad()
def diffraction_serial(
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
    """The image of :func:`diffraction` in float64, pixel by pixel on one core of the CPU, without gradients.

    It is what :func:`diffraction_trace` follows under the name of ``"reference"``: a pixel's trace ends with its value.
    For gradients in float64 there is :func:`sem.ops.diffraction.reference.diffraction`.
    """
    problem, settings = resolve(
        detector, sources, domains, factors, polarisation, region, scale, background, d_min, mode
    )
    check_values(problem)
    out = torch.empty(settings.slow_pixels, settings.fast_pixels, dtype=torch.float64)
    _call("diffraction_reference_forward_float64", settings, problem, torch.float64, out=out)
    return out


def _call(kernel: str, settings: Settings, problem: ProblemTensors, dtype: torch.dtype, **more: Any) -> Any:
    """A function of the CPU's module that is no operator, with the table in ``dtype``."""
    tensors = [t.cpu().to(dtype) if t is problem.table else t.cpu() for t in problem.tensors()]
    arguments = [*settings.numbers(), *tensors]
    named = dict(zip([*_SETTINGS, *_TENSORS], arguments, strict=True))
    function = getattr(native.backend("cpu"), kernel)
    return function(0, 0, torch.get_num_threads(), None, **_sizes(*arguments), **named, **more)


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

    Raises:
        TypeError, ValueError: as :func:`diffraction`; a pixel outside the detector, or a ``dtype`` that ``backend``
            has not.

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
    problem, settings = resolve(
        detector, sources, domains, factors, polarisation, region, scale, background, d_min, mode
    )
    check_values(problem)
    slow, fast = pixel
    if not (0 <= slow < settings.slow_pixels and 0 <= fast < settings.fast_pixels):
        raise ValueError(
            f"pixel: expected (slow, fast) inside {settings.slow_pixels} x {settings.fast_pixels}, got {tuple(pixel)}"
        )
    kernel = (
        "diffraction_trace" if native_kernel else f"diffraction_reference_trace_{str(dtype).removeprefix('torch.')}"
    )
    found = _call(kernel, settings, problem, dtype, slow=slow, fast=fast)
    return [TracedValue(name, step, tuple(values)) for name, step, values in found]


# The operator's arguments are the fields of Settings, then those of ProblemTensors: float64 but for the table (float32)
# and the mask (bool).
_SETTINGS = [field.name for field in fields(Settings)]
_TENSORS = [field.name for field in fields(ProblemTensors)]
_SMOOTH = [name for name in _TENSORS if name != "mask"]  # what has a gradient
# Their gradients cost as much as all the others.
_DETECTOR_AND_BEAM = {
    *("frame", "close_distance", "curvature", "incident", "wavelength", "kahn", "polarisation_axis"),
}
_ARGUMENTS = ", ".join(
    [*(f"{field.type} {field.name}" for field in fields(Settings)), *(f"Tensor {name}" for name in _TENSORS)]
)


def _problem_of(args: Sequence[Any]) -> ProblemTensors:
    return ProblemTensors(*args[len(_SETTINGS) : len(_SETTINGS) + len(_TENSORS)])


def _sizes(*args: Any) -> dict[str, int]:
    problem = _problem_of(args)
    positions, mosaics = problem.orientation.shape[:2]
    h, k, l = problem.table.shape  # noqa: E741
    sources = len(problem.incident)
    return {"sources": sources, "positions": positions, "mosaics": mosaics, "table_h": h, "table_k": k, "table_l": l}


def _empty_image(*args: Any) -> Tensor:
    return _problem_of(args).table.new_empty(args[0], args[1])


def _empty_gradients(*args: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(getattr(_problem_of(args), name)) for name in _SMOOTH)


# An image has no rows: torch.vmap calls the operator once per batch entry.
diffraction_forward = Operator(
    f"diffraction_forward({_ARGUMENTS}) -> (Tensor out)",
    empty=_empty_image,
    sizes=_sizes,
    check=lambda *args: check_values(_problem_of(args)),
)
# Not to_detector_and_beam: nobody needs the gradients to _DETECTOR_AND_BEAM, which are 0.
diffraction_backward = Operator(
    f"diffraction_backward({_ARGUMENTS}, Tensor grad_out, bool to_detector_and_beam)"
    f" -> ({', '.join(f'Tensor grad_{name}' for name in _SMOOTH)})",
    empty=_empty_gradients,
    sizes=_sizes,
)
diffraction_backward.first_order("diffraction", "diffraction.reference.diffraction")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.settings = inputs[: len(_SETTINGS)]
    ctx.save_for_backward(*inputs[len(_SETTINGS) :])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[len(_SETTINGS) :]
    to_detector_and_beam = any(need for name, need in zip(_TENSORS, needed, strict=True) if name in _DETECTOR_AND_BEAM)
    grads = diffraction_backward(*ctx.settings, *ctx.saved_tensors, grad.contiguous(), to_detector_and_beam)
    asked = (grad if need else None for grad, need in zip(grads, needed, strict=False))
    return (*(None,) * len(_SETTINGS), *asked, None)


diffraction_forward.differentiate(_setup_context, _backward)
