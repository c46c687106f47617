"""Every public definition of sem has a docstring. Read from the sources; the package is not imported."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sem"
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

# Public is a module, a function or a class that stands in a module itself, and a method or property of such a class, if
# no part of its dotted name begins with an underscore; what stands in `__init__.py` is the package's. Exempt are
# - signatures for type checkers (`overload`), and what sets or deletes a property;
# - a method whose name has a docstring in a class of sem that its class descends from;
# - a property listed under `Attributes:` in its class's docstring, and `forward`, which that docstring describes.
# Other methods of classes from elsewhere are not exempt: nothing there can say what their overrides do here.


def is_public(name):
    return all(not part.startswith("_") for part in name.split("."))


def statements(body):
    """Definitions and imports of ``body``, those under ``if``, ``try`` and ``with`` included."""
    for node in body:
        if isinstance(node, (*FUNCTION, ast.ClassDef, ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            for part in ("body", "handlers", "orelse", "finalbody"):
                for inner in getattr(node, part, []):
                    yield from statements(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])


def is_exempt(node):
    marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
    return bool(marks & {"overload", "setter", "deleter"})


class Module:
    """What one file defines: its functions and classes, and which dotted name each of its names stands for."""

    def __init__(self, name, tree, is_package):
        self.name, self.tree = name, tree
        self.definitions = {}
        self.meanings = {}
        for node in statements(tree.body):
            if isinstance(node, ast.Import):
                self.meanings |= {(a.asname or a.name): a.name for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                package = name.split(".") if is_package else name.split(".")[:-1]
                package = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*package, *filter(None, [node.module])])
                self.meanings |= {(a.asname or a.name): f"{base}.{a.name}" for a in node.names}
            elif not is_exempt(node):
                self.definitions[node.name] = node
                self.meanings[node.name] = f"{name}.{node.name}"

    def meaning(self, expression):
        """The dotted name that a base class, written as ``expression``, stands for here."""
        name = ast.unparse(expression.value if isinstance(expression, ast.Subscript) else expression)
        first, dot, rest = name.partition(".")
        return self.meanings.get(first, first) + dot + rest


def modules_under(root):
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = ["sem", *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = Module(name, ast.parse(path.read_text(encoding="utf-8")), is_package)
    return found


def methods(node):
    return [member for member in statements(node.body) if isinstance(member, FUNCTION) and not is_exempt(member)]


def class_named(modules, name):
    """The module and the definition of a class of sem, through the packages that pass its name on; else None."""
    module, _, own = name.rpartition(".")
    while module in modules and own not in modules[module].definitions and own in modules[module].meanings:
        module, _, own = modules[module].meanings[own].rpartition(".")
    node = modules[module].definitions.get(own) if module in modules else None
    return (modules[module], node) if isinstance(node, ast.ClassDef) else None


def documented_above(modules, module, node):
    """Names of the methods that have a docstring in a class which ``node`` descends from."""
    names = set()
    for base in node.bases:
        if found := class_named(modules, module.meaning(base)):
            names |= {member.name for member in methods(found[1]) if ast.get_docstring(member)}
            names |= documented_above(modules, *found)
    return names


def documented_by_class(node):
    """Names of the methods that the docstring of the class itself describes."""
    docstring = ast.get_docstring(node) or ""
    listed = re.search(r"^Attributes:\n(( .*)?\n)+", docstring + "\n", re.MULTILINE)
    lines = re.findall(r"^ {4}(\w.*?):", listed[0], re.MULTILINE) if listed else []
    return {name for line in lines for name in line.split(", ")} | ({"forward"} if docstring else set())


def undocumented(root):
    """The public definitions under ``root`` without a docstring, as ``module.Class.method``."""
    modules = modules_under(root)
    for module in modules.values():
        if not is_public(module.name.removesuffix(".__main__")):
            continue
        if not ast.get_docstring(module.tree):
            yield module.name
        for node in module.definitions.values():
            if not is_public(node.name):
                continue
            if not ast.get_docstring(node):
                yield f"{module.name}.{node.name}"
            if isinstance(node, ast.ClassDef):
                above = documented_above(modules, module, node) | documented_by_class(node)
                for member in methods(node):
                    if is_public(member.name) and member.name not in above and not ast.get_docstring(member):
                        yield f"{module.name}.{node.name}.{member.name}"


def test_every_public_definition_has_a_docstring():
    assert list(undocumented(PACKAGE)) == []


BASE = '''
"""A."""
class Base:
    """B."""
    def step(self):
        """S."""
    def bare(self): ...
'''
HEIRS = '''
"""B."""
import sem.a
from sem.p import Root
from torch import nn
class B(Root):
    """B."""
    def step(self): ...
    def bare(self): ...
class C(B):
    """C."""
    def step(self): ...
    def more(self): ...
class D(nn.Module):
    """D."""
    def step(self): ...
class E(sem.a.Base):
    """E."""
    def step(self): ...
'''
TWICE = '''
"""T."""
class T:
    """T.

    Attributes:
        f, g: both.
        h: one:: and not i: either.
    """
    @property
    def g(self): ...
    @property
    def h(self): ...
    @property
    def i(self): ...
    @property
    def j(self):
        """J."""
    @j.setter
    def j(self, value): ...
    def forward(self): ...
class U:
    def forward(self): ...
'''
SIGNATURES = '''
"""S."""
import typing
@typing.overload
def f(x: int): ...
@typing.overload
def f(x: str): ...
def f(x):
    """F."""
@typing.overload
def g(x: int): ...
def g(x): ...
'''
INNER = '''
"""I."""
class A:
    """A."""
    def __len__(self): ...
    def _f(self): ...
class _B:
    def f(self): ...
def _g(): ...
def h():
    """H."""
    def inner(): ...
try:
    import x
except ImportError:
    def fallen_back(): ...
'''


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"a.py": "x = 1"}, ["sem.a"]),
        ({"a.py": '"""A."""\ndef f(): ...\nclass A: ...'}, ["sem.a.f", "sem.a.A"]),
        ({"p/__init__.py": "def f(): ...", "p/_q.py": "def f(): ...", "_r/s.py": "x"}, ["sem.p", "sem.p.f"]),
        (
            {"a.py": BASE, "p/__init__.py": '"""P."""\nfrom ..a import Base as Root', "p/b.py": HEIRS},
            ["sem.a.Base.bare", "sem.p.b.B.bare", "sem.p.b.C.more", "sem.p.b.D.step"],
        ),
        ({"a.py": TWICE}, ["sem.a.T.i", "sem.a.U", "sem.a.U.forward"]),
        ({"a.py": SIGNATURES}, ["sem.a.g"]),
        ({"a.py": INNER}, ["sem.a.fallen_back"]),
    ],
)
def test_planted_gaps_are_found(tmp_path, files, found):
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content + "\n")
    assert list(undocumented(tmp_path)) == found
