"""The examples of the docstrings run."""

import doctest
import importlib
from pathlib import Path

import pytest

import sem.diffraction

MODULES = sorted(path.stem for path in Path(sem.diffraction.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"sem.diffraction.{name}" if name != "__init__" else "sem.diffraction")
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert sum(bool(test.examples) for test in finder.find(sem.diffraction.Simulator)) == 1
