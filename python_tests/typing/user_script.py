"""What a user's type checker must say of the public functions; `make lint` has mypy and basedpyright check it."""

import torch
from torch import Tensor
from typing_extensions import assert_type

from sem.config import SEMConfig
from sem.model import SEMModel
from sem.ops import (
    DetectorFrame,
    Domains,
    SolveInfo,
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
    phase_entropy,
    pit,
    potential_step,
    reference,
    ring_echo,
    scan,
    soliton_step,
    state_space,
    wave_gate,
)


def graphs(psi: Tensor, weight: Tensor) -> None:
    graph = Topology.small_world(64, degree=8)
    assert_type(graph, Topology)
    assert_type(graph.num_edges, int)
    assert_type(laplacian_matvec(psi, weight, graph), Tensor)
    assert_type(cayley(psi, weight, graph, half_dt=0.05), Tensor)
    assert_type(cayley(psi, weight, graph, torch.tensor(0.05), on_failure="raise", return_info=False), Tensor)
    assert_type(cayley(psi, weight, graph, 0.05, return_info=True), tuple[Tensor, SolveInfo])
    assert_type(laplacian_cg(psi, weight, graph, 1.0), Tensor)
    assert_type(laplacian_cg(psi, weight, graph, 1.0, 0.5, return_info=True), tuple[Tensor, SolveInfo])
    assert_type(cg_solve(lambda v: 2 * v, psi), tuple[Tensor, SolveInfo])
    assert_type(reference.cayley(psi, weight, graph, 0.05), Tensor)
    out, info = cayley(psi, weight, graph, 0.05, return_info=True)
    assert_type(out.abs(), Tensor)
    assert_type(info.status, Tensor)
    assert_type(info.message(), str)


def mistakes(psi: Tensor, weight: Tensor, graph: Topology) -> None:
    """Each is refused: a comment that ignores nothing is an error too."""
    cayley(psi, weight, graph)  # type: ignore[call-overload]
    cayley(psi, weight, graph, 0.05, on_failure="stop")  # type: ignore[call-overload]
    laplacian_matvec(psi, weight)  # type: ignore[call-arg]


def waves(psi: Tensor, real: Tensor, weight: Tensor, graph: Topology) -> None:
    assert_type(pit(psi, None, 0.1), Tensor)
    assert_type(phase_entropy(psi), Tensor)
    assert_type(soliton_step(psi, real, 0.1, weight, graph, 0.05), Tensor)
    assert_type(soliton_step(psi, real, 0.1, weight, graph, 0.05, return_info=True), tuple[Tensor, SolveInfo])
    assert_type(scan(psi, real, real, real, real), tuple[Tensor, Tensor])
    assert_type(state_space(psi, real, real, psi, psi, real, real), tuple[Tensor, Tensor])
    assert_type(causal_conv(psi, psi, psi), Tensor)
    assert_type(gated_rotation(psi, real, psi), Tensor)
    assert_type(complex_rms_norm(psi, real), Tensor)
    assert_type(wave_gate(psi, real), Tensor)
    assert_type(potential_step(psi, real, real), Tensor)
    assert_type(ring_echo(psi, real, real, real, 0.5), Tensor)


def images(detector: DetectorFrame, sources: Sources, domains: Domains) -> None:
    assert_type(diffraction(detector, sources, domains, StructureFactors(100.0)), Tensor)


def models(tokens: Tensor) -> None:
    config = SEMConfig.from_yaml("config.yaml")
    assert_type(config, SEMConfig)
    assert_type(config.model.hidden_dim, int)
    model = SEMModel(config)
    assert_type(model.loss(tokens, tokens), dict[str, Tensor])
