"""Sweeps of an engine to a good amplitude, from an object of ones and from networks' reconstructions of the scan.

    sem ptycho simulate --preset scan-32 --output runs/scan32.h5
    sem ptycho simulate --preset scan-32-test --output runs/scan32-test.h5
    sem ptycho train --config configs/ptycho/scan32.yaml --seed 0 --output runs/net0    # and 1, 2
    sem ptycho infer runs/net0 runs/scan32-test.h5 --output runs/start0.h5              # and 1, 2
    python tools/compare_starts.py runs/scan32-test.h5 runs/start?.h5 --picture starts.png

Every engine runs with every seed of the order of patterns from every start, with the probe known, and with one that is
10 % too wide and a third less defocused, refined from the first sweep on. The object is scored behind every sweep.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sem.files import save_figure, write_text
from sem.ptycho import Recipe, Run, ScanFile, Sweep, read_result, read_scan, scores
from sem.ptycho.comparison import beside

GOOD = 0.99
ENGINES: dict[str, dict[str, Any]] = {
    "ePIE": {"engine": "epie"},
    "ML, Adam 0.1": {"engine": "ml", "rate": 0.1},
    "ML, Adam 0.02": {"engine": "ml", "rate": 0.02},
}
PROBES: dict[str, dict[str, Any]] = {
    "known": {"probe": "file", "probe_from": None},
    "wrong": {"probe": "disk", "radius": 7.7, "defocus": 10.0, "probe_from": 0},
}


class Curve(NamedTuple):
    """Scores before the first sweep and behind each."""

    amp_ssim: list[float]
    phase_ssim: list[float]


def curve(contents: ScanFile, truth: Tensor, start: str | None, told: dict[str, Any], sweeps: int, seed: int) -> Curve:
    free = told["probe_from"] is not None
    run = Run(contents, Recipe(sweeps=sweeps, start=start, seed=seed, chi_squared=None, **told))
    found = Curve([], [])

    def score(sweep: Sweep | None = None) -> None:
        # a probe that is free may carry the object along
        now = scores(*beside(run.result(), truth), register=free)
        found.amp_ssim.append(now.amp_ssim or 0.0)
        found.phase_ssim.append(now.phase_ssim or 0.0)

    score()
    run.run(score)
    return found


def needed(curves: Sequence[Sequence[float]], wanted: float) -> str:
    """Sweeps until a score is reached: the median, the least and the most."""
    found = [next((sweep for sweep, score in enumerate(one) if score >= wanted), None) for one in curves]
    reached = sorted(sweeps for sweeps in found if sweeps is not None)
    if len(reached) < len(found):
        return f"{len(reached)} of {len(found)} runs reach it"
    return f"{statistics.median(reached):g} ({reached[0]} to {reached[-1]})"


def cells(starts: dict[str, list[Curve]]) -> list[str]:
    """Of both scores: what is wanted, the sweeps from either start, and where those end."""
    found = []
    for key in Curve._fields:
        curves = {name: [getattr(one, key) for one in some] for name, some in starts.items()}
        wanted = min(GOOD, *(max(one) for some in curves.values() for one in some))
        ends = (f"{statistics.median(one[-1] for one in some):.4f}" for some in curves.values())
        found += [f"{wanted:.4g}", *(needed(some, wanted) for some in curves.values()), ", ".join(ends)]
    return found


def draw(found: dict[str, dict[str, dict[str, list[Curve]]]], target: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(ENGINES), 3.6 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(found), len(ENGINES), squeeze=False)
    for row, (probe, engines) in zip(panels, found.items(), strict=True):
        for axes, (engine, starts) in zip(row, engines.items(), strict=True):
            for colour, (name, curves) in zip(("C0", "C1"), starts.items(), strict=True):
                for number, one in enumerate(curves):
                    loss = [max(1 - score, 1e-5) for score in one.amp_ssim]
                    axes.plot(loss, color=colour, linewidth=0.8, label=None if number else name)
            axes.axhline(1 - GOOD, color="0.4", linestyle="--", linewidth=0.8)
            axes.set(title=f"{engine}, probe {probe}", xlabel="sweeps", ylabel="1 - amp_ssim", yscale="log")
            axes.legend()
            axes.grid(alpha=0.3)
    save_figure(figure, target, dpi=75)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", help="a scan of 32 x 32 whose .h5 holds probe and object")
    parser.add_argument("results", nargs="+", help="networks' results of it, from sem ptycho infer")
    parser.add_argument("--sweeps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all scores")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    contents = read_scan(options.scan)
    if contents.object is None or contents.probe is None:
        raise ValueError(f"{options.scan}: expected a scan with its probe and its object")
    for path in options.results:
        read_result(path)
    found: dict[str, dict[str, dict[str, list[Curve]]]] = {}
    head = [f"{score} {what}" for score in Curve._fields for what in ("", "from ones", "from a network", "at the end")]
    print("| " + " | ".join(["probe", "engine", *map(str.strip, head)]) + " |")
    for probe, told in PROBES.items():
        found[probe] = {}
        for engine, own in ENGINES.items():
            both = {"ones": [None], "network": options.results}
            of_engine = {
                name: [
                    curve(contents, contents.object, start, own | told, options.sweeps, seed)
                    for start in starts
                    for seed in range(options.seeds)
                ]
                for name, starts in both.items()
            }
            found[probe][engine] = of_engine
            print("| " + " | ".join([probe, engine, *cells(of_engine)]) + " |", flush=True)
    if options.json is not None:
        plain = {
            probe: {engine: {name: [one._asdict() for one in curves] for name, curves in starts.items()}
                    for engine, starts in engines.items()}
            for probe, engines in found.items()
        }  # fmt: skip
        write_text(options.json, json.dumps(plain) + "\n")
    if options.picture is not None:
        draw(found, options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
