"""Shim for tools that still call setup.py; the build itself is described in pyproject.toml and CMakeLists.txt."""

from scikit_build_core.setuptools.wrapper import setup

setup(cmake_source_dir=".")
