"""With SEM_TEST_BACKEND=sycl in the environment, the tests of this folder run the XPU kernels on CPU tensors."""

import os

import pytest
from places import PLACES, kernels_in


@pytest.fixture(autouse=True)
def backend_under_test(request):
    if os.environ.get("SEM_TEST_BACKEND") != "sycl" or request.node.get_closest_marker("own_backend"):
        yield
        return
    if request.node.get_closest_marker("cpu_only"):
        pytest.skip("about the CPU's kernels alone")
    from sem.ops.testing import xpu_kernels_on_cpu_tensors

    with xpu_kernels_on_cpu_tensors():
        yield


@pytest.fixture(params=PLACES)
def place(request):
    """Puts a tensor or a topology where the kernels under test run."""
    with kernels_in(request.param) as put:
        yield put
