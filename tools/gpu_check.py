"""Everything that can be checked only where there is an NVIDIA GPU, in one go and without a network.

Builds the package with what is installed (torch, pybind11, scikit-build-core, cmake, ninja), runs the C++ and Python
tests of the CUDA kernels, the sanitizers, a short training in two precisions and the benchmarks, and writes report.md
and report.json into the folder. A step that fails or runs out of time does not keep the others from running.

    python tools/gpu_check.py build/gpu-check

Exit status: 0 all passed, 1 a step did not, 2 there is no GPU or a tool is missing that everything needs. Python's
standard library alone, so that a missing package is a line in the report.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 540.0
"""Seconds for everything; what does not fit is cut short and counts as failed."""
KEPT_LINES = 40
"""Of a step's output, in the report; all of it is in the step's own file."""
FAILED, NOTHING_TO_CHECK = 1, 2
BUILD_NEEDS = {"torch": "torch", "pybind11": "pybind11", "scikit_build_core": "scikit-build-core"}
SMALL_CASES = ":".join(
    ["*BadRows*", "*NoRows*", "*Masked*", "Sizes/LaplacianMatvecBackend*"]
    + [f"{suite}*/{case}" for suite in ("Cases/CayleyBackend", "Cases/LaplacianCgBackend") for case in (1, 2, 3, 4)]
    + [f"{suite}*/{case}" for suite in ("Sizes/PitBackend", "Shapes/ScanBackend") for case in (0, 2, 3, 4)]
    + ["Sizes/SolitonBackend*/0", "Sizes/SolitonBackend*/1"]
    + [f"Sizes/{suite}Backend*/{case}" for suite in ("ExitWaves", "FarResidual", "ShiftRamp") for case in (0, 1, 2, 3)]
    + ["ExitWavesBackendSums*", "FarResidualBackendStatus*"]
)
"""Tests for the sanitizers, which are slow: every kernel, at sizes below and just above a tile."""


@dataclass
class Step:
    name: str
    command: list[str]
    passed: bool = False
    seconds: float = 0.0
    note: str = ""
    tail: list[str] = field(default_factory=list)


class Check:
    """Runs steps one after the other within the budget, and remembers how each went."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[Step] = []
        self._started = time.monotonic()
        installed = folder / "installed"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(installed),
            "PYTHONUNBUFFERED": "1",
            "SEM_REQUIRE_DEVICE": "1",  # tests without a device fail instead of being skipped
        }

    def run(self, name: str, command: Sequence[str], limit: float, needs: str | None = None) -> bool:
        """Run ``command`` outside the tree, so that ``import sem`` finds what was built; False unless it exits with 0.

        ``needs`` is a program that it cannot do without.
        """
        step = Step(name, list(command))
        self.steps.append(step)
        if needs is not None and shutil.which(needs) is None:
            step.note = f"{needs} is not on the PATH"
        elif self.left < 5:
            step.note = "no time was left"
        else:
            self._execute(step, min(limit, self.left))
        outcome = "passed" if step.passed else f"FAILED ({step.note})"
        print(f"gpu-check: {name}: {outcome} in {step.seconds:.0f} s", flush=True)
        return step.passed

    @property
    def left(self) -> float:
        return BUDGET - (time.monotonic() - self._started)

    def _execute(self, step: Step, limit: float) -> None:
        log = self.folder / f"{step.name.replace(' ', '-')}.log"
        begun = time.monotonic()
        with log.open("w") as output:
            try:
                finished = subprocess.run(
                    step.command,
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=limit,
                    check=False,
                )
                step.passed = finished.returncode == 0
                step.note = "" if step.passed else f"exit status {finished.returncode}"
            except subprocess.TimeoutExpired:
                step.note = f"stopped after {limit:.0f} s"
            except OSError as error:
                step.note = str(error)
        step.seconds = time.monotonic() - begun
        step.tail = log.read_text(errors="replace").splitlines()[-KEPT_LINES:]

    def write(self, machine: dict[str, str], verdict: str) -> None:
        """report.json and report.md."""
        steps = [asdict(step) for step in self.steps]
        figures = {name: _json_of(self.folder / f"{name}.json") for name in ("bench", "step")}
        content = {"verdict": verdict, "machine": machine, "steps": steps, **figures}
        (self.folder / "report.json").write_text(json.dumps(content, indent=2) + "\n")
        lines = ["# gpu-check", "", verdict, ""]
        lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in machine.items()), ""]
        lines += ["| step | outcome | seconds |", "|---|---|---|"]
        for step in self.steps:
            lines.append(
                f"| {step.name} | {'passed' if step.passed else f'FAILED: {step.note}'} | {step.seconds:.0f} |"
            )
        for step in self.steps:
            lines += ["", f"## {step.name}", "", "```text", " ".join(step.command), "", *step.tail, "```"]
        (self.folder / "report.md").write_text("\n".join(lines) + "\n")


def machine() -> dict[str, str]:
    """What the results depend on."""
    facts = {"python": platform.python_version(), "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    fields = "name,driver_version,memory.total,compute_cap"
    facts["gpu"] = _answer(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"])
    facts["nvcc"] = _answer(["nvcc", "--version"], last=True)
    facts["torch"] = _answer(
        [sys.executable, "-c", "import torch; print(torch.__version__, 'CUDA', torch.version.cuda)"]
    )
    return facts


def obstacle() -> str | None:
    """Why nothing can be checked on this machine, or None."""
    if not _answer(["nvidia-smi", "-L"]).startswith("GPU "):
        return "there is no NVIDIA GPU here (nvidia-smi lists none)"
    missing = [name for module, name in BUILD_NEEDS.items() if importlib.util.find_spec(module) is None]
    missing += [tool for tool in ("nvcc", "cmake", "ninja") if shutil.which(tool) is None]
    if missing:
        return f"not installed here: {', '.join(missing)}"
    seen = _answer([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"])
    return (
        None
        if seen == "True"
        else "torch sees no GPU: it is a build without CUDA, or the driver is older than its CUDA"
    )


def check(steps: Check) -> None:
    """Every step, in the order of what is most worth knowing."""
    folder, python = steps.folder, sys.executable
    tests = _compiles("#include <gtest/gtest.h>")
    define = "--config-settings=cmake.define."
    install = [python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--upgrade"]
    options = [
        f"--config-settings=build-dir={folder / 'tree'}",
        f"{define}SEM_CUDA=ON",
        f"{define}SEM_SYCL=OFF",
        f"{define}SEM_WERROR=ON",
        f"{define}SEM_TESTS={'ON' if tests else 'OFF'}",
        f"{define}CMAKE_CUDA_ARCHITECTURES=native",
    ]
    if not steps.run("build", [*install, *options, "--target", str(folder / "installed"), str(ROOT)], 240):
        return
    program = folder / "tree" / "csrc" / "tests" / "sem_tests_cuda"
    ctest = ["ctest", "--test-dir", str(folder / "tree"), "--output-on-failure", "--no-tests=error"]
    steps.run("ctest", [*ctest, "-j", str(min(os.cpu_count() or 1, 4)), "-R", "^cuda[.]", "-E", "resources"], 90)
    pytest = [python, "-m", "pytest", "-m", "cuda", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    steps.run("pytest", [*pytest, "-p", "no:cacheprovider", "-rs", str(ROOT / "python_tests" / "ops")], 120)
    for tool in ("memcheck", "racecheck"):
        sanitizer = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1", str(program)]
        steps.run(tool, [*sanitizer, f"--gtest_filter={SMALL_CASES}"], 60, needs="compute-sanitizer")
    sem = [python, "-m", "sem"]
    for precision in ("32-true", "selective-bf16"):
        command = [*sem, "check", "--config", str(ROOT / "configs" / "tiny.yaml"), "--device", "cuda", "--synthetic"]
        command += ["--precision", precision, "--steps", "50", "--output", str(folder / f"check-{precision}")]
        steps.run(f"check {precision}", command, 60)
    steps.run("bench", [*sem, "bench", "--device", "cuda", "--repeats", "7", "--json", str(folder / "bench.json")], 120)
    l40s = ["--config", str(ROOT / "configs" / "l40s.yaml"), "--training.device", "cuda", "--repeats", "7"]
    steps.run("training step", [*sem, "bench", "step", *l40s, "--json", str(folder / "step.json")], 90)


def _answer(command: Sequence[str], last: bool = False) -> str:
    """The first (or last) line of what ``command`` prints; empty where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stdout.strip().splitlines() if done.returncode == 0 else []
    return lines[-1 if last else 0] if lines else ""


def _compiles(source: str) -> bool:
    compiler = os.environ.get("CXX", "c++")
    try:
        done = subprocess.run(
            [compiler, "-E", "-x", "c++", "-"], input=source, capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def _json_of(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python tools/gpu_check.py FOLDER", file=sys.stderr)
        return NOTHING_TO_CHECK
    folder = Path(arguments[0]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bench.json", "step.json"):
        (folder / name).unlink(missing_ok=True)
    steps = Check(folder)
    why = obstacle()
    if why is None:
        check(steps)
    failed = [step.name for step in steps.steps if not step.passed]
    verdict = f"Nothing was checked: {why}." if why else f"FAILED: {', '.join(failed)}." if failed else "All passed."
    steps.write(machine(), verdict)
    print(f"gpu-check: {verdict} Report: {folder / 'report.md'}, {folder / 'report.json'}")
    return NOTHING_TO_CHECK if why else FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
