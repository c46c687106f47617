"""``sem ptycho sweep``: train arms of a network's configuration with several seeds each, and compare them."""

from __future__ import annotations

import argparse

from sem.commands import sweeping
from sem.ptycho.training.settings import NetworkConfig

HELP = "train arms of a network's configuration with several seeds each, compare them, search numbers"
NETWORKS = sweeping.Wing(
    config=NetworkConfig,
    command=("ptycho", "train"),
    seeds=("training.seed",),  # weights and order of the patterns; the scans and what is held out stay the same
    figures=(
        ("val_loss", "held-out loss", "lower", None),
        ("train_amp_ssim", "amp_ssim, training object", "higher", "train_amp_ssim_floor"),
        ("train_phase_ssim", "phase_ssim, training object", "higher", "train_phase_ssim_floor"),
        ("test_amp_ssim", "amp_ssim, test object", "higher", "test_amp_ssim_floor"),
        ("test_phase_ssim", "phase_ssim, test object", "higher", "test_phase_ssim_floor"),
        ("test_amp_mae", "amp_mae, test object", "lower", "test_amp_mae_floor"),
    ),
    collapse="train_collapsed",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sweeping.add_arguments(parser, NETWORKS)


def run(options: argparse.Namespace) -> int:
    return sweeping.run(options, NETWORKS, ("ptycho", "sweep"))
