"""What a check leaves behind: all it saw as ``check.json``, the table as ``check.md``, the curves as ``check.png``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sem.config import SEMConfig
from sem.files import write_text
from sem.system_info import system_info
from sem.training.check import CheckResult
from sem.training.health import Criterion
from sem.training.plot import Panel, draw, health_panels
from sem.training.run_folder import holds_run
from sem.training.trainer import SEMTrainer

FORMAT = 1
COLUMNS = ("quantity", "first", "last", "mean", "worst", "healthy", "verdict")


def prepare_folder(folder: Path, config: SEMConfig) -> None:
    """Make ``folder``, which must not be one of a training run.

    Raises:
        ValueError: a run is in it, or is to be.
    """
    if holds_run(folder) or folder.resolve() == Path(config.training.output_dir).resolve():
        raise ValueError(f"--output {folder}: expected a folder of its own, not that of a training run")
    folder.mkdir(parents=True, exist_ok=True)


def evidence(result: CheckResult, trainer: SEMTrainer, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Everything about a check as plain values; numbers that are not finite are the strings ``nan``, ``inf``, ``-inf``.

    Args:
        overrides: settings that differ from the configuration file, by dotted key.
    """
    return _plain(
        {
            "format": FORMAT,
            "verdict": "failed" if result.failed else "healthy",
            "failed": [row.name for row in result.failed],
            "steps_asked": result.asked,
            "steps_done": len(result.steps),
            "seconds": result.seconds,
            "interrupted_by": result.interrupted_by,
            "diverged": result.diverged,
            "precision_mode": trainer.precision.mode,
            "effective_precision": result.precision,
            "autocast_reached": result.autocast_reached,
            "device": _device_name(trainer.device),
            "threads": torch.get_num_threads(),
            "environment": dict(system_info()),
            "overrides": dict(overrides),
            "config": trainer.config.to_dict(),
            "rows": [asdict(row) for row in result.rows],
            "thresholds": {criterion.name: _threshold(criterion) for criterion in result.criteria},
            "steps": result.steps,
        }
    )


def write_report(folder: Path, content: Mapping[str, Any], criteria: Iterable[Criterion]) -> list[Path]:
    """Write :func:`evidence` and what can be drawn from it; each file is there completely or not at all.

    Returns:
        What was written; without matplotlib, no picture.

    Raises:
        OSError: a file cannot be written.
    """
    data, table, picture = (folder / f"check.{suffix}" for suffix in ("json", "md", "png"))
    write_text(data, json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_text(table, markdown(content))
    written = [data, table]
    if content["steps"]:
        steps = [{name: float(value) for name, value in step.items()} for step in content["steps"]]
        panels = [*health_panels(criteria), Panel("CG iterations", ("cg_iterations_mean", "cg_iterations_max"))]
        try:
            written.append(draw(steps, panels, picture, f"{folder.name}: {content['verdict']}"))
        except ImportError:
            picture.unlink(missing_ok=True)
    return written


def table_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The rows of evidence as text, in the order of :data:`COLUMNS`."""
    for row in rows:
        judged = bool(row["expected"])
        worst = "not measured" if judged and row["worst"] is None else _number(row["worst"])
        if row["step"] is not None and row["worst"] not in (row["first"], row["last"]):
            worst = f"{worst} (step {row['step']})"
        verdict = ("pass" if row["passed"] else "FAIL") if judged else ""
        yield (row["name"], *(_number(row[name]) for name in COLUMNS[1:4]), worst, row["expected"], verdict)


def markdown(content: Mapping[str, Any]) -> str:
    """The evidence of a check as a section of a page: what ran, where, the table, and the precision of each stage."""
    environment, config = content["environment"], content["config"]
    tokens = config["training"]["batch_size"] * (config["data"]["seq_length"] or config["model"]["max_seq_length"])
    changed = ", ".join(f"`{key} = {json.dumps(value)}`" for key, value in content["overrides"].items())
    lines = [
        f"`{content['precision_mode']}`: **{content['verdict']}**. {content['steps_done']} of {content['steps_asked']} "
        f"steps of {tokens} tokens in {content['seconds']:.0f} s on {content['device']}, {content['threads']} threads, "
        f"torch {environment['torch']}, sem {environment['sem']}.",
        "",
        f"Settings that differ from the file: {changed or 'none'}.",
        "",
        _markdown_row(COLUMNS),
        _markdown_row(("---",) * len(COLUMNS)),
        *map(_markdown_row, table_lines(content["rows"])),
        "",
        "| stage | precision |",
        "|---|---|",
        *map(_markdown_row, content["effective_precision"].items()),
    ]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _threshold(criterion: Criterion) -> dict[str, Any]:
    return {"expected": criterion.expected, "limit": criterion.limit}


def _number(value: float | str | None) -> str:
    return "" if value is None else f"{float(value):.5g}"


def _device_name(device: torch.device) -> str:
    if device.type == "cpu":
        return "cpu"
    return f"{device} ({getattr(torch, device.type).get_device_name(device)})"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
