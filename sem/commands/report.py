"""``sem report``: the curves and scores of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sem.config import SEMConfig

if TYPE_CHECKING:
    from argparse import Namespace

    from sem.command_line import Parser

HELP = "draw the curves of a run"


def add_arguments(parser: Parser) -> None:
    """The run's folder, and whether to score simple models."""
    parser.add_argument("run", help="the run's folder")
    parser.add_argument("--baselines", action="store_true", help="score simple models on the same text")


def run(options: Namespace) -> int:
    """Draw ``curves.png`` into the run's folder; prints bits per byte at the end and during training."""
    from sem.training.logging import read_csv
    from sem.training.plot import plot_curves

    folder = Path(options.run)
    rows = read_csv(folder / "metrics.csv")
    scores = _baseline_scores(folder) if options.baselines else {}
    picture = plot_curves(folder / "metrics.csv", folder / "curves.png", scores, title=folder.name)
    final = folder / "final.json"
    if final.is_file():
        score = json.loads(final.read_text(encoding="utf-8"))["val_bits_per_byte"]
        print(f"bits per byte on held-out text at the end: {score:.4f}")
    held_out = [row["val_bits_per_byte"] for row in rows if "val_bits_per_byte" in row]
    if held_out:
        print(f"bits per byte on its first part, during training: {held_out[-1]:.4f} (best {min(held_out):.4f})")
    for name, score in scores.items():
        print(f"  {name}: {score:.4f}")
    print(f"curves: {picture}")
    return 0


def _baseline_scores(folder: Path) -> dict[str, float]:
    from sem.data import baselines, load_corpus, read_sample

    data = SEMConfig.from_yaml(folder / "config.yaml").data
    if data.dataset is not None:
        return baselines(read_sample(data))
    return baselines(load_corpus(data.paths, corpus=data.corpus, validation_share=data.validation_share))
