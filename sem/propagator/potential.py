"""A phase for each channel of a token that depends on the whole token."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.layers import Affine, ComplexRMSNorm, NormWeights, RealReadout
from sem.ops.complex_rms_norm import complex_rms_norm_forward
from sem.precision import outside_autocast

_SIZE = 0.1  # standard deviation of the map's entries at the start, times the root of their number in a row


class PotentialWeights(NamedTuple):
    """A potential as it is computed: ``readout`` on the real blocks of the normalised wave."""

    norm: NormWeights
    readout: Affine

    def values(self, rows: Tensor) -> Tensor:
        """Radians ``[N, dim]`` at real blocks ``rows [N, dim, 2]``."""
        with outside_autocast(rows.device.type):
            return functional.linear(complex_rms_norm_forward(rows, *self.norm).flatten(1), *self.readout)


class Potential(nn.Module):
    """``V = Lin [Re z, Im z]`` with ``z`` the token's normalised wave: a phase for each channel, in radians, that
    depends on all of them. A layer turns its wave by it, ``psi_d e^{i V_d}``, which keeps every modulus."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ComplexRMSNorm(dim)
        self.readout = RealReadout(dim, dim)
        with torch.no_grad():
            self.readout.weight.normal_(std=_SIZE / math.sqrt(2 * dim))
            self.readout.bias.zero_()
        self.readout.weight._linear_map = "real"  # type: ignore[attr-defined]

    def weights(self) -> PotentialWeights:
        """What the potential is computed with."""
        return PotentialWeights(self.norm.weights(), self.readout.affine())
