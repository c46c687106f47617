"""The README and docs/: their code runs, their links lead somewhere, the settings' page is current."""

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

import sem.ops
from sem.config import SECTIONS
from sem.diffraction.flags import FLAGS
from sem.settings import setting_infos

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
PYTHON = re.compile(r"^```(?:python|{ \.python })\n(.*?)^```$", re.MULTILINE | re.DOTALL)

INCLUDED = re.compile(r'^--8<-- "(.*)"$', re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_of(page: Path) -> str:
    code = "\n".join(PYTHON.findall(page.read_text(encoding="utf-8")))
    return INCLUDED.sub(lambda found: (ROOT / found[1]).read_text(encoding="utf-8"), code)


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)], ids=name_of)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text(code_of(page), encoding="utf-8")
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, script]
    done = subprocess.run(command, cwd=tmp_path, env=one_thread, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, textwrap.indent(done.stderr, f"{name_of(page)}: ")


def test_every_example_has_a_page_with_its_picture() -> None:
    examples = {path.stem for path in (ROOT / "examples").glob("*.py")}
    folder = ROOT / "docs/examples"
    assert examples and {path.stem for path in folder.glob("*.md")} == examples | {"index"}
    for name in examples:
        page = (folder / f"{name}.md").read_text(encoding="utf-8")
        assert f'--8<-- "examples/{name}.py"' in page and f"]({name}.png)" in page


def test_readme_and_every_operator_page_have_code() -> None:
    silent = [
        name_of(page) for page in (ROOT / "README.md", *(ROOT / "docs/operators").glob("*.md")) if not code_of(page)
    ]
    assert not silent


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    targets = {target for target, _ in LINK.findall(text) if target and "://" not in target}
    missing = {target for target in targets if not (page.parent / target).exists()}
    assert not missing


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = [str(page.relative_to(ROOT / "docs")) for page in PAGES if page.name != "README.md"]
    assert sorted(re.findall(r"[\w/]+\.md", navigation)) == sorted(pages)


def test_every_operator_is_on_the_overview() -> None:
    operators = {name for name in sem.ops.__all__ if name.islower() and callable(getattr(sem.ops, name))}
    overview = (ROOT / "docs/operators/index.md").read_text(encoding="utf-8")
    assert {name for name in operators if f"`{name}`" not in overview} == set()


def written_by(name: str) -> ModuleType:
    """The module in docs/ that writes a page, or a part of every page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None and spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    return writer


def test_diffraction_flags_page_is_current() -> None:
    writer = written_by("diffraction_pages")
    assert writer.PAGE.read_text(encoding="utf-8") == writer.page(), "run: python docs/diffraction_pages.py"
    assert all(f"`{name}`" in writer.page() for flag in FLAGS for name in flag.names)


def test_configuration_page_is_current() -> None:
    writer = written_by("configuration_page")
    written = writer.PAGE.read_text(encoding="utf-8")
    assert written == writer.page(), "run: python docs/configuration_page.py"
    assert all(f"`{info.key}`" in written for section in SECTIONS.values() for info in setting_infos(section))
