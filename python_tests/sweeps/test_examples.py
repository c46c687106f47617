"""The examples of the docstrings run."""

import doctest
import importlib
from pathlib import Path

import pytest

import sem.sweeps

MODULES = sorted(path.stem for path in Path(sem.sweeps.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"sem.sweeps.{name}" if name != "__init__" else "sem.sweeps")
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    examples = [test for test in doctest.DocTestFinder().find(sem.sweeps) if test.examples]
    assert examples
