"""Every operator in one list, each with a small problem and its float64 twin, for tests that take products with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from operator_problems import (
    NODES,
    Problem,
    cayley_problem,
    convolution_problem,
    diffraction_problem,
    echo_of_kerr,
    echo_problem,
    gate_problem,
    norm_problem,
    normal,
    on_rows,
    one_block,
    one_edge,
    own_history,
    pit_problem,
    potential_of_kerr,
    potential_problem,
    rotation_problem,
    scan_problem,
    soliton_problem,
    solve_problem,
    state_space_problem,
    wave,
    weights_as_row,
)
from torch import Tensor, nn

from sem.ops import (
    DetectorFrame,
    Domains,
    Polarisation,
    Sources,
    StructureFactors,
    causal_conv,
    cayley,
    cg_solve,
    complex_rms_norm,
    diffraction,
    gated_rotation,
    laplacian_cg,
    laplacian_matvec,
    pit,
    potential_step,
    reference,
    reference_diffraction,
    ring_echo,
    scan,
    soliton_step,
    state_space,
    wave_gate,
)

Call = Callable[..., tuple[Tensor, ...]]


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


def _laplacian_matvec(kind: str, make: Callable[..., Tensor], duplicated: Callable[[], Problem] | None) -> Operator:
    return Operator(
        f"laplacian_matvec_{kind}",
        lambda graph, x, weight: (laplacian_matvec(x, weight, graph),),
        lambda graph, x, weight: (reference.laplacian_matvec(x, weight, graph),),
        on_rows("x", make),
        duplicated,
        "edge_weight",
    )


SYSTEM = {"alpha": 1.5, "beta": 0.25, "gamma": 0.1}


def _laplacian_cg(kind: str, make: Callable[..., Tensor], duplicated: Callable[[], Problem] | None) -> Operator:
    return Operator(
        f"laplacian_cg_{kind}",
        lambda graph, b, weight, **settings: (laplacian_cg(b, weight, graph, **settings),),
        lambda graph, b, weight: (reference.laplacian_cg(b, weight, graph, **SYSTEM),),
        on_rows("b", make),
        duplicated,
        "edge_weight",
        SYSTEM | {"tol": 1e-6, "max_iter": 60},
    )


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
        device = getattr(origin, "device", "cpu")  # hostile callers pass what is no tensor
        detector = DetectorFrame(origin, *axes.to(device), pixel_size, PIXELS, close_distance)
        return (
            function(
                detector,
                Sources(to_sources.to(device), wavelength, weight),
                Domains(orientation, cells, "gauss", fudge),
                StructureFactors(30.0, table, (-2, -2, -2)),
                Polarisation(axis, kahn),
                scale=scale,
                background=background,
            ),
        )

    return image


def _one(function: Callable[..., Tensor]) -> Call:
    """A function without a graph, and with one result."""
    return lambda graph, *tensors, **settings: (function(*tensors, **settings),)


def _several(function: Callable[..., tuple[Tensor, ...]]) -> Call:
    return lambda graph, *tensors: tuple(function(*tensors))


BINS = 24
TWO_DT = {"dt_phase": "dt_mag", "frequency": "decay"}

OPERATORS = (
    _laplacian_matvec("real", normal, weights_as_row("x")),
    _laplacian_matvec("complex", wave, None),
    Operator(
        "cayley",
        lambda graph, psi, weight, a, **settings: (cayley(psi, weight, graph, a, **settings),),
        lambda graph, psi, weight, a: (reference.cayley(psi, weight, graph, a),),
        cayley_problem,
        one_edge,
        "edge_weight",
        {"tol": 1e-6, "max_iter": 60},
    ),
    _laplacian_cg("real", normal, weights_as_row("b")),
    _laplacian_cg("complex", wave, None),
    Operator(
        "pit",
        lambda graph, psi, rms, strength, kerr, **settings: (pit(psi, rms, strength, kerr=kerr, **settings),),
        lambda graph, psi, rms, strength, kerr: (reference.pit(psi, rms, strength, BINS, kerr=kerr),),
        pit_problem,
        lambda: pit_problem(NODES, same={"kerr": "reference_rms"}),
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
        soliton_problem,
        lambda: soliton_problem(same={"half_dt": "strength"}),
        "kerr",
        {"tol": 1e-6, "max_iter": 60, "num_bins": BINS},
    ),
    Operator(
        "scan",
        _several(scan),
        _several(reference.scan),
        scan_problem,
        lambda: scan_problem(same=TWO_DT),
        "decay",
    ),
    Operator(
        "state_space",
        _several(state_space),
        _several(reference.state_space),
        state_space_problem,
        lambda: state_space_problem(same=TWO_DT | {"out_of": "into"}),
        "decay",
        composed=True,
    ),
    Operator(
        "complex_rms_norm",
        _one(complex_rms_norm),
        _one(reference.complex_rms_norm),
        norm_problem,
        None,
        "gamma",
        {"eps": 1e-6},
        composed=True,
    ),
    Operator(
        "gated_rotation",
        _one(gated_rotation),
        _one(reference.gated_rotation),
        rotation_problem,
        one_block,
        "logits",
        composed=True,
    ),
    Operator(
        "wave_gate",
        _one(wave_gate),
        _one(reference.wave_gate),
        gate_problem,
        None,
        "logits",
        composed=True,
    ),
    Operator(
        "potential_step",
        _one(potential_step),
        _one(reference.potential_step),
        potential_problem,
        potential_of_kerr,
        "kerr",
        composed=True,
    ),
    Operator(
        "ring_echo",
        _one(ring_echo),
        _one(reference.ring_echo),
        echo_problem,
        echo_of_kerr,
        "kerr",
        composed=True,
    ),
    Operator(
        "causal_conv",
        _one(causal_conv),
        _one(reference.causal_conv),
        convolution_problem,
        own_history,
        "theta",
        composed=True,
    ),
    Operator(
        "diffraction",
        _image(diffraction),
        _image(reference_diffraction.diffraction),
        diffraction_problem,
        lambda: diffraction_problem(same={"background": "scale"}),
        "cells",
        {"pixel_size": 4e-4},
        one_row=("orientation", "wavelength", "weight", "table"),
        torch_first=True,
    ),
    Operator(
        "cg_solve",
        _solve,
        _dense_solve,
        solve_problem,
        lambda: Problem({"scale": torch.full((6,), 0.9)}, ("scale", "scale")),
        "scale",
        {"rtol": 1e-6},
        plain_torch=True,
    ),
)
BY_NAME = {operator.name: operator for operator in OPERATORS}
