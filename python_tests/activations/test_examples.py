"""The examples of the docstrings run."""

import doctest
import importlib
from pathlib import Path

import pytest

import sem.activations

MODULES = sorted(path.stem for path in Path(sem.activations.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module("sem.activations" if name == "__init__" else f"sem.activations.{name}")
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert all(finder.find(function)[0].examples for function in (sem.activations.measure, sem.activations.compare))
