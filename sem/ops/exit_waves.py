"""exit_waves: a probe behind every patch of an object; overlap_add, its adjoint."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sem.ops import boundary, composed_ptychography
from sem.ops.patches import Patches
from sem.ops.registration import Operator, only_needed
from sem.precision import note_autocast


def exit_waves(object: Tensor, probe: Tensor, patches: Patches) -> Tensor:
    """``psi_jm = P_m * O[patch j]``: what each probe mode leaves behind each patch of the object.

    Args:
        object: ``O``, ``[H, W]`` complex64, or real blocks ``[H, W, 2]`` in float32, bfloat16 or float16 (widened).
        probe: ``P``, ``[M, N, N]`` shared by all patterns, or ``[J, M, N, N]``, each pattern's own; in either form.
        patches: where the ``J`` patches of ``N x N`` pixels lie.

    Returns:
        ``[J, M, N, N]`` in the form of ``object``. Computed in float32 whatever autocast says.

    Gradients, exact and of first order: ``g_O = sum conj(P) g`` over patterns and modes at each pixel (overlap-add),
    ``g_P = sum conj(O[patch]) g`` over patterns. Every sum takes the patterns in order, so the bits do not depend on
    threads.

    Raises:
        TypeError: an argument of another type or dtype; complex128 is refused, never narrowed.
        ValueError: shapes that do not fit each other, tensors on different devices.
        NotImplementedError: a second derivative was asked for.

    In plain torch: ``probe * object[y : y + N, x : x + N]`` for each corner, see :func:`sem.ops.reference.exit_waves`.

    Example:
        >>> patches = Patches([(0, 0), (0, 1)], side=1, shape=(1, 2))
        >>> exit_waves(torch.tensor([[1j, 2]]), torch.ones(1, 1, 1, dtype=torch.complex64), patches).flatten()
        tensor([0.+1.j, 2.+0.j])
    """
    wave, probes, restore = _pair(object, probe, patches)
    note_autocast("exit_waves", wave.device.type)
    return restore(exit_waves_forward(wave, probes, patches.packed(wave.device)))


class OverlapSums(NamedTuple):
    """``to_object [H, W]`` and ``to_probe``, of the probe's shape, in the form of the object; ``illumination [H, W]``
    and ``exposure [N, N]``, float32."""

    to_object: Tensor
    to_probe: Tensor
    illumination: Tensor
    exposure: Tensor


def overlap_add(waves: Tensor, object: Tensor, probe: Tensor, patches: Patches) -> OverlapSums:
    """The adjoint of :func:`exit_waves`, and the sums that normalise it, in one pass over the waves.

    Args:
        waves: ``chi``, ``[J, M, N, N]`` complex64 or real blocks.
        object, probe, patches: as :func:`exit_waves` takes them.

    Returns:
        ``to_object = sum conj(P) chi``, ``to_probe = sum conj(O[patch]) chi`` (each pattern's own where each has a
        probe of its own), ``illumination = sum |P|^2`` over patterns and modes at each pixel of the object, and
        ``exposure = sum |O[patch]|^2`` over patterns at each pixel of a patch.

    Gradients: none; a derivative raises. Raises: as :func:`exit_waves`.

    Example:
        >>> patches = Patches([(0, 0), (0, 1)], side=1, shape=(1, 2))
        >>> one = torch.ones(2, 1, 1, 1, dtype=torch.complex64)
        >>> overlap_add(one, torch.tensor([[1j, 2]]), one[0], patches).to_probe
        tensor([[[2.-1.j]]])
    """
    wave, probes, restore = _pair(object, probe, patches)
    shape = (len(patches), probes.shape[1], patches.side, patches.side)
    blocks, _ = boundary.wave("waves", waves, dims=4, shape=shape)
    boundary.same_device("waves", blocks, wave)
    note_autocast("overlap_add", wave.device.type)
    sums = overlap_add_sums(blocks, wave, probes, patches.packed(wave.device))
    to_probe = sums[1] if probe.dim() - (not probe.is_complex()) == 4 else sums[1].squeeze(0)
    return OverlapSums(restore(sums[0]), restore(to_probe), *sums[2:])


def _pair(object: Tensor, probe: Tensor, patches: Patches) -> tuple[Tensor, Tensor, Any]:
    """Object ``[H, W, 2]``, probes ``[1 or J, M, N, N, 2]``, and the way back to the object's form."""
    if not isinstance(patches, Patches):
        raise TypeError(f"patches: expected a sem.ops.Patches, got {type(patches).__name__}")
    wave, restore = boundary.wave("object", object, dims=2)
    if wave.shape[:-1] != (patches.height, patches.width):
        raise ValueError(
            f"object: expected shape {[patches.height, patches.width]}, the patches', got {list(wave.shape[:-1])}"
        )
    probes, _ = boundary.wave("probe", probe, dims=3)
    side, count = patches.side, len(patches)
    if probes.dim() == 4:
        probes = probes.unsqueeze(0)
    elif probes.dim() != 5 or probes.shape[0] != count:
        raise ValueError(
            f"probe: expected shape [M, {side}, {side}] or [{count}, M, {side}, {side}], got {list(probe.shape)}"
        )
    if probes.shape[2:4] != (side, side) or probes.shape[1] == 0:
        raise ValueError(
            f"probe: expected modes of {side} x {side} pixels, the patches', got {list(probes.shape[1:-1])}"
        )
    boundary.same_device("probe", probes, wave)
    return wave, probes, restore


# Below, object is float32 [H, W, 2], probe [1 or J, M, N, N, 2], waves [J, M, N, N, 2] and corner Patches.packed.
def _sizes(object: Tensor, probe: Tensor, corner: Tensor) -> dict[str, int]:
    probes, modes, side = probe.shape[:3]
    height, width = object.shape[:2]
    patterns = corner.shape[0]
    return dict(patterns=patterns, probes=probes, modes=modes, side=side, height=height, width=width)


exit_waves_forward = Operator(
    "exit_waves_forward(Tensor object, Tensor probe, Tensor corner) -> (Tensor waves)",
    empty=lambda object, probe, corner: probe.new_empty(len(corner), *probe.shape[1:]),
    sizes=_sizes,
    composed=composed_ptychography.exit_waves_forward,
)
overlap_add_sums = Operator(
    "overlap_add(Tensor waves, Tensor object, Tensor probe, Tensor corner)"
    " -> (Tensor to_object, Tensor to_probe, Tensor illumination, Tensor exposure)",
    empty=lambda waves, object, probe, corner: (
        torch.empty_like(object),
        torch.empty_like(probe),
        object.new_empty(object.shape[:2]),
        object.new_empty(probe.shape[2:4]),
    ),
    sizes=lambda waves, *rest: {**_sizes(*rest), "onto": False},
    composed=composed_ptychography.overlap_add,
)
overlap_add_sums.first_order("overlap_add, the derivative of exit_waves", "reference.exit_waves")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return only_needed(ctx, overlap_add_sums(grad.contiguous(), *ctx.saved_tensors)[:2])


exit_waves_forward.differentiate(_setup_context, _backward)
