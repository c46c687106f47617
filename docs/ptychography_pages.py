"""Draws the picture of ptychography.md: ``python docs/ptychography_pages.py``."""

from __future__ import annotations

from pathlib import Path

from sem.ptycho.pictures import draw_axes

AXES = Path(__file__).with_name("images") / "ptychography_axes.png"

if __name__ == "__main__":
    draw_axes(AXES)
    print(AXES)
