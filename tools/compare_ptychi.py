"""Engines of sem beside those of pty-chi on the CPU: milliseconds of an epoch, and seconds to a good reconstruction.

    pip install '.[ptycho]' ptychi
    python tools/compare_ptychi.py                  # ten minutes
    python tools/compare_ptychi.py --only ePIE --epochs 5

Both get the scan of ``sem bench engines`` (441 patterns of 64², 1e7 photons, whole-pixel positions), the same start and
the same settings where both have them, in float32. Epochs are timed in turn, one of sem's and one of pty-chi's; the
quickest of each counts, the first does not; of one thread the CPU's time, which other programs of the machine change
least. Then each runs from the start until its amplitude has a structural similarity of 0.99, which is scored between
epochs; that many epochs times the milliseconds of one are its seconds.

pty-chi has its defaults but for what is set below: the probe begins to move when sem's does, a PIE takes the whole of
an update (its default is a tenth), a projection works on 32 patterns at a time, its quickest. It moves the probe by
Fourier transforms to every position, sem only where one lies between pixels: ``--between-pixels`` gives both such a
scan.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Protocol

import torch
from torch import Tensor

from sem.bench.arguments import at_least, threads, writable
from sem.bench.engines import SCAN_441, Known
from sem.bench.report import load_average, machine, shown_load
from sem.files import write_text
from sem.ptycho import LSQML, PIE, Engine, MaximumLikelihood, Projections, simulate

try:
    import ptychi.api as api
    from ptychi.api.task import PtychographyTask
except ImportError as error:
    sys.exit(f"compare_ptychi.py needs pty-chi beside sem: pip install ptychi ({error})")

GOOD = 0.99
MOST_EPOCHS = 80


class Contender(Protocol):
    device: str | None
    """torch's default one meanwhile: pty-chi sets it, and with one every call of torch's takes longer."""

    def epoch(self) -> None: ...

    def object(self) -> Tensor: ...


class Ours:
    device = None

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def epoch(self) -> None:
        self.engine.run(1)

    def object(self) -> Tensor:
        return self.engine.state.object


class Theirs:
    """A task of pty-chi's whose patch of a position begins where sem's does."""

    device = "cpu"

    def __init__(self, options: Any, known: Known, probe: Tensor, batch: int, refine: bool) -> None:
        options.data_options.fft_shift = False
        options.reconstructor_options.default_device = api.Devices.CPU
        options.reconstructor_options.batch_size = batch
        options.reconstructor_options.num_epochs = MOST_EPOCHS
        options.reconstructor_options.random_seed = 0
        options.object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
        options.object_options.position_origin_coords = [(probe.shape[-1] - 1) / 2] * 2
        options.probe_options.optimizable = refine
        options.probe_options.optimization_plan.start = 2  # as sem's engines begin
        scan = known.scan
        self.task = PtychographyTask(
            options,
            diffraction_data=scan.amplitudes.double().square().float(),
            object_data=torch.ones(1, *scan.object_shape(), dtype=torch.complex64),
            probe_data=probe.unsqueeze(0) / probe.shape[-1],  # its transforms are not orthonormal
            probe_position_y_px=scan.positions[:, 0].clone(),
            probe_position_x_px=scan.positions[:, 1].clone(),
        )

    def epoch(self) -> None:
        self.task.run(1)

    def object(self) -> Tensor:
        return self.task.get_data("object").detach()[0]


@dataclass(frozen=True)
class Pair:
    name: str
    ours: Callable[[Known], Engine]
    theirs: Callable[[], Any]
    batch: int
    refine: bool = False


def pie(options: Any, alpha: float) -> Any:
    options.object_options.alpha = options.probe_options.alpha = alpha
    return options


def autodiff() -> Any:
    options = api.AutodiffPtychographyOptions()
    options.object_options.optimizer = api.Optimizers.ADAM
    options.object_options.step_size = 0.1
    return options


def projections(options: Any) -> Any:
    options.reconstructor_options.chunk_length = 32
    return options


def raar() -> Any:
    options = api.RAAROptions()
    options.reconstructor_options.beta = 0.8
    return projections(options)


PAIRS = (
    Pair("ePIE, batch 1", lambda k: PIE(k.scan, k.probe, probe_from=None), lambda: pie(api.EPIEOptions(), 1.0), 1),
    Pair(
        "ePIE, batch 16",
        lambda k: PIE(k.scan, k.probe, batch=16, probe_from=None),
        lambda: pie(api.EPIEOptions(), 1.0),
        16,
    ),
    Pair(
        "rPIE 0.1, batch 16",
        lambda k: PIE(k.scan, k.wrong, alpha=0.1, beta=0.1, batch=16),
        lambda: pie(api.RPIEOptions(), 0.1),
        16,
        refine=True,
    ),
    Pair("LSQ-ML, batch 44", lambda k: LSQML(k.scan, k.wrong, batch=44), api.LSQMLOptions, 44, refine=True),
    Pair(
        "difference map", lambda k: Projections(k.scan, k.wrong), lambda: projections(api.DMOptions()), 441, refine=True
    ),
    Pair("RAAR 0.8", lambda k: Projections(k.scan, k.wrong, beta=0.8), raar, 441, refine=True),
    Pair(
        "Adam 0.1, batch 32",
        lambda k: MaximumLikelihood(k.scan, k.probe, batch=32, sweeps_planned=30, probe_from=None),
        autodiff,
        32,
    ),
)


def milliseconds(contenders: Sequence[Contender], epochs: int, clock: Callable[[], float]) -> list[float]:
    """Of the quickest epoch of each, the first left out, in turn."""
    least = [float("inf")] * len(contenders)
    for number in range(1 + epochs):
        for which, contender in enumerate(contenders):
            torch.set_default_device(contender.device)
            start = clock()
            contender.epoch()
            if number:
                least[which] = min(least[which], 1e3 * (clock() - start))
    return least


def epochs_to_good(contender: Contender, known: Known) -> int | None:
    """How many epochs from the start; None where more than MOST_EPOCHS."""
    torch.set_default_device(contender.device)
    for number in range(1, MOST_EPOCHS + 1):
        contender.epoch()
        found = contender.object()
        if bool(found.isfinite().all()) and (known.scores(found).amp_ssim or 0.0) >= GOOD:
            return number
    return None


def between_pixels(known: Known) -> Known:
    """The same object and probe at positions that are up to half a pixel off, along each axis."""
    fraction = torch.rand(known.scan.positions.shape, generator=torch.Generator().manual_seed(4)) - 0.5
    inside = torch.tensor(known.truth.shape) - known.scan.side
    positions = torch.minimum((known.scan.positions + fraction).clamp_min(0), inside)
    scan, probe = simulate(known.truth, known.probe, positions, photons=1e7, seed=2)
    return replace(known, scan=scan, probe=probe)


def measured(pair: Pair, known: Known, epochs: int, clock: Callable[[], float]) -> dict[str, Any]:
    def begun() -> list[Contender]:
        probe = known.wrong if pair.refine else known.probe
        return [Ours(pair.ours(known)), Theirs(pair.theirs(), known, probe, pair.batch, pair.refine)]

    times = milliseconds(begun(), epochs, clock)
    needed = [epochs_to_good(contender, known) for contender in begun()]
    seconds = [None if n is None else n * ms / 1e3 for n, ms in zip(needed, times, strict=True)]
    return {"engine": pair.name, "ms": times, "epochs": needed, "seconds": seconds, "ratio": times[1] / times[0]}


def row(line: dict[str, Any]) -> str:
    """Of a Markdown table."""
    reached = [
        f"> {MOST_EPOCHS} epochs" if s is None else f"{s:.2f} s ({n} epochs)"
        for s, n in zip(line["seconds"], line["epochs"], strict=True)
    ]
    ours, theirs = line["ms"]
    return f"| {line['engine']} | {ours:.0f} | {theirs:.0f} | {line['ratio']:.0f} | {reached[0]} | {reached[1]} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time the engines of sem beside those of pty-chi, on the CPU.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only engines with NAME in theirs")
    parser.add_argument("--epochs", type=at_least(1), default=10, metavar="N", help="timed, of each (default: 10)")
    parser.add_argument("--between-pixels", action="store_true", help="positions between pixels")
    parser.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="CPU threads (default: 1)")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write every figure to FILE")
    options = parser.parse_args(arguments)
    chosen = [pair for pair in PAIRS if not options.only or any(name in pair.name for name in options.only)]
    if not chosen:
        parser.error(f"--only: expected part of one of {', '.join(pair.name for pair in PAIRS)}, got {options.only}")
    logging.disable(logging.WARNING)
    known = SCAN_441.known()
    if options.between_pixels:
        known = between_pixels(known)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    versions = {name: metadata.version(name) for name in ("torch", "ptychi")}
    lines = []
    with threads(options.threads):
        where = {**machine(), **versions, "load_before": load_average()}
        said = f"sem {where['sem']}, pty-chi {where['ptychi']}, torch {where['torch']}, {where['processor']}"
        print(f"{said}, {options.threads} thread(s), load {shown_load(where['load_before'])} before")
        print("| engine | ms an epoch | pty-chi | ratio | to amp ssim 0.99 | pty-chi |\n|---|---|---|---|---|---|")
        for pair in chosen:
            lines.append(measured(pair, known, options.epochs, clock))
            print(row(lines[-1]), flush=True)
        where["load_after"] = load_average()
    print(f"load {shown_load(where['load_after'])} after")
    if options.json is not None:
        write_text(options.json, json.dumps({"machine": where, "lines": lines}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
