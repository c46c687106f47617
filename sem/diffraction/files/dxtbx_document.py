"""The JSON of dxtbx's experiment lists: read with everything in it checked, written with each model once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sem.diffraction.files.access import beginning_of, size_of
from sem.diffraction.files.dxtbx import MODELS, DxtbxExperiment
from sem.diffraction.files.dxtbx_models import Model
from sem.files import write_text

LIST, ONE = "ExperimentList", "Experiment"
_LARGEST = 1 << 28  # bytes of a document
_MOST_EXPERIMENTS = 1 << 17


def read_experiments(path: str | Path) -> tuple[DxtbxExperiment, ...]:
    """The experiments of a dxtbx JSON file (``.expt``), each with beam and detector, all checked.

    Images that it names are not looked for.

    Raises:
        ValueError: the file cannot be read, is no JSON or no experiment list, or has numbers that make no experiment.
    """
    document = _document(path)
    listed = document.get("experiment")
    if not isinstance(listed, list) or not 1 <= len(listed) <= _MOST_EXPERIMENTS:
        raise ValueError(f"{path}: expected a list of 1 to {_MOST_EXPERIMENTS} experiments")
    checked: dict[tuple[str, int], bool] = {}
    found = []
    for number, entry in enumerate(listed):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: experiment {number}: expected names and values")
        models: dict[str, Model | None] = {}
        for name in MODELS:
            models[name] = _model(path, document, number, name, entry.get(name))
        rest = {name: value for name, value in entry.items() if name not in MODELS}
        experiment = DxtbxExperiment(models, rest, str(path))
        _check(experiment, entry, checked)
        found.append(experiment)
    return tuple(found)


def write_experiments(path: str | Path, experiments: Sequence[DxtbxExperiment]) -> None:
    """Write experiments as one list, each model that several share once.

    Raises:
        OSError: the file could not be written.
        ValueError: there is none.
    """
    if not experiments:
        raise ValueError(f"{path}: expected at least one experiment, got none")
    document: dict[str, Any] = {"__id__": LIST, "experiment": [], **{name: [] for name in MODELS}}
    places: dict[tuple[str, str], int] = {}
    for experiment in experiments:
        entry = {"__id__": ONE, **experiment.rest}
        for name, model in experiment.models.items():
            if model is None:
                continue
            key = (name, json.dumps(model, sort_keys=True))
            if key not in places:
                places[key] = len(document[name])
                document[name].append(model)
            entry[name] = places[key]
        document["experiment"].append(entry)
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def _document(path: str | Path) -> dict[str, Any]:
    if size_of(path) > _LARGEST:
        raise ValueError(f"{path}: expected an experiment list of at most {_LARGEST >> 20} MiB")

    def constant(name: str) -> float:
        raise ValueError(f"{name} is no number")

    try:
        document = json.loads(beginning_of(path, _LARGEST).decode("utf-8"), parse_constant=constant)
    except (ValueError, RecursionError) as error:
        why = "lists in one another without an end" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{path}: expected an experiment list as JSON ({why})") from None
    if not isinstance(document, dict) or document.get("__id__") != LIST:
        said = document.get("__id__") if isinstance(document, dict) else type(document).__name__
        raise ValueError(f"{path}: expected a dxtbx experiment list (__id__ {LIST}), got {str(said)[:60]}")
    return document


def _model(path: str | Path, document: dict[str, Any], number: int, name: str, place: Any) -> Model | None:
    """The model that an experiment names by its number."""
    where = f"{path}: experiment {number}"
    if place is None:
        if name in ("beam", "detector"):
            raise ValueError(f"{where}: expected a {name}, got none")
        return None
    models = document.get(name)
    last = len(models) - 1 if isinstance(models, list) else -1
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place <= last:
        raise ValueError(f"{where}: expected a {name} from 0 to {last}, got {str(place)[:60]}")
    assert isinstance(models, list)
    if models[place] is not None and not isinstance(models[place], dict):
        raise ValueError(f"{where}: {name} {place}: expected names and values")
    return models[place]


def _check(experiment: DxtbxExperiment, entry: Model, checked: dict[tuple[str, int], bool]) -> None:
    """Read every model once, so that what is wrong with one is said when the file is read."""
    for name in ("beam", "detector", "goniometer", "scan", "crystal"):
        key = (name, entry.get(name, -1))
        if key in checked:
            continue
        checked[key] = True
        if name == "beam":
            _ = experiment.beam_numbers
        elif name == "detector":
            _ = experiment.panels
        elif name == "goniometer":
            _ = experiment.goniometer
        elif name == "scan":
            _ = experiment.scan
        elif experiment.models["crystal"] is not None:
            _ = experiment.reciprocal()
