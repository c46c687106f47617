"""Many shots: which there are, and one of them refined from its files to its result."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sem.diffraction.files.dxtbx import DxtbxExperiment
from sem.diffraction.refinement.coordinates import parameters_of
from sem.diffraction.refinement.fit import Stopped, refine
from sem.diffraction.refinement.model_file import Model, digest_of, read_model
from sem.diffraction.refinement.panels import PANEL
from sem.diffraction.refinement.pictures import fit_pictures
from sem.diffraction.refinement.settings import RefinementSettings
from sem.diffraction.refinement.shot import read_shot

FAILED = "failed"
LISTS = (".txt", ".lst")
_CELL = {"crystal.lengths", "crystal.angles"}
_NO_IMAGES = (*LISTS, ".json", ".expt", ".flags", ".md", ".writing")


@dataclass(frozen=True)
class Task:
    """A shot to refine: its name in the results, its image, and the model that it starts from, as files."""

    name: str
    image: str
    experiment: str


@dataclass(frozen=True)
class Result:
    """What came of a shot.

    Attributes:
        status: "converged", "diverged" or "failed".
        reason: in a sentence.
        model: the experiment with what was found; None for a shot that failed.
        experiment: that of dxtbx, where the model is of one; see :meth:`Model.experiment`.
        pictures: PNG files by name.
        process: which process did it.
        seconds: of CPU time, reading included.
    """

    name: str
    status: str
    reason: str
    model: Model | None = None
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    process: int = 0
    seconds: float = 0.0
    experiment: DxtbxExperiment | None = None


def tasks_from(experiment: str | Path, data: str | Path) -> list[Task]:
    """The shots that ``data`` names: an image; a folder of images; or a list (.txt, .lst) with an image a line.

    An image whose name has ``{panel}`` in it is in a file for each panel, with numbers from 0 in that place.

    A line of a list may name, after the image, the model which that shot starts from in place of ``experiment``;
    both are looked for beside the list. ``#`` begins a comment.

    Raises:
        ValueError: nothing there, or two images of one name.
    """
    experiment, data = Path(experiment).absolute(), Path(data).absolute()
    rows: list[tuple[Path, Path]]
    if data.is_dir():
        found = sorted(path for path in data.iterdir() if path.is_file() and not path.name.startswith("."))
        rows = [(path, experiment) for path in found if path.suffix.lower() not in _NO_IMAGES]
    elif data.suffix.lower() in LISTS:
        try:
            lines = [line.partition("#")[0].split() for line in data.read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{data}: cannot be read ({getattr(error, 'strerror', None) or 'no text'})") from None
        rows = []
        for number, words in enumerate(lines, start=1):
            if len(words) > 2:
                raise ValueError(
                    f"{data}, line {number}: expected an image and at most a model, got {len(words)} words"
                )
            if words:
                rows.append((data.parent / words[0], data.parent / words[1] if len(words) > 1 else experiment))
    else:
        rows = [(data, experiment)]
    if not rows:
        raise ValueError(f"{data}: expected images, got none")
    stems = Counter(_stem(image) for image, _ in rows)
    names = [_stem(image) if stems[_stem(image)] == 1 else image.name for image, _ in rows]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"{data}: expected images of different names, got {twice[0]} twice")
    return [Task(name, str(image), str(start)) for name, (image, start) in zip(names, rows, strict=True)]


def _stem(image: Path) -> str:
    """What a shot is called: its image's name without its ending and the place of a panel's number."""
    return image.stem.replace(f"_{PANEL}", "").replace(PANEL, "") or image.stem


def source_of(task: Task) -> dict[str, str]:
    """What a shot's result follows from besides the settings: its files, with the hashes of their contents."""
    return {
        "image": task.image,
        "image_sha256": digest_of(task.image),
        "experiment_sha256": read_model(task.experiment).digest(),
    }


def files_of(settings: RefinementSettings) -> dict[str, str]:
    """The hashes of the files that settings name, by what they are.

    Raises:
        ValueError: one cannot be read.
    """
    named = {"mask": settings.mask, "variance": settings.variance}
    return {f"{name}_sha256": digest_of(path) for name, path in named.items() if isinstance(path, str)}


def refine_task(
    task: Task,
    settings: RefinementSettings,
    *,
    pictures: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Result:
    """Refine one shot; whatever goes wrong with it is its result.

    Raises:
        Stopped, ImportError: see :func:`sem.diffraction.refinement.fit.refine`.
    """
    started = time.process_time()
    try:
        source = {**source_of(task), **files_of(settings)}
        model = read_model(task.experiment)
        if _CELL & set(settings.refine):
            model = model.with_cell()
        simulator = model.simulator()
        shot = read_shot(task.image, simulator, settings)
        fit = refine(simulator, shot, settings, stopped=stopped)
        drawn = fit_pictures(shot, fit, task.name) if pictures else {}
        seconds = time.process_time() - started
        told = {**fit.to_mapping(), "seconds": seconds, "source": source}
        found = model.with_parameters(parameters_of(simulator, settings.refine), told)
        experiment = found.experiment()
    except (Stopped, ImportError):  # what no other shot would do without either
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        reason = kind + (" ".join(str(error).split()) or "no further word")
        return Result(task.name, FAILED, reason, process=os.getpid(), seconds=time.process_time() - started)
    return Result(task.name, fit.status, fit.reason, found, drawn, os.getpid(), seconds, experiment)
