"""The distribution: its name, its extras, its version, and what they are called in messages and pages."""

import importlib.metadata
import os
import re
import runpy
import tarfile
from pathlib import Path

import pytest
import yaml
from scikit_build_core import build

import sem
from sem import native
from sem.extras import DISTRIBUTION, how_to_install

ROOT = Path(__file__).parents[1]
TEXTS = [
    path
    for pattern in ("*", ".ci/*", ".github/**/*", "cmake/*", "docs/**/*", "sem/**/*", "examples/**/*", "tools/*")
    for path in ROOT.glob(pattern)
    if path.suffix in {".cff", ".cmake", ".md", ".py", ".toml", ".yaml", ".yml"} or path.name in {"Makefile", "run"}
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What a hook of the build, which works in the current folder, makes of this tree."""

    def make(hook):
        folder, before = tmp_path_factory.mktemp("built"), Path.cwd()
        os.chdir(ROOT)
        try:
            return folder / hook(str(folder))
        finally:
            os.chdir(before)

    return make


@pytest.fixture(scope="module")
def metadata(built):
    """What a wheel of this tree would say of itself."""
    return importlib.metadata.PathDistribution(built(build.prepare_metadata_for_build_wheel)).metadata


def test_a_build_takes_name_and_version_from_where_they_stand(metadata):
    assert (metadata["Name"], metadata["Version"]) == (DISTRIBUTION, sem.__version__)
    assert DISTRIBUTION == "sem-torch"


def test_no_text_sends_pip_to_another_project():
    assert len(TEXTS) > 200
    wrong = re.compile(r"(?<![\w.-])sem\[(?=[a-z])")
    assert [f"{path}: {line}" for path in TEXTS for line in path.read_text().splitlines() if wrong.search(line)] == []


def test_every_extra_that_a_message_or_a_page_names_is_there(metadata):
    named = re.compile(rf"how_to_install\(['\"](\w+)|(?:{DISTRIBUTION}|['\"]\.)\[([\w,-]+)\]")
    found = {
        extra
        for path in TEXTS
        for match in named.finditer(path.read_text())
        for extra in (match[1] or match[2]).split(",")
    }
    assert {"hub", "ptycho", "train", "xpu"} <= found <= set(metadata.get_all("Provides-Extra"))
    assert how_to_install("xpu") == "pip install 'sem-torch[xpu]'"


def test_what_cites_and_releases_the_package_agrees_with_it():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == sem.__version__
    assert f"## [{sem.__version__}] - {citation['date-released']}" in (ROOT / "CHANGELOG.md").read_text()
    workflows = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").iterdir()}
    assert any(step.get("run") == "bash .ci/run" for step in workflows["ci"]["jobs"]["run"]["steps"])
    for path in (ROOT / ".github/ISSUE_TEMPLATE").iterdir():
        assert yaml.safe_load(path.read_text()), path


def test_a_wheel_is_checked_by_tests_that_are_there():
    tool = runpy.run_path(str(ROOT / "tools" / "wheels.py"))
    assert tool["TESTS"] and all((ROOT / "python_tests" / "ops" / name).exists() for name in tool["TESTS"])
    native.backend("cpu")  # after torch, whose runtime it shares
    (runtime,) = tool["openmp_runtimes"]()
    assert runtime.name.startswith("libgomp")


def test_the_source_distribution_has_what_a_build_reads_and_little_else(built):
    path = built(build.build_sdist)
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    needed = {"CMakeLists.txt", "LICENSE", "csrc/CMakeLists.txt", "cmake/cuda.cmake", "sem/__init__.py", "sem/cli.py"}
    assert needed <= set(names)
    folders = {name.partition("/")[0] for name in names if "/" in name}
    assert folders <= {"cmake", "configs", "csrc", "docs", "examples", "python_tests", "sem", "tools"}
    assert not [name for name in names if name.endswith((".npz", ".png", ".so", ".gz", ".pyc"))]
    assert path.stat().st_size < 2_000_000
