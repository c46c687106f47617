"""The examples of the docstrings run."""

import doctest
import importlib
from pathlib import Path

import pytest

import sem.diffraction.refinement

MODULES = sorted(path.stem for path in Path(sem.diffraction.refinement.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"sem.diffraction.refinement.{name}")).failed == 0
