"""What stands between an operator's public function and its kernels, counted: to hold two versions against each other.

    python tools/plumbing_cost.py                      # this checkout
    python tools/plumbing_cost.py BEFORE AFTER         # two checkouts, and the difference
    python tools/plumbing_cost.py --list               # the lines and files that were counted, too

Counted of every checkout by the same rules, which read text and know no version of it:

**Lines of an argument**: lines of code that name it in PLUMBING below, for an operator and its fused twin. What a
kernel's own code does with the argument is not plumbing: in csrc/device, definitions that run on the device do not
count. A file whose name is one of the operators' counts as a whole, one of another operator not at all, and any other
file with those definitions that name one of the operators. The signatures of public functions count, being written by
hand; docstrings and comments do not.

**Files of an operator**: *own* ones have its name (prefixes and suffixes of tests aside). *Shared* ones are lists,
declarations, registrations, exports, navigation and overviews in which it has an entry: the files of SHARED below that
name its kernels, its public function or, in lists, the operator. Generated files (the stubs), other operators' files,
tests of other things, measurements and users of the operator are not counted. Where there is a tools/new_operator.py,
the files that it makes and edits are counted as well: those that a new operator needs.

**Lines of plumbing**: all lines of PLUMBING's files but csrc/device, whose launches are part of the kernels.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

PLUMBING = (
    "csrc/bindings/*",
    "csrc/include/sem/*",
    "csrc/device/*",
    "csrc/cuda/*.cu",
    "csrc/cuda/run.hpp",
    "csrc/sycl/operators.cpp",
    "csrc/sycl/kernel_names.hpp",
    "csrc/cpu/dispatch.*",
    "csrc/tests/*backend*",
    "sem/native/*.py",
    "sem/ops/*.py",
)
TWINS = ("*/reference*.py",)
"""Plain torch: no way to a kernel."""
SHARED_LISTS = ("CMakeLists.txt", "cmake/*", "csrc/*/CMakeLists.txt", "mkdocs.yml", "docs/*.md", "README.md")
SHARED_CODE = ("csrc/*", "sem/ops/*.py", "sem/native/*.py", "python_tests/*.py")
NOT_SHARED = ("docs/benchmarks.md", "docs/development.md", "python_tests/*test_*.py", "python_tests/typing/*")
"""Measurements, the guide that follows the operator as its example, and tests of other things."""
WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Line:
    path: str
    number: int
    text: str


class Tree:
    """The tracked text files of a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=root, check=True, capture_output=True, text=True,
        )  # fmt: skip
        self.paths = sorted(path for path in listed.stdout.split("\0") if path and (root / path).is_file())
        modules = {re.sub(r"/operator$", "", path[: -len(".py")]) for path in self.matching(("sem/ops/*.py",))}
        tests = self.matching(("csrc/tests/*_test.cpp",))
        self.operators = {Path(path).stem[: -len("_test")] for path in tests} & {Path(path).stem for path in modules}

    def text(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def matching(self, patterns: Iterable[str], but: Iterable[str] = ()) -> list[str]:
        """A pattern's ``*`` takes folders too."""
        chosen = (path for path in self.paths if any(fnmatch(path, pattern) for pattern in patterns))
        return [path for path in chosen if not any(fnmatch(path, pattern) for pattern in but)]

    def owner(self, path: str) -> str | None:
        """The operator whose name the file has."""
        name = Path(path)
        stem = re.sub(r"^(test_|reference_)|_(test|bench)$", "", name.stem)
        for candidate in (stem, name.parent.name):
            if candidate in self.operators:
                return candidate
        return None

    def named(self, word: str) -> str | None:
        """The operator that an identifier is of: ``CayleyTask`` and ``cayley_forward`` are of cayley."""
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).lower()
        of = [name for name in self.operators if snake == name or snake.startswith(f"{name}_")]
        return max(of, key=len, default=None)


def argument_lines(tree: Tree, argument: str, operators: Sequence[str]) -> list[Line]:
    name = re.compile(rf"\b{argument}\b")
    found = []
    for path in tree.matching(PLUMBING, but=TWINS):
        owner = tree.owner(path)
        if owner is not None and owner not in operators:
            continue
        for definition in definitions(path, tree.text(path)):
            text = "\n".join(line.text for line in definition)
            if path.startswith("csrc/device/") and ("SEM_DEVICE" in text or "class Group>" in text):
                continue
            if owner or any(tree.named(word) in operators for word in WORD.findall(text)):
                found += [line for line in definition if name.search(line.text)]
    return found


def definitions(path: str, text: str) -> Iterator[list[Line]]:
    """The file's code in pieces that begin after a blank line, in the first column."""
    if path.endswith(".py"):
        text = re.sub(r'^ *""".*?"""$', lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    comment = re.compile(r"#.*" if path.endswith(".py") else r"//.*")
    lines: list[Line] = []
    blank = True
    for number, line in enumerate(text.split("\n"), 1):
        if blank and lines and line[:1].strip():
            yield lines
            lines = []
        blank = not line.strip()
        lines.append(Line(path, number, comment.sub("", line)))
    yield lines


def operator_files(tree: Tree, operator: str) -> tuple[list[str], list[str]]:
    """The files of its own and the shared ones."""
    header = tree.text(f"csrc/include/sem/{operator}.hpp")
    structs = re.findall(r"^struct (\w+)", header, re.MULTILINE)
    kernels = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() for name in structs]
    module = next(path for path in tree.paths if re.fullmatch(rf"sem/ops/{operator}(/operator)?\.py", path))
    public = re.findall(r"^def ([a-z]\w*)", tree.text(module), re.MULTILINE)
    names = "|".join([f"(?:{'|'.join(structs + kernels)})\\w*", *public, f"bind_{operator}"])
    in_code = re.compile(rf"\b(?:{names})\b|[/\"]{operator}\.[ch]pp")
    in_lists = re.compile(rf"\b(?:{names}|{operator})\b")
    own = [path for path in tree.paths if tree.owner(path) == operator]
    others = [path for path in tree.paths if tree.owner(path) is None]
    lists = [path for path in tree.matching(SHARED_LISTS, but=NOT_SHARED) if path in others]
    code = [path for path in tree.matching(SHARED_CODE, but=NOT_SHARED) if path in others and path not in lists]
    shared = [path for path in lists if in_lists.search(tree.text(path))]
    shared += [path for path in code if in_code.search(tree.text(path))]
    return own, sorted(shared)


def tool_files(tree: Tree) -> list[int | None]:
    """How many files the tree's own tool makes and edits for a new operator."""
    tool = tree.root.resolve() / "tools" / "new_operator.py"
    if not tool.exists():
        return [None, None]
    done = subprocess.run([sys.executable, tool, "probe_op", "--dry-run"], check=True, capture_output=True, text=True)
    made, _, edited = done.stdout.partition("edited:")
    return [part.count("\n  ") for part in (made, edited)]


def plumbing_lines(tree: Tree) -> int:
    paths = tree.matching(PLUMBING, but=(*TWINS, "csrc/device/*"))
    return sum(tree.text(path).count("\n") for path in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, help="checkouts: one, or the one before and the one after")
    parser.add_argument("--arguments", nargs="+", default=["max_iter", "half_dt"])
    parser.add_argument("--operators", nargs="+", default=["cayley", "soliton_step"], help="that have the arguments")
    parser.add_argument(
        "--smallest",
        nargs="+",
        default=["laplacian_matvec"],
        metavar="OPERATOR",
        help="the operator whose files are counted: one name, or its name in each checkout",
    )
    parser.add_argument("--list", action="store_true", help="print what was counted")
    options = parser.parse_args()
    trees = [Tree(root) for root in options.trees or [Path(__file__).resolve().parents[1]]]
    if len(trees) > 2:
        parser.error(f"expected one checkout or two, got {len(trees)}")
    smallest = options.smallest * len(trees) if len(options.smallest) == 1 else options.smallest
    if len(smallest) != len(trees):
        parser.error(f"--smallest: expected one name or one for each checkout, got {len(smallest)}")

    rows: list[tuple[str, list[int | None]]] = []
    for argument in options.arguments:
        lines = [argument_lines(tree, argument, options.operators) for tree in trees]
        rows.append((f"lines that `{argument}` stands on", [len(found) for found in lines]))
        rows.append(("  in files", [len({line.path for line in found}) for found in lines]))
        if options.list:
            for found in lines:
                print(f"\n{argument}:")
                print("\n".join(f"  {line.path}:{line.number}: {line.text.strip()}" for line in found))
    files = [operator_files(tree, name) for tree, name in zip(trees, smallest, strict=True)]
    rows.append((f"files of `{smallest[-1]}`", [len(own) + len(shared) for own, shared in files]))
    rows.append(("  own", [len(own) for own, _ in files]))
    rows.append(("  shared", [len(shared) for _, shared in files]))
    if options.list:
        for own, shared in files:
            print("\nown:\n  " + "\n  ".join(own) + "\nshared:\n  " + "\n  ".join(shared))
        print()
    by_tool = [tool_files(tree) for tree in trees]
    rows.append(("files that new_operator.py makes", [made for made, _ in by_tool]))
    rows.append(("  edits", [edited for _, edited in by_tool]))
    rows.append(("lines of plumbing", [plumbing_lines(tree) for tree in trees]))

    width = max(len(label) for label, _ in rows)
    for label, numbers in rows:
        cells = [f"{'-' if number is None else number:>8}" for number in numbers]
        if len(numbers) == 2 and None not in numbers:
            cells.append(f"{numbers[1] - numbers[0]:+8d}")
        print(f"{label:{width}}" + "".join(cells))


if __name__ == "__main__":
    main()
