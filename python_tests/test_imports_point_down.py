"""Which module of sem may import which: only what lies below it. Read from the sources, function bodies included."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sem"

# From the bottom up. A part may import the parts of the layers below it, and itself; parts of one layer do not know
# each other.
LAYERS = (
    (
        "files",
        "diagnostics",
        "extras",
        "ipex",
        "masking",
        "native",
        "precision",
        "run_names",
        "seal",
        "signals",
        "terminal",
    ),
    ("activations", "hdf5", "huggingface", "settings"),
    ("command_line", "configuration", "optimization_settings", "sweeps"),
    ("run_settings",),
    ("config_sections",),
    ("config", "system_info", "ops"),
    ("data", "diffraction", "layers"),
    ("encoder", "spinor", "propagator", "sampler"),
    ("model",),
    ("generation",),
    ("training", "trace"),
    ("hub", "ptycho", "serving"),
    ("commands", "bench"),
    ("cli",),
    ("__main__", "train"),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
# Not every lower layer is there for every part: these import nothing of sem but what is named.
ONLY = {
    "data": {"config", "config_sections", "extras", "files"},
    "diffraction": {"extras", "files", "hdf5", "ops"},
    "ops": {"native", "precision"},
    "trace": {"diffraction", "files", "ops"},
    "layers": {"ops"},
    "precision": set(),
    "activations": {"extras", "files"},
    "extras": set(),
    "files": set(),
    "hdf5": {"extras", "files"},
    "huggingface": {"extras", "masking"},
    "seal": set(),
    "signals": set(),
    "terminal": set(),
    "ipex": set(),
    "settings": {"files"},
    "optimization_settings": {"settings"},
    "run_settings": {"optimization_settings", "settings"},
    "config_sections": {"optimization_settings", "run_settings", "settings"},
    "sweeps": {"extras", "files", "settings", "signals", "terminal"},
    "config": {"config_sections", "configuration", "settings"},
    "command_line": {"masking", "settings"},
    "configuration": {"settings"},
    "system_info": {"ipex", "native"},
}


def part_of(module):
    """``sem.ops.cayley`` belongs to ``ops``; the package itself, which holds the version, to nothing."""
    names = module.split(".")
    return names[1] if len(names) > 1 else None


def imported_modules(source, module):
    """Absolute names of what ``module`` imports from sem, ``from sem import ops`` as ``sem.ops``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = module.split(".")[: -node.level]
                base = ".".join([*parent, base] if base else parent)
            found = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, node.lineno) for name in found if name.split(".")[0] == "sem")


def modules(root):
    """The file of each module under ``root``. A package's ``__init__`` keeps that last name, so that its relative
    imports resolve like a module's."""
    return {
        ".".join(["sem", *path.relative_to(root).with_suffix("").parts]): path for path in sorted(root.rglob("*.py"))
    }


def violations(root):
    """One sentence for each import under ``root`` that does not point down."""
    for module, path in modules(root).items():
        part = part_of(module)
        if part == "__init__":
            part = None
        for imported, line in imported_modules(path.read_text(), module):
            target = part_of(imported)
            if target is None or target == part or target.startswith("__version"):
                continue
            if part is None:
                yield f"{path.name}:{line}: import of sem must stay free of its parts, imports {imported}"
            elif target not in LEVEL:
                yield f"{module}:{line}: {imported} belongs to no layer; add it to LAYERS"
            elif LEVEL[target] >= LEVEL[part] or target not in ONLY.get(part, {target}):
                yield f"{module}:{line}: {part} may not import {target}"


def cycles(root):
    """One sentence for each package under ``root`` whose modules and sub-packages have no order: where some import each
    other, directly or through others. What a sub-package's modules import counts as its own."""
    files = modules(root)

    def loaded_by(name):
        """The module that importing ``name`` ends up in: itself, or the one that defines it."""
        while name:
            for module in (name, f"{name}.__init__"):
                if module in files:
                    return module
            name = name.rpartition(".")[0]
        return None

    packages = defaultdict(lambda: defaultdict(set))
    for module, path in files.items():
        for imported, _ in imported_modules(path.read_text(), module):
            own, other = module.split("."), (loaded_by(imported) or module).split(".")
            if own == other:
                continue
            common = next(i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b)
            packages[".".join(own[:common])][own[common]].add(other[common])
    for package, imports in packages.items():
        try:
            TopologicalSorter(imports).prepare()
        except CycleError as error:
            yield f"{package}: {' imports '.join(reversed(error.args[1]))}"


def test_every_import_points_down():
    assert list(violations(PACKAGE)) == []


def test_no_package_has_modules_that_import_each_other():
    assert list(cycles(PACKAGE)) == []


def test_every_part_has_a_layer_and_every_layer_a_part():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} == set(LEVEL)


def plant(root, files):
    for file, content in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(content + "\n")


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("ops/cayley.py", "from sem.model import SEMModel", "sem.ops.cayley:1: ops may not import model"),
        ("ops/cayley.py", "import sem.propagator.hamiltonian", "ops may not import propagator"),
        ("ops/cayley.py", "def f():\n    from sem import config", "sem.ops.cayley:2: ops may not import config"),
        ("ops/cayley.py", "from ..encoder import MeshSDREncoder", "ops may not import encoder"),
        ("native/__init__.py", "from ..ops import cayley", "native may not import ops"),
        ("encoder/mesh_sdr.py", "from sem.spinor import ComplexMamba3Layer", "encoder may not import spinor"),
        ("data/loader.py", "from sem.ops import cayley", "data may not import ops"),
        ("model.py", "from .training.loop import TrainingLoop", "sem.model:1: model may not import training"),
        ("config.py", "from sem.diagnostics import Diagnostics", "config may not import diagnostics"),
        ("__init__.py", "from sem.model import SEMModel", "must stay free of its parts"),
        ("ops/cayley.py", "from sem.newcomer import thing", "sem.newcomer.thing belongs to no layer"),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path, file, line, complaint):
    plant(tmp_path, {file: line})
    (found,) = violations(tmp_path)
    assert complaint in found


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("ops/cayley.py", "from sem.ops.topology import Topology"),
        ("ops/cayley.py", "from .topology import Topology"),
        ("ops/cayley.py", "from sem import native"),
        ("model.py", "from sem.encoder import MeshSDREncoder"),
        ("cli.py", "from sem import __version__"),
        ("ops/cayley.py", "import torch"),
    ],
)
def test_a_downward_import_is_fine(tmp_path, file, line):
    plant(tmp_path, {file: line})
    assert list(violations(tmp_path)) == []


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (
            {
                "data/loader.py": "def f():\n    from sem.data.streaming import S",
                "data/streaming.py": "import sem.data.loader",
            },
            "sem.data: loader imports streaming imports loader",
        ),
        (
            {"ops/a.py": "from . import b", "ops/b.py": "from .c import f", "ops/c.py": "from sem.ops import a"},
            "sem.ops: a imports b imports c imports a",
        ),
        (
            {"ops/__init__.py": "from sem.ops.a import f", "ops/a.py": "from sem.ops import g"},
            "sem.ops: __init__ imports a imports __init__",
        ),
        (  # no two modules import each other, and yet neither room lies above the other
            {
                "bench/cases/a.py": "from sem.bench.plots.b import f",
                "bench/cases/c.py": "",
                "bench/plots/b.py": "",
                "bench/plots/d.py": "from sem.bench.cases import c",
            },
            "sem.bench: cases imports plots imports cases",
        ),
    ],
)
def test_a_planted_cycle_is_found(tmp_path, files, complaint):
    plant(tmp_path, files)
    assert list(cycles(tmp_path)) == [complaint]


@pytest.mark.parametrize(
    "files",
    [
        {"ops/a.py": "from sem.ops.b import f", "ops/b.py": "import torch", "ops/__init__.py": "from .a import f"},
        {
            "bench/cases/a.py": "from sem.bench.cases.b import f",
            "bench/cases/b.py": "from sem.bench import c",
            "bench/c.py": "",
        },
        {"__init__.py": "", "ops/a.py": "from sem import __version__, native", "native/__init__.py": ""},
    ],
)
def test_an_order_is_fine(tmp_path, files):
    plant(tmp_path, files)
    assert list(cycles(tmp_path)) == []
