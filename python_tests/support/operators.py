"""Every operator in one list, each with a small problem and its float64 twin, for tests that take products with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from sem.ops import (
    DetectorFrame,
    Domains,
    Polarisation,
    Sources,
    StructureFactors,
    Topology,
    causal_conv,
    cayley,
    cg_solve,
    complex_rms_norm,
    diffraction,
    gated_rotation,
    laplacian_cg,
    laplacian_matvec,
    pit,
    reference,
    reference_diffraction,
    scan,
    soliton_step,
    state_space,
)

Call = Callable[..., tuple[Tensor, ...]]


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


@dataclass(frozen=True, repr=False)
class Operator:
    """``call`` takes a graph (None for operators without), tensors and ``settings``, and returns a tuple of tensors;
    ``twin`` the same without ``settings`` that only say how to solve.

    Args:
        plain: a problem with so many rows (the first dimension of the first tensor); another seed, other numbers.
        duplicated: one in which a tensor is given for two arguments, or None where no two can be of one shape.
        smooth: the argument to take a Jacobian by, real and small.
        settings: numbers that are no tensors; under ``torch.compile(dynamic=True)`` they become symbols.
        one_row: tensors that stay meaningful with their first entry repeated along the first dimension; None is all.
        composed: on devices it is composed of torch's operations.
        torch_first: torch computes what its kernel reads, beyond layouts and dtypes.
        plain_torch: it is written in torch, with control flow that depends on values.
    """

    name: str
    call: Call
    twin: Call
    plain: Callable[..., Problem]
    duplicated: Callable[[], Problem] | None
    smooth: str
    settings: dict[str, float] = field(default_factory=dict)
    one_row: tuple[str, ...] | None = None
    composed: bool = False
    torch_first: bool = False
    plain_torch: bool = False

    def __repr__(self) -> str:
        return self.name

    def on(self, problem: Problem) -> Call:
        """The operator as a function of the problem's distinct tensors."""
        return _applied(partial(self.call, **self.settings), problem)

    def twin_on(self, problem: Problem) -> Call:
        return _applied(self.twin, problem)


def _applied(call: Call, problem: Problem) -> Call:
    graph, places = problem.graph, [list(problem.tensors).index(name) for name in problem.arguments]

    def applied(*tensors: Tensor) -> tuple[Tensor, ...]:
        return call(graph, *(tensors[k] for k in places))

    return applied


class Layer(nn.Module):
    """An operator as a module: it holds the graph and all tensors but the first as parameters."""

    def __init__(self, operator: Operator, problem: Problem) -> None:
        super().__init__()
        self.operator_name = operator.name  # not the operator, whose functions have no name to be pickled by
        self.arguments = problem.arguments
        self.graph = problem.graph
        self.settings = dict(operator.settings)
        self.first, *self.rest = problem.tensors
        for name in self.rest:
            self.register_parameter(name, nn.Parameter(problem.tensors[name].detach().clone()))

    def forward(self, first: Tensor) -> tuple[Tensor, ...]:
        given = (first if name == self.first else getattr(self, name) for name in self.arguments)
        return BY_NAME[self.operator_name].call(self.graph, *given, **self.settings)


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


def _weights(graph: Topology, seed: int) -> Tensor:
    return positive(seed + 100, graph.num_edges)


def _on_rows(name: str, make: Callable[..., Tensor]) -> Callable[..., Problem]:
    def problem(rows: int = 5, seed: int = 0) -> Problem:
        graph = small_world()
        return Problem.of(graph, **{name: make(seed, rows, NODES)}, edge_weight=_weights(graph, seed))

    return problem


def _weights_as_row(name: str) -> Callable[[], Problem]:
    """A row of a ring is as long as its edge weights."""
    return lambda: Problem({name: positive(0, 6)}, (name, name), ring(6))


def _laplacian(kind: str, make: Callable[..., Tensor], duplicated: Callable[[], Problem] | None) -> Operator:
    return Operator(
        f"laplacian_matvec_{kind}",
        lambda graph, x, weight: (laplacian_matvec(x, weight, graph),),
        lambda graph, x, weight: (reference.laplacian_matvec(x, weight, graph),),
        _on_rows("x", make),
        duplicated,
        "edge_weight",
    )


S = {"alpha": 1.5, "beta": 0.25, "gamma": 0.1}


def _laplacian_cg(kind: str, make: Callable[..., Tensor], duplicated: Callable[[], Problem] | None) -> Operator:
    return Operator(
        f"laplacian_cg_{kind}",
        lambda graph, b, weight, **settings: (laplacian_cg(b, weight, graph, **settings),),
        lambda graph, b, weight: (reference.laplacian_cg(b, weight, graph, **S),),
        _on_rows("b", make),
        duplicated,
        "edge_weight",
        S | {"tol": 1e-6, "max_iter": 60},
    )


def _cayley_problem(rows: int = 5, seed: int = 0) -> Problem:
    graph = small_world()
    return Problem.of(graph, psi=wave(seed, rows, NODES), edge_weight=_weights(graph, seed), half_dt=torch.tensor(0.25))


def _one_edge() -> Problem:
    tensors = {"psi": wave(0, 5, 2), "half_dt": torch.tensor([0.4])}
    return Problem(tensors, ("psi", "half_dt", "half_dt"), Topology(2, [(0, 1)]))


def _soliton_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
    graph = small_world()
    return Problem.of(
        graph,
        same,
        psi=wave(seed, rows, NODES) + 0.7,
        kerr=0.1 * normal(seed + 1, NODES),
        strength=torch.tensor(0.6),
        edge_weight=_weights(graph, seed),
        half_dt=torch.tensor(0.25),
    )


def _pit_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
    return Problem.of(
        None,
        same,
        psi=wave(seed, rows, NODES) + 0.7,
        reference_rms=positive(seed + 1, rows),
        strength=torch.tensor(0.6),
        kerr=0.1 * normal(seed + 2, NODES),
    )


def _scan_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
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


def _state_space_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
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


def _norm_problem(rows: int = 5, seed: int = 0) -> Problem:
    z = wave(seed, rows, 6)
    z[..., 1::3] = 0  # not active
    return Problem.of(z=z, gamma=normal(seed + 1, 6))


def _rotation_problem(rows: int = 5, seed: int = 0) -> Problem:
    return Problem.of(x=wave(seed, rows, 6), logits=normal(seed + 1, rows, 6), blocks=wave(seed + 2, 2, 3, 3))


def _one_block() -> Problem:
    return Problem({"x": wave(0, 1, 4, 4), "logits": normal(1, 1, 4, 4)}, ("x", "logits", "x"))


def _convolution_problem(rows: int = 5, seed: int = 0) -> Problem:
    steps, channels, taps = 7, 6, 4
    return Problem.of(
        x=wave(seed, rows, steps, channels),
        taps=wave(seed + 1, taps, channels) / 2,
        bias=wave(seed + 2, channels),
        theta=normal(seed + 3, channels),
        history=wave(seed + 4, rows, taps - 1, channels),
    )


def _own_history() -> Problem:
    tensors = {"x": wave(0, 5, 3, 6), "taps": wave(1, 4, 6) / 2, "bias": wave(2, 6), "theta": normal(3, 6)}
    return Problem(tensors, (*tensors, "x"))


def _solve_problem(rows: int = 5, seed: int = 0) -> Problem:
    """Two eigenvalues, so two iterations: torch.compile compiles each of them anew."""
    return Problem.of(b=normal(seed, rows, 6), scale=torch.full((6,), 0.9 + 0.1 * seed))


def _solve(graph: None, b: Tensor, scale: Tensor, **settings: float) -> tuple[Tensor, ...]:
    return (cg_solve(lambda v: scale * v + 0.3 * v.flip(-1), b, **settings)[0],)


def _dense_solve(graph: None, b: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    matrix = torch.diag(scale) + 0.3 * torch.eye(len(scale), dtype=scale.dtype).flip(-1)
    return (torch.linalg.solve(matrix, b.unsqueeze(-1)).squeeze(-1),)


PIXELS = (5, 7)


def _image(function: Callable[..., Tensor]) -> Call:
    def image(
        graph: None,
        orientation: Tensor,
        wavelength: Tensor,
        weight: Tensor,
        origin: Tensor,
        close_distance: Tensor,
        cells: Tensor,
        fudge: Tensor,
        table: Tensor,
        axis: Tensor,
        kahn: Tensor,
        scale: Tensor,
        background: Tensor,
        pixel_size: float = 4e-4,
    ) -> tuple[Tensor, ...]:
        axes = torch.tensor([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
        to_sources = torch.tensor([[-0.2, 0.003, -0.002], [-0.2, -0.003, -0.002]], dtype=torch.float64)
        detector = DetectorFrame(origin, *axes.to(origin.device), pixel_size, PIXELS, close_distance)
        return (
            function(
                detector,
                Sources(to_sources.to(origin.device), wavelength, weight),
                Domains(orientation, cells, "gauss", fudge),
                StructureFactors(30.0, table, (-2, -2, -2)),
                Polarisation(axis, kahn),
                scale=scale,
                background=background,
            ),
        )

    return image


def _diffraction_problem(rows: int = 5, seed: int = 0, same: dict[str, str] | None = None) -> Problem:
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


def _one(function: Callable[..., Tensor]) -> Call:
    """A function without a graph, and with one result."""
    return lambda graph, *tensors, **settings: (function(*tensors, **settings),)


def _several(function: Callable[..., tuple[Tensor, ...]]) -> Call:
    return lambda graph, *tensors: tuple(function(*tensors))


BINS = 24
TWO_DT = {"dt_phase": "dt_mag", "frequency": "decay"}

OPERATORS = (
    _laplacian("real", normal, _weights_as_row("x")),
    _laplacian("complex", wave, None),
    Operator(
        "cayley",
        lambda graph, psi, weight, a, **settings: (cayley(psi, weight, graph, a, **settings),),
        lambda graph, psi, weight, a: (reference.cayley(psi, weight, graph, a),),
        _cayley_problem,
        _one_edge,
        "edge_weight",
        {"tol": 1e-6, "max_iter": 60},
    ),
    _laplacian_cg("real", normal, _weights_as_row("b")),
    _laplacian_cg("complex", wave, None),
    Operator(
        "pit",
        lambda graph, psi, rms, strength, kerr, **settings: (pit(psi, rms, strength, kerr=kerr, **settings),),
        lambda graph, psi, rms, strength, kerr: (reference.pit(psi, rms, strength, BINS, kerr=kerr),),
        _pit_problem,
        lambda: _pit_problem(NODES, same={"kerr": "reference_rms"}),
        "kerr",
        {"num_bins": BINS},
    ),
    Operator(
        "soliton_step",
        lambda graph, psi, kerr, strength, weight, a, **settings: (
            soliton_step(psi, kerr, strength, weight, graph, a, **settings),
        ),
        lambda graph, psi, kerr, strength, weight, a: (
            reference.soliton_step(psi, kerr, strength, weight, graph, a, BINS),
        ),
        _soliton_problem,
        lambda: _soliton_problem(same={"half_dt": "strength"}),
        "kerr",
        {"tol": 1e-6, "max_iter": 60, "num_bins": BINS},
    ),
    Operator(
        "scan",
        _several(scan),
        _several(reference.scan),
        _scan_problem,
        lambda: _scan_problem(same=TWO_DT),
        "decay",
    ),
    Operator(
        "state_space",
        _several(state_space),
        _several(reference.state_space),
        _state_space_problem,
        lambda: _state_space_problem(same=TWO_DT | {"out_of": "into"}),
        "decay",
        composed=True,
    ),
    Operator(
        "complex_rms_norm",
        _one(complex_rms_norm),
        _one(reference.complex_rms_norm),
        _norm_problem,
        None,
        "gamma",
        {"eps": 1e-6},
        composed=True,
    ),
    Operator(
        "gated_rotation",
        _one(gated_rotation),
        _one(reference.gated_rotation),
        _rotation_problem,
        _one_block,
        "logits",
        composed=True,
    ),
    Operator(
        "causal_conv",
        _one(causal_conv),
        _one(reference.causal_conv),
        _convolution_problem,
        _own_history,
        "theta",
        composed=True,
    ),
    Operator(
        "diffraction",
        _image(diffraction),
        _image(reference_diffraction.diffraction),
        _diffraction_problem,
        lambda: _diffraction_problem(same={"background": "scale"}),
        "cells",
        {"pixel_size": 4e-4},
        one_row=("orientation", "wavelength", "weight", "table"),
        torch_first=True,
    ),
    Operator(
        "cg_solve",
        _solve,
        _dense_solve,
        _solve_problem,
        lambda: Problem({"scale": torch.full((6,), 0.9)}, ("scale", "scale")),
        "scale",
        {"rtol": 1e-6},
        plain_torch=True,
    ),
)
BY_NAME = {operator.name: operator for operator in OPERATORS}
