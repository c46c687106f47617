"""Starts a new operator: a copy of the smallest one under another name, registered on every back end.

    python tools/new_operator.py NAME [--dry-run]

NAME is the public function's, and the name of its files. The copy builds and passes the tests of what it is copied
from; one test in C++ and one in Python fail and say what to write next. Nothing is overwritten, and nothing is written
at all if a place for an entry is not found. The guide is "How to add an operator" in docs/development.md.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import keyword
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = "laplacian_matvec"
OWN = (
    "csrc/include/sem/{}.hpp",
    "csrc/reference/{}.cpp",
    "csrc/cpu/{}.cpp",
    "csrc/device/{}.hpp",
    "csrc/cuda/{}.cu",
    "csrc/tests/{}_test.cpp",
    "csrc/bench/{}_bench.cpp",
    "sem/ops/{}.py",
    "python_tests/ops/test_{}.py",
    "docs/operators/{}.md",
)
LONGEST = 24
NEXT = {
    "cpp": (
        "{name} is still a copy of {template}. Next: its formula and every gradient in csrc/include/sem/{name}.hpp, an "
        "example worked out by hand in place of this test, then csrc/reference/{name}.cpp until the example passes."
    ),
    "python": (
        "{name} is still a copy of {template}. Next: its signature and docstring in sem/ops/{name}.py, its twin in "
        "sem/ops/reference.py, an example worked out by hand in place of this test, and docs/operators/{name}.md."
    ),
}


class Refused(Exception):
    """Why nothing was written."""


def pascal(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def renamed(text: str, name: str) -> str:
    """The template's names as those of the new operator; words of prose and other names that contain them stay."""
    kernels = "|".join(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", struct).lower() for struct in structs())
    text = re.sub(rf"(?<!\w)(?:{kernels})\b", lambda found: name + found[0].removeprefix(TEMPLATE), text)
    text = re.sub(rf"(?<!\w)(_?){TEMPLATE}(?!_?[A-Za-z0-9])", rf"\g<1>{name}", text)
    return re.sub(rf"\b{pascal(TEMPLATE)}(?=[A-Z])", pascal(name), text)


def structs() -> list[str]:
    """The template's kernels, by their arguments."""
    header = (ROOT / OWN[0].format(TEMPLATE)).read_text(encoding="utf-8")
    return re.findall(r"^struct (\w+)", header, re.MULTILINE)


def own_files(name: str) -> dict[str, str]:
    """Path and text of each file that is the operator's alone."""
    files = {}
    for pattern in OWN:
        source = ROOT / pattern.format(TEMPLATE)
        if not source.exists():
            raise Refused(f"{pattern.format(TEMPLATE)}: expected a file to copy, there is none")
        files[pattern.format(name)] = renamed(source.read_text(encoding="utf-8"), name)
    test, python_test = OWN[5].format(name), OWN[8].format(name)
    files[test] = with_cpp_test(files[test], name)
    files[python_test] += python_failure(name)
    return files


def with_cpp_test(text: str, name: str) -> str:
    end = "\n}  // namespace\n}  // namespace sem\n"
    if not text.endswith(end):
        raise Refused(f"{OWN[5].format(TEMPLATE)}: expected it to end in an unnamed namespace within sem")
    message = NEXT["cpp"].format(name=name, template=TEMPLATE)
    failing = f'\nTEST({pascal(name)}Reference, IsWritten) {{\n  FAIL() << "{message}";\n}}\n'
    return text.removesuffix(end) + failing + end


def python_failure(name: str) -> str:
    message = textwrap.wrap(NEXT["python"].format(name=name, template=TEMPLATE), 100, drop_whitespace=False)
    pieces = "".join(f'        "{piece}"\n' for piece in message)
    return f"\n\ndef test_{name}_is_written():\n    pytest.fail(\n{pieces}    )\n"


# What is shared: the new operator's entry goes beside the template's, or to the end of the list.


def with_include(text: str, name: str) -> str:
    line = re.search(rf'^#include "\w+/{TEMPLATE}\.hpp"\n', text, re.MULTILINE)
    if line is None:
        raise Refused(f"expected an #include of {TEMPLATE}.hpp")
    start = text.rindex("\n\n", 0, line.start()) + 2
    end = text.find("\n\n", line.end() - 1) + 1 or len(text)
    return (
        text[:start]
        + "".join(sorted([*text[start:end].splitlines(keepends=True), renamed(line[0], name)]))
        + text[end:]
    )


def with_kernels(text: str, name: str) -> str:
    text = with_include(text, name)
    listed = re.search(r"(#define SEM_DEVICE_OPERATORS\(X\)) *\\\n((?: +X\(\w+\) *\\?\n)+)", text)
    if listed is None or not all(f"X({struct})" in listed[2] for struct in structs()):
        raise Refused(f"expected the list SEM_DEVICE_OPERATORS with {', '.join(structs())}")
    entries = [*re.findall(r"X\(\w+\)", listed[2]), *(f"X({renamed(struct, name)})" for struct in structs())]
    lines = [listed[1], *(f"  {entry}" for entry in entries)]
    width = max(map(len, lines[:-1]))
    return text.replace(listed[0], "".join(f"{line:{width}} \\\n" for line in lines[:-1]) + lines[-1] + "\n")


def with_export(text: str, name: str) -> str:
    imported = f"from sem.ops.{name} import {name}\n"
    text = before_first_greater(text, r"^from sem\.ops\.([a-z]\w*)\S* import .*\n", name, imported)
    return before_first_greater(text, r'^    "([a-z]\w*)",\n', name, f'    "{name}",\n')


def before_first_greater(text: str, pattern: str, name: str, line: str) -> str:
    """``line`` into the sorted lines that match ``pattern``, whose group is what they are sorted by."""
    found = list(re.finditer(pattern, text, re.MULTILINE))
    if not found:
        raise Refused(f"expected lines like {line.strip()!r}")
    at = next((match.start() for match in found if match[1] > name), found[-1].end())
    return text[:at] + line + text[at:]


def with_twin(text: str, name: str) -> str:
    return text + "\n\n" + renamed(source_of(text, TEMPLATE), name)


def source_of(text: str, function: str) -> str:
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return "".join(text.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno])
    raise Refused(f"expected a function {function}")


def with_row(text: str, name: str) -> str:
    table = re.search(rf"(?:^\|.*\n)*^(\| \[`{TEMPLATE}`\].*\n)(?:^\|.*\n)*", text, re.MULTILINE)
    if table is None:
        raise Refused(f"expected a table with a row of {TEMPLATE}")
    return text.replace(table[0], table[0] + renamed(table[1], name))


def with_page(text: str, name: str) -> str:
    """The page's line behind those of the other operators' pages, in the site's navigation."""
    line = re.compile(rf"^ +- {TEMPLATE}: operators/{TEMPLATE}\.md\n", re.MULTILINE).search(text)
    pages = list(re.finditer(r"^ +- \w+: operators/\w+\.md\n", text, re.MULTILINE))
    if line is None:
        raise Refused(f"expected the page of {TEMPLATE} in the navigation")
    return text[: pages[-1].end()] + renamed(line[0], name) + text[pages[-1].end() :]


def with_problem(text: str, name: str) -> str:
    """In the tests' list of operators: the function that makes the template's entries, and those entries."""
    function = source_of(text, f"_{TEMPLATE}")
    listed = re.search(r"^OPERATORS = \(\n(.*?)^\)\n", text, re.MULTILINE | re.DOTALL)
    entries = re.findall(rf"^    _{TEMPLATE}\(.*\n", listed[1] if listed else "", re.MULTILINE)
    if listed is None or not entries:
        raise Refused(f"expected the list OPERATORS with entries _{TEMPLATE}(...)")
    text = text.replace(listed[1], listed[1] + "".join(renamed(entry, name) for entry in entries))
    text = text.replace(function, f"{function}\n\n{renamed(function, name)}")
    exported = re.search(r"^from sem\.ops import \(\n.*?^\)\n", text, re.MULTILINE | re.DOTALL)
    if exported is None:
        raise Refused("expected an import from sem.ops in lines")
    return text.replace(exported[0], before_first_greater(exported[0], r"^    ([a-z]\w*),\n", name, f"    {name},\n"))


SHARED: dict[str, Callable[[str, str], str]] = {
    "csrc/include/sem/operators.hpp": with_kernels,
    "csrc/device/operators.hpp": with_include,
    "sem/ops/__init__.py": with_export,
    "sem/ops/reference.py": with_twin,
    "python_tests/support/operators.py": with_problem,
    "docs/operators/index.md": with_row,
    "mkdocs.yml": with_page,
}


def shared_files(name: str) -> dict[str, str]:
    """Path and new text of each file that lists operators."""
    files = {}
    for path, edit in SHARED.items():
        try:
            files[path] = edit((ROOT / path).read_text(encoding="utf-8"), name)
        except Refused as reason:
            raise Refused(f"{path}: {reason}; nothing was written") from None
    return files


def check(name: str) -> None:
    """Whether the operator can have this name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST:
        raise Refused(f"NAME: expected lower-case words joined by _, of {LONGEST} letters at most, got {name!r}")
    if keyword.iskeyword(name) or hasattr(builtins, name):
        raise Refused(f"NAME: expected a name that is free, {name!r} is a word of Python")
    taken = [path for path in (pattern.format(name) for pattern in OWN) if (ROOT / path).exists()]
    word = re.compile(rf"\b{name}\b")
    sources = [*(pattern.format(TEMPLATE) for pattern in OWN), *SHARED]
    taken += [path for path in sources if word.search((ROOT / path).read_text(encoding="utf-8"))]
    if taken:
        raise Refused(f"NAME: expected a name that is free, {name!r} is one in {taken[0]} already")


def format_sources(paths: list[Path]) -> None:
    """In the tree's style, where the formatters are: a new name changes where lines break."""
    search = f"{Path(sys.executable).parent}:{ROOT / '.venv' / 'bin'}"
    clang_format = shutil.which("clang-format") or shutil.which("clang-format", path=search)
    ruff = shutil.which("ruff") or shutil.which("ruff", path=search)
    cpp = [str(path) for path in paths if path.suffix in (".hpp", ".cpp", ".cu")]
    python = [str(path) for path in paths if path.suffix == ".py"]
    if clang_format:
        subprocess.run([clang_format, "-i", *cpp], cwd=ROOT, check=True)
    if ruff:
        subprocess.run(
            [ruff, "check", "--no-cache", "--quiet", "--select", "I", "--fix", *python], cwd=ROOT, check=True
        )
        subprocess.run([ruff, "format", "--no-cache", "--quiet", *python], cwd=ROOT, check=True)
    if not (clang_format and ruff):
        print("ruff or clang-format was not found; run make format\n")


NEXT_COMMANDS = """\
next:
  make .venv/.test && .venv/bin/python tools/native_stubs.py
  .venv/bin/pytest python_tests/ops/test_{name}.py    # one fails, and says what to write
  .venv/bin/cmake -S . -B build/dev -DSEM_TESTS=ON -DSEM_SYCL=OFF
  .venv/bin/cmake --build build/dev --target sem_tests_host
  build/dev/csrc/tests/sem_tests_host --gtest_filter='*{pascal}*'    # likewise
and read "How to add an operator" in docs/development.md"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--dry-run", action="store_true", help="list the files and write none")
    options = parser.parse_args()
    try:
        check(options.name)
        made, edited = own_files(options.name), shared_files(options.name)
    except Refused as reason:
        print(reason, file=sys.stderr)
        return 1
    if not options.dry_run:
        for path, text in {**made, **edited}.items():
            (ROOT / path).write_text(text, encoding="utf-8")
        format_sources([ROOT / path for path in (*made, *edited)])
    print("made:\n  " + "\n  ".join(made))
    print("edited:\n  " + "\n  ".join(edited))
    if not options.dry_run:
        print(NEXT_COMMANDS.format(name=options.name, pascal=pascal(options.name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
