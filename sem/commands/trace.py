"""``sem trace record`` and ``sem trace compare``: intermediate values, and where two computations part."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from sem.trace import Comparison

HELP = "record named intermediate values of a computation; find where two recordings part"
DIVERGED = 1
WIDTH = 110
DTYPES = ("float32", "float64")


def add_arguments(parser: ArgumentParser) -> None:
    from jsonargparse import ArgumentParser

    cayley = ArgumentParser(description="Write the intermediate values of one token's Cayley step.")
    cayley.add_argument("output", help="the file to write")
    cayley.add_argument("--backend", default="native", help="native kernels or the plain-torch reference")
    cayley.add_argument("--dtype", default="float32", help="float32 or, for the reference, float64")
    cayley.add_argument("--device", default="cpu", help="device of the native kernels: cpu, cuda, xpu")
    cayley.add_argument("--nodes", type=int, default=256, help="width of the token")
    cayley.add_argument("--degree", type=int, default=8, help="mean number of neighbours on the small-world graph")
    cayley.add_argument("--dt", type=float, default=0.1, help="time step")
    cayley.add_argument("--tol", type=float, default=1e-5, help="relative residual to reach")
    cayley.add_argument("--max_iter", type=int, default=50, help="most iterations")
    cayley.add_argument("--seed", type=int, default=0, help="of the token, the graph and its weights")

    diffraction = ArgumentParser(description="Write the intermediate values of one pixel of a diffraction image.")
    diffraction.add_argument("output", help="the file to write")
    diffraction.add_argument("--pixel", type=int, nargs=2, metavar=("SLOW", "FAST"), help="counted from 0")
    experiment = "the experiment, one text in the words of sem diffraction simulate: '-cell 100 100 100 90 90 90 ...'"
    diffraction.add_argument("--flags", help=experiment)
    diffraction.add_argument(
        "--c_log", metavar="FILE", help="what nanoBragg printed with -trace_pixel, in place of a computation"
    )
    diffraction.add_argument("--backend", default="native", help="the CPU kernel (native) or the serial reference")
    diffraction.add_argument(
        "--dtype", help="float32 or, for the reference, float64; the widest that there is if left out"
    )

    compare = ArgumentParser(description="Compare two traces; exit status 1 if they differ, 2 for wrong arguments.")
    compare.add_argument("first", help="a trace of this program, or another program's lines 'name = value ...'")
    compare.add_argument("second", help="another")
    compare.add_argument("--tolerance", type=float, default=1e-6, help="relative error up to which values agree")
    compare.add_argument("--absolute", type=float, default=0.0, help="added to it, for what is rounding noise itself")
    compare.add_argument("--all", action="store_true", help="show every quantity, not only those about a difference")
    compare.add_argument("--markdown", metavar="FILE", help="write the whole table as Markdown")
    compare.add_argument("--json", metavar="FILE", help="write the whole comparison as JSON")

    actions = parser.add_subcommands(dest="action")
    record = ArgumentParser(description="Write a trace.")
    actions.add_subcommand("record", record, help="write a trace")
    operators = record.add_subcommands(dest="operator")
    operators.add_subcommand("cayley", cayley, help="of one token's Cayley step")
    operators.add_subcommand("diffraction", diffraction, help="of one pixel of a diffraction image")
    actions.add_subcommand("compare", compare, help="find the first divergence of two traces")


def run(options: Namespace) -> int:
    chosen = options[options.action]
    if options.action == "record":
        return RECORDERS[chosen.operator](chosen[chosen.operator])
    return _compare(chosen)


def _record_cayley(options: Namespace) -> int:
    import torch

    from sem.ops import Topology
    from sem.trace.cayley import trace_cayley

    if options.dtype not in DTYPES:
        raise ValueError(f"--dtype: expected one of {', '.join(DTYPES)}, got {options.dtype!r}")
    if options.backend == "native" and options.dtype != "float32":
        raise ValueError("--dtype float64: native kernels compute in float32; use --backend reference")
    dtype = getattr(torch, options.dtype)
    graph = Topology.small_world(options.nodes, options.degree, seed=options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    # drawn in float32, so that every precision starts from the same values
    psi = torch.view_as_complex(torch.randn(options.nodes, 2, generator=generator).to(dtype))
    weight = torch.rand(graph.num_edges, generator=generator).to(dtype)
    trace = trace_cayley(
        psi.to(options.device),
        weight.to(options.device),
        graph,
        options.dt / 2,
        options.tol,
        options.max_iter,
        backend=options.backend,
    )
    trace.header["seed"] = str(options.seed)
    trace.save(options.output)
    print(f"{options.output}: {len(trace.entries)} quantities")
    return 0


def _record_diffraction(options: Namespace) -> int:
    import torch

    from sem.diffraction.experiment import experiment_from
    from sem.trace.diffraction import trace_diffraction

    if options.dtype is not None and options.dtype not in DTYPES:
        raise ValueError(f"--dtype: expected one of {', '.join(DTYPES)}, got {options.dtype!r}")
    if options.c_log is not None:
        return _record_c_log(options)
    for name in ("pixel", "flags"):
        if options[name] is None:
            raise ValueError(f"--{name}: expected a value, or --c_log with what the C program printed; got neither")
    experiment = experiment_from(shlex.split(options.flags))
    for note in experiment.notes:
        print(f"sem: {note}", file=sys.stderr)
    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    slow, fast = options.pixel
    trace = trace_diffraction(experiment.simulator, (slow, fast), backend=options.backend, dtype=dtype)
    trace.header["flags"] = options.flags
    trace.save(options.output)
    print(f"{options.output}: {len(trace.entries)} quantities")
    return 0


def _record_c_log(options: Namespace) -> int:
    from sem.trace import read_trace
    from sem.trace.c_program import PROGRAM

    for name in ("pixel", "flags", "dtype"):
        if options[name] is not None:
            raise ValueError(f"--{name}: expected none with --c_log, whose trace is written as it is")
    trace = read_trace(options.c_log)
    if trace.header.get("program") != PROGRAM:
        raise ValueError(f"{options.c_log}: expected lines 'TRACE_C: name value ...', found none")
    trace.save(options.output)
    print(f"{options.output}: {len(trace.entries)} quantities")
    return 0


RECORDERS = {"cayley": _record_cayley, "diffraction": _record_diffraction}


def _compare(options: Namespace) -> int:
    from sem.files import write_text
    from sem.trace import compare, read_trace
    from sem.trace.report import as_json, markdown, verdict

    names = (options.first, options.second)
    result = compare(read_trace(options.first), read_trace(options.second), options.tolerance, options.absolute)
    _print_table(result, names, options.all)
    if options.markdown:
        write_text(Path(options.markdown), markdown(result, names))
    if options.json:
        write_text(Path(options.json), json.dumps(as_json(result, names), indent=1, allow_nan=False) + "\n")
    print(verdict(result))
    return 0 if result.first_divergence is None else DIVERGED


def _print_table(result: Comparison, names: tuple[str, str], everything: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from sem.trace.report import COLUMNS, cells, shown

    rows = list(shown(result, None if everything else 2))
    if not any(rows):
        return
    table = Table(*COLUMNS, title=f"{names[0]} against {names[1]}")
    first = result.first_divergence
    for row in rows:
        if row is None:
            table.add_row("...")
        else:
            style = "bold red" if row is first else "red" if row.differs else None
            table.add_row(*cells(row), style=style)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
