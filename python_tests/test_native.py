"""What is said where kernels are missing: never the name of an index's package, always what to do."""

import os
import subprocess
import sys

import pytest

from sem import native


@pytest.fixture
def nothing_built(monkeypatch):
    native.backend.cache_clear()
    monkeypatch.setattr(native, "is_built", lambda device_type: False)
    yield
    native.backend.cache_clear()


def message_for(device_type):
    with pytest.raises(RuntimeError) as raised:
        native.backend(device_type)
    return str(raised.value)


def test_sources_without_kernels_say_where_they_lie_and_what_to_do(nothing_built, monkeypatch, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text("")
    monkeypatch.setattr(native, "_PACKAGE", tmp_path / "sem")
    message = message_for("cpu")
    assert f"the sources in {tmp_path}" in message and message.endswith(f"pip install {tmp_path}")


@pytest.mark.parametrize("device_type", ["cpu", "cuda", "xpu"])
def test_no_message_names_an_indexs_package(nothing_built, monkeypatch, tmp_path, device_type):
    monkeypatch.setattr(native, "_PACKAGE", tmp_path / "sem")
    message = message_for(device_type)
    assert f"has no {device_type} kernels" in message and "source folder: pip install" in message
    assert "no-deps sem" not in message
    assert ("move the tensors to the CPU" in message) == (device_type != "cpu")


def test_without_openmp_the_kernels_have_one_thread(monkeypatch):
    monkeypatch.setattr(native.backend("cpu"), "openmp", False)
    assert native.capabilities()["threads"] == 1


def test_an_unknown_instruction_set_is_refused():
    script = (
        "import torch; from sem.ops import complex_rms_norm; complex_rms_norm(torch.ones(2, 3) + 0j, torch.ones(3))"
    )
    environment = os.environ | {"SEM_SIMD": "nonsense"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert "ValueError: SEM_SIMD: expected baseline, avx2 or avx512, got nonsense" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_a_forked_child_computes_what_its_parent_does():
    """OpenMP's threads are not there any more in the child, which would wait for them."""
    script = """
import os, torch
from sem.ops import Topology, cayley
torch.set_num_threads(2)
graph, psi = Topology.small_world(64, 8), torch.randn(500, 64, dtype=torch.complex64)
step = lambda: cayley(psi, torch.ones(graph.num_edges), graph, 0.2)
before = step()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(step(), before) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "0", done.stderr
