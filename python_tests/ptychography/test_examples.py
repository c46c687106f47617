"""The examples of the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import sem.ptycho

MODULES = sorted(module.name for module in pkgutil.walk_packages(sem.ptycho.__path__, "sem.ptycho."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert all(any(test.examples for test in finder.find(example)) for example in (sem.ptycho.Scan, sem.ptycho.compare))
