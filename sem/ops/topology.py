"""Undirected graphs in the form the native operators read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sem.ops.constants import CPU, Constant, plain_tensors


class Topology:
    """An undirected simple graph on ``nodes`` nodes; symmetric by construction.

    Args:
        nodes: number of nodes ``D``, at least 1.
        edges: ``[E, 2]`` integers (tensor or nested sequence). Each undirected edge once, in either direction; no
            self-loops. Edge weights passed to the operators follow this order.

    Raises:
        ValueError: no nodes, wrong shape, index out of range, self-loop or duplicate edge, edges on the meta device.
        TypeError: ``edges`` are not integers.

    Example:
        >>> path = Topology(3, [(0, 1), (1, 2)])
        >>> path.num_edges, path.degree.tolist()
        (2, [1, 2, 1])
    """

    def __init__(self, nodes: int, edges: Tensor | Sequence[Sequence[int]]) -> None:
        _check_nodes(nodes)
        with plain_tensors():
            pairs = _as_pairs(edges)
            _check_pairs(nodes, pairs)
            self.nodes = nodes
            self.edges = pairs.sort(dim=1).values
            duplicate = _first_duplicate(nodes, self.edges)
            if duplicate is not None:
                i, j = duplicate
                raise ValueError(f"edges: expected each undirected edge once, got ({i}, {j}) more than once")
            self._packed = Constant(_pack(nodes, self.edges))

    @classmethod
    def small_world(cls, nodes: int, degree: int, long_range_share: float = 0.25, seed: int = 0) -> Topology:
        """A ring of near neighbours plus random long-range edges, about ``nodes * degree / 2`` edges in all.

        ``long_range_share`` of the edge budget goes to long-range edges as far as the ring, which keeps the graph
        connected, leaves room; the rest widens the ring's neighbourhood.

        Raises:
            ValueError: no nodes, a degree below 1, a share outside [0, 1], or a seed of more than 64 bits.
            TypeError: ``nodes``, ``degree`` or ``seed`` is no int, or the share no number.

        Example:
            >>> Topology.small_world(64, degree=8).num_edges
            256
        """
        _check_nodes(nodes)
        _check_int("degree", degree)
        if degree < 1:
            raise ValueError(f"degree: expected at least 1, got {degree}")
        if not isinstance(long_range_share, (int, float)) or isinstance(long_range_share, bool):
            raise TypeError(f"long_range_share: expected a number, got {type(long_range_share).__name__}")
        _check_int("seed", seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"seed: expected an integer of 64 bits, got {seed}")
        if not 0 <= long_range_share <= 1:
            raise ValueError(f"long_range_share: expected a number in [0, 1], got {long_range_share}")
        possible = nodes * (nodes - 1) // 2
        budget = min(max(nodes * degree // 2, nodes - 1), possible)
        long_range = min(round(budget * long_range_share), max(budget - nodes, 0)) if nodes > 2 else 0
        ring: list[tuple[int, int]] = []
        taken: set[tuple[int, int]] = set()
        for distance in range(1, nodes):
            for i in range(nodes):
                pair = _ordered(i, (i + distance) % nodes)
                if len(ring) < budget - long_range and pair not in taken:
                    taken.add(pair)
                    ring.append(pair)
            if len(ring) >= budget - long_range:
                break
        generator = torch.Generator("cpu").manual_seed(seed)
        chords: list[tuple[int, int]] = []
        while len(chords) < long_range:
            for i, j in torch.randint(nodes, (4 * long_range, 2), generator=generator, device="cpu").tolist():
                pair = _ordered(i, j)
                if i != j and pair not in taken and len(chords) < long_range:
                    taken.add(pair)
                    chords.append(pair)
        return cls(nodes, sorted(ring + chords))

    @classmethod
    def ring(cls, nodes: int) -> Topology:
        """At least three nodes in a circle: edge ``j`` joins node ``j`` to the next one, the last edge the last node to
        the first.

        Raises:
            ValueError: fewer than three nodes.

        Example:
            >>> Topology.ring(3).edges.tolist()
            [[0, 1], [1, 2], [0, 2]]
        """
        _check_int("nodes", nodes)
        if nodes < 3:
            raise ValueError(f"nodes: expected at least 3 for a ring, got {nodes}")
        return cls(nodes, [(j, (j + 1) % nodes) for j in range(nodes)])

    def ring_order(self) -> Tensor | None:
        """The numbers of this graph's edges in the order of :meth:`ring`, or None if it is another graph.

        Example:
            >>> Topology(3, [(2, 0), (0, 1), (1, 2)]).ring_order().tolist()
            [1, 2, 0]
        """
        number = {tuple(pair): e for e, pair in enumerate(self.edges.tolist())}
        if self.nodes < 3 or len(number) != self.nodes:
            return None
        order = [number.get(_ordered(j, (j + 1) % self.nodes)) for j in range(self.nodes)]
        return None if None in order else torch.tensor(order, device="cpu")

    @property
    def num_edges(self) -> int:
        """``E``, how many weights the operators expect: each undirected edge counts once."""
        return self.edges.shape[0]

    @property
    def degree(self) -> Tensor:
        """Number of neighbours of each node, ``[nodes]``."""
        return torch.bincount(self.edges.flatten(), minlength=self.nodes)

    def packed(self, device: torch.device) -> Tensor:
        """The graph as one int32 tensor on ``device``, as the kernels read it: the edges' first and second nodes, then,
        node by node, where its neighbours begin, the neighbours, and the edges that lead to them."""
        return self._packed.on(device)

    def __repr__(self) -> str:
        return f"Topology(nodes={self.nodes}, num_edges={self.num_edges})"


def edges_of(packed: Tensor, nodes: int) -> int:
    """Number of edges of a packed topology: it holds ``6 E + nodes + 1`` integers."""
    return (packed.shape[0] - nodes - 1) // 6


def _ordered(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def _check_int(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")


def _check_nodes(nodes: int) -> None:
    _check_int("nodes", nodes)
    if not 1 <= nodes < 2**31:
        raise ValueError(f"nodes: expected at least 1 node, and fewer than 2^31, got {nodes}")


def _as_pairs(edges: Tensor | Sequence[Sequence[int]]) -> Tensor:
    if isinstance(edges, Tensor):
        pairs = edges
    elif not hasattr(edges, "__len__") or isinstance(edges, str):
        raise TypeError(f"edges: expected a tensor or a sequence of pairs of integers, got {type(edges).__name__}")
    else:
        try:
            pairs = torch.tensor(edges) if len(edges) else torch.empty(0, 2, dtype=torch.int64)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"edges: expected pairs of integers, shape [E, 2] ({error})") from None
    if pairs.is_floating_point() or pairs.is_complex() or pairs.dtype == torch.bool:
        raise TypeError(f"edges: expected integers, got {pairs.dtype}")
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"edges: expected shape [E, 2], got {list(pairs.shape)}")
    if pairs.is_meta:
        raise ValueError("edges: expected a tensor with data, got one on the meta device")
    return pairs.detach().to(CPU, torch.int64, copy=True)


def _check_pairs(nodes: int, pairs: Tensor) -> None:
    outside = ((pairs < 0) | (pairs >= nodes)).any(dim=1)
    if outside.any():
        raise ValueError(f"edges: expected indices in [0, {nodes}), got {tuple(pairs[outside][0].tolist())}")
    loops = pairs[:, 0] == pairs[:, 1]
    if loops.any():
        raise ValueError(f"edges: expected no self-loops, got {tuple(pairs[loops][0].tolist())}")


def _first_duplicate(nodes: int, pairs: Tensor) -> tuple[int, int] | None:
    key = (pairs[:, 0] * nodes + pairs[:, 1]).sort().values
    repeated = key[1:][key[1:] == key[:-1]]
    return divmod(int(repeated[0]), nodes) if len(repeated) else None


def _pack(nodes: int, pairs: Tensor) -> Tensor:
    count = pairs.shape[0]
    source = torch.cat([pairs[:, 0], pairs[:, 1]])
    target = torch.cat([pairs[:, 1], pairs[:, 0]])
    edge = torch.arange(count).repeat(2)
    order = (source * nodes + target).argsort()
    row_start = torch.zeros(nodes + 1, dtype=torch.int64)
    row_start[1:] = torch.bincount(source, minlength=nodes).cumsum(0)
    parts = [pairs[:, 0], pairs[:, 1], row_start, target[order], edge[order]]
    return torch.cat(parts).to(torch.int32)
