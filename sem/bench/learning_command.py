"""``sem bench learning``: the model and its peers train for the same minutes on the same text.

Exit status: 0 measured (also where Ctrl-C ended it), 1 a run diverged, 2 wrong arguments or configuration.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sem.bench.arguments import at_least, picture, writable
from sem.bench.names import BY_ADAMW, ENTRANTS
from sem.command_line import Parser
from sem.config import SEMConfig, add_config_arguments, config_from_arguments
from sem.files import write_text
from sem.signals import stop_on_signals

if TYPE_CHECKING:
    from sem.bench.language_models import Entrant
    from sem.bench.learning import Run

HELP = "train the model and its peers for the same minutes on the same text; print what they learned"
FAILED = 1


def run(options: argparse.Namespace) -> int:
    """Measure what ``options`` ask for and return the exit status."""
    from rich.console import Console

    from sem.bench import language_models, learning_report, report
    from sem.bench.learning import learn, order, run_config
    from sem.data import load_corpus
    from sem.training.devices import threads
    from sem.training.memory import keep_freed_memory

    base = config_from_arguments(options)
    if base.data.dataset is not None:
        raise ValueError(f"data.dataset = {base.data.dataset!r}: expected null: a stream holds out other text")
    bases = dict.fromkeys(options.models, base) | _ablations(options)
    known: Mapping[str, Entrant] = language_models.ENTRANTS
    entrants = {**known, **{name: replace(known["sem"], name=name) for name in bases if name not in known}}
    configs = {
        (name, seed): run_config(bases[name], entrants[name], options.minutes, seed, options.threads)
        for name, seed in order(list(bases), options.seeds)
    }
    data = base.data
    corpus = load_corpus(data.paths, corpus=data.corpus, validation_share=data.validation_share)
    by_model = {name: configs[name, options.seeds[0]] for name in bases}
    asked = ("minutes", "seeds", "models", "ablations", "threads", "config")
    settings = {name: getattr(options, name) for name in asked}
    settings["held_out_bytes"] = corpus.validation.num_bytes
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    runs: list[Run] = []
    keep_freed_memory()
    with threads(options.threads), stop_on_signals() as stop:
        where = {**report.machine(), "load_before": report.load_average()}
        result = learning_report.document(runs, by_model, where, settings)
        for run in learn(configs, entrants, corpus, stop, console):
            runs.append(run)
            where["load_after"] = report.load_average()
            result = learning_report.document(runs, by_model, where, settings)
            if options.json is not None:
                write_text(options.json, json.dumps(result, indent=2, allow_nan=False) + "\n")
    if stop:
        console.print(f"{stop.signal_name}: {len(runs)} of {len(configs)} runs were finished")
    learning_report.print_table(result, report.console_for())
    if options.plot is not None and runs:
        title = f"{where['processor']}, {options.threads} thread(s), {options.minutes:g} minutes"
        learning_report.plot(runs, options.plot, title)
    return FAILED if any(run.problem for run in runs) else 0


def add_arguments(parser: Parser) -> None:
    """The options of ``sem bench learning``, and every setting of a configuration."""
    parser.description = f"{parser.description} Of the settings, the peers take data, device, precision and vocabulary."
    parser.add_argument("--minutes", type=_minutes, default=5.0, metavar="M", help="of training per run (default: 5)")
    seeds = "one run of each model per seed (default: 0 1 2)"
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2], metavar="N", help=seeds)
    usual = [name for name in ENTRANTS if not name.endswith(BY_ADAMW)]
    models = f"who takes part, in this order (default: {' '.join(usual)})"
    parser.add_argument("--models", nargs="+", choices=ENTRANTS, default=usual, help=models)
    ablations = "the model once more for each FILE, whose settings win over those of --config"
    parser.add_argument("--ablations", nargs="+", default=[], metavar="FILE", help=ablations)
    parser.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="CPU threads (default: 1)")
    results = "write every figure and curve to FILE, anew after each run"
    parser.add_argument("--json", type=writable, metavar="FILE", help=results)
    curves = "draw bits per byte against seconds (needs matplotlib)"
    parser.add_argument("--plot", type=picture, metavar="FILE", help=curves)
    add_config_arguments(parser)


def _ablations(options: argparse.Namespace) -> dict[str, SEMConfig]:
    """A configuration for each file of ``--ablations``, by the file's name."""
    found: dict[str, SEMConfig] = {}
    given = options.config or []
    for file in options.ablations:
        name = Path(file).stem
        if name in ENTRANTS or name in found:
            raise ValueError(f"--ablations {file}: expected a name of its own, there is another {name!r}")
        found[name] = config_from_arguments(argparse.Namespace(**{**vars(options), "config": [*given, file]}))
    return found


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of minutes, got {text!r}") from None
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected more than 0 minutes, got {text}")
    return value
