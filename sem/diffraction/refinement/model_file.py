"""The experiment of a refinement as a file: nanoBragg's flags, the values of parameters, and the fit they came from."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sem.diffraction.cell import cell_of, reciprocal_vectors
from sem.diffraction.experiment import experiment_from
from sem.diffraction.files.dxtbx import DxtbxExperiment
from sem.diffraction.files.dxtbx_document import LIST, read_experiments
from sem.diffraction.flags import BY_NAME, FLAGS, OUTPUT
from sem.diffraction.parameters import DEGREE
from sem.diffraction.refinement.panels import Exposure, files_named, panels_of
from sem.diffraction.reflections import colours_listed
from sem.diffraction.rotations import umat2misset
from sem.files import write_text

FORMAT = "sem diffraction model 1"
_LARGEST = 1 << 24  # bytes of a model file
_SAME = 1e-8  # of the longest edge: vectors that differ by less are those of one crystal
_FILES = {
    name
    for flag in FLAGS
    if flag.group != OUTPUT and any(setting.endswith("_file") for setting in flag.sets)
    for name in flag.names
}
"""Flags that name a file to read."""


@dataclass(frozen=True)
class Model:
    """An experiment that a file describes.

    Attributes:
        flags: those of ``sem diffraction simulate``.
        parameters: values that replace those of the flags, by the parameter's name.
        fit: what a refinement said about them; nothing reads it.
    """

    flags: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)

    def simulator(self) -> Exposure:
        """The simulator with these parameters; of several panels all of them,
        :class:`~sem.diffraction.Panels`.

        Raises:
            ValueError: flags that are wrong, or values that do not fit a parameter.
        """
        simulator = copy.deepcopy(_simulator_from(self.flags, self._files_digest()))
        known = dict(simulator.named_parameters())
        for name, value in self.parameters.items():
            if name not in known:
                raise ValueError(f"parameters: expected names of this experiment's parameters, got {name!r}")
            try:
                numbers = torch.tensor(value, dtype=torch.float64)
            except (TypeError, ValueError, RuntimeError):
                numbers = torch.tensor(math.nan)
            if numbers.shape != known[name].shape or not bool(numbers.isfinite().all()):
                wanted = f"finite numbers of shape {list(known[name].shape)}"
                raise ValueError(f"parameters: expected {wanted} for {name}, got {value!r}")
            with torch.no_grad():
                known[name].copy_(numbers)
        return simulator

    def experiment(self) -> DxtbxExperiment | None:
        """The dxtbx experiment that the flags name, cell, orientation, wavelength and every panel as they are in this
        model; None where they name none, choose one of its panels, or curve them.

        Raises:
            ValueError: as :meth:`simulator`.
        """
        named = [path for flag, path in self._pairs() if "experiments_file" in _sets(flag)]
        if not named:
            return None
        simulator, experiment = self.simulator(), read_experiments(named[-1])[0]
        panels = panels_of(simulator)
        detectors = [panel.detector for panel in panels]
        if len(detectors) != len(experiment.panels) or any(detector.curved for detector in detectors):
            return None
        return experiment.updated(simulator.crystal, simulator.beam, detectors, physics=panels[0].physics)

    def with_cell(self) -> Model:
        """The same experiment with the crystal's matrix (of ``-expt`` or ``-mat``) as cell and misset, which then are
        flags and may be refined.

        Raises:
            ValueError: nanoBragg's rules make another crystal of that cell.
        """
        simulator = self.simulator()
        crystal, physics = simulator.crystal, panels_of(simulator)[0].physics
        if crystal.has_cell:
            return self
        real = crystal.vectors(physics)[0].detach()
        lengths, angles = cell_of(real)
        upright = reciprocal_vectors(lengths, angles, exact=True)
        misset = umat2misset(torch.linalg.solve(upright, torch.linalg.inv(real).mT).mT)
        cell = [*lengths.tolist(), *(angles / DEGREE).tolist()]
        places = [place for place, (flag, _) in enumerate(self._pairs()) if "matrix_file" in _sets(flag)]
        others = [word for place, word in enumerate(self.flags) if not {place, place - 1} & set(places)]
        flags = (*others, "-cell", *map(repr, cell), "-misset", *map(repr, misset.tolist()))
        replaced = ("crystal.reciprocal", "crystal.misset")
        kept = {name: value for name, value in self.parameters.items() if name not in replaced}
        made = dataclasses.replace(self, flags=flags, parameters=kept)
        if float((made.simulator().crystal.vectors(physics)[0] - real).abs().max()) > _SAME * float(lengths.max()):
            shown = " ".join(f"{number:g}" for number in cell)
            raise ValueError(f"crystal: expected -physics exact to refine the cell {shown} by, got {physics}")
        return made

    def digest(self) -> str:
        """A hash of everything the experiment follows from, the files that the flags name included."""
        told = json.dumps([self.flags, self.parameters, self._files_digest()], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def _files_digest(self) -> str:
        named = [path for flag, value in self._pairs() if flag in _FILES for path in _named_by(flag, value)]
        return " ".join(map(digest_of, named))

    def _pairs(self) -> Iterator[tuple[str, str]]:
        return zip(self.flags, self.flags[1:], strict=False)

    def with_parameters(self, parameters: Mapping[str, Any], fit: Mapping[str, Any]) -> Model:
        """The same flags with ``parameters`` in place of those of their names, and another ``fit``."""
        return dataclasses.replace(self, parameters={**self.parameters, **parameters}, fit=fit)


def read_model(path: str | Path) -> Model:
    """The model in a file: JSON as :func:`write_model` writes it, or the flags as they stand on a command line.

    Flags may go over several lines; ``#`` begins a comment. Files that they name are looked for beside the file.

    Raises:
        ValueError: the file cannot be read, or is neither.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path}: expected a model file of at most {_LARGEST >> 20} MiB")
        text = path.read_text("utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a file of flags or a model in JSON, got other bytes") from None
    if not text.lstrip().startswith("{"):
        try:
            words = shlex.split(text, comments=True)
        except ValueError as error:
            raise ValueError(f"{path}: expected flags as on a command line ({error})") from None
        if not words:
            raise ValueError(f"{path}: expected flags as on a command line, got none")
        return Model(_found_beside(words, path))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: expected a model in JSON, got text that is none") from None
    if isinstance(found, dict) and found.get("__id__") == LIST:
        raise ValueError(f"{path}: expected flags, -expt {path.name} among them, got the dxtbx experiment alone")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{path}: expected {FORMAT!r} as its format, got {found.get('format')!r}")
    flags, parameters = found.get("flags"), found.get("parameters", {})
    if not isinstance(flags, list) or not all(isinstance(word, str) for word in flags):
        raise ValueError(f"{path}: expected a list of texts as flags")
    if not isinstance(parameters, dict):
        raise ValueError(f"{path}: expected values by name as parameters")
    fit = found.get("fit")
    return Model(_found_beside(flags, path), parameters, fit if isinstance(fit, dict) else {})


def write_model(path: str | Path, model: Model) -> None:
    """Write ``model`` as JSON, whole or not at all.

    Raises:
        OSError: the file could not be written.
    """
    document = {
        "format": FORMAT,
        "flags": list(model.flags),
        "parameters": dict(model.parameters),
        "fit": dict(model.fit),
    }
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def _found_beside(words: list[str], path: Path) -> tuple[str, ...]:
    """``words`` with the files they name made absolute, so that the model may be read from anywhere."""
    folder = path.absolute().parent
    flags = list(words)
    for index, word in enumerate(words[:-1]):
        if word in _FILES:
            flags[index + 1] = str(folder / words[index + 1])
    return tuple(flags)


def _named_by(flag: str, path: str) -> list[Path]:
    """The file of a flag, and those that it names."""
    listed = colours_listed(path) if "hkl_list_file" in BY_NAME[flag].sets else []
    return [Path(path), *(file for _, file, _ in listed)]


@functools.lru_cache(maxsize=2)
def _simulator_from(flags: tuple[str, ...], files: str) -> Exposure:
    """The flags' own simulator. Shots of one crystal share a long table of amplitudes, which is read once."""
    panels = experiment_from(flags).panels
    return panels if len(panels) > 1 else panels[0]


def _sets(flag: str) -> Sequence[str]:
    """What a flag sets, if the word is one."""
    return BY_NAME[flag].sets if flag in BY_NAME else ()


def digest_of(path: str | Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal; of an image in a file for each panel that of all of these.

    Raises:
        ValueError: a file cannot be read.
    """
    found = [_digest_of_one(file) for file in files_named(path)]
    return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()


def _digest_of_one(path: Path) -> str:
    hashed = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                hashed.update(block)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    return hashed.hexdigest()
