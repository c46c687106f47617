"""A small problem for every operator, with any number of rows, and those in which one tensor is given twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sem.ops import Topology


@dataclass(frozen=True)
class Problem:
    """``tensors`` are distinct; ``arguments`` names the one given for each argument of the operator, in order, so that
    a tensor may be given twice."""

    tensors: dict[str, Tensor]
    arguments: tuple[str, ...]
    graph: Topology | None = None

    @classmethod
    def of(cls, graph: Topology | None = None, same: dict[str, str] | None = None, **tensors: Tensor) -> Problem:
        """``tensors`` by argument, in order; those that ``same`` names are left out for the argument it gives."""
        same = same or {}
        arguments = tuple(same.get(name, name) for name in tensors)
        return cls({name: tensor for name, tensor in tensors.items() if name not in same}, arguments, graph)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def wave(seed: int, *shape: int) -> Tensor:
    return normal(seed, *shape, dtype=torch.complex64)


def positive(seed: int, *shape: int, low: float = 0.2, high: float = 1.5) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


NODES = 9


def small_world() -> Topology:
    return Topology.small_world(NODES, 4)


def ring(nodes: int) -> Topology:
    """As many edges as nodes."""
    return Topology(nodes, [(i, (i + 1) % nodes) for i in range(nodes)])


def weights(graph: Topology, seed: int) -> Tensor:
    return positive(seed + 100, graph.num_edges)


def on_rows(name: str, make: Callable[..., Tensor]) -> Callable[..., Problem]:
    def problem(rows: int = 5, seed: int = 0) -> Problem:
        graph = small_world()
        return Problem.of(graph, **{name: make(seed, rows, NODES)}, edge_weight=weights(graph, seed))

    return problem


def weights_as_row(name: str) -> Callable[[], Problem]:
    """A row of a ring is as long as its edge weights."""
    return lambda: Problem({name: positive(0, 6)}, (name, name), ring(6))


def cayley_problem(rows: int = 5, seed: int = 0) -> Problem:
    graph = small_world()
    return Problem.of(graph, psi=wave(seed, rows, NODES), edge_weight=weights(graph, seed), half_dt=torch.tensor(0.25))


def one_edge() -> Problem:
    tensors = {"psi": wave(0, 5, 2), "half_dt": torch.tensor([0.4])}
    return Problem(tensors, ("psi", "half_dt", "half_dt"), Topology(2, [(0, 1)]))


def soliton_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
    graph = small_world()
    return Problem.of(
        graph,
        same,
        psi=wave(seed, rows, NODES) + 0.7,
        kerr=0.1 * normal(seed + 1, NODES),
        strength=torch.tensor(0.6),
        edge_weight=weights(graph, seed),
        half_dt=torch.tensor(0.25),
    )


def pit_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
    return Problem.of(
        None,
        same,
        psi=wave(seed, rows, NODES) + 0.7,
        reference_rms=positive(seed + 1, rows),
        strength=torch.tensor(0.6),
        kerr=0.1 * normal(seed + 2, NODES),
    )


def scan_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
    steps, channels, groups = 7, 6, 3
    return Problem.of(
        None,
        same,
        x=wave(seed, rows, steps, channels),
        dt_mag=positive(seed + 1, rows, steps, groups, low=1e-3, high=0.3),
        dt_phase=positive(seed + 2, rows, steps, groups, low=1e-3, high=0.3),
        decay=positive(seed + 3, channels, low=0.1, high=8),
        frequency=positive(seed + 4, channels, low=-math.pi, high=math.pi),
        initial_state=wave(seed + 5, rows, channels),
    )


def state_space_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
    steps, groups, states = 7, 3, 2  # as many states as entries of a group, so that into and out_of have one shape
    return Problem.of(
        None,
        same,
        x=wave(seed, rows, steps, groups * states),
        dt_mag=positive(seed + 1, rows, steps, groups, low=1e-3, high=0.3),
        dt_phase=positive(seed + 2, rows, steps, groups, low=1e-3, high=0.3),
        into=wave(seed + 3, groups, states, states),
        out_of=wave(seed + 4, groups, states, states),
        decay=positive(seed + 5, groups * states, low=0.1, high=8),
        frequency=positive(seed + 6, groups * states, low=-math.pi, high=math.pi),
        initial_state=wave(seed + 7, rows, groups * states),
    )


def norm_problem(rows: int = 5, seed: int = 0) -> Problem:
    z = wave(seed, rows, 6)
    z[..., 1::3] = 0  # not active
    return Problem.of(z=z, gamma=normal(seed + 1, 6))


def rotation_problem(rows: int = 5, seed: int = 0) -> Problem:
    return Problem.of(x=wave(seed, rows, 6), logits=normal(seed + 1, rows, 6), blocks=wave(seed + 2, 2, 3, 3))


def one_block() -> Problem:
    return Problem({"x": wave(0, 1, 4, 4), "logits": normal(1, 1, 4, 4)}, ("x", "logits", "x"))


def gate_problem(rows: int = 5, seed: int = 0) -> Problem:
    return Problem.of(psi=wave(seed, rows, 6), logits=normal(seed + 1, rows, 6))


def potential_problem(rows: int = 5, seed: int = 0) -> Problem:
    return Problem.of(psi=wave(seed, rows, 6), potential=normal(seed + 1, rows, 6), kerr=normal(seed + 2, 6))


def potential_of_kerr() -> Problem:
    return Problem({"psi": wave(0, 6), "kerr": normal(1, 6)}, ("psi", "kerr", "kerr"))


def echo_problem(rows: int = 5, seed: int = 0) -> Problem:
    return Problem.of(
        psi=wave(seed, rows, 6),
        potential=normal(seed + 1, rows, 6),
        kerr=normal(seed + 2, 6),
        edge_weight=positive(seed + 3, 6, low=0.1, high=2),
        half_dt=torch.tensor(0.4),
    )


def echo_of_kerr() -> Problem:
    problem = echo_problem()
    tensors = {name: tensor for name, tensor in problem.tensors.items() if name != "edge_weight"}
    tensors["kerr"] = problem.tensors["edge_weight"]
    return Problem(tensors, ("psi", "potential", "kerr", "kerr", "half_dt"))


def convolution_problem(rows: int = 5, seed: int = 0) -> Problem:
    steps, channels, taps = 7, 6, 4
    return Problem.of(
        x=wave(seed, rows, steps, channels),
        taps=wave(seed + 1, taps, channels) / 2,
        bias=wave(seed + 2, channels),
        theta=normal(seed + 3, channels),
        history=wave(seed + 4, rows, taps - 1, channels),
    )


def own_history() -> Problem:
    tensors = {"x": wave(0, 5, 3, 6), "taps": wave(1, 4, 6) / 2, "bias": wave(2, 6), "theta": normal(3, 6)}
    return Problem(tensors, (*tensors, "x"))


def solve_problem(rows: int = 5, seed: int = 0) -> Problem:
    """Two eigenvalues, so two iterations: torch.compile compiles each of them anew."""
    return Problem.of(b=normal(seed, rows, 6), scale=torch.full((6,), 0.9 + 0.1 * seed))


def diffraction_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
    """``rows`` spindle positions; a detector near the beam."""

    def vector(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    cell = 1e-10 * torch.tensor([[42.0, 0, 3], [4, 51, 0], [0, 5, 60]]).double()
    small = 1e-12 * normal(seed, rows, 2, 3, 3).double()
    return Problem.of(
        None,
        same,
        orientation=cell + small,
        wavelength=vector(1.1e-10, 1.12e-10),
        weight=positive(seed + 1, 2).double(),
        origin=vector(0.1, 0.0011, -0.0013),
        close_distance=torch.tensor(0.1, dtype=torch.float64),
        cells=vector(4.0, 5.0, 3.0),
        fudge=torch.tensor(1.3, dtype=torch.float64),
        table=positive(seed + 2, 4, 4, 4, low=10, high=60).double(),
        axis=vector(0.05, 0.02, 1.0),
        kahn=torch.tensor(0.7, dtype=torch.float64),
        scale=torch.tensor(1.5, dtype=torch.float64),
        background=torch.tensor(40.0, dtype=torch.float64),
    )
