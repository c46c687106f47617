"""The examples of the docstrings run. Packages with many examples have tests of their own, beside their other tests."""

import doctest
import importlib
from pathlib import Path

import pytest

import sem

ROOT = Path(sem.__file__).parent
OWN_TESTS = ("activations", "diffraction", "ptycho", "sweeps")
MODULES = sorted(
    ".".join(["sem", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] not in OWN_TESTS and ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted and not result.failed
