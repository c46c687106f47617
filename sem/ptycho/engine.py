"""What engines share.

All begin with an object of ones, or a given one, and a given probe, and report the same numbers of every sweep. They
compute in the dtype of the object and probe that they are given: complex64, or complex128 to look closer.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sem.ptycho.files.state import read_state, write_state
from sem.ptycho.model import ForwardModel
from sem.ptycho.positions import affine_onto, position_steps, position_system, trial_offsets
from sem.ptycho.scan import Scan


class SweepReport(NamedTuple):
    """A sweep in numbers: ``loss``, the amplitude loss; ``chi_squared``, 1 where the reconstruction fits the noise: ``4
    sum (A - X)^2`` over valid pixels, divided by what photon noise makes of that at a perfect fit, which is 1 for every
    pixel of five counts or more, and less in the dark; ``change`` of the object, ``||O' - O|| / ||O||``; ``seconds``
    since the start."""

    sweep: int
    loss: float
    chi_squared: float
    change: float
    seconds: float


Stop = Callable[[Sequence[SweepReport]], bool]
"""Asked with the reports of all sweeps so far, whether to stop: see :mod:`sem.ptycho.stops`."""

Constraint = Callable[["Engine", Tensor, Tensor], tuple[Tensor, Tensor]]
"""What is made of an engine's object and probe after a sweep: see :mod:`sem.ptycho.constraints`."""


@dataclass
class Reconstruction:
    """Where an engine is: complex ``object [H, W]``, ``probe [M, N, N]`` and a report of every sweep so far."""

    object: Tensor
    probe: Tensor
    reports: list[SweepReport] = field(default_factory=list)


class Engine:
    """What the engines share.

    Args:
        scan: the patterns.
        probe: complex ``[M, N, N]``, in units of counts: ``sum |P|^2`` are those of a pattern where the object is 1.
        object: complex ``[H, W]``, or None: ones on the smallest that holds all patches.
        probe_from: the sweep, counted from 0, at which the probe begins to move; None: it stays.
        seed: of the order of patterns.
        constraints: in this order after every sweep, each ``object, probe = constraint(engine, object, probe)``: those
            of :mod:`sem.ptycho.constraints`, or functions of one's own.

    Raises:
        ValueError: an empty scan, an object or a probe of another shape or dtype or with numbers that are not finite, a
            probe of zeros, or a constraint that is no function.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("probe_from",)
    """Attributes that a resumed run must have as the run had them."""

    def __init__(
        self,
        scan: Scan,
        probe: Tensor,
        object: Tensor | None = None,
        *,
        probe_from: int | None = 2,
        seed: int = 0,
        constraints: Iterable[Constraint] = (),
    ) -> None:
        side = scan.side
        if probe.dim() != 3 or probe.shape[1:] != (side, side) or not probe.is_complex():
            raise ValueError(f"probe: expected complex [M, {side}, {side}], got {probe.dtype} {list(probe.shape)}")
        if len(scan) == 0:
            raise ValueError("scan: expected at least one pattern, got none")
        if object is None:
            object = torch.ones(scan.object_shape(), dtype=probe.dtype)
        if object.dim() != 2 or object.dtype != probe.dtype:
            raise ValueError(
                f"object: expected {probe.dtype} [H, W], as the probe, got {object.dtype} {list(object.shape)}"
            )
        if not 0 < float(probe.detach().abs().square().sum()) < math.inf:
            raise ValueError("probe: expected finite numbers that are not all 0")
        if not bool(object.isfinite().all()):
            raise ValueError("object: expected finite numbers")
        self.constraints = tuple(constraints)
        for constraint in self.constraints:
            if not callable(constraint):
                raise ValueError(
                    f"constraints: expected functions of an engine, an object and a probe, got {constraint!r} "
                    f"({type(self).__name__} has no loss to add a penalty to)"
                )
        self.probe_from = probe_from
        self.state = Reconstruction(_own(object), _own(probe))
        self.generator = torch.Generator().manual_seed(seed)
        self.nominal = scan.positions
        """Positions as they were given."""
        height, width = object.shape
        self.model = ForwardModel(scan, (height, width), object.dtype)
        self.scan = scan

    def stand_at(self, positions: Tensor) -> None:
        """Take the patterns to be at ``positions``, real ``[J, 2]``.

        Raises:
            ValueError: another shape, numbers that are not finite, or a patch that leaves the object.
        """
        scan = self.scan.at(positions.to(self.scan.positions.dtype))
        self.model.stand_at(scan)
        self.scan = scan

    def move_positions(self, steps: Tensor) -> Tensor:
        """Move the positions by ``steps [J, 2]`` less their mean, which no pattern can tell, and no farther than the
        object reaches; returns how far each went."""
        before, most = self.scan.positions, torch.tensor(self.state.object.shape) - self.scan.side
        after = torch.minimum((before + steps - steps.mean(0)).clamp_min(0), most)
        self.stand_at(after)
        return self.scan.positions - before

    def refine_positions(
        self,
        object: Tensor | None = None,
        probe: Tensor | None = None,
        *,
        damping: float = 0.5,
        limit: float = 0.5,
        affine: bool = False,
    ) -> Tensor:
        """Move the positions by :func:`position_steps`; returns the steps.

        A position stays inside the object, which begins with a margin for it (``Scan.with_margin``, ``object``).

        Args:
            object, probe: to find the steps with; None: the engine's.
            damping, limit: as :func:`position_steps` takes them.
            affine: the positions become the nearest affine image of those that the scan had at first, by least squares
                with weights ``tr H``: what a stage out of scale or askew does, and nothing else.
        """
        object, probe = self.state.object if object is None else object, self.state.probe if probe is None else probe
        if not affine:
            return self.move_positions(position_steps(self.scan, object, probe, damping=damping, limit=limit))
        system = position_system(self.scan, object, probe)
        steps = system.steps(damping=damping, limit=limit)
        fitted = affine_onto(self.nominal, self.scan.positions + steps, system.trace)
        return self.move_positions(fitted - self.scan.positions)

    def anneal_positions(
        self,
        radius: float,
        object: Tensor | None = None,
        probe: Tensor | None = None,
        *,
        trials: int = 8,
        reach: float = math.inf,
    ) -> Tensor:
        """Move each position by the best of ``trials`` random offsets of up to ``radius`` pixels, or not at all: see
        :func:`trial_offsets`. For errors of more than a pixel, with a radius that shrinks; returns the steps.

        Args:
            object, probe: to judge the offsets with; None: the engine's.
            reach: how far from where the scan had it a position may go, in pixels.
        """
        object, probe = self.state.object if object is None else object, self.state.probe if probe is None else probe
        given = self.scan, object, probe, radius, trials, self.generator
        return self.move_positions(trial_offsets(*given, about=self.nominal, reach=reach))

    def run(
        self,
        sweeps: int,
        *,
        stop: Stop | None = None,
        progress: Callable[[SweepReport], None] | None = None,
    ) -> Reconstruction:
        """``sweeps`` more, or fewer: ``stop`` is asked after each, with the reports of all so far.

        Whatever ends a sweep before its time, Ctrl-C or an error, leaves the engine as the last whole sweep left it:
        another :meth:`run` goes on from there as if nothing had happened.
        """
        begun = time.monotonic() - (self.state.reports[-1].seconds if self.state.reports else 0.0)
        for _ in range(sweeps):
            before = self.snapshot()
            try:
                self._advance(begun)
            except BaseException:
                self.restore(before)
                raise
            if progress is not None:
                progress(self.state.reports[-1])
            if stop is not None and stop(self.state.reports):
                break
        return self.state

    def _advance(self, begun: float) -> None:
        number, before = len(self.state.reports), self.state.object
        moves = self.probe_from is not None and number >= self.probe_from
        object, probe, squares = self.sweep(before.clone(), self.state.probe.clone(), moves)
        change = _norm(object - before) / max(_norm(before), 1e-30)
        chi = 4 * squares / max(self.model.noise, 1e-30)
        self.state.object, self.state.probe = object, probe
        self.state.reports.append(SweepReport(number, squares / 2, chi, change, time.monotonic() - begun))

    def sweep(self, object: Tensor, probe: Tensor, moves: bool) -> tuple[Tensor, Tensor, float]:
        """Object and probe after one sweep, which may change those given, with :meth:`constrain` applied, and ``sum (A
        - X)^2`` over valid pixels."""
        raise NotImplementedError

    def constrain(self, object: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
        """Object and probe as the constraints want them."""
        for constraint in self.constraints:
            object, probe = (wave.resolve_conj().contiguous() for wave in constraint(self, object, probe))
        return object, probe

    def carry(self, change: Callable[[Tensor], Tensor]) -> None:
        """Apply a change of gauge, which a constraint does to object and probe, to exit waves ``[J, M, N, N]`` that the
        engine keeps from sweep to sweep; most keep none."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next sweep depends on beside the arguments, as tensors and plain values: object, probe,
        positions, reports, the generator's state, and what an engine keeps of its own. With it are the engine's name,
        its settings and a digest of its patterns, which :meth:`load_state_dict` compares."""
        return {
            "engine": type(self).__name__,
            "settings": {name: getattr(self, name) for name in self.SETTINGS},
            "patterns": self._digest(),
            **self.snapshot(),
            "reports": torch.tensor(self.state.reports, dtype=torch.float64).view(-1, len(SweepReport._fields)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what :meth:`state_dict` was of: the sweeps that follow are those of the run that went on, bit by bit.

        Constraints and an ``order`` are not part of a state: give them as the run had them. To go on with other
        settings, begin a new engine with the state's object and probe.

        Raises:
            ValueError: the state is of another engine, or one with other settings, patterns, shapes or dtypes; the
                message says which. The engine is what it was.
        """
        before = self.snapshot()
        try:
            self._check(state)
            # what is loaded is the caller's: an engine may write to what it keeps
            loaded = copy.deepcopy(dict(state))
            reports = [SweepReport(int(row[0]), *row[1:]) for row in loaded["reports"].tolist()]
            self.restore({**loaded, "reports": reports})
        except BaseException as error:
            self.restore(before)
            if isinstance(error, (KeyError, TypeError, AttributeError, RuntimeError, IndexError)):
                raise ValueError(f"state: not what this engine's state_dict gives ({_one_line(error)})") from error
            raise

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`state_dict` to one file (HDF5; ``object``, ``probe``, ``positions`` and ``reports`` are datasets
        of those names). The file is complete, or what it was before.

        Raises:
            OSError: the file could not be written.
            ImportError: h5py is not installed.
        """
        write_state(path, self.state_dict())

    def load(self, path: str | os.PathLike[str]) -> None:
        """:meth:`load_state_dict` of what :meth:`save` wrote.

        Raises:
            OSError: there is no such file, or it may not be read.
            ImportError: h5py is not installed.
            ValueError: the file is damaged, or holds no state of such an engine; the message says what is wrong.
        """
        state = read_state(path)
        try:
            self.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    def snapshot(self) -> dict[str, Any]:
        """What a sweep, or what happens between sweeps, changes, for :meth:`restore`. Nothing in it is written to
        later, so that it costs next to nothing."""
        return {
            "object": self.state.object,
            "probe": self.state.probe,
            "positions": self.scan.positions,
            "reports": list(self.state.reports),
            "generator": self.generator.get_state(),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Undo what happened since the :meth:`snapshot`."""
        self.state.object, self.state.probe = snapshot["object"], snapshot["probe"]
        self.state.reports[:] = snapshot["reports"]
        self.generator.set_state(snapshot["generator"])
        if snapshot["positions"] is not self.scan.positions:
            self.stand_at(snapshot["positions"])

    def _check(self, state: Mapping[str, Any]) -> None:
        if state["engine"] != type(self).__name__:
            raise ValueError(f"engine: expected a state of {type(self).__name__}, got one of {state['engine']}")
        for name in self.SETTINGS:
            ours, theirs = getattr(self, name), state["settings"][name]
            if ours != theirs:
                raise ValueError(
                    f"{name}: expected a state of a run with {ours!r}, as this engine has it, got one with {theirs!r}"
                )
        if state["patterns"] != self._digest():
            raise ValueError(
                "scan: expected a state of a run on the same amplitudes, weight and background, got one of others"
            )
        for name in ("object", "probe", "positions"):
            ours, theirs = self.snapshot()[name], state[name]
            if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
                wanted, got = (f"{tensor.dtype} {list(tensor.shape)}" for tensor in (ours, theirs))
                raise ValueError(f"{name}: expected {wanted}, got a state with {got}")

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for tensor in (self.model.data, self.model.weight, self.model.background):
            digest.update(b"none" if tensor is None else tensor.numpy().data)
        return digest.hexdigest()


def _norm(wave: Tensor) -> float:
    return float(torch.linalg.vector_norm(torch.view_as_real(wave)))


def _own(wave: Tensor) -> Tensor:
    """A copy that is in memory what it looks like."""
    return wave.detach().resolve_conj().clone(memory_format=torch.contiguous_format)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
