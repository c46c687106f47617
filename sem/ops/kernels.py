"""The one way from an operator to its compiled kernels, on every device.

Work goes to the caller's current stream and device; nothing waits, and workspaces come from torch's caching allocator,
which hands memory of a stream on to work of that stream alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sem import native
from sem.precision import product_dtype

_STEP_ROWS = 8  # those kernels read the weights once for each row; torch's products do not, in many calls


@dataclass(frozen=True)
class StandIn:
    """What tests run on CPU tensors in place of the CPU's kernels.

    ``module`` and ``queue``: a device back end that reads ordinary memory; without them the CPU's kernels, but for
    operators that can be composed of torch's own.
    """

    module: ModuleType | None = None
    queue: int = 0


_stand_in: StandIn | None = None


@contextmanager
def cpu_tensors_on(stand_in: StandIn) -> Iterator[None]:
    """Until the context ends, CPU tensors are treated as those of a device. For :mod:`sem.ops.testing`."""
    global _stand_in
    before, _stand_in = _stand_in, stand_in
    try:
        yield
    finally:
        _stand_in = before


def on_cpu(tensor: Tensor) -> bool:
    """Whether the CPU's kernels serve ``tensor``, and not what devices have."""
    return tensor.is_cpu and _stand_in is None


def has(name: str, tensor: Tensor) -> bool:
    """Whether there is a kernel ``name`` where ``tensor`` is; if not, an operator may be composed of torch's own."""
    if tensor.is_cpu and _stand_in is not None:
        return _stand_in.module is not None and _device_has(name, "xpu")
    return tensor.is_cpu or _device_has(name, tensor.device.type)


@cache
def _device_has(name: str, device_type: str) -> bool:
    return native.is_built(device_type) and name in native.backend("cpu").DEVICE_KERNELS


def takes_step(rows: Tensor) -> bool:
    """Whether a kernel for a whole stage of a model that decodes does what the stage's parts would for real ``rows``:
    on the CPU, in float32, unrecorded; and quicker, since they are few."""
    few = len(rows) <= _STEP_ROWS and not torch.is_grad_enabled()
    return few and on_cpu(rows) and product_dtype(rows) is torch.float32


def call(name: str, like: Tensor, fields: dict[str, Any]) -> None:
    """Run the kernel ``name`` where ``like`` is.

    Args:
        fields: the kernel's fields by name, as its header in ``csrc/include/sem`` declares them: numbers, contiguous
            tensors, None for an array that may be absent. Those that it writes are written in place.

    Raises:
        TypeError: a field is missing, unknown, or not of the dtype or number of elements declared.
        ValueError: a user's number is out of its range, where that can be seen for free (on the CPU).
        RuntimeError: there are no kernels for this device, or it refused the work.
    """
    if like.is_cpu and (_stand_in is None or _stand_in.module is None):
        getattr(native.backend("cpu"), name)(0, 0, torch.get_num_threads(), None, **fields)
        return
    workspace: list[Tensor] = []

    def allocate(floats: int) -> int:
        workspace.append(like.new_empty(floats, dtype=torch.float32))
        return workspace[0].data_ptr()

    if like.is_cpu:
        assert _stand_in is not None and _stand_in.module is not None
        getattr(_stand_in.module, name)(_stand_in.queue, 0, 1, allocate, **fields)
        _stand_in.module.wait(_stand_in.queue)
        return
    device = like.device
    kernel = getattr(native.backend(device.type), name)
    with torch.get_device_module(device).device(device):
        kernel(_stream(device), device.index, 1, allocate, **fields)


def _stream(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.current_stream(device).cuda_stream
    return int(torch.xpu.current_stream(device).sycl_queue)
