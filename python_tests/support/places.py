"""Where the kernels of devices run in tests: a GPU, or a SYCL CPU device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from sem import native

NO_GPU = "no CUDA device, or no CUDA kernels in this build"
has_cuda = torch.cuda.is_available() and native.is_built("cuda")
needs_cuda = pytest.mark.skipif(not has_cuda and "SEM_REQUIRE_DEVICE" not in os.environ, reason=NO_GPU)
sycl = pytest.mark.skipif(not native.is_built("xpu"), reason="no XPU kernels are built; make sycl-check builds them")
PLACES = [pytest.param("cuda", marks=[pytest.mark.cuda, needs_cuda]), pytest.param("sycl", marks=sycl)]

Place = Callable[[Any], Any]


@contextmanager
def kernels_in(name: str) -> Iterator[Place]:
    """What puts a tensor or a topology where the kernels of ``name`` run."""
    if name == "cuda":
        yield lambda value: value.to("cuda")
        return
    from sem.ops.testing import xpu_kernels_on_cpu_tensors

    with xpu_kernels_on_cpu_tensors():
        yield lambda value: value
