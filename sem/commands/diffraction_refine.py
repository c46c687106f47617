"""``sem diffraction refine``: parameters of an experiment from images of it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from sem.command_line import Command, Parser

if TYPE_CHECKING:
    from sem.diffraction.refinement import RefinementSettings, Result, Summary

DIVERGED = 1
MANY = 1  # more shots than this get pictures only when asked


def refine(options: argparse.Namespace) -> int:
    """Run ``sem diffraction refine``: 0 if some shot converged (or the run was stopped), else 1."""
    from pathlib import Path

    from sem.diffraction.refinement import CONVERGED, read_model, refine_shots, tasks_from
    from sem.signals import stop_on_signals

    settings = _settings(options)
    if options.workers < 1:
        raise ValueError(f"--workers: expected a whole number >= 1, got {options.workers}")
    tasks = tasks_from(options.experiment, options.data)
    if any(task.experiment == str(Path(options.experiment).absolute()) for task in tasks):
        read_model(options.experiment)  # what is wrong with it is no shot's own failure
    pictures = options.pictures if options.pictures is not None else len(tasks) <= MANY
    with stop_on_signals() as request:
        summary = refine_shots(
            tasks,
            settings,
            options.out,
            workers=options.workers,
            scheduler=options.scheduler,
            pictures=pictures,
            stopped=lambda: bool(request),
            tell=_Progress(),
        )
        signal = request.signal_name
    if len(tasks) == 1 and summary.results:
        _print_fit(options.out, tasks[0].name)
    _print_summary(summary, options.out)
    if signal is not None:
        print(f"sem: stopped by {signal}; the same command goes on from here", file=sys.stderr)
        return 0
    return 0 if summary.count(CONVERGED) else DIVERGED


class _Progress:
    """Says how each shot went, at which rate, and how long the rest will take."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._here = 0

    def __call__(self, result: Result, done: int, total: int) -> None:
        from sem.training.progress import clock

        self._here += 1
        fit = {} if result.model is None else result.model.fit
        goodness = fit.get("goodness")
        shown = "" if goodness is None else f", chi²/dof {goodness:.4g}"
        reason = "" if result.status == "converged" else f": {result.reason}"
        line = f"{done} of {total}: {result.name} {result.status}{shown}{reason}"
        if total > 1:
            rate = self._here / max(time.monotonic() - self._started, 1e-9)
            line += f" ({rate:.3g} shots/s, {clock((total - done) / rate)} left)"
        print(line, flush=True)


def _add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("experiment", metavar="EXPERIMENT", help="what to start from: a file of simulate's flags, or a model file")
    data = "an image ({panel} in its name: a file each), a folder of images, or a list (.txt) of IMAGE [MODEL] lines"
    add("data", metavar="DATA", help=data)
    add("--refine", nargs="+", required=True, metavar="NAME", help="parameters: crystal.misset detector.distance ...")
    add("--out", default="refined", metavar="FOLDER", help="where results go, and are found again (default: refined)")
    add("--likelihood", default="poisson", metavar="NAME", help="poisson or gaussian (default: poisson)")
    add("--variance", metavar="NUMBER|FILE", help="of the gaussian likelihood; none: from the residuals")
    add("--background", default="flat", metavar="KIND", help="none, flat, or radial:KNOTS (default: flat)")
    add("--system", default="triclinic", metavar="NAME", help="crystal system that ties the cell (default: triclinic)")
    add("--restrain", nargs="+", default=[], metavar="NAME=SIGMA", help="hold a parameter about its start")
    stages = "spots modelled so much broader, stage by stage, before the sharp one (default: 3; 1: none)"
    add("--stages", nargs="+", type=float, default=[3.0], metavar="FACTOR", help=stages)
    add("--blur", type=float, default=0.0, metavar="PIXELS", help="of data and model in these stages, per FACTOR - 1")
    add("--iterations", type=int, default=50, metavar="N", help="most steps of a stage (default: 50)")
    add(
        "--offset",
        type=float,
        default=0.0,
        metavar="COUNTS",
        help="counts without photons; simulate adds 40 (default: 0)",
    )
    add("--gain", type=float, default=1.0, metavar="COUNTS", help="counts per photon (default: 1)")
    add("--trusted", nargs=2, type=float, metavar=("LOW", "HIGH"), help="counts that are compared")
    add("--panel", type=int, metavar="N", help="which one of images with several, for an experiment of one")
    add("--frame", type=int, metavar="N", help="which exposure of HDF5 files with several, from 0")
    add("--mask", metavar="FILE", help="image whose pixels above 0 are compared")
    explained = "share of the misfit that the model must explain (default: 0.5)"
    add("--explained", type=float, default=0.5, metavar="SHARE", help=explained)
    add("--workers", type=int, default=1, metavar="N", help="processes; above 1 a Dask cluster here (default: 1)")
    add("--scheduler", metavar="ADDRESS", help="of a Dask scheduler whose workers do the work")
    add("--pictures", action=argparse.BooleanOptionalAction, default=None, help="draw each fit (default: of one image)")


def _settings(options: argparse.Namespace) -> RefinementSettings:
    from pathlib import Path

    from sem.diffraction.refinement import RefinementSettings

    kind, knots = _background(options.background)
    restraints = {}
    for text in options.restrain:
        name, _, sigma = text.partition("=")
        restraints[name] = _number(f"--restrain {name}", sigma)
    variance: float | str | None = None
    if options.variance is not None:
        try:
            variance = float(options.variance)
        except ValueError:
            variance = str(Path(options.variance).absolute())
    stages = () if options.stages == [1.0] else tuple(options.stages)
    return RefinementSettings(
        refine=tuple(options.refine),
        likelihood=options.likelihood,
        variance=variance,
        background=kind,
        background_terms=RefinementSettings.background_terms if knots is None else knots,
        system=options.system,
        restrain=restraints,
        stages=stages,
        blur=options.blur,
        iterations=options.iterations,
        offset=options.offset,
        gain=options.gain,
        trusted=None if options.trusted is None else (options.trusted[0], options.trusted[1]),
        panel=options.panel,
        frame=options.frame,
        mask=None if options.mask is None else str(Path(options.mask).absolute()),
        explained=options.explained,
    )


def _background(text: str) -> tuple[str, int | None]:
    """The kind of background, and the knots of a radial one where they are given."""
    kind, colon, knots = text.partition(":")
    if not colon:
        return kind, None
    if kind != "radial":
        raise ValueError(f"--background: expected none, flat or radial:KNOTS, got {text!r}")
    number = _number("--background", knots)
    if not number.is_integer():  # nor are infinity and NaN
        raise ValueError(f"--background: expected a whole number of knots, got {knots!r}")
    return kind, int(number)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name}: expected a number, got {text!r}") from None


def _print_fit(folder: str, name: str) -> None:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    path = Path(folder) / "shots" / f"{name}.json"
    fit: dict[str, Any] = json.loads(path.read_text("utf-8")).get("fit", {})
    if not fit:
        return
    table = Table("parameter", "start", "refined", "standard deviation")
    for label, start, value, deviation in zip(
        fit["labels"], fit["start"], fit["values"], fit["deviations"], strict=True
    ):
        shown = "not determined" if deviation is None else f"{deviation:.2g}"
        table.add_row(label, f"{start:.8g}", f"{value:.8g}", shown)
    Console().print(table)
    width = max(map(len, fit["labels"]))
    print("correlations")
    for number, (label, row) in enumerate(zip(fit["labels"], fit["correlations"], strict=True), start=1):
        shown = " ".join("    -" if value is None else f"{value:5.2f}" for value in row[:number])
        print(f"{label:{width}} {shown}")
    print(f"{fit['reason']}; scale {fit['scale']:.6g}, background {' '.join(f'{b:.4g}' for b in fit['background'])}")
    print(
        f"chi² {fit['chi_squared']:.6g} over {fit['freedom']} degrees of freedom; the model explains "
        f"{100 * fit['explained']:.2f} % of what the background leaves; {fit['pixels']} pixels, {fit['images']} images"
    )
    if len(fit.get("panels", ())) > 1:
        shown = " ".join("-" if value is None else f"{value:.3g}" for value in fit["panel_goodness"])
        print(f"chi²/dof by panel: {shown}")


def _print_summary(summary: Summary, folder: str) -> None:
    from sem.diffraction.refinement import metrics

    found = metrics(summary)
    counts = ", ".join(
        f"{found[status]} {status}" for status in ("converged", "diverged", "failed", "left") if found[status]
    )
    seconds = found["median_cpu_seconds"]
    shown = "" if seconds is None else f"; median {seconds:.2f} s of CPU time a shot"
    print(f"{counts or 'nothing done'}{shown}; in {folder}: settings.json, shots, metrics.json")


REFINE = Command(help="refine an experiment against images", add_arguments=_add_arguments, run=refine)
