"""For tests alone: the XPU kernels on ordinary CPU tensors, which a SYCL CPU device reads and writes in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sem import native
from sem.ops import device

# The CPU's own kernels stay in force but inside the context below.
_disabled = ExitStack()
for _operator, _implementation in device.IMPLEMENTATIONS.items():
    _operator.register_kernel("cpu", _implementation)
    _disabled.enter_context(_operator.set_kernel_enabled("cpu", False))


@contextmanager
def xpu_kernels_on_cpu_tensors(local_bytes: int = 0, group_size: int = 0, sub_group_size: int = 0) -> Iterator[None]:
    """Operators on CPU tensors run the XPU kernels until the context ends; each call waits for its result.

    Args:
        local_bytes, group_size, sub_group_size: what kernels may use of the device; 0 is all that it has.

    Raises:
        RuntimeError: no XPU kernels are built, or there is no SYCL CPU device (set ``OCL_ICD_FILENAMES``).
    """
    module = native.backend("xpu")
    device.FIXED_QUEUES["cpu"] = (module, (module.cpu_queue(), 0))
    module.set_limits(local_bytes, group_size, sub_group_size)
    try:
        with ExitStack() as stack:
            for operator in device.IMPLEMENTATIONS:
                stack.enter_context(operator.set_kernel_enabled("cpu", True))
            yield
    finally:
        module.set_limits(0, 0, 0)
        del device.FIXED_QUEUES["cpu"]
