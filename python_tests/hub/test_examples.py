"""The examples of the docstrings run."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["hub.pretrained", "hub.tokenizer_files", "hub.transformers", "training.averages"])
def test_examples(name):
    result = doctest.testmod(importlib.import_module(f"sem.{name}"))
    assert result.attempted and not result.failed
