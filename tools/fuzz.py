"""Calls operators with what no caller should pass, and says which calls did not end as promised.

    python tools/fuzz.py --calls 20000 --seed 0
    python tools/fuzz.py --only 1234            # that call again, with its traceback

Each call takes a small problem of a compiled operator's and spoils one to three of its arguments. It may return or
raise TypeError, ValueError or SolveError; what it returned may be differentiated. A call that ends otherwise, kills its
process, takes more than 30 s or asks for more than 8 GiB is a finding. A call is made of the seed and its number alone.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python_tests" / "support"))

from operators import OPERATORS, Operator

from sem.ops import SolveError, Topology

ALLOWED = (TypeError, ValueError, SolveError)
SECONDS, BYTES = 30, 8 << 30
ENOUGH = 20  # findings


def resized(tensor: Tensor, draw: random.Random) -> Tensor:
    shape = [max(0, size + draw.choice([-size, -1, 0, 1, 7])) for size in tensor.shape]
    return torch.ones(shape, dtype=tensor.dtype)


def filled(value: float) -> Callable[[Tensor, random.Random], Any]:
    def spoil(tensor: Tensor, draw: random.Random) -> Tensor:
        flat = tensor.clone().reshape(-1)
        if flat.numel():
            flat[draw.randrange(flat.numel())] = value
        return flat.reshape(tensor.shape) if draw.random() < 0.7 else torch.full_like(tensor, value)

    return spoil


SPOILERS: dict[str, Callable[[Tensor, random.Random], Any]] = {
    "resized": resized,
    "one dimension less": lambda tensor, draw: tensor[0] if tensor.ndim and len(tensor) else tensor,
    "one dimension more": lambda tensor, draw: tensor.unsqueeze(draw.randrange(tensor.ndim + 1)),
    "turned": lambda tensor, draw: tensor.movedim(0, -1) if tensor.ndim else tensor,
    "expanded to 2^40": lambda tensor, draw: tensor.reshape(-1)[:1].expand(1 << 20, 1 << 20),
    "strided": lambda tensor, draw: torch.stack([tensor, tensor], -1)[..., 0],
    "reversed": lambda tensor, draw: tensor.flip(0) if tensor.ndim else tensor,
    "at an odd address": lambda tensor, draw: torch.cat([tensor.reshape(-1)[:1], tensor.reshape(-1)])[1:].view(
        tensor.shape
    ),
    "conjugated lazily": lambda tensor, draw: tensor.conj() if tensor.is_complex() else torch._neg_view(tensor),
    "of another dtype": lambda tensor, draw: tensor.to(
        draw.choice(
            [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
        )
    ),
    "on the meta device": lambda tensor, draw: tensor.to("meta"),
    "sparse": lambda tensor, draw: tensor.to_sparse(),
    "quantized": lambda tensor, draw: torch.quantize_per_tensor(torch.ones(tensor.shape), 0.1, 0, torch.qint8),
    "an array": lambda tensor, draw: np.asarray(tensor.resolve_conj()),
    "a list": lambda tensor, draw: tensor.tolist(),
    "absent": lambda tensor, draw: None,
    "a word": lambda tensor, draw: "psi",
    "a number": lambda tensor, draw: draw.choice([0, -1, 2**63, 10**400, float("nan")]),
    "with NaN": filled(float("nan")),
    "with infinity": filled(float("inf")),
    "negative": filled(-1.0),
    "huge": filled(3e38),
    "denormal": filled(1e-42),
    "zero": lambda tensor, draw: torch.zeros_like(tensor),
}
ENDLESS = "expanded to 2^40"
NUMBERS: list[Any] = [0, -1, 1, 3, 0.5, 1e-300, 1e-45, 1e38, 1e300, float("inf"), float("nan"), 2**31, 2**63, 10**400]
NUMBERS += ["1", None, True, [], 1j, torch.tensor(0.5), torch.tensor([1.0, 2.0]), np.float32(0.1), np.int64(3)]
BOUNDED = {"max_iter": 2000}  # a limit that is obeyed is no finding


def spoiled(seed: int, number: int) -> tuple[str, Operator, list[Any], dict[str, Any]]:
    """The call of this number: in words, and as operator, positional arguments (the graph first) and settings."""
    draw = random.Random(f"{seed} {number}")
    operator = draw.choice([operator for operator in OPERATORS if not operator.plain_torch])
    problem = operator.plain(draw.choice([0, 1, 5, 17]))
    given: list[Any] = [problem.graph, *(problem.tensors[name] for name in problem.arguments)]
    settings = dict(operator.settings)
    words = []
    for _ in range(draw.choice([1, 1, 2, 3])):
        place = draw.randrange(-len(settings), len(given))
        if place < 0:
            name = list(settings)[place]
            value = draw.choice(NUMBERS)
            if name in BOUNDED and isinstance(value, (int, float)) and value > BOUNDED[name]:
                value = BOUNDED[name]
            settings[name] = value
            words.append(f"{name} = {value!r}"[:60])
        elif place == 0:
            if problem.graph is not None:
                given[0] = draw.choice([Topology.small_world(4, 2), Topology(9, []), None, "ring", 9])
                words.append("another graph")
        elif isinstance(given[place], Tensor):
            how = draw.choice(list(SPOILERS))
            if place == 1 and how == ENDLESS:
                continue  # the first argument says how large the others have to be, and may be larger than memory
            if given[place].numel() > 1 << 20:
                continue  # endless already
            try:
                given[place] = SPOILERS[how](given[place], draw)
            except (RuntimeError, TypeError, ValueError, NotImplementedError):
                continue  # torch has no such tensor
            words.append(f"{problem.arguments[place - 1]} {how}")
    return f"{operator.name}: {', '.join(words)}", operator, given, settings


def attempt(seed: int, number: int) -> str | None:
    """How a call went wrong, in a line; None where it ended as promised."""
    _, operator, given, settings = spoiled(seed, number)
    leaves = []
    for k, value in enumerate(given):
        if (
            isinstance(value, Tensor)
            and value.device.type == "cpu"
            and (value.is_floating_point() or value.is_complex())
        ):
            try:
                given[k] = value.detach().requires_grad_()
            except RuntimeError:
                continue
            leaves.append(given[k])
    try:
        outputs = operator.call(*given, **settings)
    except ALLOWED:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}"
    recorded = [out.abs().sum() for out in outputs if isinstance(out, Tensor) and out.requires_grad]
    if recorded:
        try:
            torch.autograd.grad(sum(recorded), leaves, allow_unused=True)
        except Exception as error:
            return f"backward: {type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}"
    return None


def work(seed: int, first: int, last: int, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for number in range(first, last):
        pipe.send((number, None))
        signal.alarm(SECONDS)
        finding = attempt(seed, number)
        signal.alarm(0)
        if finding is not None:
            pipe.send((number, finding))
    pipe.send((last, None))


def run(seed: int, calls: int) -> list[tuple[int, str]]:
    """The findings, by number. Goes on behind a call that killed its process."""
    context = multiprocessing.get_context("spawn")
    findings: list[tuple[int, str]] = []
    number, started, said = 0, time.monotonic(), time.monotonic()
    while number < calls and len(findings) < ENOUGH:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(seed, number, calls, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            while number < calls and len(findings) < ENOUGH:
                number, finding = ours.recv()
                if finding is not None:
                    findings.append((number, finding))
                if time.monotonic() - said > 5:
                    said = time.monotonic()
                    rate = number / (said - started)
                    left = (calls - number) / max(rate, 1e-9)
                    print(f"{number} of {calls} calls, {rate:.0f}/s, left {left:.0f} s", file=sys.stderr, flush=True)
        except EOFError:
            process.join()
            code = process.exitcode or 0
            findings.append((number, f"killed by signal {-code}" if code < 0 else f"ended with status {code}"))
            number += 1
        finally:
            process.terminate()
            process.join()
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make this one call, here")
    options = parser.parse_args()
    if options.only is not None:
        words, operator, given, settings = spoiled(options.seed, options.only)
        print(words)
        try:
            print(operator.call(*given, **settings))
        except Exception:
            traceback.print_exc()
        print(attempt(options.seed, options.only) or "ended as promised")
        return 0
    findings = run(options.seed, options.calls)
    for number, finding in findings:
        print(f"call {number}: {spoiled(options.seed, number)[0]}: {finding}")
    kinds = collections.Counter(finding.split(":")[0] for _, finding in findings)
    print(f"{options.calls} calls, seed {options.seed}: {len(findings)} findings {dict(kinds) if kinds else ''}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
