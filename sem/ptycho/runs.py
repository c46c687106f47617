"""A reconstruction from a scan's file to a result's: stages of engines, when they stop, what is kept."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sem.ptycho.engine import Engine
from sem.ptycho.files import ResultFile, ScanFile
from sem.ptycho.files.patterns import machine_memory
from sem.ptycho.inspection import RING_LIMIT, ring_share, scale_to_counts
from sem.ptycho.likelihood import MaximumLikelihood
from sem.ptycho.lsq import LSQML
from sem.ptycho.pie import PIE
from sem.ptycho.projections import Projections
from sem.ptycho.recipes import ENGINES, OWN, Recipe, Stage
from sem.ptycho.scan import MARGIN, Scan
from sem.ptycho.simulation import disk_probe, with_hermite_modes

MAKERS: dict[str, Callable[..., Engine]] = {
    kind.__name__: kind for kind in (PIE, Projections, LSQML, MaximumLikelihood)
}
SWEEPS_OF_A_PLATEAU = 5
GIB = 2**30


class Sweep(NamedTuple):
    """A sweep of a run in numbers: of all stages counted through, with its stage; ``loss``, ``chi_squared`` and
    ``change`` as :class:`SweepReport` has them, ``moved``, the median pixels by which positions were moved behind it,
    ``seconds`` since the run began."""

    sweep: int
    stage: int
    loss: float
    chi_squared: float
    change: float
    moved: float
    seconds: float


class Run:
    """A reconstruction by a :class:`Recipe`.

    Args:
        contents: the scan, and what its file holds beside it.
        recipe: what to do.
        source: the scan's file, for the result.

    Attributes:
        notes: what was done to the scan and the probe before the first sweep, and what to expect, in sentences.
        sweeps: of every whole sweep so far.
        stopped: why the run ended before its last planned sweep; None where it did not.
        diverged: whether that is a loss that is no number.

    Raises:
        ValueError: a setting that its engine cannot take, a probe that is not there, more memory than there is.

    Example:
        >>> from sem.ptycho import Simulation
        >>> contents = Simulation(side=16, rows=6, columns=6, lines=20, step=3).make()
        >>> run = Run(contents, Recipe(engine="epie", sweeps=3, then=("ml:2",), probe_from=None))
        >>> run.run()
        >>> [(sweep.sweep, sweep.stage) for sweep in run.sweeps], run.result().name
        ([(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)], 'epie:3 + ml:2')
    """

    def __init__(self, contents: ScanFile, recipe: Recipe, source: str = "") -> None:
        self.contents, self.recipe, self.source = contents, recipe, source
        self.notes: list[str] = []
        self.sweeps: list[Sweep] = []
        self.stopped: str | None = None
        self.diverged = False
        self.stages = recipe.stages
        probe = self._starting_probe()
        scan = contents.scan
        if recipe.positions is not None and float(scan.positions.min()) < MARGIN:
            scan = scan.with_margin()
        self.origin = (scan.positions[0] - contents.scan.positions[0]).round().long().tolist()
        object = torch.ones(scan.object_shape(), dtype=torch.complex64)
        self._start = scan
        self._last = (object, probe, scan.positions)
        for stage in self.stages:
            self._check_memory(stage, len(probe))
            self._engine(stage, scan, object, probe, first=True)  # what it cannot take is said before the first sweep

    def run(self, progress: Callable[[Sweep], None] | None = None) -> None:
        """All stages. What stops it from outside, Ctrl-C too, leaves the last whole sweep for :meth:`result`."""
        begun, scan = time.monotonic(), self._start
        for number, stage in enumerate(self.stages):
            engine = self._engine(stage, scan, *self._last[:2], first=number == 0)
            losses: list[float] = []
            for _ in range(stage.sweeps):
                state = engine.run(1)
                report, moved = state.reports[-1], 0.0
                seconds = time.monotonic() - begun
                if not math.isfinite(report.loss):
                    self.stopped, self.diverged = f"the loss of sweep {len(self.sweeps) + 1} is {report.loss}", True
                    return
                if self.recipe.positions is not None and len(self.sweeps) >= self.recipe.positions:
                    moved = float(engine.refine_positions().norm(dim=1).median())
                sweep = Sweep(len(self.sweeps), number, report.loss, report.chi_squared, report.change, moved, seconds)
                self._last = (state.object, state.probe, engine.scan.positions)
                self.sweeps.append(sweep)
                losses.append(sweep.loss)
                if progress is not None:
                    progress(sweep)
                if self._ends(sweep):
                    return
                if self._plateau(losses):
                    break
            scan = engine.scan

    def result(self) -> ResultFile:
        """What the last whole sweep left."""
        object, probe, positions = self._last
        return ResultFile(
            name=" + ".join(map(str, self.stages)),
            object=object,
            probe=probe,
            positions=positions.float(),
            start=self._start.positions.float(),
            origin=(self.origin[0], self.origin[1]),
            losses={name: [float(getattr(sweep, name)) for sweep in self.sweeps] for name in Sweep._fields},
            geometry=self.contents.geometry,
            settings=self._settings(),
            source=self.source,
        )

    def _settings(self) -> dict[str, Any]:
        """All that the run was told, as JSON holds it; of each stage's engine its defaults, too."""
        stages = [{"engine": stage.engine, "sweeps": stage.sweeps, **dict(self.told(stage))} for stage in self.stages]
        told_by_stages = {*OWN, "engine", "sweeps", "then"}
        others = {name: value for name, value in self.recipe.to_mapping().items() if name not in told_by_stages}
        return {"stages": stages, **others}

    def told(self, stage: Stage) -> list[tuple[str, Any]]:
        """All that an engine of a stage is told of its own settings, its defaults included."""
        kind = ENGINES[stage.engine]
        known = inspect.signature(MAKERS[kind.maker]).parameters
        defaults = {name: known[name].default for name in kind.options}
        return list({**defaults, **kind.settings, **stage.settings}.items())

    def _engine(self, stage: Stage, scan: Scan, object: Tensor, probe: Tensor, *, first: bool) -> Engine:
        recipe, kind = self.recipe, ENGINES[stage.engine]
        moves = None if recipe.keep_probe or recipe.probe_from is None else recipe.probe_from if first else 0
        planned = {"sweeps_planned": stage.sweeps} if kind.maker == "MaximumLikelihood" else {}
        return MAKERS[kind.maker](
            scan, probe, object, probe_from=moves, seed=recipe.seed, **{**kind.settings, **stage.settings}, **planned
        )

    def _starting_probe(self) -> Tensor:
        recipe, scan, given = self.recipe, self.contents.scan, self.contents.probe
        if given is None and (recipe.probe == "file" or recipe.keep_probe):
            raise ValueError("probe: expected one in the scan's file, found none; start from a disk")
        if given is None or recipe.probe == "disk":
            probe = disk_probe(scan.side, recipe.radius, defocus=recipe.defocus)
            told = "a disk"
        else:
            for name in ("radius", "defocus"):
                if getattr(recipe, name) is not None:
                    raise ValueError(f"{name}: expected none, since the probe is the file's; or start from a disk")
            probe, told = given.to(torch.complex64), "the file's"
        if recipe.modes is not None and recipe.modes != len(probe):
            if len(probe) > 1:
                raise ValueError(f"modes: expected {len(probe)}, as the file's probe has, got {recipe.modes}")
            probe, told = with_hermite_modes(probe, recipe.modes), f"{told}, with {recipe.modes} modes"
        if not recipe.keep_probe:
            factor = scale_to_counts(scan, probe)
            probe, told = probe * factor, f"{told}, scaled by {factor:.6g} to the patterns' counts"
        self.notes.append(f"probe: {told}")
        ring = ring_share(probe)
        if ring > RING_LIMIT:
            self.notes.append(
                f"probe: {ring:.2g} of its power lies on its frame's outermost ring, where it wraps around"
            )
        return probe

    def _check_memory(self, stage: Stage, modes: int) -> None:
        if ENGINES[stage.engine].maker != "Projections":
            return
        size, there = Projections.memory(self.contents.scan, modes), machine_memory()
        what = f"{stage.engine} holds {size / GIB:.3g} GiB of waves beside the scan"
        if there is not None and size > there:
            raise ValueError(f"{what}, this machine has {there / GIB:.3g} GiB; other engines hold a batch")
        self.notes.append(what)

    def _ends(self, sweep: Sweep) -> bool:
        recipe = self.recipe
        planned = sum(stage.sweeps for stage in self.stages)
        if sweep.sweep + 1 >= planned:
            return True
        if recipe.chi_squared is not None and sweep.chi_squared <= recipe.chi_squared:
            self.stopped = f"chi^2 is {sweep.chi_squared:.4g}, at most {recipe.chi_squared:g}"
        elif recipe.minutes is not None and sweep.seconds >= 60 * recipe.minutes:
            self.stopped = f"{recipe.minutes:g} minutes are over"
        return self.stopped is not None

    def _plateau(self, losses: list[float]) -> bool:
        least, back = self.recipe.plateau, SWEEPS_OF_A_PLATEAU
        return least is not None and len(losses) > back and losses[-1 - back] - losses[-1] < least * losses[-1 - back]
