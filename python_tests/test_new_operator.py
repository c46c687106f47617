"""tools/new_operator.py on a copy of the tree: what it makes builds, is known everywhere and says what is next."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ninja
import pybind11
import pytest

import cmake

ROOT = Path(__file__).parents[1]
NAME, CPP_NAME = "probe_op", "ProbeOp"
MADE, EDITED = 10, 7
NEXT = f"{NAME} is still a copy of laplacian_matvec. Next: "

# The operator alone, so that this takes seconds: its tests on the host's threads, and a module in which the kernels of
# all others are symbols that nobody looks up.
ALONE = f"""
add_executable(alone {NAME}_test.cpp main.cpp backend_host.cpp ../reference/{NAME}.cpp)
target_link_libraries(alone PRIVATE sem_options GTest::gtest Threads::Threads)
add_library(alone_module MODULE ../bindings/cpu_module.cpp ../cpu/dispatch.cpp ../cpu/{NAME}.cpp)
target_compile_definitions(alone_module PRIVATE SEM_ISA=baseline)
target_link_libraries(alone_module PRIVATE sem_options pybind11::module)
target_link_options(alone_module PRIVATE -Wl,-z,lazy)
set_target_properties(alone_module PROPERTIES PREFIX "" OUTPUT_NAME _cpu)
"""
# An installation in place would find its own sem first.
LAZILY = """
import os, sys
sys.setdlopenflags(os.RTLD_LAZY)
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
sys.path.insert(0, os.getcwd())
"""


def copy_of_the_tree(folder: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for path in filter(None, listed.stdout.split("\0")):
        if (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, folder / path)
    return folder


def new_operator(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, tree / "tools/new_operator.py", *arguments], capture_output=True, text=True)


def contents(tree: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tree.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_tree(tmp_path_factory.mktemp("untouched"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Heat", "expected lower-case words joined by _, of 24 letters at most, got 'Heat'"),
        ("2d_flow", "expected lower-case words joined by _, of 24 letters at most, got '2d_flow'"),
        ("flow__2d", "expected lower-case words joined by _, of 24 letters at most, got 'flow__2d'"),
        ("../flow", "expected lower-case words joined by _, of 24 letters at most, got '../flow'"),
        ("lambda", "'lambda' is a word of Python"),
        ("sum", "'sum' is a word of Python"),
        ("cayley", "'cayley' is one in csrc/include/sem/cayley.hpp already"),
        ("boundary", "'boundary' is one in sem/ops/boundary.py already"),
        ("edge_weight", "'edge_weight' is one in csrc/include/sem/laplacian_matvec.hpp already"),
        ("reference_diffraction", "'reference_diffraction' is one in sem/ops/__init__.py already"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(untouched: Path, name: str, reason: str) -> None:
    before = contents(untouched)
    done = new_operator(untouched, name)
    assert done.returncode == 1 and done.stderr.startswith("NAME: ") and reason in done.stderr
    assert contents(untouched) == before


def test_a_dry_run_writes_nothing(untouched: Path) -> None:
    before = contents(untouched)
    done = new_operator(untouched, NAME, "--dry-run")
    assert done.returncode == 0 and done.stdout.count("\n  ") == MADE + EDITED
    assert contents(untouched) == before


def test_without_a_place_for_an_entry_nothing_is_written(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    index = tree / "docs/operators/index.md"
    index.write_text(index.read_text(encoding="utf-8").replace("| [`laplacian_matvec`]", "| [`laplacian`]"), "utf-8")
    before = contents(tree)
    done = new_operator(tree, NAME)
    assert done.returncode == 1
    assert done.stderr.startswith("docs/operators/index.md: expected a table with a row of laplacian_matvec")
    assert contents(tree) == before


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the new operator in it."""
    tree = copy_of_the_tree(tmp_path_factory.mktemp("tree"))
    before = contents(tree)
    done = new_operator(tree, NAME)
    assert done.returncode == 0, done.stderr
    after = contents(tree)
    listed = re.findall(r"^  (\S+)$", done.stdout.partition("next:")[0], re.MULTILINE)
    assert set(listed[:MADE]) == after.keys() - before.keys()
    assert set(listed[MADE:]) == {path for path in before if after[path] != before[path]}
    assert len(listed) == MADE + EDITED
    return tree


def test_what_is_there_is_not_overwritten(tree: Path) -> None:
    before = contents(tree)
    done = new_operator(tree, NAME)
    assert done.returncode == 1 and f"'{NAME}' is one in csrc/include/sem/{NAME}.hpp already" in done.stderr
    assert contents(tree) == before


# One test, so that processes that share the tests out compile once.
@pytest.mark.slow
def test_it_builds_is_known_everywhere_and_says_what_is_next(tree: Path) -> None:
    build = built(tree)
    check_targets(build)
    check_cpp(build)
    check_python(tree)
    check_registered(tree)


def built(tree: Path) -> Path:
    """The copy's build folder, with the operator's tests and a module that has its kernels."""
    build = tree / "build"
    with (tree / "csrc/tests/CMakeLists.txt").open("a", encoding="utf-8") as file:
        file.write(ALONE)
    options = {
        "CMAKE_MAKE_PROGRAM": Path(ninja.BIN_DIR) / "ninja",
        "CMAKE_BUILD_TYPE": "Debug",
        "CMAKE_CXX_FLAGS_DEBUG": "-O0",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "SEM_TESTS": "ON",
        "SEM_WERROR": "ON",
        "SEM_CUDA": "OFF",
        "SEM_SYCL": "OFF",
    }
    program = Path(cmake.CMAKE_BIN_DIR) / "cmake"
    run([program, "-S", tree, "-B", build, "-G", "Ninja", *(f"-D{key}={value}" for key, value in options.items())])
    run([program, "--build", build, "--target", "alone", "alone_module"])
    shutil.copyfile(build / "csrc/tests/_cpu.so", tree / "sem/native/_cpu.so")
    return build


def run(command: list[object]) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def python(tree: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(tree / "python_tests/support"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", LAZILY + code], cwd=tree, env=environment, capture_output=True, text=True
    )


def check_targets(built: Path) -> None:
    """Its files are in every target."""
    objects = (built / "build.ninja").read_text(encoding="utf-8")
    for target in (f"sem_reference.dir/reference/{NAME}", f"sem_test_cases.dir/{NAME}_test"):
        assert f"{target}.cpp.o:" in objects
    levels = set(re.findall(r"sem_cpu_(\w+)\.dir/cpu/laplacian_matvec\.cpp\.o:", objects))
    assert "baseline" in levels
    assert set(re.findall(rf"sem_cpu_(\w+)\.dir/cpu/{NAME}\.cpp\.o:", objects)) == levels


def check_cpp(built: Path) -> None:
    """One test in C++ fails and says what is next."""
    done = subprocess.run([built / "csrc/tests/alone", "--gtest_brief=1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.findall(r"^\[  FAILED  \] (\S+)", done.stdout, re.MULTILINE) == [f"{CPP_NAME}Reference.IsWritten"]
    assert NEXT in done.stdout and f"csrc/reference/{NAME}.cpp" in done.stdout
    assert int(re.findall(r"(\d+) tests from", done.stdout)[0]) > 8


def check_python(tree: Path) -> None:
    """One test in Python fails and says what is next."""
    chosen = f"by_hand or opcheck or {NAME}_is_written"
    done = python(
        tree,
        f"""
import pytest
sys.exit(pytest.main(["python_tests/ops/test_{NAME}.py", "-k", {chosen!r}, "-p", "no:cacheprovider"]))
""",
    )
    assert done.returncode == 1, done.stderr
    assert re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE) == [
        f"python_tests/ops/test_{NAME}.py::test_{NAME}_is_written"
    ]
    assert NEXT in done.stdout and "8 passed" in done.stdout, done.stdout


def check_registered(tree: Path) -> None:
    """The module, the package, the tests and the page know it."""
    done = python(
        tree,
        f"""
import re
from pathlib import Path

import torch

import sem.ops
from operators import BY_NAME
from sem import native

cpu = native.backend("cpu")
assert Path(cpu.__file__).is_relative_to(Path.cwd()), cpu.__file__
for kernel in ("{NAME}_forward", "{NAME}_weight_gradient"):
    assert cpu.FIELDS[kernel] == cpu.FIELDS[kernel.replace("{NAME}", "laplacian_matvec")]
    assert kernel in cpu.DEVICE_KERNELS
    assert hasattr(torch.ops.sem, kernel)
assert "{NAME}" in sem.ops.__all__

for kind in ("real", "complex"):
    operator = BY_NAME["{NAME}_" + kind]
    problem = operator.plain()
    (value,), (exact,) = operator.on(problem)(*problem.tensors.values()), operator.twin_on(problem)(
        *(tensor.to(torch.promote_types(tensor.dtype, torch.float64)) for tensor in problem.tensors.values())
    )
    assert (value - exact).norm() <= 1e-6 * exact.norm()

page = Path("docs/operators/{NAME}.md").read_text(encoding="utf-8")
exec("".join(re.findall(r"^```python\\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)))

sys.path.insert(0, "tools")
import native_stubs

stubs = "".join(native_stubs.stubs(cpu).values())
assert stubs.count("def {NAME}_forward(") == 1 and stubs.count("import {NAME}_forward as") == 2
""",
    )
    assert done.returncode == 0, done.stderr
