"""Scans of random objects, for tests of the ptychographic operators."""

from __future__ import annotations

import torch
from helpers import generator


def waves(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=generator(seed))


def scan_of(patterns, modes, side, shape, seed=0):
    """object, probe, positions, data, weight and background."""
    room = torch.tensor([length - side - 1.0 for length in shape])
    positions = 0.5 + torch.rand(patterns, 2, generator=generator(seed)) * room
    data = 1 + torch.rand(patterns, side, side, generator=generator(seed + 1))
    weight = (torch.rand(side, side, generator=generator(seed + 2)) < 0.8).float()
    background = 0.1 * torch.rand(side, side, generator=generator(seed + 3))
    return waves(*shape, seed=4), waves(modes, side, side, seed=5), positions, data, weight, background
