"""``sem ptycho sweep``: train arms of a network's configuration with several seeds each, and compare them."""

from __future__ import annotations

import argparse

from sem.commands import sweeping
from sem.ptycho.training.settings import NetworkConfig

HELP = "train arms of a network's configuration with several seeds each, compare them, search numbers"
SCORES = (("amp_ssim", "higher"), ("phase_ssim", "higher"), ("amp_mae", "lower"))


def figures(base: NetworkConfig) -> list[tuple[str, str, str, str | None]]:
    """What runs of ``base`` can be judged by: scores of the scans whose object is in their file."""
    from sem.ptycho.files import read_scan

    found: list[tuple[str, str, str, str | None]] = []
    if base.data.validation_share > 0:
        found.append(("val_loss", "held-out loss", "lower", None))
    for name, path in (("test", base.data.test), ("train", base.data.train)):
        if path is not None and read_scan(path).object is not None:
            found += [
                (f"{name}_{key}", f"{key}, {name} object", better, f"{name}_{key}_floor") for key, better in SCORES
            ]
    if not found:
        raise ValueError("data.validation_share = 0: expected patterns to hold out, or a known object in a scan's file")
    return found


NETWORKS = sweeping.Wing(
    config=NetworkConfig,
    command=("ptycho", "train"),
    seeds=("training.seed",),  # weights and order of the patterns; the scans and what is held out stay the same
    figures=figures,
    collapse="train_collapsed",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a sweep, and every setting of a network's training."""
    sweeping.add_arguments(parser, NETWORKS)


def run(options: argparse.Namespace) -> int:
    """Run and judge the sweep, see :func:`sem.commands.sweeping.run`."""
    return sweeping.run(options, NETWORKS, ("ptycho", "sweep"))
