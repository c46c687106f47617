"""A folder of refined shots: what is done is kept, what is left is done, and a summary of all of it."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sem.diffraction.files.dxtbx_document import write_experiments
from sem.diffraction.refinement.fit import CONVERGED, DIVERGED
from sem.diffraction.refinement.model_file import FORMAT, read_model, write_model
from sem.diffraction.refinement.pictures import require_matplotlib
from sem.diffraction.refinement.settings import RefinementSettings
from sem.diffraction.refinement.shots import FAILED, Result, Task, files_of, source_of
from sem.diffraction.refinement.workers import refine_here, refine_with_dask
from sem.files import replacing, write_text

SETTINGS, METRICS, SHOTS, PICTURES = "settings.json", "metrics.json", "shots", "pictures"
_SETTINGS_FORMAT, _FAILURE_FORMAT = "sem diffraction refinement 1", "sem diffraction failure 1"


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    Attributes:
        results: one mapping a shot that is done, as in ``metrics.json``.
        left: names of the shots that are not done, of a run that was stopped.
        seconds: of wall-clock time, of this call.
    """

    results: tuple[Mapping[str, Any], ...]
    left: tuple[str, ...]
    seconds: float

    def count(self, status: str) -> int:
        """Shots that ended with ``status``: ``converged``, ``diverged`` or ``failed``."""
        return sum(result["status"] == status for result in self.results)


def refine_shots(
    tasks: Sequence[Task],
    settings: RefinementSettings,
    folder: str | Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    pictures: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[Result, int, int], None] = lambda result, done, total: None,
) -> Summary:
    """Refine ``tasks`` into ``folder``, but for those that it has the result of.

    A shot's result is ``shots/NAME.json``, complete or not there: a model file of what converged or diverged, which is
    kept; the reason of what failed, which is tried again by the next run. Where the model is of a dxtbx experiment,
    ``shots/NAME.expt`` is that with what was refined. ``metrics.json`` sums up all shots.

    Args:
        workers: processes; 1 is this one, more are those of a Dask cluster on this machine.
        scheduler: address of a Dask scheduler, whose workers do the work in their place.
        pictures: draw each fit before and after, into ``pictures``.
        stopped: asked between shots, and in this process between steps; once it says True the run ends.
        tell: told of each result, with the number of shots done and of all.

    Raises:
        ImportError: a library is not there that the fits or their pictures need.
        ValueError: settings or files of which the folder has other results, a file of the settings that is not there.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    started = time.monotonic()
    done = _done(folder, tasks, settings, files_of(settings))
    left = [task for task in tasks if task.name not in done]
    if left and pictures:
        require_matplotlib()
    for place in (folder, folder / SHOTS, *([folder / PICTURES] if pictures else ())):
        place.mkdir(parents=True, exist_ok=True)
    document = {"format": _SETTINGS_FORMAT, "settings": settings.to_mapping()}
    write_text(folder / SETTINGS, json.dumps(document, indent=1) + "\n")
    results: Iterable[Result] = ()
    if left and workers == 1 and scheduler is None:
        results = refine_here(left, settings, pictures=pictures, stopped=stopped)
    elif left:
        count = min(workers, len(left))
        results = refine_with_dask(
            left, settings, workers=count, scheduler=scheduler, pictures=pictures, stopped=stopped
        )
    for result in results:
        _write(folder, result)
        done[result.name] = _summary_of(result)
        tell(result, len(done), len(tasks))
    ordered = tuple(done[task.name] for task in tasks if task.name in done)
    missing = tuple(task.name for task in tasks if task.name not in done)
    summary = Summary(ordered, missing, time.monotonic() - started)
    write_text(folder / METRICS, json.dumps(metrics(summary), indent=1, allow_nan=False) + "\n")
    return summary


def metrics(summary: Summary) -> dict[str, Any]:
    """Figures of all shots that are done: counts by status, medians, and each shot's own."""
    fitted = [result for result in summary.results if result["status"] == CONVERGED]
    seconds = [result["seconds"] for result in summary.results]
    deviations = {
        label: _median(fit["deviations"][label] for fit in fitted) for fit in fitted[:1] for label in fit["deviations"]
    }
    return {
        "shots": len(summary.results) + len(summary.left),
        **{status: summary.count(status) for status in (CONVERGED, DIVERGED, FAILED)},
        "left": len(summary.left),
        "median_goodness": _median(fit["goodness"] for fit in fitted),
        "median_explained": _median(fit["explained"] for fit in fitted),
        "median_deviations": deviations,
        "median_cpu_seconds": _median(seconds),
        "wall_seconds": summary.seconds,
        "reasons": dict(Counter(result["reason"] for result in summary.results if result["status"] == FAILED)),
        "results": list(summary.results),
    }


def _done(
    folder: Path, tasks: Sequence[Task], settings: RefinementSettings, files: Mapping[str, str]
) -> dict[str, Mapping[str, Any]]:
    """What the folder holds of ``tasks``, by name; ``files`` are the hashes of those that the settings name.

    Raises:
        ValueError: its fits were made with other settings, or of other files.
    """
    before = _read(folder / SETTINGS)
    if before is None:
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder}: expected a new folder or one of an earlier refinement, got one of other files")
        return {}
    if before.get("format") != _SETTINGS_FORMAT or not isinstance(before.get("settings"), dict):
        raise ValueError(f"{folder / SETTINGS}: expected {_SETTINGS_FORMAT!r} as its format")
    wanted = json.loads(json.dumps(settings.to_mapping()))
    for name, now in wanted.items():
        was = before["settings"].get(name)
        if was != now and _any_fit(folder):
            raise ValueError(
                f"{folder}: its shots were refined with {name} = {was!r}, got {now!r}: name another folder"
            )
    found: dict[str, Mapping[str, Any]] = {}
    for task in tasks:
        path = folder / SHOTS / f"{task.name}.json"
        document = _read(path)
        if document is None or document.get("format") != FORMAT:
            continue
        kept = read_model(path).fit
        for name, value in {**source_of(task), **files}.items():
            if name != "image" and kept.get("source", {}).get(name) != value:
                named = {"image": task.image, "mask": settings.mask, "variance": settings.variance}
                what = named.get(name.removesuffix("_sha256"), task.experiment)
                raise ValueError(
                    f"{what}: changed since {task.name} was refined: name another folder, or delete {path}"
                )
        found[task.name] = _told(task.name, kept)
    return found


def _any_fit(folder: Path) -> bool:
    """Whether the folder holds a fit of any shot; settings under which all of them failed bind no later run."""
    return any((_read(path) or {}).get("format") == FORMAT for path in (folder / SHOTS).glob("*.json"))


def _write(folder: Path, result: Result) -> None:
    path = folder / SHOTS / f"{result.name}.json"
    if result.model is None:
        document = {"format": _FAILURE_FORMAT, "status": result.status, "reason": result.reason}
        write_text(path, json.dumps(document, indent=1) + "\n")
    else:
        if result.experiment is not None:  # before the model, which says that the shot is done
            write_experiments(path.with_name(f"{result.name}.expt"), [result.experiment])
        write_model(path, result.model)
    for name, drawn in result.pictures.items():  # after what they show, which took longer
        with replacing(folder / PICTURES / f"{result.name}-{name}.png") as file:
            file.write(drawn)


def _summary_of(result: Result) -> dict[str, Any]:
    if result.model is None:
        return {"name": result.name, "status": result.status, "reason": result.reason, "seconds": result.seconds}
    return _told(result.name, result.model.fit)


def _told(name: str, fit: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: fit[key] for key in ("status", "reason", "goodness", "explained", "scale", "steps", "seconds")}
    labelled = {key: dict(zip(fit["labels"], fit[key], strict=True)) for key in ("values", "deviations")}
    return {"name": name, **own, **labelled}


def _read(path: Path) -> dict[str, Any] | None:
    """The JSON document in a file of the run's, None where there is no file.

    Raises:
        ValueError: other content.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a document of a refinement in JSON, got other text")
    return found


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None
