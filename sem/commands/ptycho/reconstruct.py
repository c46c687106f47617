"""``sem ptycho reconstruct``: object and probe from a scan by an engine, and what belongs beside them."""

from __future__ import annotations

import argparse
import csv
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem.commands.ptycho.options import add_reading, add_settings, built, given_settings, read
from sem.ptycho.recipes import ENGINES, OWN, EngineSettings, Recipe, engines_with

if TYPE_CHECKING:
    from torch import Tensor

    from sem.ptycho import ResultFile, ScanFile
    from sem.ptycho.runs import Run

HELP = "reconstruct object and probe from a scan by an engine"
RESULT, LOSSES, REPORT = "result.h5", "losses.csv", "result.json"
OBJECT, CURVES, ERROR, RINGS, POSITIONS = "object.png", "losses.png", "error.png", "rings.png", "positions.png"
PICTURES = OBJECT, CURVES, ERROR, RINGS, POSITIONS
SECONDS_OF_A_LINE = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a scan: .cxi, .ptyd, .npz or .h5")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for result, losses and pictures")
    parser.add_argument("--overwrite", action="store_true", help="replace the result that is there")
    # A run that goes on from a checkpoint is to be asked for here: --resume.
    parser.add_argument("--no-pictures", action="store_true", help="write numbers alone")
    add_reading(parser)
    kinds = "; ".join(f"{name}: {kind.help}" for name, kind in ENGINES.items())
    add_settings(parser, Recipe, without=OWN, told={"engine": f"{kinds}; default: {Recipe.engine}"})
    own = parser.add_argument_group("settings of single engines", "what is not given is the engine's own, and printed")
    add_settings(own, EngineSettings, told={name: f"of {', '.join(engines_with(name))}" for name in OWN})


def run(options: argparse.Namespace) -> int:
    from sem.ptycho.files.hdf5 import library
    from sem.ptycho.pictures import require_matplotlib
    from sem.ptycho.runs import Run

    recipe, folder = built(Recipe, given_settings(options, Recipe)), Path(options.output)
    if (folder / RESULT).exists() and not options.overwrite:
        raise ValueError(f"--output {folder}: expected a folder without a result; --overwrite replaces the one there")
    library()  # what the end needs is missed now
    if not options.no_pictures:
        require_matplotlib()
    contents = read(options, options.file)
    job = Run(contents, recipe, source=options.file)
    truth = _truth(options.file, contents, job)
    folder.mkdir(parents=True, exist_ok=True)
    _announce(job)
    interrupted = _sweep(job)
    if not job.sweeps:
        raise ArithmeticError(f"{job.stopped}; nothing is kept")
    result = job.result()
    report = _report(job, result, truth, interrupted)
    written = _write_numbers(folder, result, report)
    if not options.no_pictures:
        written += _draw(folder, result, truth if "scores" in report else None)
    for name in PICTURES:  # of a result that was replaced
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    _conclude(report)
    print(f"{folder}: {', '.join(written)}")
    if job.diverged:
        raise ArithmeticError(f"{job.stopped}; what sweep {len(job.sweeps)} left is kept in {folder}")
    return 0


def _truth(path: str, contents: ScanFile, job: Run) -> Tensor | None:
    if contents.object is not None and zipfile.is_zipfile(path):
        job.notes.append("object: a .npz does not say where its own lies below the positions; no scores")
        return None
    return contents.object


def _announce(job: Run) -> None:
    """What was done and what will be, before the first sweep."""
    for note in job.notes:
        print(note)
    for stage in job.stages:
        told = ", ".join(f"{name} {value}" for name, value in job.told(stage))
        print(f"{stage.engine}: {stage.sweeps} sweeps, {told}", flush=True)


def _sweep(job: Run) -> bool:
    """All sweeps under a display; whether Ctrl-C ended them. One that comes before the first whole sweep goes on."""
    from sem.ptycho.runs import Sweep
    from sem.training.progress import ProgressDisplay, Shown

    planned, patterns = sum(stage.sweeps for stage in job.stages), len(job.contents.scan)
    limit = float("inf") if job.recipe.minutes is None else 60 * job.recipe.minutes
    last_line = float("-inf")
    shown = (Shown("loss", "loss"), Shown("chi_squared", "chi^2"), Shown("change", "change", ".2g"))
    with ProgressDisplay((*shown, Shown("rate", "patterns/s", ".3g")), unit="sweep") as display:

        def progress(sweep: Sweep) -> None:
            nonlocal last_line
            done, seconds = sweep.sweep + 1, sweep.seconds
            left = min(seconds / done * (planned - done), max(limit - seconds, 0.0))
            share = max(done / planned, min(seconds / limit, 1.0))
            logged = seconds - last_line >= SECONDS_OF_A_LINE or done in (1, planned)
            last_line = seconds if logged else last_line
            figures = {**sweep._asdict(), "rate": patterns * done / max(seconds, 1e-9)}
            display.update(done, share, left, figures, logged)

        try:
            job.run(progress)
        except KeyboardInterrupt:
            if not job.sweeps:
                raise
            return True
    return False


def _report(job: Run, result: ResultFile, truth: Tensor | None, interrupted: bool) -> dict[str, Any]:
    """All figures of a run, as JSON holds them."""
    from sem.ptycho.comparison import plain, ring_figures, scores_beside

    report: dict[str, Any] = {"name": result.name, "source": result.source, **job.sweeps[-1]._asdict()}
    report["stopped"] = "Ctrl-C" if interrupted else job.stopped
    report["object_pixel_nm"] = None if result.geometry is None else result.geometry.object_pixel * 1e9
    report["notes"] = job.notes
    report["settings"] = result.settings
    if truth is not None:
        try:
            found, floors = scores_beside(result, truth)
            report["scores"], report["floors"] = plain(found), plain(floors)
            report["ring_correlation"] = ring_figures(result, truth)
        except (ValueError, ImportError) as error:
            print(f"no scores: {error}")
    return report


def _write_numbers(folder: Path, result: ResultFile, report: dict[str, Any]) -> list[str]:
    from sem.files import write_text
    from sem.ptycho import write_result

    write_result(folder / RESULT, result)
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(result.losses)
    lines.writerows([f"{value:.10g}" for value in sweep] for sweep in zip(*result.losses.values(), strict=True))
    write_text(folder / LOSSES, table.getvalue())
    write_text(folder / REPORT, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return [RESULT, LOSSES, REPORT]


def _draw(folder: Path, result: ResultFile, truth: Tensor | None) -> list[str]:
    from sem.ptycho.pictures import draw_error, draw_losses, draw_object, draw_positions, draw_rings

    draw_object(result, folder / OBJECT)
    draw_losses([result], folder / CURVES)
    drawn = [OBJECT, CURVES]
    if truth is not None:
        draw_error(result, truth, folder / ERROR)
        draw_rings(result, truth, folder / RINGS)
        drawn += [ERROR, RINGS]
    if not result.positions.equal(result.start):
        draw_positions(result, folder / POSITIONS)
        drawn.append(POSITIONS)
    return drawn


def _conclude(report: dict[str, Any]) -> None:
    from sem.ptycho.comparison import TABLE, figure

    done, seconds = report["sweep"] + 1, report["seconds"]
    print(f"{done} sweeps in {seconds:.1f} s: loss {report['loss']:.6g}, chi^2 {report['chi_squared']:.4g}")
    scores = report.get("scores", {})
    for name in TABLE if scores else ():
        print(f"{name}: {figure(scores[name])} (a constant image: {figure(report['floors'][name])})")
    if (rings := report.get("ring_correlation")) is not None:
        print(f"ring correlation crosses the half-bit curve at {rings['half_bit_px']:.3g} pixels")
    if report["stopped"] is not None:
        print(f"stopped after sweep {done}: {report['stopped']}")
