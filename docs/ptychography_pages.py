"""Draws the pictures of ptychography.md: ``python docs/ptychography_pages.py``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from sem.ptycho import Recipe, Run, Simulation
from sem.ptycho.pictures import draw_axes, draw_positions

IMAGES = Path(__file__).with_name("images")
AXES, POSITIONS = IMAGES / "ptychography_axes.png", IMAGES / "ptychography_positions.png"


def draw_wrong_positions(target: Path) -> None:
    """A stage of 1 % too much stroke, each position up to a pixel off, refined by 35 sweeps of rPIE."""
    made = Simulation(
        side=32, rows=12, columns=12, step=4, lines=60, radius=7, defocus=15, photons=1e7, energy=8, distance=2,
        detector_pixel=75e-6,
    ).make()  # fmt: skip
    error = 2 * torch.rand(len(made.scan), 2, generator=torch.Generator().manual_seed(0)) - 1
    wrong = made.scan.at(1.01 * made.scan.positions + 1 + error)
    told = Recipe(engine="rpie", alpha=0.2, sweeps=40, positions=5, probe_from=None, chi_squared=None)
    run = Run(replace(made, scan=wrong), told)
    run.run()
    draw_positions(run.result(), target)


if __name__ == "__main__":
    draw_axes(AXES)
    draw_wrong_positions(POSITIONS)
    print(AXES, POSITIONS)
