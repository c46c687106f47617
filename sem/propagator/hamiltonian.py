"""Learned graph Hamiltonians: Laplacians of small-world graphs with positive weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.ops import Topology, laplacian_matvec
from sem.ops.constants import Constant


class MultiScaleHamiltonian(nn.Module):
    """A Laplacian on ``dim`` nodes summed over scales, merged once into one edge list.

    Scale ``s`` is a small-world graph of degree ``sparsity * 2^s``. Its edge weights are ``softplus`` of its own raw
    parameters (normal, standard deviation 0.1); scales mix by a softmax over learned logits. The operators see one
    topology and one vector of weights.

    Args:
        dim: number of nodes ``D``.
        sparsity: degree of the first scale; each further scale has twice the degree, at most ``D - 1``.
        num_scales: how many scales.
        long_range_share: share of each scale's edges that are long-range, the rest being a ring of neighbours.
        seed: of the long-range edges.

    Example:
        >>> h = MultiScaleHamiltonian(64, sparsity=4)
        >>> h(torch.randn(2, 64)).shape, bool((h.edge_weight() > 0).all())
        (torch.Size([2, 64]), True)
    """

    def __init__(
        self, dim: int, sparsity: int = 8, num_scales: int = 3, long_range_share: float = 0.25, seed: int = 0
    ) -> None:
        super().__init__()
        scales = [
            Topology.small_world(dim, min(sparsity * 2**s, max(dim - 1, 1)), long_range_share, seed + s).edges
            for s in range(num_scales)
        ]
        merged, position = torch.unique(torch.cat(scales), dim=0, return_inverse=True)
        scale = torch.tensor([s for s, edges in enumerate(scales) for _ in edges], dtype=torch.int64, device="cpu")
        self.topology = Topology(dim, merged)
        self._edge_of, self._scale_of = (
            Constant(position),
            Constant(scale),
        )
        self.raw_weight = nn.Parameter(0.1 * torch.randn(len(position)))
        self.scale_logits = nn.Parameter(torch.zeros(num_scales))
        self.raw_weight._no_weight_decay = self.scale_logits._no_weight_decay = True  # type: ignore[attr-defined]

    def edge_weight(self) -> Tensor:
        """Weights ``[E]`` of the merged edges, positive, in the order of ``topology.edges``; float32 under autocast."""
        share = self.scale_logits.float().softmax(0)[self._scale_of.on(self.scale_logits.device)]
        weight = share * functional.softplus(self.raw_weight.float())
        return weight.new_zeros(self.topology.num_edges).index_add(0, self._edge_of.on(weight.device), weight)

    def forward(self, x: Tensor) -> Tensor:
        """``H x`` for real or complex ``x [..., D]``."""
        return laplacian_matvec(x, self.edge_weight(), self.topology)


class GraphLaplacianHamiltonian(MultiScaleHamiltonian):
    """:class:`MultiScaleHamiltonian` with a single scale.

    Args:
        dim, sparsity, long_range_share, seed: as :class:`MultiScaleHamiltonian` takes them.

    Example:
        >>> GraphLaplacianHamiltonian(64, sparsity=8).topology.num_edges
        256
    """

    def __init__(self, dim: int, sparsity: int = 8, long_range_share: float = 0.25, seed: int = 0) -> None:
        super().__init__(dim, sparsity, 1, long_range_share, seed)
