"""For tests alone: what devices run, on ordinary CPU tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sem import native
from sem.ops import kernels


@contextmanager
def xpu_kernels_on_cpu_tensors(local_bytes: int = 0, group_size: int = 0, sub_group_size: int = 0) -> Iterator[None]:
    """Operators on CPU tensors run the XPU kernels, on a SYCL CPU device, until the context ends; each call waits for
    its result. Those without such a kernel are composed of torch's own operators, as on any device.

    Args:
        local_bytes, group_size, sub_group_size: what kernels may use of the device; 0 is all that it has.

    Raises:
        RuntimeError: no XPU kernels are built, or there is no SYCL CPU device (set ``OCL_ICD_FILENAMES``).
    """
    module = native.backend("xpu")
    module.set_limits(local_bytes, group_size, sub_group_size)
    try:
        with kernels.cpu_tensors_on(kernels.StandIn(module, module.cpu_queue())):
            yield
    finally:
        module.set_limits(0, 0, 0)


@contextmanager
def composed_on_cpu_tensors() -> Iterator[None]:
    """Operators that are composed of torch's own where there is no kernel are so on CPU tensors too, until the context
    ends."""
    with kernels.cpu_tensors_on(kernels.StandIn()):
        yield
