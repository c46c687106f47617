"""``sem activations``: what the layers of a trained model do on held-out text, and what moved between two files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem.run_names import ACTIVATIONS

if TYPE_CHECKING:
    from argparse import Namespace

    from torch import Tensor

    from sem.activations import Activations, Block, Change
    from sem.command_line import Parser
    from sem.data import EvalLoader, StreamEvalLoader
    from sem.model import SEMModel

HELP = "statistics of a trained model's layers on held-out text"
WIDTH = 110
MOST_CHANGES = 20
COLUMNS = {
    "mean": "mean",
    "std": "std",
    "p1": "p1",
    "p99": "p99",
    "dead_share": "dead",
    "rel_amp_std": "rel. amp.",
    "dc_share": "constant",
    "low_freq_ratio": "low freq.",
    "between_sample_share": "between",
}
"""Statistics that the table shows, and the heads of their columns."""


def add_arguments(parser: Parser) -> None:
    """A run or two files, which rows and layers, and what to write."""
    parser.add_argument("run", nargs="?", help="a run's folder, or a checkpoint")
    parser.add_argument("--checkpoint", metavar="WHERE", help="the checkpoint to take, in place of the run's newest")
    parser.add_argument("--samples", metavar="N", default="all", help="rows of held-out text, a number or 'all'")
    parser.add_argument("--layers", metavar="PATTERN", default="*", help="of layers' names, as of a shell: 'mamba*'")
    parser.add_argument("--output", metavar="FILE", help=f"what to write; default: {ACTIVATIONS} in the run's folder")
    parser.add_argument("--plot", metavar="FILE", help="draw the statistics over the depth of the model")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="say what moved from one such file to another")
    parser.add_argument("--device", default="auto", help="where to compute")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")


def run(options: Namespace) -> int:
    """Measure the run's layers on held-out text, or print what moved between two files.

    Raises:
        ValueError: neither a run nor two files, or both.
    """
    if (options.run is None) == (options.compare is None):
        got = "neither" if options.run is None else "both"
        raise ValueError(f"activations: expected a run, or --compare with two files, got {got}")
    return compare_files(*options.compare) if options.run is None else _measure(options)


def _measure(options: Namespace) -> int:
    from sem.activations import plot_depth, write
    from sem.data import build_loaders
    from sem.training.trained_model import open_trained_model

    samples = sample_count(options.samples)
    for option in ("output", "plot"):  # now, not when all is computed
        path = getattr(options, option)
        if path is not None and not Path(path).parent.is_dir():
            raise ValueError(f"--{option} {path}: expected a file in a folder that exists")
    trained = open_trained_model(
        options.run,
        [f"training.device={options.device}"],
        checkpoint=options.checkpoint,
        num_threads=options.threads,
    )
    if trained.note is not None:
        print(trained.note, file=sys.stderr)
    config = trained.config
    _, loader = build_loaders(config, batch_size=config.training.micro_batch_size, tokenizer=trained.tokenizer)
    held_out = HeldOut(loader, samples)
    found = measure_language_model(trained.model, held_out, options.layers)
    summary = replace(
        found.summary,
        checkpoint=str(trained.checkpoint),
        data=f"held-out text of {config.data.text}",
        samples=held_out.rows,
        step=trained.step,
    )
    found = replace(found, summary=summary)
    target = Path(options.output) if options.output is not None else trained.folder / ACTIVATIONS
    write(target, found)
    if options.plot is not None:
        plot_depth(found, options.plot, f"{trained.checkpoint.name}, {held_out.rows} rows")
    print_statistics(found)
    print(f"{held_out.rows} rows of {config.seq_length} tokens, step {summary.step}: {target}")
    return 0


class HeldOut:
    """The first rows of a loader's held-out text, in batches; each pass gives the same.

    Args:
        loader: of the run.
        most: rows to take at most; None takes all.
    """

    def __init__(self, loader: EvalLoader | StreamEvalLoader, most: int | None = None) -> None:
        self.loader = loader
        self.rows = loader.num_rows if most is None else min(most, loader.num_rows)

    def __iter__(self) -> Iterator[Tensor]:
        left = self.rows
        for batch in self.loader:
            tokens = batch["tokens"][:left]
            yield tokens
            left -= len(tokens)
            if not left:
                return


def measure_language_model(model: SEMModel, held_out: HeldOut, layers: str) -> Activations:
    """The statistics of the layers of ``model`` that ``layers`` names, with progress on standard error."""
    from sem.activations import measure
    from sem.training.progress import CountDisplay

    device = next(model.parameters()).device
    with CountDisplay("rows, in two passes:", 2 * held_out.rows) as display:
        return measure(
            model,
            held_out,
            lambda model, tokens: model(tokens.to(device)),
            layers=layers,
            blocks=_blocks(model, layers),
            progress=lambda tokens: display.advance(len(tokens)),
        )


def _blocks(model: SEMModel, layers: str) -> dict[str, Block]:
    """The residual layers, and the propagators, which move the wave without a branch of its own."""
    from fnmatch import fnmatchcase

    from sem.activations import Block

    scale: Any
    blocks = {}
    for number, layer in enumerate(model.mamba_layers):
        scale = layer.residual
        blocks[f"mamba_layers.{number}"] = Block(body=layer, layerscale=scale)
    for number, layer in enumerate(model.propagator.layers):
        blocks[f"propagator.layers.{number}"] = Block(body=layer)
    return {name: block for name, block in blocks.items() if fnmatchcase(name, layers)}


def sample_count(text: str) -> int | None:
    """``--samples`` as a number, None for ``all``.

    Raises:
        ValueError: neither ``all`` nor a whole number of at least 1.
    """
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--samples: expected an integer >= 1 or 'all', got {text!r}")
    return int(text)


def print_statistics(found: Activations) -> None:
    """Print a table of the layers, one of the blocks, if there are any, and a line for each layer with numbers that are
    not finite."""
    from rich.table import Table

    table = Table("layer", *COLUMNS.values())
    for name, values in found.layers.items():
        table.add_row(name, *(_text(values.get(statistic)) for statistic in COLUMNS))
    _print(table)
    if found.blocks:
        names = list(dict.fromkeys(name for values in found.blocks.values() for name in values))
        table = Table("block", *names)
        for name, values in found.blocks.items():
            table.add_row(name, *(_text(values.get(statistic)) for statistic in names))
        _print(table)
    for name, values in found.layers.items():
        if values["nonfinite"]:
            print(f"{name}: {values['nonfinite']} numbers are not finite")


def compare_files(first: str, second: str) -> int:
    """Print the largest changes from ``first`` to ``second``, and what only one of them has; status 0 whatever
    moved."""
    from rich.table import Table

    from sem.activations import compare, read

    result = compare(read(first), read(second))
    shown = result.changes[:MOST_CHANGES]
    if shown:
        table = Table("layer", "statistic", "first", "second", "relative change", title=f"{first} against {second}")
        for change in shown:
            table.add_row(*_cells(change))
        _print(table)
    rest = len(result.changes) - len(shown)
    print(f"{len(result.changes)} of {result.compared} statistics moved{f', {rest} not shown' if rest else ''}")
    for names, file in ((result.only_first, first), (result.only_second, second)):
        if names:
            print(f"only in {file}: {', '.join(names)}")
    return 0


def _cells(change: Change) -> tuple[str, ...]:
    size = f"{change.relative:.3g}"
    return change.name, change.statistic, _text(change.before), _text(change.after), size


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _print(table: Any) -> None:
    from rich.console import Console

    console = Console(markup=False)
    console.width = max(console.width, WIDTH)
    console.print(table)
