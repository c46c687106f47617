"""No operator leaves a part of its results as it found the memory: unwritten memory holds NaN here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from layouts import double, relative_error, with_gradients
from operators import OPERATORS

from sem.ops import Topology


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def without_edges(problem):
    tensors = problem.tensors | {"edge_weight": torch.zeros(0)}
    return replace(problem, tensors=tensors, graph=Topology(problem.graph.nodes, []))


PROBLEMS = {
    "rows": lambda operator: operator.plain(),
    "one row": lambda operator: operator.plain(1),
    "no rows": lambda operator: operator.plain(0),
    "no edges": lambda operator: without_edges(operator.plain()),
    "no rows, no edges": lambda operator: without_edges(operator.plain(0)),
}
CASES = [
    (operator, kind)
    for operator in OPERATORS
    for kind in PROBLEMS
    if not ("edges" in kind and operator.plain().graph is None)
    and not ("no rows" in kind and operator.name == "diffraction")  # which needs a spindle position
]


@pytest.mark.parametrize("wanted", ["every gradient", "one gradient"])
@pytest.mark.parametrize("operator, kind", CASES, ids=lambda value: str(value))
def test_values_and_gradients_are_written(operator, kind, wanted):
    """With one gradient wanted at a time, kernels leave out the others."""
    problem = PROBLEMS[kind](operator)
    function, twin, tensors = operator.on(problem), operator.twin_on(problem), list(problem.tensors.values())
    exact = with_gradients(
        lambda leaves: (twin(*leaves), leaves), [double(t).clone().requires_grad_() for t in tensors]
    )
    every = range(len(tensors))
    for chosen in [list(every)] if wanted == "every gradient" else [[k] for k in every]:
        leaves = [tensor.clone().requires_grad_(k in chosen) for k, tensor in enumerate(tensors)]
        outputs, grads = with_gradients(lambda views, k=chosen: (function(*views), [views[i] for i in k]), leaves)
        for value, truth in zip((*outputs, *grads), (*exact[0], *(exact[1][k] for k in chosen)), strict=True):
            assert relative_error(value, truth) <= 1e-5
