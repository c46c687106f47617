"""The examples of the docstrings run."""

import doctest
import importlib
from pathlib import Path

import pytest

import sem.diffraction

FOLDER = Path(sem.diffraction.__file__).parent
MODULES = sorted(
    ".".join(["sem", "diffraction", *path.relative_to(FOLDER).with_suffix("").parts]).removesuffix(".__init__")
    for path in FOLDER.rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert sum(bool(test.examples) for test in finder.find(sem.diffraction.Simulator)) == 1
