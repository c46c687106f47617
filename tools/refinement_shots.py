"""Simulated shots with noise, refined: how near the truth, how often, how fast, and from how far away.

Seeds decide everything but the times::

    python tools/refinement_shots.py shots FOLDER --shots 100            # median errors, failures, seconds per shot
    python tools/refinement_shots.py shots FOLDER2 --workers 2           # the same with two processes
    python tools/refinement_shots.py basin FOLDER3 --seeds 6             # from which misset error it comes home
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sem.diffraction.background import scattering_angles
from sem.diffraction.experiment import random_misset
from sem.diffraction.images import write_float
from sem.diffraction.refinement import (
    CONVERGED,
    Model,
    RefinementSettings,
    Summary,
    read_model,
    refine_shots,
    tasks_from,
    write_model,
)
from sem.diffraction.rotations import about_xyz
from sem.files import write_text

CELL = (70.0, 80.0, 90.0, 75.0, 85.0, 95.0)
FLAGS = "-cell 70 80 90 75 85 95 -lambda 1 -detpixels 64 -pixel 0.3 -distance 60 -hkl amplitudes.hkl"
LARGEST_INDEX = 15
PEAK, BACKGROUND = 1000.0, 5.0  # photons of the brightest pixel, and between spots at small angles
CELL_ERROR = 0.003  # standard deviation of the start's lengths, relative
HOME = 0.1  # degrees: a refined orientation that is nearer than this has come home
REFINED = ("crystal.misset", "crystal.lengths", "crystal.cells")


def write_amplitudes(path: Path) -> None:
    """Random amplitudes of Wilson's distribution, the same for all shots."""
    generator = np.random.default_rng(1)
    indices = range(-LARGEST_INDEX, LARGEST_INDEX + 1)
    rows = [
        f"{h} {k} {m} {100 * math.sqrt(generator.exponential()):.4f}" for h in indices for k in indices for m in indices
    ]
    write_text(path, "\n".join(rows) + "\n")


def write_shot(folder: Path, seed: int, misset_error: float) -> None:
    """``shot-SEED.bin``, photons, and ``shot-SEED.json``, a start whose orientation is ``misset_error`` degrees off."""
    truth = random_misset(seed)
    flags = read_model(folder / "crystal.flags").flags
    simulator = Model(flags, {"crystal.misset": list(truth)}).simulator()
    with torch.no_grad():
        image = simulator().to(torch.float64)
    angles = scattering_angles(simulator.detector, simulator.physics).detach()
    mean = PEAK * image / image.max() + BACKGROUND * (0.5 + torch.exp(-3 * (angles / angles.max()).square()))
    generator = torch.Generator().manual_seed(seed)
    write_float(folder / f"shot-{seed:03d}.bin", torch.poisson(mean, generator=generator))
    draw = torch.randn(6, dtype=torch.float64, generator=generator)
    axis = draw[:3] / draw[:3].norm()
    start = {
        "crystal.misset": turned(truth, axis, misset_error),
        "crystal.lengths": [a * (1 + CELL_ERROR * float(e)) for a, e in zip(CELL[:3], draw[3:], strict=True)],
    }
    write_model(folder / f"shot-{seed:03d}.json", Model(flags, start, {"truth": list(truth)}))


def turned(misset: Sequence[float], axis: torch.Tensor, angle: float) -> list[float]:
    """The three turns of ``misset``, degrees, after another one about ``axis``."""
    generators = torch.linalg.cross(torch.eye(3, dtype=torch.float64)[None], axis.expand(1, 3, 3)).mT[0].mT
    matrix = torch.linalg.matrix_exp(math.radians(angle) * generators) @ matrix_of(misset)
    x = math.atan2(matrix[2, 1], matrix[2, 2])
    y = math.asin(max(-1.0, min(1.0, -float(matrix[2, 0]))))
    z = math.atan2(matrix[1, 0], matrix[0, 0])
    return [math.degrees(value) for value in (x, y, z)]


def matrix_of(misset: Sequence[float]) -> torch.Tensor:
    """The rotation matrix of three turns about x, y, z."""
    radians = torch.tensor(misset, dtype=torch.float64) * (math.pi / 180)
    return about_xyz(torch.eye(3, dtype=torch.float64), radians).mT


def angle_between(first: Sequence[float], second: Sequence[float]) -> float:
    """Degrees of the rotation that takes one orientation to the other."""
    difference = matrix_of(first).mT @ matrix_of(second)
    across = torch.linalg.matrix_norm(difference - torch.eye(3, dtype=torch.float64)) / (2 * math.sqrt(2))
    return 2 * math.degrees(math.asin(min(1.0, float(across))))


def prepare(folder: Path, seeds: Sequence[int], misset_error: float, cells: int) -> Path:
    """The files of ``seeds``, of crystals of ``cells`` unit cells along each axis, and the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_amplitudes(folder / "amplitudes.hkl")
    write_text(folder / "crystal.flags", f"{FLAGS} -N {cells} -oversample {math.ceil(cells / 2)}\n")
    for seed in seeds:
        write_shot(folder, seed, misset_error)
    rows = [f"shot-{seed:03d}.bin shot-{seed:03d}.json" for seed in seeds]
    write_text(folder / "shots.txt", "\n".join(rows) + "\n")
    return folder / "shots.txt"


def refined(folder: Path, listed: Path, stages: tuple[float, ...], out: str, workers: int) -> Summary:
    settings = RefinementSettings(REFINED, background="radial", background_terms=5, stages=stages)
    tasks = tasks_from(folder / "crystal.flags", listed)
    shutil.rmtree(folder / out, ignore_errors=True)
    return refine_shots(tasks, settings, folder / out, workers=workers)


def errors(folder: Path, summary: Summary, number: int) -> list[dict[str, float]]:
    """Of each shot that has values: orientation in degrees, the largest of the lengths in Å and of the cells, and how
    many standard deviations its numbers are off, root mean square."""
    found = []
    for result in summary.results:
        if "values" not in result:
            continue
        truth = read_model(folder / f"{result['name']}.json").fit["truth"]
        values, deviations = result["values"], result["deviations"]
        lengths = [values[f"crystal.lengths[{i}]"] - CELL[i] for i in range(3)]
        cells = [values[f"crystal.cells[{i}]"] - number for i in range(3)]
        sure = [deviations[f"crystal.{name}[{i}]"] for name in ("lengths", "cells") for i in range(3)]
        pulls = [off / sigma for off, sigma in zip([*lengths, *cells], sure, strict=True) if sigma]
        found.append(
            {
                "misset": angle_between(truth, [values[f"crystal.misset[{i}]"] for i in range(3)]),
                "lengths": max(map(abs, lengths)),
                "cells": max(map(abs, cells)),
                "pull": math.sqrt(sum(pull * pull for pull in pulls) / max(len(pulls), 1)),
                "converged": float(result["status"] == CONVERGED),
            }
        )
    return found


def shots(options: argparse.Namespace) -> None:
    folder = Path(options.folder)
    listed = prepare(folder, range(options.seed, options.seed + options.shots), options.misset_error, options.cells)
    started, used = time.monotonic(), time.process_time()
    summary = refined(folder, listed, tuple(options.stages), "refined", options.workers)
    wall, used = time.monotonic() - started, time.process_time() - used
    found = errors(folder, summary, options.cells)
    good = [error for error in found if error["converged"]]
    document = {
        "shots": len(summary.results),
        "status": {status: summary.count(status) for status in ("converged", "diverged", "failed")},
        "converged_but_not_home": sum(error["misset"] > HOME for error in good),
        "home_but_diverged": sum(error["misset"] <= HOME for error in found if not error["converged"]),
        "median_error": {
            name: statistics.median(error[name] for error in good) for name in ("misset", "lengths", "cells", "pull")
        },
        "cpu_seconds_per_shot": statistics.mean(result["seconds"] for result in summary.results),
        "wall_seconds_per_shot": wall / len(summary.results),
        "cpu_seconds_of_this_process": used,
        "workers": options.workers,
    }
    print(json.dumps(document, indent=1))
    write_text(folder / "figures.json", json.dumps(document, indent=1) + "\n")


def basin(options: argparse.Namespace) -> None:
    folder = Path(options.folder)
    print("| misset error, degrees | " + " | ".join(f"stages {words(stages)}" for stages in STAGES) + " |")
    print("|---" * (len(STAGES) + 1) + "|")
    for error in options.errors:
        listed = prepare(folder, range(options.seed, options.seed + options.seeds), error, options.cells)
        cells = []
        for stages in STAGES:
            summary = refined(folder, listed, stages, "refined", options.workers)
            found = errors(folder, summary, options.cells)
            home = sum(one["misset"] <= HOME for one in found)
            lost = sum(one["misset"] > HOME for one in found if one["converged"])
            seconds = statistics.median(result["seconds"] for result in summary.results)
            lost_too = f", {lost} lost and not seen" if lost else ""
            cells.append(f"{home} of {options.seeds}{lost_too}, {seconds:.2f} s")
        print(f"| {error:g} | " + " | ".join(cells) + " |", flush=True)


STAGES: tuple[tuple[float, ...], ...] = ((), (3.0,))


def words(stages: Sequence[float]) -> str:
    return ", ".join(f"{factor:g}" for factor in (*stages, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("shots", shots), ("basin", basin)):
        one = commands.add_parser(name)
        one.set_defaults(run=run)
        one.add_argument("folder", help="where shots and results are written")
        one.add_argument("--seed", type=int, default=0, help="of the first shot (default: 0)")
        one.add_argument("--cells", type=int, default=6, help="unit cells along each axis (default: 6)")
        one.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
        if name == "shots":
            one.add_argument("--shots", type=int, default=100)
            one.add_argument("--misset-error", type=float, default=0.5, help="degrees (default: 0.5)")
            one.add_argument("--stages", type=float, nargs="*", default=[3.0], help="as of the command (default: 3)")
        else:
            one.add_argument("--seeds", type=int, default=6, help="shots per point (default: 6)")
            one.add_argument("--errors", type=float, nargs="+", default=[1, 2, 3, 4, 6], help="degrees")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.run(options)


if __name__ == "__main__":
    main()
