"""The table, the JSON document and the plot of models that learned side by side."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sem.bench.learning import Run
from sem.config import SEMConfig
from sem.files import save_figure

SCHEMA = 1
LINE_STYLES = ("-", "--", ":", "-.")


def document(
    runs: Sequence[Run], configs: Mapping[str, SEMConfig], where: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """The runs that are finished, as plain data, and what each model trained with."""
    return {
        "schema": SCHEMA,
        "machine": where,
        "settings": settings,
        "models": {
            name: {"training": training(config), "config": config.to_dict()} for name, config in configs.items()
        },
        "runs": [{**vars(run), "tokens_per_second": run.tokens_per_second} for run in runs],
        "summary": {name: summary for name in configs if (summary := summarize(name, runs)) is not None},
    }


def summarize(model: str, runs: Sequence[Run]) -> dict[str, Any] | None:
    """Means over the seeds of ``model``, and the spread of its bits per byte; None where no run of it was scored."""
    scored = [run for run in runs if run.model == model and run.bits_per_byte is not None]
    if not scored:
        return None
    bits = [run.bits_per_byte for run in scored if run.bits_per_byte is not None]
    return {
        "seeds": len(scored),
        "parameters": scored[0].parameters,
        "steps": statistics.fmean(run.steps for run in scored),
        "tokens_per_second": statistics.fmean(run.tokens_per_second for run in scored),
        "bits_per_byte": statistics.fmean(bits),
        "bits_per_byte_min": min(bits),
        "bits_per_byte_max": max(bits),
    }


def training(config: SEMConfig) -> str:
    """What a model trains with, in a few words."""
    t = config.training
    optimizer = {
        "adam": f"Adam {t.learning_rate:g}",
        "adamw": f"AdamW {t.learning_rate:g}",
        "muon": f"muon {t.muon_learning_rate:g} and AdamW {t.learning_rate:g}",
        "sgd": f"SGD {t.learning_rate:g}",
    }[t.optimizer]
    moments = f"momentum {t.momentum:g}" if t.optimizer == "sgd" else f"betas {t.beta1:g} {t.beta2:g}"
    course = {
        "constant": "constant",
        "cosine": f"cosine to {t.lr_min_ratio:g}",
        "warmup_cosine": f"cosine to {t.lr_min_ratio:g}",
        "wsd": f"linear over the last {min(1.0, t.decay_steps / t.max_steps):.0%} to {t.lr_min_ratio:g}",
        "exponential": f"times {t.lr_gamma:g} every {t.lr_interval} steps",
        "plateau": f"times {t.plateau_factor:g} on a plateau",
    }[t.scheduler]
    clip = f"clip {t.gradient_clip:g}" + ("" if t.gradient_clip_kind == "norm" else f" ({t.gradient_clip_kind})")
    return (
        f"{optimizer}, weight decay {t.weight_decay:g}, {moments}, {clip}, "
        f"{t.batch_size} x {config.seq_length} tokens, warmup {t.warmup_steps} steps, {course}"
    )


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """The summary of a :func:`document`, and the runs that failed."""
    where, settings = result["machine"], result["settings"]
    console.print(
        f"sem {where['sem']}, torch {where['torch']}, {where['processor']}, {where['simd']}, "
        f"{settings['threads']} thread(s), {settings['minutes']:g} minutes of training each, seeds "
        f"{' '.join(map(str, settings['seeds']))}, interleaved; bits per byte of all held-out text "
        f"({settings['held_out_bytes']} bytes)"
    )
    table = Table()
    for title in ("model", "parameters", "trained with", "steps", "tokens/s", "bits/byte", "least to largest", "seeds"):
        table.add_column(title, overflow="fold")
    for name, model in result["models"].items():
        row = result["summary"].get(name)
        if row is None:
            table.add_row(name, "", model["training"], "", "", "not measured", "", "0")
            continue
        spread = f"{row['bits_per_byte_min']:.3f} to {row['bits_per_byte_max']:.3f}"
        measured = (f"{row['steps']:.0f}", f"{row['tokens_per_second']:.0f}", f"{row['bits_per_byte']:.3f}", spread)
        table.add_row(name, f"{row['parameters']:,}", model["training"], *measured, str(row["seeds"]))
    console.print(table)
    for run in result["runs"]:
        if run["problem"]:
            console.print(f"FAILED {run['model']}, seed {run['seed']}: {run['problem']}", style="bold red")


def plot(runs: Sequence[Run], path: Path, title: str) -> None:
    """Bits per byte of a part of the held-out text against seconds of training, a colour per model, a line per seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    colors = {name: f"C{index}" for index, name in enumerate(dict.fromkeys(run.model for run in runs))}
    styles = dict(zip(dict.fromkeys(run.seed for run in runs), cycle(LINE_STYLES), strict=False))
    for run in (run for run in runs if run.curve):
        label = f"{run.model}, seed {run.seed}"
        axes.plot(*zip(*run.curve, strict=True), color=colors[run.model], linestyle=styles[run.seed], label=label)
    axes.set(xlabel="seconds of training", ylabel="held-out bits per byte")
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")
    save_figure(figure, path, dpi=150)
