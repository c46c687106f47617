"""Runs pytest on the package in a folder in place of the installed one: from_tree.py FOLDER pytest-arguments..."""

import os
import sys

import pytest

folder, *arguments = sys.argv[1:]
# an editable installation finds the package before sys.path does
sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
sys.path.insert(0, os.path.abspath(folder))

import sem  # noqa: E402

if not sem.__file__.startswith(os.path.abspath(folder)):
    sys.exit(f"from_tree.py: expected the package of {folder}, got {sem.__file__}")
sys.exit(pytest.main(arguments))
