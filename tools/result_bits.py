"""The bits of every operator's results, as hashes, to show that a change of the code left them alone.

    python tools/result_bits.py record bits.json     # before the change
    python tools/result_bits.py compare bits.json    # after it: a line per difference, exit status 1 if there is any

A hash (sha256) is kept of each output and of each gradient of each problem, for every instruction set that the
processor has and for 1 and 2 threads. Only the public functions of ``sem.ops`` are called, those of the ``sem`` that
Python finds (``PYTHONPATH`` chooses), so that one tool reads the code before and after a rewrite. Inputs come from
numpy's Generator. Hashes are those of one machine with one version of torch: torch's own kernels are part of some.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import torch
from result_cases import Case, Draw, cases
from torch import Tensor

import sem
from sem import ops

LEVELS = {"avx512": ("AVX512",), "avx2": ("AVX512", "AVX2"), "baseline": ("AVX512", "AVX2", "DEFAULT")}
"""Values of SEM_SIMD, and with which of torch's own capabilities a processor has that instruction set."""
THREADS = (1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "compare", "print"))
    parser.add_argument("file", nargs="?", help="JSON, written by record and read by compare")
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--level", choices=LEVELS, help="one instruction set alone")
    arguments = parser.parse_intermixed_args()
    if arguments.command == "print":  # what a child process does: this level, to standard output
        json.dump(hashes(arguments.only), sys.stdout, indent=0)
        return 0
    if arguments.file is None:
        parser.error(f"{arguments.command}: expected a file")
    levels = [arguments.level] if arguments.level else available_levels()
    found: dict[str, str] = {}
    for level in levels:
        print(f"{sem.__path__[0]}: {level}", file=sys.stderr)
        found |= {f"{level}, {name}": value for name, value in of_level(level, arguments.only).items()}
    if arguments.command == "record":
        with open(arguments.file, "w") as file:
            json.dump({"machine": machine(), "hashes": found}, file, indent=0)
        print(f"{len(found)} hashes of {', '.join(levels)} in {arguments.file}")
        return 0
    with open(arguments.file) as file:
        kept = json.load(file)
    if kept["machine"] != machine():
        print(f"recorded elsewhere: {kept['machine']}, here {machine()}", file=sys.stderr)
    chosen = [name for name in kept["hashes"] if arguments.only in name and name.split(",")[0] in levels]
    return compare({name: kept["hashes"][name] for name in chosen}, found)


def compare(before: dict[str, str], after: dict[str, str]) -> int:
    differences = [f"not computed any more: {name}" for name in before if name not in after]
    differences += [f"not recorded: {name}" for name in after if name not in before]
    differences += [f"differs: {name}" for name, value in before.items() if after.get(name, value) != value]
    print("\n".join([*differences, f"{len(differences)} differences in {len(before)} hashes"]))
    return 1 if differences or not before else 0


def available_levels() -> list[str]:
    have = torch.backends.cpu.get_cpu_capability()
    return [level for level, needs in LEVELS.items() if have in needs]


def machine() -> dict[str, str]:
    return {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(), "cpu": processor()}


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def of_level(level: str, only: str) -> dict[str, str]:
    command = [sys.executable, __file__, "print", "--only", only]
    child = subprocess.run(command, env=os.environ | {"SEM_SIMD": level}, stdout=subprocess.PIPE, check=True)
    return json.loads(child.stdout)


def hashes(only: str) -> dict[str, str]:
    found = {}
    for case in cases():
        if only not in case.name:
            continue
        for threads in THREADS:
            torch.set_num_threads(threads)
            for name, tensor in results(case):
                found[f"{threads} threads, {case.name}: {name}"] = bits(tensor)
    return found


def bits(tensor: Tensor) -> str:
    array = tensor.detach().resolve_conj().resolve_neg().contiguous().numpy()
    digest = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


def results(case: Case) -> Iterator[tuple[str, Tensor]]:
    """Every output, every gradient, and the gradient to the first input where no other is asked for."""
    with torch.no_grad():
        for name, tensor in outputs(case.call(case.inputs)):
            yield f"{name} without gradients", tensor
    names = [name for name in case.inputs if name not in case.fixed]
    for wanted in (names, names[:1]):
        leaves = {name: case.inputs[name].clone().requires_grad_() for name in wanted}
        found = list(outputs(case.call(case.inputs | leaves)))
        draw = Draw(f"cotangents of {case.name}")
        values = [tensor for _, tensor in found if tensor.requires_grad]
        weights = [
            (draw.wave if tensor.is_complex() else draw.normal)(*tensor.shape).to(tensor.dtype) for tensor in values
        ]
        grads = torch.autograd.grad(values, list(leaves.values()), weights, allow_unused=True)
        suffix = "" if wanted is names else " alone"
        if wanted is names:
            yield from found
        for name, grad in zip(leaves, grads, strict=True):
            yield f"gradient to {name}{suffix}", torch.zeros(0) if grad is None else grad


def outputs(value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, ops.SolveInfo):
        yield from (("status", value.status), ("iterations", value.iterations), ("residual", value.residual))
    elif isinstance(value, tuple):
        for k, part in enumerate(value):
            yield from ((f"{k} {name}", tensor) for name, tensor in outputs(part))
    else:
        yield "output", value


if __name__ == "__main__":
    sys.exit(main())
