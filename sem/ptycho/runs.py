"""A reconstruction from a scan's file to a result's: stages of engines, when they stop, what is kept."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sem.ptycho.engine import Engine
from sem.ptycho.files import ResultFile, ScanFile, read_result
from sem.ptycho.files.patterns import machine_memory
from sem.ptycho.files.state import read_state, write_state
from sem.ptycho.inspection import RING_LIMIT, ring_share, scale_to_counts
from sem.ptycho.likelihood import MaximumLikelihood
from sem.ptycho.lsq import LSQML
from sem.ptycho.pie import PIE
from sem.ptycho.projections import Projections
from sem.ptycho.recipes import ENGINES, LIMITS, OWN, Recipe, Stage
from sem.ptycho.scan import MARGIN, Scan
from sem.ptycho.simulation import disk_probe, with_hermite_modes
from sem.ptycho.starts import Start, begin_from

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


class _Whole(NamedTuple):
    """What the last whole sweep left. Replaced in one assignment, so that Ctrl-C finds it before a sweep or behind."""

    object: Tensor
    probe: Tensor
    positions: Tensor
    stage: int
    sweeps: tuple[Sweep, ...]
    engine: Engine
    snapshot: Mapping[str, Any]
    begun: Mapping[str, Tensor]
    """Object, probe and positions that the stage began with."""


class Run:
    """A reconstruction by a :class:`Recipe`.

    Args:
        contents: the scan, and what its file holds beside it.
        recipe: what to do.
        source: the scan's file, for the result.

    Attributes:
        notes: what was done to the scan and the probe before the first sweep, and what to expect, in sentences.
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
        self.stopped: str | None = None
        self.diverged = False
        self.stages = recipe.stages
        scan, start = contents.scan, None
        given = None if recipe.start is None else read_result(recipe.start)
        moves = recipe.positions is not None or (given is not None and not given.positions.equal(given.start))
        if moves and float(scan.positions.min()) < MARGIN:
            scan = scan.with_margin()
        self.origin = (scan.positions[0] - contents.scan.positions[0]).round().long().tolist()
        self._start = scan
        object = torch.ones(scan.object_shape(), dtype=torch.complex64)
        if given is not None:
            try:
                start = begin_from(given, scan, contents.geometry)
            except ValueError as error:
                raise ValueError(f"start: {recipe.start}: {error}") from None
            object, scan = start.object, start.scan
            self.notes.append(start.note)
        probe, object = self._starting_waves(scan, object, start)
        self._given = {"probe": probe, "object": object}
        for stage in self.stages:
            self._check_memory(stage, len(probe))
            self._engine(stage, scan, object, probe, first=True)  # what it cannot take is said before the first sweep
        self._last = self._begun(0, scan, object, probe, ())

    @property
    def sweeps(self) -> list[Sweep]:
        """Of every whole sweep so far, in order."""
        return list(self._last.sweeps)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do: all stages came to their ends, or the loss is no number."""
        return self.diverged or (self._last.stage == len(self.stages) - 1 and self._stage_ended())

    def run(self, progress: Callable[[Sweep], None] | None = None) -> None:
        """All stages, from the last whole sweep on. What stops it from outside, Ctrl-C too, leaves that sweep for
        :meth:`result` and :meth:`save`."""
        begun = time.monotonic() - (self.sweeps[-1].seconds if self.sweeps else 0.0)
        while True:
            last, engine = self._last, self._last.engine
            engine.restore(last.snapshot)  # what ended the run may have come behind a part of a sweep
            while not self._stage_ended():
                state = engine.run(1)
                report, moved, number = state.reports[-1], 0.0, len(self._last.sweeps)
                seconds = time.monotonic() - begun
                if not math.isfinite(report.loss):
                    self.stopped, self.diverged = f"the loss of sweep {number + 1} is {report.loss}", True
                    return
                if self.recipe.positions is not None and number >= self.recipe.positions:
                    moved = float(engine.refine_positions().norm(dim=1).median())
                sweep = Sweep(number, last.stage, report.loss, report.chi_squared, report.change, moved, seconds)
                self._last = last._replace(
                    object=state.object,
                    probe=state.probe,
                    positions=engine.scan.positions,
                    sweeps=(*self._last.sweeps, sweep),
                    snapshot=engine.snapshot(),
                )
                if progress is not None:
                    progress(sweep)
                if not self.ended and self._is_over(sweep):
                    return
            if self.ended:
                return
            self._last = self._begun(last.stage + 1, engine.scan, *self._last[:2], self._last.sweeps)

    def save(self, path: str | os.PathLike[str], **more: Any) -> None:
        """Write all that :meth:`load` needs to go on behind the last whole sweep. The file is complete, or what it was
        before.

        Args:
            more: to be found in the file's :func:`sem.ptycho.read_state`, plain values.

        Raises:
            OSError: the file could not be written.
            ImportError: h5py is not installed.
        """
        last = self._last
        last.engine.restore(last.snapshot)
        state = {
            "recipe": self.recipe.to_mapping(),
            "digests": self._digests(),
            "stage": last.stage,
            "begun": dict(last.begun),
            "sweeps": torch.tensor(last.sweeps, dtype=torch.float64).view(-1, len(Sweep._fields)),
            "engine": last.engine.state_dict(),
        }
        write_state(path, more | state)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on where the run stood that :meth:`save` wrote: the sweeps that follow are those of the run that was not
        ended, bit by bit. The recipe is that run's (:func:`saved_recipe`), but for when to stop.

        Raises:
            OSError: there is no such file, or it may not be read.
            ImportError: h5py is not installed.
            ValueError: the file is damaged, or of another scan or recipe, or what ends the run has come to pass; the
                message says which. The run is what it was.
        """
        path, before = os.fspath(path), self._last
        state = read_state(path)
        _check_settings(path, _of_run(path, state)["recipe"], self.recipe.to_mapping())
        for name, digest in self._digests().items():
            if state["digests"].get(name) != digest:
                raise ValueError(f"{name}: expected the same as the run of {path} began with, got another")
        try:
            begun, rows = state["begun"], state["sweeps"].tolist()
            sweeps = tuple(Sweep(int(row[0]), int(row[1]), *row[2:]) for row in rows)
            scan = self._start.at(begun["positions"].to(self._start.positions.dtype))
            self._last = self._begun(state["stage"], scan, begun["object"], begun["probe"], sweeps)
            engine = self._last.engine
            engine.load_state_dict(state["engine"])
            self._last = self._last._replace(
                object=engine.state.object,
                probe=engine.state.probe,
                positions=engine.scan.positions,
                snapshot=engine.snapshot(),
            )
            over = bool(sweeps) and not self.ended and self._is_over(sweeps[-1])
        except (KeyError, TypeError, AttributeError, RuntimeError, IndexError, ValueError) as error:
            self._last = before
            said = str(error) if isinstance(error, ValueError) else f"not what a run leaves ({type(error).__name__})"
            raise ValueError(f"{path}: {said}") from error
        if over:
            self._last, why, self.stopped = before, self.stopped, None
            raise ValueError(
                f"{path}: the run was at its end: {why}; it goes on where {' or '.join(LIMITS)} allows more"
            )

    def result(self) -> ResultFile:
        """What the last whole sweep left."""
        object, probe, positions = self._last[:3]
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

    def _starting_waves(self, scan: Scan, object: Tensor, start: Start | None) -> tuple[Tensor, Tensor]:
        """The probe to begin with, and the object: one of them is scaled to the patterns' counts, unless both are as
        they were measured."""
        recipe = self.recipe
        probe, told = self._unscaled_probe(start)
        if recipe.modes is not None and recipe.modes != len(probe):
            if len(probe) > 1:
                raise ValueError(f"modes: expected {len(probe)}, as {told} probe has, got {recipe.modes}")
            probe, told = with_hermite_modes(probe, recipe.modes), f"{told}, with {recipe.modes} modes"
        if not recipe.keep_probe:
            factor = scale_to_counts(scan, probe, None if start is None else object)
            probe, told = probe * factor, f"{told}, scaled by {factor:.6g} to the patterns' counts"
        self.notes.append(f"probe: {told}")
        if recipe.keep_probe and start is not None:
            factor = scale_to_counts(scan, probe, object)
            object = object * factor
            self.notes.append(f"object: scaled by {factor:.6g} to the patterns' counts")
        ring = ring_share(probe)
        if ring > RING_LIMIT:
            self.notes.append(
                f"probe: {ring:.2g} of its power lies on its frame's outermost ring, where it wraps around"
            )
        return probe, object

    def _unscaled_probe(self, start: Start | None) -> tuple[Tensor, str]:
        """And whose it is."""
        recipe, scan, given = self.recipe, self.contents.scan, self.contents.probe
        if recipe.probe == "start" and start is not None and start.probe is None:
            raise ValueError("probe: expected pixels of the scan's size in the result to begin from, got others")
        if (
            start is not None
            and start.probe is not None
            and recipe.probe in ("auto", "start")
            and not recipe.keep_probe
        ):
            chosen, told = start.probe, "the result's"
        elif given is None and (recipe.probe == "file" or recipe.keep_probe):
            raise ValueError("probe: expected one in the scan's file, found none; start from a disk")
        elif given is None or recipe.probe == "disk":
            return disk_probe(scan.side, recipe.radius, defocus=recipe.defocus), "a disk"
        else:
            chosen, told = given.to(torch.complex64), "the file's"
        for name in ("radius", "defocus"):
            if getattr(recipe, name) is not None:
                raise ValueError(f"{name}: expected none, since the probe is {told}; or start from a disk")
        return chosen, told

    def _check_memory(self, stage: Stage, modes: int) -> None:
        if ENGINES[stage.engine].maker != "Projections":
            return
        size, there = Projections.memory(self.contents.scan, modes), machine_memory()
        what = f"{stage.engine} holds {size / GIB:.3g} GiB of waves beside the scan"
        if there is not None and size > there:
            raise ValueError(f"{what}, this machine has {there / GIB:.3g} GiB; other engines hold a batch")
        self.notes.append(what)

    def _begun(self, number: int, scan: Scan, object: Tensor, probe: Tensor, sweeps: tuple[Sweep, ...]) -> _Whole:
        """Where a stage begins."""
        engine = self._engine(self.stages[number], scan, object, probe, first=number == 0)
        begun = {"object": object, "probe": probe, "positions": scan.positions}
        return _Whole(object, probe, scan.positions, number, sweeps, engine, engine.snapshot(), begun)

    def _is_over(self, sweep: Sweep) -> bool:
        """Whether a limit ends the run behind a sweep, and why."""
        recipe = self.recipe
        if recipe.chi_squared is not None and sweep.chi_squared <= recipe.chi_squared:
            self.stopped = f"chi^2 is {sweep.chi_squared:.4g}, at most {recipe.chi_squared:g}"
        elif recipe.minutes is not None and sweep.seconds >= 60 * recipe.minutes:
            self.stopped = f"{recipe.minutes:g} minutes are over"
        return self.stopped is not None

    def _stage_ended(self) -> bool:
        losses = [sweep.loss for sweep in self._last.sweeps if sweep.stage == self._last.stage]
        return len(losses) >= self.stages[self._last.stage].sweeps or self._plateau(losses)

    def _plateau(self, losses: list[float]) -> bool:
        least, back = self.recipe.plateau, SWEEPS_OF_A_PLATEAU
        return least is not None and len(losses) > back and losses[-1 - back] - losses[-1] < least * losses[-1 - back]

    def _digests(self) -> dict[str, str]:
        """Of what the run was given, by name."""
        scan = self.contents.scan
        given = {name: getattr(scan, name) for name in ("amplitudes", "weight", "background", "positions")}
        given |= self._given
        return {
            name: hashlib.sha256(b"" if tensor is None else tensor.contiguous().numpy().data).hexdigest()
            for name, tensor in given.items()
        }


def saved_recipe(path: str | os.PathLike[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the run that :meth:`Run.save` wrote was told, with the limits of ``given``.

    Raises:
        OSError, ImportError: as :meth:`Run.load`.
        ValueError: the file is no run's, or something else of ``given`` is not as the run has it.
    """
    path = os.fspath(path)
    stored = dict(_of_run(path, read_state(path))["recipe"])
    _check_settings(path, stored, given)
    return stored | {name: given[name] for name in LIMITS if name in given}


def _check_settings(path: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """That what is given is as the run of ``path`` has it, but for when to stop."""
    for name, value in given.items():
        if name not in LIMITS and stored.get(name) != value:
            raise ValueError(f"{name}: expected {stored.get(name)!r}, as the run of {path} has it, got {value!r}")


def _of_run(path: str, state: Mapping[str, Any]) -> Mapping[str, Any]:
    if not {"recipe", "digests", "stage", "begun", "sweeps", "engine"} <= state.keys():
        raise ValueError(f"{path}: expected the state of a run of sem ptycho reconstruct, got another")
    return state
