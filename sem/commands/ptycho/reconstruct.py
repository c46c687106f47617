"""``sem ptycho reconstruct``: object and probe from a scan by an engine, and what belongs beside them."""

from __future__ import annotations

import argparse
import csv
import io
import json
import shlex
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sem.commands.ptycho.options import READING, add_reading, add_settings, built, given_settings, option_of, read
from sem.ptycho.recipes import ENGINES, OWN, EngineSettings, Recipe, engines_with

if TYPE_CHECKING:
    from torch import Tensor

    from sem.ptycho import ResultFile, ScanFile
    from sem.ptycho.runs import Run

HELP = "reconstruct object and probe from a scan by an engine"
RESULT, LOSSES, REPORT = "result.h5", "losses.csv", "result.json"
STATE = "state.h5"
OBJECT, CURVES, ERROR, RINGS, POSITIONS = "object.png", "losses.png", "error.png", "rings.png", "positions.png"
PICTURES = OBJECT, CURVES, ERROR, RINGS, POSITIONS
SECONDS_OF_A_LINE = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The scan, the folder, how to read the scan, and every setting of an engine."""
    parser.add_argument("file", metavar="FILE", help="a scan: .cxi, .ptyd, .npz or .h5")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for result, losses and pictures")
    parser.add_argument("--overwrite", action="store_true", help="replace the result that is there")
    resume = f"go on with the run of the folder, which ended early and left {STATE}, with its settings"
    parser.add_argument("--resume", action="store_true", help=resume)
    kept = "how often a run that goes on is kept in between, against a crash (default: 10)"
    parser.add_argument("--checkpoint-minutes", type=float, default=10.0, metavar="MINUTES", help=kept)
    parser.add_argument("--no-pictures", action="store_true", help="write numbers alone")
    add_reading(parser)
    kinds = "; ".join(f"{name}: {kind.help}" for name, kind in ENGINES.items())
    add_settings(parser, Recipe, without=OWN, told={"engine": f"{kinds}; default: {Recipe.engine}"})
    own = parser.add_argument_group("settings of single engines", "what is not given is the engine's own, and printed")
    add_settings(own, EngineSettings, told={name: f"of {', '.join(engines_with(name))}" for name in OWN})


def run(options: argparse.Namespace) -> int:
    """Begin or resume the run and leave result, losses and pictures in the folder, with its state where it ended early.

    Raises:
        ValueError: options that do not fit each other, the scan, or what the folder holds.
        ArithmeticError: the engine diverged; the result of its last good sweep is kept, if there was one.
    """
    from sem.hdf5 import library
    from sem.ptycho import write_result
    from sem.ptycho.pictures import require_matplotlib
    from sem.ptycho.runs import Run

    folder, given = Path(options.output), given_settings(options, Recipe)
    state = folder / STATE
    if not options.checkpoint_minutes > 0:
        raise ValueError(f"--checkpoint-minutes: expected a number > 0, got {options.checkpoint_minutes:g}")
    if options.resume:
        given = _saved(options, state, given)
    elif not options.overwrite and ((folder / RESULT).exists() or state.exists()):
        more = "; --resume goes on with it" if state.exists() else ""
        raise ValueError(
            f"--output {folder}: expected a folder without a result; --overwrite replaces the one there{more}"
        )
    recipe = built(Recipe, given)
    if recipe.start is not None and Path(recipe.start).resolve() == (folder / RESULT).resolve():
        raise ValueError(f"--start {recipe.start}: expected another file than the one that this run replaces")
    library()  # what the end needs is missed now
    if not options.no_pictures:
        require_matplotlib()
    contents = read(options, options.file)
    job = Run(contents, recipe, source=options.file)
    truth = _truth(options.file, contents, job)
    if options.resume:
        job.load(state)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        state.unlink(missing_ok=True)  # of the run that is replaced
    _announce(job)
    interrupted = _sweep(job, lambda: _keep(job, state, options), 60 * options.checkpoint_minutes)
    if not job.sweeps:
        raise ArithmeticError(f"{job.stopped}; nothing is kept")
    if not job.ended:
        _keep(job, state, options)
    result = job.result()
    write_result(folder / RESULT, result)  # before anything is made of it: what goes wrong there loses nothing
    report = _report(job, result, truth, interrupted)
    written = [RESULT, *_write_numbers(folder, result, report)]
    if job.ended:
        state.unlink(missing_ok=True)
    if not options.no_pictures:
        written += _draw(folder, result, truth if "scores" in report else None)
    for name in PICTURES:  # of a result that was replaced
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    _conclude(report)
    print(f"{folder}: {', '.join(written)}")
    if not job.ended:
        again = ["sem", "ptycho", "reconstruct", options.file, "--output", str(folder), "--resume"]
        limit = "" if interrupted else ", and with other --minutes or --chi-squared, which ended it"
        print(f"go on with: {shlex.join(again)}{limit}")
    if job.diverged:
        raise ArithmeticError(f"{job.stopped}; what sweep {len(job.sweeps)} left is kept in {folder}")
    return 0


def _saved(options: argparse.Namespace, state: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The recipe of the run that is resumed, with the limits of ``given``; how it read the scan goes to ``options``."""
    from sem.ptycho.files.state import read_state
    from sem.ptycho.runs import saved_recipe

    if options.overwrite:
        raise ValueError("--resume: expected no --overwrite beside it")
    if not state.exists():
        raise ValueError(f"--resume: expected {state}, which a run leaves that ended early, found none")
    read_as = read_state(state).get("reading", {})
    for name in READING:
        own, stored = getattr(options, name), read_as.get(name)
        if own is not None and own != stored:
            raise ValueError(f"{option_of(name)}: expected {stored}, as the run of {state} has it, got {own}")
        setattr(options, name, stored)
    try:
        return saved_recipe(state, given)
    except ValueError as error:
        name = str(error).partition(":")[0]
        raise ValueError(f"{option_of(name)}{str(error)[len(name) :]}" if name in given else str(error)) from None


def _keep(job: Run, state: Path, options: argparse.Namespace) -> None:
    job.save(state, reading={name: getattr(options, name) for name in READING})


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
    if job.sweeps:
        print(f"going on behind sweep {len(job.sweeps)}", flush=True)


def _sweep(job: Run, keep: Callable[[], None], seconds_between: float) -> bool:
    """All sweeps under a display, with ``keep`` called every so many seconds; whether Ctrl-C ended them. One that comes
    before the first whole sweep goes on."""
    from sem.ptycho.runs import Sweep
    from sem.training.progress import ProgressDisplay, Shown

    planned, patterns = sum(stage.sweeps for stage in job.stages), len(job.contents.scan)
    limit = float("inf") if job.recipe.minutes is None else 60 * job.recipe.minutes
    last_line, kept = float("-inf"), time.monotonic()
    shown = (Shown("loss", "loss"), Shown("chi_squared", "chi^2"), Shown("change", "change", ".2g"))
    with ProgressDisplay((*shown, Shown("rate", "patterns/s", ".3g")), unit="sweep") as display:

        def progress(sweep: Sweep) -> None:
            nonlocal last_line, kept
            done, seconds = sweep.sweep + 1, sweep.seconds
            left = min(seconds / done * (planned - done), max(limit - seconds, 0.0))
            share = max(done / planned, min(seconds / limit, 1.0))
            logged = seconds - last_line >= SECONDS_OF_A_LINE or done in (1, planned)
            last_line = seconds if logged else last_line
            figures = {**sweep._asdict(), "rate": patterns * done / max(seconds, 1e-9)}
            display.update(done, share, left, figures, logged)
            if time.monotonic() - kept >= seconds_between and done < planned:
                try:
                    keep()
                except OSError as error:  # the run itself is none the worse
                    display.message(f"not kept: {error}")
                kept = time.monotonic()

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

    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(result.losses)
    lines.writerows([f"{value:.10g}" for value in sweep] for sweep in zip(*result.losses.values(), strict=True))
    write_text(folder / LOSSES, table.getvalue())
    write_text(folder / REPORT, json.dumps(report, indent=2, allow_nan=False) + "\n")
    return [LOSSES, REPORT]


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
