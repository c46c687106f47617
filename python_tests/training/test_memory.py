import subprocess
import sys

import pytest

# Page faults of taking and freeing 64 blocks of 16 MiB: mapped anew each time, 4096 of them each.
CHURN = """
import ctypes, resource, sys
from sem.training.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else True
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size = 16 << 20
def churn(times):
    for _ in range(times):
        block = libc.malloc(size)
        ctypes.memset(block, 1, size)
        libc.free(ctypes.c_void_p(block))
libc.mallopt(-3, 1 << 20) if sys.argv[1] == "leave" else None
churn(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn(64)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode):
    done = subprocess.run([sys.executable, "-c", CHURN, mode], check=True, capture_output=True, text=True)
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again():
    kept, count = faults("keep")
    if not kept:
        pytest.skip("the C library is not glibc")
    assert count < 1000
    assert faults("leave")[1] > 64 * 1000
