"""Writes the type stubs of the compiled modules, sem/native/_*.pyi, from the fields that the kernels declare.

python tools/native_stubs.py           rewrite them
python tools/native_stubs.py --check   exit 1 if they are not what the built CPU module declares
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "sem" / "native"
HEAD = '''"""Written by tools/native_stubs.py from csrc/include/sem. Private to sem.ops."""

from collections.abc import Callable

from torch import Tensor

FIELDS: dict[str, list[tuple[str, str, bool, bool]]]
"""Of each kernel: (name, type, is it written, may it be absent)."""
'''
CPU = """DEVICE_KERNELS: list[str]
openmp: bool
state_space_checkpoint_steps: int

def simd_level() -> str: ...
"""
XPU = """compilation: str
sycl_major: int

def set_sources(path: str) -> None: ...
def cpu_queue() -> int: ...
def wait(queue: int) -> None: ...
def sub_group_size(queue: int) -> int: ...
def set_limits(local_bytes: int, group_size: int, sub_group_size: int) -> None: ...
"""
TRACE = "list[tuple[str, tuple[int, int, int, int, int], list[float]]]"


def device_stub(kernels: list[str], special: str) -> str:
    """A device module's kernels have the fields of the CPU's."""
    shared = "".join(f"from sem.native._cpu import {name} as {name}\n" for name in sorted(["FIELDS", *kernels]))
    head = '"""Written by tools/native_stubs.py. Private to sem.ops."""\n\n'
    return head + shared + (f"\n{special}" if special else "")


def function(name: str, declared: list[tuple[str, str, bool, bool]]) -> str:
    lines = [f"    {field}: {annotation(kind, optional)}," for field, kind, _, optional in declared]
    returns = TRACE if "trace" in name else "None"
    head = f"def {name}(\n    handle: int,\n    device: int,\n    threads: int,\n"
    head += "    allocate: Callable[[int], int] | None,\n    /,\n    *,\n"
    return head + "\n".join(lines) + f"\n) -> {returns}: ...\n"


def annotation(kind: str, optional: bool) -> str:
    """``int``, ``float`` and ``bool`` are numbers, any other type is that of an array's elements."""
    numbers = {"int": "int", "float": "float", "bool": "bool"}
    return numbers.get(kind, "Tensor") + (" | None = None" if optional else "")


def stubs(cpu: ModuleType) -> dict[Path, str]:
    """File and text of every stub."""
    return {
        FOLDER / "_cpu.pyi": HEAD + CPU + "".join(function(name, declared) for name, declared in cpu.FIELDS.items()),
        FOLDER / "_cuda.pyi": device_stub(cpu.DEVICE_KERNELS, ""),
        FOLDER / "_xpu.pyi": device_stub(cpu.DEVICE_KERNELS, XPU),
    }


def main() -> int:
    from sem import native

    wanted = stubs(native.backend("cpu"))
    if "--check" not in sys.argv[1:]:
        for path, text in wanted.items():
            path.write_text(text)
        return 0
    stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if stale:
        print(f"{', '.join(stale)}: not what the kernels declare; run python tools/native_stubs.py", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
