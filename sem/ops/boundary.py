"""The one place where users' arguments are checked, and pinned to float32, before a kernel sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sem.ops.topology import Topology

_WIDENED = (torch.float32, torch.bfloat16, torch.float16)
_COMPLEX = (torch.complex64, torch.complex32)


_SOME = " >= 1"
Shape = Sequence[int | str]
"""Sizes, and names for those that may be any, ``"N >= 1"`` where that leaves out zero."""


def dense(name: str, value: object) -> Tensor:
    """``value``, which has to be a tensor with memory of its own."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got one of layout {value.layout}")
    return value


def _require_shape(name: str, found: Sequence[int], expected: Shape) -> None:
    """Before anything is copied: a tensor of the wrong shape may be expanded, and larger than memory."""
    some = [wanted for wanted in expected if isinstance(wanted, str) and wanted.endswith(_SOME)]
    if len(found) == len(expected) and all(
        (size > 0 or wanted not in some) if isinstance(wanted, str) else wanted == size
        for wanted, size in zip(expected, found, strict=True)
    ):
        return
    form = ", ".join(str(wanted).removesuffix(_SOME) for wanted in expected)
    raise ValueError(f"{name}: expected shape {', '.join([f'[{form}]', *some])}, got {list(found)}")


def _refuse_double(name: str, tensor: Tensor) -> None:
    if tensor.dtype in (torch.float64, torch.complex128):
        single = "complex64" if tensor.is_complex() else "float32"
        raise TypeError(
            f"{name}: expected {single} (native operators compute in float32), got {tensor.dtype}; convert it "
            f"yourself with .to(torch.{single}), or use sem.ops.reference for double precision"
        )


def _require_real(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _WIDENED:
        _refuse_double(name, tensor)
        raise TypeError(f"{name}: expected float32, bfloat16 or float16, got {tensor.dtype}")


def real(name: str, value: object, shape: Shape | None = None) -> Tensor:
    """A real tensor as contiguous float32, bf16 and fp16 widened; ``shape`` is checked where given."""
    tensor = dense(name, value)
    _require_real(name, tensor)
    if shape is not None and tensor.shape != shape:
        _require_shape(name, tensor.shape, shape)
    return _as_float(tensor)


def _as_float(tensor: Tensor) -> Tensor:
    """Contiguous float32 that is what it looks like in memory. Every call skipped is half a microsecond."""
    if tensor.dtype is not torch.float32:
        tensor = tensor.to(torch.float32)
    if torch.compiler.is_compiling() or tensor.is_neg():
        tensor = tensor.resolve_neg()
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def wave(
    name: str, value: object, nodes: int | None = None, dims: int = 1, shape: Shape | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A complex vector field in real blocks, and the way back to the caller's form.

    Accepts complex64 ``[..., D]``, or its real blocks ``[..., D, 2]`` in float32, bfloat16 or float16. Returns
    contiguous float32 ``[..., D, 2]`` and a function that gives a result of that shape the caller's form (complex64, or
    float32 real blocks). ``dims`` is the least number of dimensions of the complex form, ``shape`` its shape.
    """
    tensor = dense(name, value)
    if tensor.dtype in _COMPLEX:
        if tensor.dim() < dims:
            raise ValueError(f"{name}: expected at least {dims} dimension(s), got shape {list(tensor.shape)}")
        form = tensor.shape
    elif tensor.dtype in _WIDENED:
        if tensor.dim() < dims + 1 or tensor.shape[-1] != 2:
            raise ValueError(f"{name}: expected {_wave_form(dims)}, got {tensor.dtype} of shape {list(tensor.shape)}")
        form = tensor.shape[:-1]
    else:
        _refuse_double(name, tensor)
        raise TypeError(f"{name}: expected {_wave_form(dims)}, got {tensor.dtype}")
    if nodes is not None and form[-1] != nodes:
        raise ValueError(f"{name}: expected D = {nodes} (the topology's nodes), got {form[-1]}")
    if shape is not None:
        _require_shape(name, form, shape)
    if form[-1] == 0:
        raise ValueError(f"{name}: expected D >= 1, got shape {list(tensor.shape)}")
    if tensor.dtype not in _COMPLEX:
        blocks = _as_float(tensor)
        # a part of another tensor may begin between two complex numbers
        odd = not torch.compiler.is_compiling() and not blocks.is_meta and blocks.storage_offset() % 2
        return (blocks.clone() if odd else blocks), _unchanged
    if tensor.dtype is not torch.complex64:
        tensor = tensor.to(torch.complex64)
    if torch.compiler.is_compiling() or tensor.is_conj():  # a compiler cannot look at the bit
        tensor = tensor.resolve_conj()
    return _as_float(torch.view_as_real(tensor)), torch.view_as_complex


def _wave_form(dims: int) -> str:
    form = "complex64 [..., D]" if dims == 1 else f"complex64 of {dims} dimensions or more"
    return f"{form}, or real blocks [..., D, 2] in float32, bfloat16 or float16"


def wave_rows(
    name: str, value: object, nodes: int | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor], tuple[int, ...]]:
    """:func:`wave` as rows ``[rows, D, 2]``, the way back from them, and the shape of the rows."""
    blocks, restore = wave(name, value, nodes)
    shape = blocks.shape
    if len(shape) == 3:
        return blocks, restore, shape[:1]
    rows = blocks.flatten(0, -3) if len(shape) > 3 else blocks.unsqueeze(0)
    return rows, lambda out: restore(out.reshape(shape)), shape[:-2]


def real_or_wave(name: str, value: object, nodes: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Real ``[..., D]`` or complex ``[..., D]`` as float32 rows ``[rows, D, components]``, and the way back."""
    tensor = dense(name, value)
    if tensor.is_complex():
        blocks, restore = wave(name, tensor, nodes)
    else:
        _require_real(name, tensor)
        if tensor.dim() < 1 or tensor.shape[-1] != nodes:
            raise ValueError(f"{name}: expected shape [..., {nodes}] (the topology's nodes), got {list(tensor.shape)}")
        blocks, restore = real(name, tensor).unsqueeze(-1), _drop_last
    shape = blocks.shape
    if len(shape) == 3:
        return blocks, restore
    rows = blocks.flatten(0, -3) if len(shape) > 3 else blocks.unsqueeze(0)
    return rows, lambda out: restore(out.reshape(shape))


def topology(value: object) -> Topology:
    """``value``, which has to be a :class:`Topology`."""
    if not isinstance(value, Topology):
        raise TypeError(f"topology: expected a sem.ops.Topology, got {type(value).__name__}")
    return value


def edge_weight(value: object, graph: Topology, like: Tensor) -> Tensor:
    """Edge weights as float32 ``[E]`` on the device of ``like``. Their sign is checked where they can be read for free:
    by the CPU's binding (``sem::Values``), not on a device, where it would cost a wait."""
    weight = real("edge_weight", value, (graph.num_edges,))
    same_device("edge_weight", weight, like)
    return weight


def same_device(name: str, tensor: Tensor, like: Tensor) -> None:
    """Raise a ValueError where ``tensor`` is not on the device of ``like``, a call's first tensor."""
    if tensor.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, as the first argument, got {tensor.device}")


def scalar(name: str, value: object, like: Tensor) -> Tensor:
    """A Python number or a one-element real tensor as 0-d float32 on the device of ``like``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return torch.full((), finite(name, _float(name, value)), dtype=torch.float32, device=like.device)
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name}: expected one element, got shape {list(value.shape)}")
        tensor = real(name, value)
        same_device(name, tensor, like)
        return tensor.reshape(()) if tensor.dim() else tensor
    raise TypeError(f"{name}: expected a number or a one-element tensor, got {type(value).__name__}")


def double(name: str, value: object, shape: Shape | None = None, like: Tensor | None = None) -> Tensor:
    """A number, a list of numbers or a real tensor as float64, for geometry that a kernel reads in double precision.

    ``shape`` and the device of ``like`` are checked where given; what is not a tensor goes to that device.
    """
    if isinstance(value, (int, float, list, tuple)) and not isinstance(value, bool):
        try:
            tensor = torch.tensor(value, dtype=torch.float64, device=None if like is None else like.device)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TypeError(f"{name}: expected numbers or a real tensor, got {value!r}") from None
    else:
        tensor = dense(name, value)
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"{name}: expected a real floating-point tensor, got {tensor.dtype}")
        if like is not None:
            same_device(name, tensor, like)
    if shape is not None:
        _require_shape(name, tensor.shape, shape)
    return tensor.to(torch.float64).resolve_neg().contiguous()


# Comparisons, not math.isfinite: under torch.compile(dynamic=True) a number is a symbol, which has only those.
def finite(name: str, value: float) -> float:
    """``value``, which may be neither infinite nor NaN."""
    if not -math.inf < value < math.inf:
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return value


def positive(name: str, value: object) -> float:
    """``value`` as a float, which has to be a number, finite and above 0. A bool is no number."""
    number = _number(name, value, "> 0")
    if not 0 < number < math.inf:
        raise ValueError(f"{name}: expected a finite number > 0, got {value}")
    return number


def nonnegative(name: str, value: object) -> float:
    """``value`` as a float, which has to be a number, finite and at least 0. A bool is no number."""
    number = _number(name, value, ">= 0")
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}: expected a finite number >= 0, got {value}")
    return number


def count(name: str, value: object, least: int = 0) -> int:
    """``value``, which has to be an int (a bool is none) of at least ``least`` that fits the kernels' 32 bits."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if value >= 2**31:
        raise ValueError(f"{name}: expected less than 2^31, got {value}")
    return value


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """``value``, which has to be one of the strings ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")
    return str(value)


def _number(name: str, value: object, wanted: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number {wanted}, got {type(value).__name__}")
    return _float(name, value)


def _float(name: str, value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number within the range of floats, got a larger one") from None


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _drop_last(tensor: Tensor) -> Tensor:
    return tensor.squeeze(-1)
