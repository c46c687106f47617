"""The folder of a run: what is in it, where to continue, and the model it holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sem.config import SEMConfig
from sem.data.tokenizer import TOKENIZER_FILE
from sem.files import free_name, write_text
from sem.precision import PrecisionPolicy, autocast_reached, effective_precision
from sem.run_names import ACTIVATIONS, CHECKPOINTS, FINAL, RESULTS
from sem.training import checkpoint
from sem.training.checkpoint import CheckpointError, CheckpointStore

AUTO_RESUME = "auto"
_FOLDERS = (CHECKPOINTS, RESULTS, "tensorboard", "wandb")
_FILES = (
    "config.yaml",
    "metrics.csv",
    "curves.png",
    "sample.txt",
    FINAL,
    "precision.json",
    ACTIVATIONS,
    "wandb_id",
    TOKENIZER_FILE,
)


def find_checkpoint(
    resume: str | Path | None, folder: str | Path, *, own: bool = False
) -> tuple[Path, dict[str, Any]] | None:
    """What a run in ``folder`` continues from, and its content; None starts anew.

    Args:
        resume: as :func:`open_checkpoint` takes it, ``"auto"`` (the newest of ``folder``, if there is one) or
            None.
        own: whether the caller holds the folder, and may rename what is damaged in it.

    Raises:
        CheckpointError: there is no such checkpoint, or none that is undamaged.
    """
    if resume is None:
        return None
    if str(resume) == AUTO_RESUME:
        return CheckpointStore(Path(folder) / CHECKPOINTS, own=own).load_latest()
    return open_checkpoint(resume)


def open_checkpoint(where: str | Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint, or the newest undamaged one of a run's folder, and its content.

    Raises:
        CheckpointError: there is no such checkpoint, or none that is undamaged.
    """
    path = Path(where)
    if not path.is_dir():
        return path, checkpoint.load(path)
    found = CheckpointStore(path / CHECKPOINTS).load_latest()
    if found is None:
        raise CheckpointError(f"{path}: expected the folder of a run, it has no {CHECKPOINTS}/step_*.pt")
    return found


def saved_config(content: dict[str, Any], overrides: Iterable[str] = ()) -> SEMConfig:
    """The configuration in a checkpoint's content.

    Raises:
        ValueError: there is none, or an override is impossible.
    """
    if "config" not in content:
        raise ValueError(f"checkpoint: expected an entry 'config', got {sorted(content)}")
    return SEMConfig.from_dict(content["config"], overrides)


def saved_step(content: Mapping[str, Any]) -> int | None:
    """The training step of a checkpoint's content, where it tells."""
    loop = content.get("loop")
    step = loop.get("step") if isinstance(loop, dict) else None
    return step if isinstance(step, int) else None


def run_folder_of(path: Path) -> Path:
    """The run's folder, given it or one of its checkpoints."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == CHECKPOINTS else path.parent


def save_precision(folder: Path, model: nn.Module, policy: PrecisionPolicy) -> None:
    """Write ``precision.json``: the mode, what it means for each stage, and where autocast met what is pinned."""
    record = {
        "mode": policy.mode,
        "device": policy.device_type,
        "parameters": "float32",
        "stages": effective_precision(model, policy),
        "autocast_reached": autocast_reached(),
    }
    write_text(folder / "precision.json", json.dumps(record, indent=2) + "\n")


def holds_run(folder: Path) -> bool:
    """Whether a run has left metrics or checkpoints in ``folder``, usable or not."""
    store = CheckpointStore(folder / CHECKPOINTS)
    return (folder / "metrics.csv").exists() or bool(store.paths() or store.unusable())


def move_run(folder: Path, name: str) -> Path:
    """Move what a run writes into its folder, and nothing else, into a new folder ``name`` in it, which is returned."""
    aside = free_name(folder / name)
    aside.mkdir(parents=True)
    for part in (*_FOLDERS, *_FILES):
        if (folder / part).exists():
            (folder / part).rename(aside / part)
    return aside
