"""The examples of the docstrings run, and the package loads no torch before one of its names is used."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import sem.ptycho

ROOT = Path(sem.ptycho.__file__).parent
MODULES = sorted(
    ".".join(["sem.ptycho", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert sum(bool(test.examples) for test in finder.find(sem.ptycho.Scan, "Scan")) == 1


def test_names_are_loaded_with_their_first_use():
    lines = [
        "import sys, sem.ptycho, sem.ptycho.presets, sem.ptycho.recipes",
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules",
        "from sem.ptycho import *",
        "assert PIE is sem.ptycho.PIE and 'torch' in sys.modules",
        "assert {'PIE', 'preset', 'files'} <= set(dir(sem.ptycho))",
        "from sem.ptycho import files, nothing",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "cannot import name 'nothing' from 'sem.ptycho'" in done.stderr


def test_the_package_has_no_names_that_are_not_public():
    with pytest.raises(AttributeError, match=r"module 'sem\.ptycho' has no attribute 'math'"):
        _ = sem.ptycho.math
