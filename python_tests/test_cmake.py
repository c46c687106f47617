"""What CMake decides by what it finds on a machine, and what it says about it."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def configured(folder: Path, *options: str, **environment: str) -> str:
    command = ["cmake", "-S", ROOT, "-B", folder / "build", "-DSEM_PYTHON=OFF", "-DSEM_SYCL=OFF", *options]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    return " ".join((done.stdout + done.stderr).split())


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("listed", ["GPU 0: NVIDIA L40S (UUID: GPU-0)", "No devices were found"])
def test_left_to_itself_a_build_has_cuda_kernels_where_a_gpu_is(tmp_path, listed):
    smi = program(tmp_path / "nvidia-smi", f"echo '{listed}'")
    output = configured(tmp_path, "-DSEM_CUDA=AUTO", f"-DSEM_NVIDIA_SMI={smi}", CUDACXX="no-such-nvcc")
    if listed.startswith("GPU") or list(Path("/dev").glob("nvidia[0-9]*")):
        assert "CUDA: no-such-nvcc does not compile" in output
    else:
        assert "CUDA: no NVIDIA GPU here" in output


def test_cuda_kernels_that_are_asked_for_and_cannot_be_built_are_an_error(tmp_path):
    assert "SEM_CUDA=ON needs nvcc" in configured(tmp_path, "-DSEM_CUDA=ON", CUDACXX="no-such-nvcc")


def test_a_compiler_that_is_too_old_is_refused_in_a_sentence(tmp_path):
    real = os.environ.get("CXX", "c++")
    old = program(tmp_path / "old", f'exec {real} -U__GNUC__ -D__GNUC__=11 -U__clang_major__ -D__clang_major__=14 "$@"')
    output = configured(tmp_path, "-DSEM_CUDA=OFF", CXX=str(old))
    assert "sem needs a C++20 compiler: GCC 12 or newer, or Clang 15 or newer" in output
    assert any(f"Found {found}" in output for found in ("GNU 11", "Clang 14"))


def test_a_compiler_without_openmp_is_told_of(tmp_path):
    output = configured(tmp_path, "-DSEM_CUDA=OFF", "-DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON")
    assert "no OpenMP, so sem's CPU kernels will use one thread" in output
    assert "Configuring done" in output
